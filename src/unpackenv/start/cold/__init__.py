"""A start that finds no tree: choose a place, lock it, check it, and run the unpack in a child.

`unpack` turns an archive into files, `tree` writes and publishes them.
"""
