"""Trees on the disk: write, publish, check after a reboot, remove, prune.

`unpack` knows what is in a tree, and where its bytes come from.
"""
