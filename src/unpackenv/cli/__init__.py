"""The command line: `unpackenv pack`, `unpack`, `verify`, `inspect`, `timings`, `hook`, …, and the wrapper `-- CMD`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import unpackenv
from unpackenv.cli.common import has
from unpackenv.errors import UnpackenvError
from unpackenv.start import entrypoint
from unpackenv.start.report import Attempt, Log
from unpackenv.start.settings import TABLE

# In a runtime some are missing.
_COMMANDS = ("pack", "unpack", "verify", "inspect", "analyze", "timings", "doctor", "hook", "prune", "runtime")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 for a tree that differs from its archive, 2 for wrong usage, else 125."""
    parser = _parser()
    for stream in (sys.stdout, sys.stderr):  # a name may have bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[-1:] == ["--"] and arguments[0].startswith("-"):
        parser.error("there is no command behind `--`: python -m unpackenv [options] -- CMD ARG…")
    if arguments and arguments[0].partition("=")[0] in {setting.option for setting in TABLE}:
        parser.error("the command to become goes behind `--`: python -m unpackenv [options] -- CMD ARG…")
    if arguments and not arguments[0].startswith("-") and not has(f"cli.{arguments[0]}"):
        parser.error(_no_command(arguments[0]))
    options = parser.parse_args(arguments)
    on_stderr = Log({})
    on_stderr.file = ""  # that is for starts
    try:
        code = options.run(options)
    except UnpackenvError as error:
        entrypoint.fail(error, Attempt(on_stderr))
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # such as a full disk
        failed = UnpackenvError(error.strerror or str(error), where=str(error.filename or ""))
        entrypoint.fail(failed, Attempt(on_stderr))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unpackenv",
        description="Ship a Python environment as one compressed file, unpacked in parallel when the container starts.",
        epilog=_entrypoint_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unpackenv {unpackenv.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        if has(f"cli.{name}"):
            import_module(f"unpackenv.cli.{name}").add(commands)
    return parser


def _no_command(name: str) -> str:
    if name in _COMMANDS:
        return f"{name} is not in this runtime, to keep it small; run it where unpackenv is installed"
    return f"there is no command {name!r}; to start a program put -- before it: python -m unpackenv -- {name} …"


def _entrypoint_help() -> str:
    """Describe the wrapper, whose options `entrypoint` parses without argparse."""
    lines = [
        "as an entrypoint: python -m unpackenv [options] -- CMD ARG…",
        "  unpacks the environment if it is not there yet, and becomes CMD. Its options, each also a variable of the",
        "  environment (UNPACKENV_TARGET for --target):",
        "",
    ]
    return "\n".join(lines + [f"  {setting.option:15} {setting.meaning}" for setting in TABLE])
