"""What happens when a container starts."""
