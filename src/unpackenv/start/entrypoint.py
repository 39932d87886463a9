"""The wrapper: bootstrap, then become the command. `python -m unpackenv [options] -- CMD ARG…`."""

from __future__ import annotations

import _signal
import errno
import sys

from unpackenv.archive import facts, trailer
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, SettingError, UnpackenvError
from unpackenv.start import bootstrap, importpaths, places, report
from unpackenv.start.report import Attempt, Log, Report
from unpackenv.start.settings import END_VARIABLE, TABLE, UNKNOWN_INTERPRETER, Settings, is_off, nearest
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# An interpreter answers in some 10 ms.
_ANSWER_SECONDS = 10
EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND = 126, 127


def run(options: list[str], command: list[str]) -> NoReturn:
    """Bootstrap as `options` say and execute `command`; on failure exit with 125, 126 or 127."""
    attempt = None
    try:
        if is_off():
            bootstrap.nothing_done(Report(report.OFF), Log({}))
        else:
            arguments = _arguments(options)
            attempt = Attempt(Log(arguments))
            _bootstrap(arguments, command, attempt)
    except UnpackenvError as error:
        fail(error, attempt or Attempt(Log({})))
    except KeyboardInterrupt:
        sys.exit(128 + _signal.SIGINT)
    _execute(command)


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


def _bootstrap(arguments: dict[str, object], command: list[str], attempt: Attempt) -> None:
    settings = Settings(arguments)
    settings.interpreter = _other_interpreter(command[0], settings)
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


# --- the interpreter that the command will run ---------------------------------------------------


def _pass_on(settings: Settings, arguments: dict[str, object]) -> None:
    """Let `bootstrap()` and `mark()` in the command find what the wrapper was told."""
    for name, value in (("UNPACKENV_ARCHIVE", settings.archive), ("UNPACKENV_TARGET", settings.target)):
        if value:
            os.environ[name] = os.path.abspath(value)
    for setting in TABLE:
        if setting.name in ("log", "log_file", "imports") and setting.name in arguments:
            os.environ[setting.variable] = str(arguments[setting.name])
    if report.last_end:
        os.environ[END_VARIABLE] = f"{os.getpid()} {report.last_end[0][0]}"


def _other_interpreter(command: str, settings: Settings) -> dict[str, str] | None:
    """Return the facts of the Python that `command` will run, if it is known and not this one."""
    path = _find(command)
    if _is_python(command) and _comes_from_tree(command, settings):
        return UNKNOWN_INTERPRETER
    interpreter = _interpreter_of(path) if path else ""
    if not interpreter or os.path.realpath(interpreter) == os.path.realpath(sys.executable):
        return None
    import subprocess

    from unpackenv.archive import interpreter as asking

    # As -I, which Python 2.7 does not know.
    code = f"import sys; del sys.path[0]; exec(open({os.path.abspath(asking.__file__)!r}).read())"
    question = [interpreter, "-E", "-s", "-S", "-c", code]
    try:
        asked = subprocess.run(
            question, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWER_SECONDS
        )
    except OSError:  # then it cannot be executed either, and the exec says so
        return None
    except subprocess.TimeoutExpired:  # whatever it is, it does not answer as a Python
        return UNKNOWN_INTERPRETER
    return {key: values[0] for key, values in facts.decode(asked.stdout).items()} or None


def _comes_from_tree(command: str, settings: Settings) -> bool:
    """Whether `command` will be looked for in the tree first: a packed virtual environment brings its own Python."""
    try:
        identity = trailer.identify(places.find_archive(settings))
    except UnpackenvError:
        return False
    if facts.first(identity.facts, "kind") != "venv":
        return False
    target = settings.target or facts.first(identity.facts, "target")
    return "/" not in command or os.path.abspath(command).startswith(os.path.join(target, ""))


def _find(command: str) -> str:
    if "/" in command:
        return command
    for directory in os.get_exec_path():
        path = os.path.join(directory, command)
        if os.access(path, os.X_OK):
            return path
    return ""


def _interpreter_of(path: str) -> str:
    """Return `path` if it is a Python, the Python of its `#!` line if it is a script, or ""."""
    if _is_python(path):
        return path
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [_find(word) for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words and _is_python(words[0]) else ""


def _is_python(path: str) -> bool:
    """Whether a program is called python, python3, python3.13 or python3.13t: only such ones are asked."""
    return os.path.basename(path).rstrip("0123456789.t") == "python"


# --- becoming the command ------------------------------------------------------------------------


def _execute(command: list[str]) -> NoReturn:
    _restore_process()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        report.write_line(f"unpackenv: {command[0]}: {error.strerror}")
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
