"""The command line: `unpackenv pack`, `unpack`, `verify`, `inspect`, `timings`, `hook`, …, and the wrapper `-- CMD`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from unpackenv.cli import parsers
from unpackenv.cli.common import Parser, did_you_mean
from unpackenv.errors import UnpackenvError
from unpackenv.start import bootstrap, entrypoint
from unpackenv.start.settings import TABLE, Log

_USAGE_ERROR = 2
_MEANT_FOR_PROGRAMS = ("exec", "run", "start")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 for a tree that differs from its archive, 2 for wrong usage, else 125.

    Without arguments it prints its help and exits with 2: an entrypoint may have lost its command.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = parsers.command_line(arguments[0] if arguments else "")
    for stream in (sys.stdout, sys.stderr):  # a file name may have bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parsed(parser, arguments)
    on_stderr = Log({})
    on_stderr.file = ""  # the log file is for starts only
    try:
        code = options.run(options)
    except UnpackenvError as error:
        entrypoint.fail(error, bootstrap.begin(on_stderr))
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # such as a full disk
        failure = UnpackenvError(error.strerror or str(error), where=str(error.filename or ""))
        entrypoint.fail(failure, bootstrap.begin(on_stderr))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _parsed(parser: Parser, arguments: list[str]) -> argparse.Namespace:
    """Parse a command line, and end the process where it asks for help or is wrong."""
    first = arguments[0] if arguments else ""
    if not arguments:
        parser.print_help(sys.stderr)
        sys.exit(_USAGE_ERROR)
    if arguments[-1] == "--" and first.startswith("-"):
        parser.error("there is no command after `--`: python -m unpackenv [options] -- CMD ARG…")
    if first.partition("=")[0] in _wrapper_options():
        parser.error("the command to run goes after `--`: python -m unpackenv [options] -- CMD ARG…")
    if first == "help":
        _command(parser, arguments[1] if len(arguments) > 1 else "").print_help()
        sys.exit(0)
    if first.startswith("-"):
        parser.check_options(arguments[:1], _wrapper_options())
        return parser.parse_args(arguments)
    command = _command(parser, first)
    command.check_options(arguments[1:])
    options, rest = parser.parse_known_args(arguments)
    if rest:
        command.error(f"one argument too many: {'a URL' if '://' in rest[0] else rest[0]}")
    return options


def _command(parser: Parser, name: str) -> Parser:
    """Return the parser of a command; of the whole command line for ""."""
    if not name:
        return parser
    commands: dict[str, Parser] = parser.commands.choices
    if name not in commands:
        parser.error(_no_command(name, commands))
    return commands[name]


def _no_command(name: str, commands: Iterable[str]) -> str:
    if name in parsers.COMMANDS:
        return f"{name} is not in this runtime, to keep it small; run it where unpackenv is installed"
    if name in _MEANT_FOR_PROGRAMS:
        return f"there is no command {name!r}. To start a program: python -m unpackenv -- CMD ARG…"
    text = f"there is no command {name!r}{did_you_mean(name, [*commands, 'help'])}"
    return f"{text} To start a program put -- before it: python -m unpackenv -- {name} …"


def _wrapper_options() -> list[str]:
    return [setting.option for setting in TABLE]
