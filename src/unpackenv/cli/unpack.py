"""`unpackenv unpack`: for init containers."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from unpackenv.cli.common import add_settings, has
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, UnpackenvError
from unpackenv.start.bootstrap import Unpack
from unpackenv.start.settings import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from unpackenv.archive.trailer import Identity
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
    add_settings(parser, without=("archive", "target", "missing", "force", "imports", "fill"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.start.tree import staging

    arguments = {setting.name: getattr(options, setting.name, None) for setting in TABLE}
    arguments.update(archive=options.archive, target=options.directory)
    try:
        report = _Watched(arguments).run()
    except UnpackenvError:
        return EXIT_BOOTSTRAP_FAILED
    if options.no_stamp:
        staging.forget(report.target)
    return 0


class _Watched(Unpack):
    """An unpack that shows its progress on a terminal."""

    is_last_word = True

    def unpack(self, identity: Identity) -> Report:
        if not (sys.stderr.isatty() and has("pack.progress")):
            return super().unpack(identity)
        from unpackenv.archive import facts
        from unpackenv.pack import progress

        self.attempt.is_announced = True  # by a bar
        size = facts.count(identity.facts, "unpacked-size")
        return progress.watched("unpack", size or None, partial(super().unpack, identity), self._cached())

    def _cached(self) -> Callable[[], int]:
        """Return what says how many bytes were fetched since now, and so are written to the cache if there is one."""
        traffic = self.settings.blob.traffic if self.settings.blob and self.settings.cache else None
        if traffic is None:
            return lambda: 0
        before = traffic.total()["bytes"]
        return lambda: int(traffic.total()["bytes"] - before)
