"""`unpackenv fill`: wait until a tree has all of its files."""

from __future__ import annotations

import argparse

from unpackenv.cli.common import add_json, path, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "fill",
        help="complete a tree that is filled behind an application, or on demand",
        description="Have every file of a tree filled, and wait until it is. Archive or copy a tree after that.",
    )
    parser.add_argument("directory", type=path, metavar="DIR", help="the target of a start")
    add_json(parser, "the tree, and whether it was whole already,")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.start.fill import joining

    was_whole = joining.complete(options.directory)
    found = {"target": options.directory, "was_whole": was_whole}
    say(options, found, [f"{options.directory}: has all of its files" + (" already" if was_whole else " now")])
    return 0
