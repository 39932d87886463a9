"""Why a command cannot be executed: it names what is missing. Imported only after a failure."""

from __future__ import annotations

import re

from unpackenv.start import command as commands
from unpackenv.unpatched import os

_LOADER = re.compile(rb"(/[^\0]*/ld[-.][^\0/]*)\0")  # in the first bytes of a program
_HEAD = 4096
_PYTHON_HINT = "Make the environment with the Python of the image that runs it, or copy that Python into it"
_SCRIPT_HINT = (
    "Run its module with `python -m`; if the environment was made at another path, unpack it to that one, or with "
    "--relocate"
)


def reason(command: str, problem: str) -> str:
    """Return a sentence that says why executing `command` failed; `problem` is the message of the system."""
    path = _first(command)
    if os.path.islink(path) and not os.path.lexists(os.path.realpath(path)):  # and it is no loop
        hint = f". {_PYTHON_HINT}" if commands.is_python(path) else ""
        return f"{command}: leads to {os.path.realpath(path)}, which is not there{hint}"
    words = commands.words_of_script(path)
    wrong = _wrong_with(words) if words else ""
    if wrong:
        hint = f". {_SCRIPT_HINT}" if commands.is_python(words[0]) else ""
        return f"{command}: its interpreter {wrong}{hint}"
    loader = _LOADER.search(_head_of_program(path))
    if loader and not os.path.exists(loader[1]):
        return f"{command}: its loader {os.fsdecode(loader[1])} is not there: it was built for another C library"
    return f"{command}: {problem}"


def _wrong_with(words: list[str]) -> str:
    """Return what is wrong with the interpreter that the words of a `#!` line name; "" if nothing."""
    if not os.path.exists(words[0]):
        leads = f" (it leads to {os.path.realpath(words[0])})" if os.path.islink(words[0]) else ""
        return f"{_shown(words[0])} is not there{leads}"
    if not os.access(words[0], os.X_OK):
        return f"{_shown(words[0])} may not be executed"
    program = commands.program_of_env(words)
    return f"{_shown(program)} is not on PATH" if program and not commands.find(program) else ""


def _first(command: str) -> str:
    """Return the file that was to be executed: the first of that name on PATH, executable or a dangling link."""
    if "/" in command:
        return command
    paths = [os.path.join(directory, command) for directory in os.get_exec_path()]
    return next((path for path in paths if os.access(path, os.X_OK) or os.path.islink(path)), "")


def _shown(name: str) -> str:
    """Return a name for a message: in a script with Windows line ends, it ends in a carriage return."""
    return name if name.isprintable() else repr(name)


def _head_of_program(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return b""
    return head if head.startswith(b"\x7fELF") else b""
