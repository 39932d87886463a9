"""A start: from the settings of a process to a tree that it can import from.

The modules of this level are the ways into a start, and all that a warm one loads, so each has to be worth 0.1 ms. What
only a cold start, or one that was asked for more, needs is in the rooms below. Nothing here makes archives or reports.
"""
