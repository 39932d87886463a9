"""`unpackenv analyze`: what an archive would change for an environment or an image, measured and said."""
