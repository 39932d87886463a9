"""`unpackenv prune`: remove trees that nobody uses."""

from __future__ import annotations

import argparse

from unpackenv.cli.common import duration, path

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
    parser.add_argument(
        "directories", type=path, metavar="DIR", nargs="*", help="holds the trees (default: the default places)"
    )
    parser.add_argument(
        "--older-than", type=duration, default="30d", metavar="TIME",
        help="unused for that long, such as 12h, 30d or 0 (default: 30d)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and leave it there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.report import amount
    from unpackenv.start import locations
    from unpackenv.start.tree import prune

    would = {
        prune.REMOVED: "would be removed",
        prune.LEFTOVER: "has what a killed start left, which would be removed",
    }
    directories = options.directories or prune.caches()
    any_tree = False
    for directory in directories:
        for finding in prune.prune(directory, options.older_than, options.dry_run):
            any_tree = True
            outcome = would.get(finding.outcome, finding.outcome) if options.dry_run else finding.outcome
            print(f"{finding.path}: {outcome}" + (f", {amount(finding.size)}" if finding.size else ""))
    if not any_tree:
        places = directories or map(locations.trees_of, locations.roots().values())
        print(f"nothing to remove: there are no trees in {', '.join(places)}")
    return 0
