"""The program that the wrapper becomes, and the Python that it runs."""

from __future__ import annotations

import sys

from unpackenv.archive import facts, interpreter
from unpackenv.start.importpaths import HOOK
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# An interpreter answers within some 10 ms.
_ANSWER_SECONDS = 10
_PREFIX = "pycache_prefix="
# Options of `env` that remove PYTHONPATH.
_UNSETS = ("-i", "-", "--ignore-environment", "-u PYTHONPATH", "--unset PYTHONPATH", "--unset=PYTHONPATH")
_MOST_HOPS = 4  # from a script to its interpreter, as for the kernel


class Command:
    """The program that the wrapper becomes; it is looked for among the scripts of the tree first, then on PATH."""

    is_on_path = True
    """Whether it is looked for on PATH, if the tree does not have it."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.name, *self._arguments = words
        self._facts: dict[str, dict[str, str] | None] = {}
        self.lacks_interpreter = False  # as the last call of `interpreter` found it

    def interpreter(self, scripts: str) -> dict[str, str] | None:
        """Return the facts of the Python that it runs, if that is known and not this one.

        `scripts` is the directory of scripts of a tree that is there, or "".
        """
        path = find(self.name, scripts)
        python = interpreter_of(path, scripts) if path else ""
        self.lacks_interpreter = python is None
        if not python or _is_this(python):
            return None
        # The Python of a virtual environment was examined before that was unpacked.
        if scripts and os.path.dirname(python) == scripts:
            return interpreter.UNKNOWN
        if python not in self._facts:
            self._facts[python] = facts_of(python)
        return self._facts[python]

    def words_in(self, scripts: str) -> list[str]:
        """Return the words to execute, if the tree has these scripts, which are on PATH by now."""
        return self.words

    def flags(self) -> tuple[int, str]:
        """Return the optimization level and the bytecode prefix of its Python, from its options and the environment."""
        level = os.environ.get("PYTHONOPTIMIZE", "")
        optimize = int(level) if level.isdigit() else int(level != "")
        prefix = os.environ.get("PYTHONPYCACHEPREFIX", "")
        if is_python(self.name):
            words = iter(self._arguments)
            for option in words:
                if option[:1] != "-" or option[1:2] in "cm-":
                    break
                letters, has_x, value = option.partition("X")
                letters, has_w, _ = letters.partition("W")
                if not has_w and has_x:
                    value = value or next(words, "")
                    prefix = value[len(_PREFIX) :] if value.startswith(_PREFIX) else prefix
                elif has_w and option[-1] == "W":
                    next(words, "")
                optimize += letters.count("O")
        return optimize, prefix


def facts_of(python: str) -> dict[str, str] | None:
    """Run an interpreter to get its facts; None if it is this one, or cannot be run."""
    if _is_this(python) or not os.access(python, os.X_OK):
        return None
    import subprocess

    loader: Any = interpreter.__loader__  # of a directory, or of a launcher, which is a zip file
    source = loader.get_data(os.path.join(os.path.dirname(interpreter.__file__), "interpreter.py"))
    # The same as -I, which Python 2.7 does not know.
    code = f"import sys; del sys.path[0]; exec({source!r})"
    call = [python, "-E", "-s", "-S", "-c", code]
    try:
        answer = subprocess.run(
            call, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWER_SECONDS
        )
    except OSError:  # the exec will fail, too, and reports it
        return None
    except subprocess.TimeoutExpired:  # it does not answer like a Python
        return interpreter.UNKNOWN
    return {key: values[0] for key, values in facts.decode(answer.stdout).items()} or None


def _is_this(python: str) -> bool:
    return os.path.realpath(python) == os.path.realpath(sys.executable)


def find(command: str, scripts: str = "") -> str:
    """Return the path of a program: itself if it has a slash, else the first in `scripts` or on PATH; "" if none."""
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
    runs = find(program, scripts) if program else words[0] if words else ""
    if program and not runs:
        return None
    return runs if is_python(runs) else ""


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
    """Return the program that `env` will look for on PATH; "" if the words do not begin with `env`."""
    if not words or os.path.basename(words[0]) != "env":
        return ""
    return next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")


def is_python(path: str) -> bool:
    """Whether a program is called python, python3, python3.13 or python3.13t: only these are run for their facts."""
    return os.path.basename(path).rstrip("0123456789.t") == "python"


# --- what a command takes from the environment ---------------------------------------------------


def blind_to_environment(command: list[str], scripts: str) -> list[str]:
    """Return a warning if the words of a command make it ignore the variables that `for_children` sets.

    `scripts` is the directory of a virtual environment's scripts, or "": its own Python needs no such variables.
    """
    part, program = _blind(command, scripts, _MOST_HOPS)
    own = scripts and os.path.dirname(program) == scripts
    if not part or own or any(os.path.exists(os.path.join(path, HOOK)) for path in sys.path):
        return []
    return [f"{part} ignores PYTHONPATH and will not find the tree: use `unpackenv hook`"]


def _blind(command: list[str], scripts: str, hops: int) -> tuple[str, str]:
    """Return which part of a command ignores PYTHONPATH ("" if none), and the program that it runs."""
    if not command or not hops:
        return "", ""
    name, path = os.path.basename(command[0]), find(command[0], scripts)
    if name == "env":
        option, rest = _env(command[1:])
        inner = _blind(rest, scripts, hops - 1)
        return (option, inner[1]) if option else inner
    if is_python(name):
        letters = _letters(command[1:])
        return (f"python -{'I' if 'I' in letters else 'E'}" if not letters.isdisjoint("EI") else ""), path
    part, program = _blind(words_of_script(path) if path else [], scripts, hops - 1)
    return (f"{command[0]} ({part})" if part else ""), program


def _env(words: list[str]) -> tuple[str, list[str]]:
    """Return which of the words after `env` removes or sets PYTHONPATH ("" if none), and the command in them."""
    option = ""
    rest = iter(words)
    for word in rest:
        if word in ("-u", "--unset", "-C", "--chdir"):
            word += " " + next(rest, "")
        if word in _UNSETS or word.partition("=")[0] == "PYTHONPATH":
            option = f"env {word}"
        elif word[:1] != "-" and "=" not in word:
            return option, [word, *rest]
    return option, []


def _letters(options: list[str]) -> set[str]:
    """Return the one-letter options of a Python, up to the program that it runs."""
    letters: set[str] = set()
    words = iter(options)
    for option in words:
        if option[:1] != "-" or option[:2] == "--" or option == "-":
            break
        for at, letter in enumerate(option[1:], 2):
            letters.add(letter)
            if letter in "cmWX":  # the rest is its value, or the next word
                if letter in "WX" and not option[at:]:
                    next(words, "")
                break
        if not letters.isdisjoint("cm"):
            break
    return letters
