"""Archives that are not here: the address of one, and how its bytes are fetched.

No warm start imports from here. What makes a tree of them lives in `unpack` and `fill`.
"""
