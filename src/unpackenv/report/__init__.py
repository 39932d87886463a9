"""What people read: advice before the image is built, what a container runs into, the timings of many starts."""
