"""The directory that child processes find on PYTHONPATH."""
