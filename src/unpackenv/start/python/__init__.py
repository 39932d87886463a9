"""Checks of interpreters that few starts need: other or missing ones, scripts and bytecode that do not fit.

What every start needs is in `archive.interpreter`.
"""
