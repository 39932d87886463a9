"""What people read: timing logs of many starts. Nothing here runs at a start."""
