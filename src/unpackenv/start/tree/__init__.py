"""Trees on the disk: how one is written, published, found whole after a reboot, removed and pruned.

What is in a tree, and where its bytes come from, is known to `unpack`.
"""
