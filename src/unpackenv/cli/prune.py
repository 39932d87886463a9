"""`unpackenv prune`: remove trees that nobody uses, and what is old in a cache."""

from __future__ import annotations

import argparse
import os

from unpackenv.cli.common import add_json, duration, path, say
from unpackenv.errors import TargetRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prune",
        help="remove unpacked trees that nobody uses, and what is old in a cache",
        description="Remove unpacked trees that no process uses and that no start has used for some time. The same for "
        "what a cache has of remote archives.",
    )
    parser.add_argument(
        "directories", type=path, metavar="DIR", nargs="*", help="holds the trees (default: the default places)"
    )
    parser.add_argument(
        "--cache", type=path, default="", metavar="DIR",
        help="a cache of remote archives; no trees are removed unless their DIR is named, too (default: without any "
        "DIR, UNPACKENV_CACHE)",
    )  # fmt: skip
    parser.add_argument(
        "--older-than", type=duration, default="30d", metavar="TIME",
        help="unused for that long, such as 12h, 30d or 0 (default: 30d)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and leave it there")
    add_json(parser, "the trees that were looked at, with what became of them, and the cache,")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    fields: dict[str, object] = {"trees": [], "cache": None}
    lines: list[str] = []
    if options.cache or not options.directories:
        fields["cache"] = _prune_cache(options, lines)
    if options.directories or not options.cache:
        fields["trees"] = _prune_trees(options, lines)
    say(options, fields, lines)
    return 0


def _prune_trees(options: argparse.Namespace, lines: list[str]) -> list[dict[str, object]]:
    from unpackenv.report import amount
    from unpackenv.start import locations
    from unpackenv.start.tree import prune

    would = {
        prune.REMOVED: "would be removed",
        prune.LEFTOVER: "has what a killed start left, which would be removed",
    }
    directories = options.directories or prune.caches()
    found = []
    for directory in directories:
        for finding in prune.prune(directory, options.older_than, options.dry_run):
            outcome = would.get(finding.outcome, finding.outcome) if options.dry_run else finding.outcome
            lines.append(f"{finding.path}: {outcome}" + (f", {amount(finding.size)}" if finding.size else ""))
            found.append({"path": finding.path, "outcome": outcome, "size": finding.size})
    if not found:
        places = directories or map(locations.trees_of, locations.roots().values())
        lines.append(f"nothing to remove: there are no trees in {', '.join(places)}")
    return found


def _prune_cache(options: argparse.Namespace, lines: list[str]) -> dict[str, object] | None:
    """Remove what is old in the cache that is named, by the option or else by the environment."""
    from unpackenv.report import amount, counted
    from unpackenv.start.remote import cache

    directory = options.cache or path(os.environ.get("UNPACKENV_CACHE", ""))
    if not os.path.isdir(directory):
        if options.cache:
            raise TargetRefused("is no directory", where=directory)
        return None  # no start has made it yet
    found = cache.prune(directory, options.older_than, options.dry_run)
    what = f"{counted(found.count, 'file')}, {amount(found.removed)}"
    if options.dry_run:
        lines.append(f"{directory}: {what}, would be removed; {amount(found.left)} would be left")
    else:
        lines.append(f"{directory}: removed {what}; {amount(found.left)} left")
    if found.refused:
        lines.append(f"{directory}: other files cannot be removed ({found.refused})")
    refused = found.refused or None
    return {"path": directory, "files": found.count, "size": found.removed, "left": found.left, "refused": refused}
