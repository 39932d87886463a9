"""The wrapper: bootstrap, then become the command. `python -m unpackenv [options] -- CMD ARG…`."""

from __future__ import annotations

import _signal
import errno
import sys

from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, SettingError, UnpackenvError
from unpackenv.start import bootstrap
from unpackenv.start.bootstrap import Start
from unpackenv.start.command import Command, blind_to_environment
from unpackenv.start.process import this_process, write_line
from unpackenv.start.report import OFF, Attempt, Report
from unpackenv.start.settings import COMMAND, END_VARIABLE, TABLE, Log, Settings, is_off, nearest
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND = 126, 127
_VARIABLES = {"pyvenv.cfg": "VIRTUAL_ENV", "conda-meta": "CONDA_PREFIX"}
"""What marks an environment, and the variable that names the one in use."""


def run(options: list[str], command: list[str]) -> NoReturn:
    """Bootstrap as `options` say and execute `command`; on failure exit with 125, 126 or 127."""
    try:
        if not command[0]:
            raise SettingError("the command after `--` is empty", hint="Check it for a variable that is not set")
        become(Command(command), {} if is_off() else _arguments(options))
    except UnpackenvError as error:
        fail(error, bootstrap.begin(Log({})))


def become(command: Command, arguments: Mapping[str, object]) -> NoReturn:
    """Bootstrap with `arguments` and execute `command`; if that fails, exit as `run` does, or raise `SettingError`."""
    start = Wrapper(arguments, command)
    try:
        report = start.run()
    except UnpackenvError:
        sys.exit(EXIT_BOOTSTRAP_FAILED)
    except KeyboardInterrupt:
        sys.exit(128 + _signal.SIGINT)
    if report.outcome != OFF:
        start.prepare_command()
    _execute(command.words_in(report.bin), command.lacks_interpreter)


def fail(error: UnpackenvError, attempt: Attempt) -> NoReturn:
    """Log the error that an attempt ended with, and exit with 125."""
    bootstrap.log_error(error, attempt, is_last_word=True)
    sys.exit(EXIT_BOOTSTRAP_FAILED)


def _arguments(options: list[str]) -> dict[str, object]:
    """Parse `--name value`, `--name=value` and switches by the table of settings.

    `argparse` would take as long as a whole warm start.
    """
    arguments: dict[str, object] = {}
    table = {setting.option: setting for setting in TABLE}
    rest = iter(options)
    for option in rest:
        name, equals, value = option.partition("=")
        setting = table.get(name)
        if setting is None:
            meant = nearest(name, table)
            hint = f"Did you mean {meant}?" if meant else f"Its options are {', '.join(table)}"
            raise SettingError("is no option of the wrapper", where=option, hint=hint)
        if not equals and not setting.is_switch:
            if (following := next(rest, None)) is None:
                raise SettingError("needs a value", where=option)
            value = following
        arguments[setting.name] = value if equals or not setting.is_switch else True
    return arguments


class Wrapper(Start):
    """The start of the wrapper. Its command replaces this process, so nothing is made importable in it."""

    is_last_word = True

    def __init__(self, arguments: Mapping[str, object], command: Command) -> None:
        super().__init__(arguments)
        self.command = command

    def read_settings(self) -> Settings:
        settings = super().read_settings()
        settings.command = self.command
        return settings

    def make_importable(self, report: Report) -> list[str]:
        for mark, variable in _VARIABLES.items():
            if os.path.exists(os.path.join(report.target, mark)):
                os.environ[variable] = report.target
        has_python = bool(report.bin) and os.path.lexists(os.path.join(report.bin, "python"))
        blind = blind_to_environment(self.command.words, report.bin if has_python else "")
        return blind + self.make_importable_in_children(report)

    def prepare_command(self) -> None:
        """Pass settings, times and trees on to the command, for `bootstrap()` and `mark()` in it."""
        self._pass_on()
        for fd in this_process.stamps():
            os.set_inheritable(fd, True)  # the command uses the tree as long as it runs

    def _pass_on(self) -> None:
        for setting in TABLE:
            if COMMAND in setting.remembered:
                value = getattr(self.settings, setting.name)
                is_url = setting.name == "archive" and self.settings.is_remote
                if setting.is_path and value and not is_url:  # the command may change its directory
                    os.environ[setting.variable] = os.path.abspath(value)
                elif setting.name in self.arguments:
                    os.environ[setting.variable] = str(self.arguments[setting.name])
        if this_process.ended:
            os.environ[END_VARIABLE] = f"{os.getpid()} {this_process.ended}"


# --- becoming the command ------------------------------------------------------------------------


def _execute(command: list[str], missing: bool) -> NoReturn:
    """Become the command, unless its interpreter is known to be `missing`: `env` would not name the script."""
    _restore_process()
    try:
        if missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvp(command[0], command)
    except OSError as error:
        from unpackenv.start.python import notfound

        write_line(f"unpackenv: {notfound.reason(command[0], error.strerror or str(error))}")
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
