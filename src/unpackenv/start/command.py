"""The program that the wrapper becomes, and the Python that it runs."""

from __future__ import annotations

import sys

from unpackenv.archive import facts, interpreter
from unpackenv.unpatched import os

# An interpreter answers in some 10 ms.
_ANSWER_SECONDS = 10
_PREFIX = "pycache_prefix="
_HOOK = "unpackenv.pth"
_TAKES_ALL = ("-i", "-", "--ignore-environment", "-u PYTHONPATH", "--unset PYTHONPATH", "--unset=PYTHONPATH")  # of env
_MOST_HOPS = 4  # from a script to its interpreter, as for the kernel


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
        prefix = os.environ.get("PYTHONPYCACHEPREFIX", "")
        if is_python(self.name):
            words = iter(self._arguments)
            for option in words:
                if option[:1] != "-" or option[1:2] in "cm-":
                    break
                letters, of_x, value = option.partition("X")
                letters, of_w, _ = letters.partition("W")
                if not of_w and of_x:
                    value = value or next(words, "")
                    prefix = value[len(_PREFIX) :] if value.startswith(_PREFIX) else prefix
                elif of_w and option[-1] == "W":
                    next(words, "")
                optimize += letters.count("O")
        return optimize, prefix


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


# --- what a command takes from the environment ---------------------------------------------------


def blind_to_environment(command: list[str], scripts: str) -> list[str]:
    """Return why a command does not see what `for_children` sets, where its own words say so.

    `scripts` is the directory of a virtual environment's scripts, or "": its own Python needs nothing of that.
    """
    which, program = _blind(command, scripts, _MOST_HOPS)
    own = scripts and os.path.dirname(program) == scripts
    if not which or own or any(os.path.exists(os.path.join(path, _HOOK)) for path in sys.path):
        return []
    return [f"{which} takes no paths from the environment, so that it finds no tree; `unpackenv hook` makes it find it"]


def _blind(command: list[str], scripts: str, hops: int) -> tuple[str, str]:
    """Return which part of a command takes nothing from the environment ("": none does), and what it runs."""
    if not command or not hops:
        return "", ""
    name, path = os.path.basename(command[0]), find(command[0], scripts)
    if name == "env":
        which, rest = _env(command[1:])
        inner = _blind(rest, scripts, hops - 1)
        return (which, inner[1]) if which else inner
    if is_python(name):
        letters = _letters(command[1:])
        return (f"python -{'I' if 'I' in letters else 'E'}" if not letters.isdisjoint("EI") else ""), path
    which, program = _blind(words_of_script(path) if path else [], scripts, hops - 1)
    return (f"{command[0]} ({which})" if which else ""), program


def _env(words: list[str]) -> tuple[str, list[str]]:
    """Return which of the words behind `env` takes PYTHONPATH away ("": none does), and the command in them."""
    which = ""
    rest = iter(words)
    for word in rest:
        if word in ("-u", "--unset", "-C", "--chdir"):
            word += " " + next(rest, "")
        if word in _TAKES_ALL or word.partition("=")[0] == "PYTHONPATH":
            which = f"env {word}"
        elif word[:1] != "-" and "=" not in word:
            return which, [word, *rest]
    return which, []


def _letters(options: list[str]) -> set[str]:
    """Return the options of one letter before the program that a Python runs."""
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
