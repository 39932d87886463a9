"""`unpackenv trace`: list the files that a program opens, in the order in which it does."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

from unpackenv.cli.common import path
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, TargetRefused, UnpackenvError
from unpackenv.start.command import Command
from unpackenv.start.entrypoint import EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, Wrapper
from unpackenv.start.report import Report
from unpackenv.start.settings import ON_DEMAND, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "trace",
        help="list the files that a program opens, for pack --first",
        usage="unpackenv trace -o FILE [--archive ARCHIVE] [-C DIR] -- CMD ARG…",
        description="Run CMD on a tree in which a file is filled only when it is opened, by CMD or by any program that "
        "it starts, and list these files in that order. `pack --first FILE` puts them first.",
    )
    parser.add_argument("-o", "--output", type=path, metavar="FILE", required=True, help="the list to write")
    parser.add_argument("--archive", type=path, default=None, metavar="ARCHIVE", help="default: as for a start")
    parser.add_argument(
        "-C", "--directory", type=path, default=None, metavar="DIR",
        help="where the tree is made, for the time being (default: the directory for temporary files)",
    )  # fmt: skip
    parser.add_argument("command", nargs="+", metavar="CMD", help="the program, with its arguments")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return the exit code of the program."""
    with open(options.output, "wb"):
        pass
    with tempfile.TemporaryDirectory(prefix="unpackenv-trace-", dir=options.directory) as parent:
        tree = os.path.join(parent, "tree")
        arguments = {"archive": options.archive, "target": tree, "fill": ON_DEMAND}
        start = _Recorded(arguments, Command(options.command), os.path.abspath(options.output))
        try:
            start.run()
        except UnpackenvError:
            return EXIT_BOOTSTRAP_FAILED
        start.prepare_command()
        os.environ["UNPACKENV_FILL"] = ON_DEMAND
        code = _run(options.command)
        files, size = _opened(options.output, tree)
    print(f"{options.output}: lists {files} files that were opened, {size / 1e6:.1f} MB", file=sys.stderr)
    return code


class _Recorded(Wrapper):
    """A start in whose tree every open of a file is recorded in the file `output`."""

    def __init__(self, arguments: dict[str, object], command: Command, output: str) -> None:
        super().__init__(arguments, command)
        self._output = output

    def read_settings(self) -> Settings:
        settings = super().read_settings()
        settings.record = self._output
        return settings

    def provide_tree(self) -> Report:
        report = super().provide_tree()
        if report.fill != ON_DEMAND:
            raise TargetRefused(
                f"files cannot be filled on demand there: {report.fill_why}",
                where=report.target,
                hint="Name a directory on a local file system with -C",
            )
        return report


def _run(command: list[str]) -> int:
    try:
        return subprocess.call(command)
    except FileNotFoundError as error:
        print(f"unpackenv: {command[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_NOT_FOUND
    except OSError as error:
        print(f"unpackenv: {command[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT_EXECUTE


def _opened(output: str, tree: str) -> tuple[int, int]:
    """Return how many files a list has, and their bytes in the tree."""
    with open(output, "rb") as lines:
        paths = [os.fsencode(tree) + b"/" + line.rstrip(b"\n") for line in lines]
    return len(paths), sum(os.stat(each).st_size for each in paths if os.path.exists(each))
