"""The log beyond the one line of text: lines in JSON, marks of the application, times of imports."""
