"""`unpackenv analyze`: measure and report what an archive would change for an environment or an image."""
