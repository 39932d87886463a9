"""What the `.pth` file of `unpackenv hook` runs at the start of every interpreter.

It makes a published tree importable, quietly and with the precedence of `bootstrap()`. With `auto`
it also bootstraps where there is no tree yet, unless a tool such as pip is starting.
"""

from __future__ import annotations

import _signal
import sys

from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, SettingError, UnpackenvError
from unpackenv.start import importpaths, locations, published
from unpackenv.start.bootstrap import Start
from unpackenv.start.process import this_process, write_line
from unpackenv.start.report import Report
from unpackenv.start.settings import Log, Settings, is_off
from unpackenv.start.shim import unpackenv_site
from unpackenv.unpatched import os

# Tools that build or repair an environment must not depend on one.
_TOOLS = {
    "build", "compileall", "conda", "ensurepip", "pip", "pipx", "poetry", "py_compile", "setuptools",
    "unpackenv", "uv", "venv", "virtualenv", "wheel",
}  # fmt: skip
# These tools also run applications, which need their packages: each process that they start decides for itself.
_RUNNERS = {"conda", "pipx", "poetry", "uv"}


def run(*, auto: bool, archive: str = "", target: str = "") -> None:
    """Make the tree importable if it is there; with `auto`, unpack it if it is not.

    `archive` and `target` are used if the environment names none. With `auto` a failure ends the
    interpreter with exit code 125: an application must not start without its packages.
    """
    if sys.platform != "linux":
        return
    try:
        if is_off():
            return
        for name, value in (("UNPACKENV_ARCHIVE", archive), ("UNPACKENV_TARGET", target)):
            if value:  # for a `bootstrap()` in the application, too
                os.environ.setdefault(name, value)
        settings = Settings({})
        if _add_inherited() or _add_published(settings):
            this_process.bootstrap_ended(Log({}), settings.imports)
        elif auto:
            _bootstrap()
    except UnpackenvError as error:
        if isinstance(error, SettingError) and not auto:
            write_line(f"unpackenv: warning: {error}")  # else nobody could tell why imports fail
        if auto and not tool_in(_command_line()):
            FirstStart({}).log_error(error)
            os._exit(EXIT_BOOTSTRAP_FAILED)
    except KeyboardInterrupt:  # stopped while unpacking; raised from here it would be "Fatal Python error"
        os._exit(128 + _signal.SIGINT)
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else EXIT_BOOTSTRAP_FAILED)


def _bootstrap() -> None:
    """Unpack the tree, unless a tool that builds environments is starting."""
    arguments = _command_line()
    tool = tool_in(arguments)
    if tool:
        # They bootstrap for their command.
        is_wrapper = tool == "unpackenv" and ("--" in arguments or "unpackenv.python" in arguments)
        if not is_wrapper and tool not in _RUNNERS:
            os.environ["UNPACKENV"] = "off"  # for the processes that it starts, too
        return
    try:
        FirstStart({}).run()
    except UnpackenvError:
        os._exit(EXIT_BOOTSTRAP_FAILED)


class FirstStart(Start):
    """The start by a hook with `auto`, in an interpreter that finds no tree."""

    is_last_word = True

    def make_importable(self, report: Report) -> list[str]:
        this_process.hooked = report.import_paths
        return super().make_importable(report)

    def log_error(self, error: UnpackenvError) -> None:
        hint = "UNPACKENV=off starts the interpreter without it"
        error.hint = f"{error.hint}. {hint}" if error.hint else hint
        super().log_error(error)


def _add_published(settings: Settings) -> bool:
    """Add the tree of the archive, or of a named target, if it is published."""
    try:
        identity = locations.identify(locations.find_archive(settings), settings)
    except UnpackenvError:
        if not settings.target:
            return False
        candidates, key = [locations.named(settings)], ""
    else:
        candidates, key = locations.candidates(settings, identity), identity.key
    report = published.find_tree(candidates, key, settings)
    if report is None:
        return False
    importpaths.for_this_process(report.import_paths, new=False)
    this_process.hooked = report.import_paths
    if report.bin:
        importpaths.add_scripts(report.bin, os.environ)
    return True


def _add_inherited() -> bool:
    """Add the tree that the environment names for the children of a process that unpacked it."""
    tag, directories = unpackenv_site.inherited()
    if not directories or not unpackenv_site.is_for_this_python(tag):
        return False
    importpaths.for_this_process(directories, new=False)
    return True


def tool_in(arguments: list[str]) -> str:
    """Return which of `_TOOLS` an interpreter with the command line `arguments` starts, or ""."""
    rest = iter(arguments[1:])
    for argument in rest:
        if argument == "--check-hash-based-pycs":
            next(rest, None)
        elif argument == "-" or not argument.startswith("-"):
            if "/site-packages/pip/" in argument or "/pyproject_hooks/" in argument:
                return "pip"
            if os.path.basename(argument) == "setup.py":
                return "setuptools"
            directory, name = os.path.split(argument)
            # An application's own file may have such a name, too.
            return _known(name.rstrip("0123456789.")) if os.path.basename(directory) == "bin" else ""
        elif not argument.startswith("--"):
            for at, letter in enumerate(argument[1:], 2):  # -Im: one dash, several options
                value = argument[at:]
                if letter == "c":
                    return ""
                if letter == "m":
                    return _known((value or next(rest, "")).partition(".")[0])
                if letter in "WX":
                    if not value:
                        next(rest, None)
                    break
    return ""


def _known(name: str) -> str:
    return name if name in _TOOLS else ""


def _command_line() -> list[str]:
    # `sys.orig_argv` is new in CPython 3.10, and `sys.argv` is not complete while `site` runs.
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]
    except OSError:
        return list(getattr(sys, "orig_argv", []))
