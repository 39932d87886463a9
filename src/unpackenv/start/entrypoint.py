"""The wrapper: bootstrap, then become the command. `python -m unpackenv [options] -- CMD ARG…`."""

from __future__ import annotations

import _signal
import errno
import sys

from unpackenv.archive import facts
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, SettingError, UnpackenvError
from unpackenv.start import bootstrap, importpaths, report
from unpackenv.start.report import Attempt, Log, Report
from unpackenv.start.settings import COMMAND, END_VARIABLE, TABLE, UNKNOWN_INTERPRETER, Settings, is_off, nearest
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# An interpreter answers in some 10 ms.
_ANSWER_SECONDS = 10
EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND = 126, 127


def run(options: list[str], command: list[str]) -> NoReturn:
    """Bootstrap as `options` say and execute `command`; on failure exit with 125, 126 or 127."""
    attempt, missing = None, False
    try:
        if is_off():
            bootstrap.nothing_done(Report(report.OFF), Log({}))
        else:
            arguments = _arguments(options)
            attempt = Attempt(Log(arguments))
            missing = _bootstrap(arguments, command, attempt)
    except UnpackenvError as error:
        fail(error, attempt or Attempt(Log({})))
    except KeyboardInterrupt:
        sys.exit(128 + _signal.SIGINT)
    _execute(command, missing)


def fail(error: UnpackenvError, attempt: Attempt) -> NoReturn:
    """Log the error that an attempt ended with, and exit with 125."""
    attempt.failed(error, is_caught=True)
    sys.exit(EXIT_BOOTSTRAP_FAILED)


def _arguments(options: list[str]) -> dict[str, object]:
    """Parse `--name value`, `--name=value` and switches by the table of settings.

    `argparse` would serve, for as long as a whole warm start takes.
    """
    arguments: dict[str, object] = {}
    table = {setting.option: setting for setting in TABLE}
    rest = iter(options)
    for option in rest:
        name, equals, value = option.partition("=")
        setting = table.get(name)
        if setting is None:
            meant = nearest(name, table)
            hint = f"Did you mean {meant}?" if meant else f"There are {', '.join(table)}"
            raise SettingError("is no option of the wrapper", where=option, hint=hint)
        if not equals and not setting.is_switch:
            if (following := next(rest, None)) is None:
                raise SettingError("wants a value", where=option)
            value = following
        arguments[setting.name] = value if equals or not setting.is_switch else True
    return arguments


def _bootstrap(arguments: dict[str, object], command: list[str], attempt: Attempt) -> bool:
    """Bootstrap for `command`, and return whether it is a script that names an interpreter in vain."""
    settings = Settings(arguments)
    settings.command = Command(command)
    done = bootstrap.provide_tree(settings, attempt)
    if done.outcome == report.MISSING:
        bootstrap.nothing_done(done, attempt.log)
    else:
        attempt.warnings += importpaths.blind(command)
        bootstrap.finish(settings, done, attempt, here=False)
    _pass_on(settings, arguments)
    if done.target and os.path.exists(os.path.join(done.target, "pyvenv.cfg")):
        os.environ["VIRTUAL_ENV"] = done.target
    for fd in bootstrap.stamps_in_use():
        os.set_inheritable(fd, True)  # the command uses the tree as long as it runs
    return settings.command.lacks_interpreter


# --- the interpreter that the command will run ---------------------------------------------------


def _pass_on(settings: Settings, arguments: dict[str, object]) -> None:
    """Let `bootstrap()` and `mark()` in the command find what the wrapper was told."""
    for setting in TABLE:
        if COMMAND in setting.remembered:
            value = getattr(settings, setting.name)
            if setting.is_path and value:  # the command may change its directory
                os.environ[setting.variable] = os.path.abspath(value)
            elif setting.name in arguments:
                os.environ[setting.variable] = str(arguments[setting.name])
    if report.last_end:
        os.environ[END_VARIABLE] = f"{os.getpid()} {report.last_end[0][0]}"


class Command:
    """The program that the wrapper becomes: the scripts of the tree come before all others of its name."""

    def __init__(self, words: list[str]) -> None:
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
            return UNKNOWN_INTERPRETER
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

    from unpackenv.archive import interpreter as asking

    # As -I, which Python 2.7 does not know.
    code = f"import sys; del sys.path[0]; exec(open({os.path.abspath(asking.__file__)!r}).read())"
    question = [python, "-E", "-s", "-S", "-c", code]
    try:
        asked = subprocess.run(
            question, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWER_SECONDS
        )
    except OSError:  # then it cannot be executed either, and the exec says so
        return None
    except subprocess.TimeoutExpired:  # whatever it is, it does not answer as a Python
        return UNKNOWN_INTERPRETER
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


# --- becoming the command ------------------------------------------------------------------------


def _execute(command: list[str], missing: bool) -> NoReturn:
    """Become the command, unless its interpreter is known to be `missing`: `env` would not say of which script."""
    _restore_process()
    try:
        if missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvp(command[0], command)
    except OSError as error:
        from unpackenv.start.python import notfound

        report.write_line(f"unpackenv: {notfound.reason(command[0], error.strerror or str(error))}")
        sys.exit(EXIT_NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else EXIT_CANNOT_EXECUTE)


def _restore_process() -> None:
    """Put back what CPython changed for itself: ignored signals, and LC_CTYPE if it was coerced (PEP 538)."""
    for signum in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(signum, _signal.SIG_DFL)
    if os.environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        try:
            with open("/proc/self/environ", "rb") as file:
                was_set = any(entry.startswith(b"LC_CTYPE=") for entry in file.read().split(b"\0"))
        except OSError:
            return
        if not was_set:
            del os.environ["LC_CTYPE"]
