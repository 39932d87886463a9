"""What an archive is: its layout and codecs, how it is read, written and verified.

Nothing here knows of starts, trees or users: a module of `archive` imports only its neighbours and `errors`.
"""

RESERVED = ".unpackenv."
"""Prefix of the names at the top of a tree that are unpackenv's own: no member of an archive has one."""
