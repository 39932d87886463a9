"""A start: from the settings of a process to a tree that it can import from.

The modules directly in this package are the entry points of a start, and all that a warm one loads: each must be worth
its 0.1 ms. What only a cold start or a special setting needs is in the packages below. Nothing here makes archives or
reports.
"""
