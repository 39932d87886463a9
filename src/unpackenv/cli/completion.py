"""`unpackenv completion`: print what makes a shell complete commands and options."""

from __future__ import annotations

import argparse

from unpackenv.errors import ExtraMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands

_SHELLS = ("bash", "zsh", "fish")
_DIRECTORIES = ("DIR", "SRC")
_FILES = ("ARCHIVE", "FILE", "OUT", "PATH")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="print what makes bash, zsh or fish complete commands and options",
        description="Print a script with which a shell completes the commands, the options and the paths of unpackenv.",
        epilog="examples:\n"
        '  eval "$(unpackenv completion bash)"      # in ~/.bashrc\n'
        '  eval "$(unpackenv completion zsh)"       # in ~/.zshrc, after compinit\n'
        "  unpackenv completion fish | source       # in ~/.config/fish/config.fish",
    )
    parser.add_argument("shell", choices=_SHELLS, help=f"{', '.join(_SHELLS[:-1])} or {_SHELLS[-1]}")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.cli import parsers

    try:
        import shtab
    except ImportError:
        hint = "Install the extra: pip install 'unpackenv[build]'"
        raise ExtraMissing("the completions of shells need shtab, which is not installed", hint=hint) from None
    whole = parsers.command_line()
    for parser in (whole, *whole.commands.choices.values()):
        for action in parser._actions:
            if action.metavar in _DIRECTORIES:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(whole, options.shell))
    return 0
