"""What an archive is: its layout and codecs, how it is read, written and verified.

Nothing here knows of starts, trees or people: a module of `archive` imports only its neighbours and `errors`.
"""
