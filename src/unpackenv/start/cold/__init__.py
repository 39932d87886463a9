"""A start that finds no tree: choose a place, lock it, check what speaks against it, and run the unpack in a child.

How bytes become files is in `unpack`, what a tree may look like in `tree`.
"""
