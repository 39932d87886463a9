"""From the bytes of an archive to the files of a tree, by several workers at once.

`cold` has chosen the archive and the place; `tree` writes each file safely.
"""
