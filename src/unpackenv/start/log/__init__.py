"""What a start tells beyond its one line: lines in JSON, marks of the application, times of imports."""
