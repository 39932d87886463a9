"""`unpackenv dockerfile`: print the Dockerfile of the project in a directory."""

from __future__ import annotations

import argparse
import re
import sys

from unpackenv.cli.common import path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "dockerfile",
        help="print a Dockerfile for the project in this directory",
        description="Print a Dockerfile for a project, with its packages in an archive. It finds uv.lock, poetry.lock, "
        "pdm.lock, requirements.txt or pyproject.toml, the version of Python, and the application.",
        epilog="example:\n  unpackenv dockerfile > Dockerfile\n  docker build -t app . && docker run app",
    )
    parser.add_argument(
        "directory", type=path, metavar="DIR", nargs="?", default=".", help="the project (default: this directory)"
    )
    parser.add_argument(
        "--venv", action="store_true",
        help="pack a virtual environment, whose scripts are on PATH, and start it by an entrypoint; else a folder and "
        "a hook",
    )  # fmt: skip
    parser.add_argument(
        "--python", type=_version, default="", metavar="VERSION",
        help="such as 3.12 (default: what .python-version or pyproject.toml says, else the one that runs this)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def _version(text: str) -> str:
    if text and not (re.fullmatch(r"3\.\d+", text) and int(text[2:]) >= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is no version such as 3.12, from 3.9 on")
    return text


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.pack import dockerfile

    project = dockerfile.look(options.directory, options.python)
    print(dockerfile.write(project, venv=options.venv), end="")
    for note in (*project.notes, f"command: {project.command_why}"):
        print(f"note: {note}", file=sys.stderr)
    return 0
