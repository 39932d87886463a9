"""What happens when an image is built: from installed packages to an archive and a runtime.

How an archive is laid out is in `archive`. Nothing of this is in a runtime, and no start imports it.
"""
