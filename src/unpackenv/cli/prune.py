"""`unpackenv prune`: remove trees that nobody uses."""

from __future__ import annotations

import argparse

from unpackenv.cli.common import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prune",
        help="remove unpacked trees that nobody uses",
        description="Remove unpacked trees that no process uses and that no start has used for some time.",
    )
    parser.add_argument("directories", metavar="DIR", nargs="*", help="holds the trees (default: the default places)")
    parser.add_argument(
        "--older-than", type=duration, default="30d", metavar="TIME",
        help="unused for that long, such as 12h, 30d or 0 (default: 30d)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and leave it there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.report import amount
    from unpackenv.start import prune

    for directory in options.directories or prune.caches():
        for finding in prune.prune(directory, options.older_than, options.dry_run):
            size = f", {amount(finding.size)}" if finding.size else ""
            print(f"{finding.path}: {finding.outcome}{size}")
    return 0
