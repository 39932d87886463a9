"""`unpackenv unpack`: for init containers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from unpackenv.cli.common import add_settings, has
from unpackenv.errors import UnpackenvError
from unpackenv.start import entrypoint
from unpackenv.start.report import Attempt, Log
from unpackenv.start.settings import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands
    from unpackenv.start.report import Report


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "unpack",
        help="unpack an archive into a directory, for init containers",
        description="Unpack an archive into a directory, as a start would. A start that finds the directory uses it.",
    )
    parser.add_argument("archive", metavar="ARCHIVE", help="what `unpackenv pack` or tar wrote")
    parser.add_argument("-C", "--directory", metavar="DIR", required=True, help="absent or empty, unless --in-place")
    parser.add_argument("--no-stamp", action="store_true", help="leave the files of the archive and nothing else")
    add_settings(parser, without=("archive", "target", "missing", "force", "imports"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.start import bootstrap
    from unpackenv.start.tree import target

    arguments = {setting.name: getattr(options, setting.name, None) for setting in TABLE}
    arguments.update(archive=options.archive, target=options.directory)
    attempt = Attempt(Log(arguments))
    attempt.has_said = sys.stderr.isatty()  # a bar does
    try:
        done = bootstrap.unpack(arguments, attempt, lambda work: _watched(options.archive, work))
    except UnpackenvError as error:
        entrypoint.fail(error, attempt)
    if options.no_stamp:
        target.forget(done.target)
    return 0


def _watched(archive: str, work: Callable[[], Report]) -> Report:
    """Unpack under the eyes of whoever sits at a terminal."""
    from unpackenv.archive import trailer

    if not has("pack.progress"):
        return work()
    from unpackenv.pack import progress

    try:
        size = trailer.identify(archive).facts.get("unpacked-size")
    except UnpackenvError:  # the start says it better
        size = None
    return progress.watched("unpack", int(size[0]) if size else None, work)
