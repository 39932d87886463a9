"""What happens when an image is built."""
