"""Questions about interpreters that few starts have: other ones, missing ones, scripts and bytecode that do not fit.

What every start asks of an interpreter is in `archive.interpreter`.
"""
