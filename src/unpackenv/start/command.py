"""The program that the wrapper becomes, and the Python that it runs."""

from __future__ import annotations

import sys

from unpackenv.archive import facts, interpreter
from unpackenv.unpatched import os

# An interpreter answers in some 10 ms.
_ANSWER_SECONDS = 10


class Command:
    """The program that the wrapper becomes: the scripts of the tree come before all others of its name."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.name, *self._arguments = words
        self._asked: dict[str, dict[str, str] | None] = {}
        self.lacks_interpreter = False  # as far as was found when it was looked at last

    def interpreter(self, scripts: str) -> dict[str, str] | None:
        """Return the facts of the Python that it runs, if that is known and not this one.

        `scripts` is the directory of scripts of a tree that is there, or "".
        """
        path = find(self.name, scripts)
        python = interpreter_of(path, scripts) if path else ""
        self.lacks_interpreter = python is None
        if not python or _is_this(python):
            return None
        # The Python of a virtual environment was asked before that was unpacked.
        if scripts and os.path.dirname(python) == scripts:
            return interpreter.UNKNOWN
        if python not in self._asked:
            self._asked[python] = facts_of(python)
        return self._asked[python]

    def flags(self) -> tuple[int, str]:
        """Return how far its Python optimizes, and where that keeps bytecode, as environment and options say."""
        level = os.environ.get("PYTHONOPTIMIZE", "")
        optimize = int(level) if level.isdigit() else int(level != "")
        if is_python(self.name):
            for option in self._arguments:
                if option[:1] != "-" or option[1:2] in "cm-":
                    break
                optimize += option.count("O") if option[1:2] not in "XW" else 0
        return optimize, os.environ.get("PYTHONPYCACHEPREFIX", "")


def facts_of(python: str) -> dict[str, str] | None:
    """Ask an interpreter for its facts; None if it is this one, or cannot be asked."""
    if _is_this(python) or not os.access(python, os.X_OK):
        return None
    import subprocess

    # As -I, which Python 2.7 does not know.
    code = f"import sys; del sys.path[0]; exec(open({os.path.abspath(interpreter.__file__)!r}).read())"
    question = [python, "-E", "-s", "-S", "-c", code]
    try:
        asked = subprocess.run(
            question, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWER_SECONDS
        )
    except OSError:  # then it cannot be executed either, and the exec says so
        return None
    except subprocess.TimeoutExpired:  # whatever it is, it does not answer as a Python
        return interpreter.UNKNOWN
    return {key: values[0] for key, values in facts.decode(asked.stdout).items()} or None


def _is_this(python: str) -> bool:
    return os.path.realpath(python) == os.path.realpath(sys.executable)


def find(command: str, scripts: str = "") -> str:
    """Return the path of a program, as it is or looked for in `scripts` and on PATH; "" if it is not there."""
    if "/" in command:
        return command
    for directory in [scripts, *os.get_exec_path()] if scripts else os.get_exec_path():
        path = os.path.join(directory, command)
        if os.access(path, os.X_OK):
            return path
    return ""


def interpreter_of(path: str, scripts: str = "") -> str | None:
    """Return the Python that executing `path` runs, "" if it runs none, None if it is a script whose `env` fails."""
    if is_python(path):
        return path
    words = words_of_script(path)
    program = program_of_env(words)
    found = find(program, scripts) if program else words[0] if words else ""
    if program and not found:
        return None
    return found if is_python(found) else ""


def words_of_script(path: str) -> list[str]:
    """Return the words of the `#!` line of a script; none if it is no script."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return []
    if not line.startswith(b"#!"):
        return []
    words = os.fsdecode(line[2:]).rstrip("\n").replace("\t", " ").split(" ")  # as the kernel does: no other white space
    return [word for word in words if word]


def program_of_env(words: list[str]) -> str:
    """Return what `env` is to look for on PATH; "" if the words are those of another interpreter."""
    if not words or os.path.basename(words[0]) != "env":
        return ""
    return next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")


def is_python(path: str) -> bool:
    """Whether a program is called python, python3, python3.13 or python3.13t: only such ones are asked."""
    return os.path.basename(path).rstrip("0123456789.t") == "python"
