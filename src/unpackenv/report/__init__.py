"""What people read: advice before the image is built, and what a container's start runs into."""
