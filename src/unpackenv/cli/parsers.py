"""The parser of the command line, with that of every command."""

from __future__ import annotations

from importlib import import_module

import unpackenv
from unpackenv.cli.common import Parser, add_settings, has

# In a runtime some are missing.
COMMANDS = (
    "pack", "push", "unpack", "fill", "verify", "inspect", "trace", "analyze", "timings", "doctor", "hook", "prune",
    "runtime", "launcher", "dockerfile", "completion",
)  # fmt: skip


def command_line(command: str = "") -> Parser:
    """Return the parser of the command line, for one command or for all of them."""
    whole = Parser(
        prog="unpackenv",
        description="Ship a Python environment as one compressed file, unpacked in parallel when the container starts.",
        epilog=f"unpackenv help COMMAND explains a command and its options.\n\n{_entrypoint_help()}",
    )
    whole.add_argument("-V", "--version", action="version", version=f"unpackenv {unpackenv.__version__}")
    whole.commands = whole.add_subparsers(prog="unpackenv", title="commands", required=True, metavar="COMMAND")
    for name in (command,) if command in COMMANDS else COMMANDS:
        if has(f"cli.{name}"):
            import_module(f"unpackenv.cli.{name}").add(whole.commands)
    return whole


def _entrypoint_help() -> str:
    """Describe the wrapper, whose options `entrypoint` parses without argparse."""
    wrapper = Parser(
        add_help=False,
        usage="python -m unpackenv [options] -- CMD ARG…",
        description="As an entrypoint: unpacks the environment if it is not there yet, and becomes CMD. Each option is "
        "also an environment variable (UNPACKENV_TARGET for --target).",
    )
    add_settings(wrapper)
    return wrapper.format_help()
