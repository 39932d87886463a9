"""`unpackenv hook`: make every interpreter import from the tree."""

from __future__ import annotations

import argparse

from unpackenv.cli.common import add_json, path, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "hook",
        help="make every interpreter of the image import from the unpacked tree",
        description="Write one .pth file into this interpreter's site directory, at image build: every interpreter "
        "that starts in the container, also by docker exec or a health check, imports from the unpacked tree.",
    )
    parser.add_argument(
        "--auto", action="store_true", help="the first interpreter to start unpacks; no code change needed"
    )
    parser.add_argument(
        "--archive",
        default="",
        type=path,
        metavar="FILE",
        help="the archive, unless UNPACKENV_ARCHIVE names one (default: a well-known name in /opt/unpackenv)",
    )
    parser.add_argument(
        "--target",
        default="",
        type=path,
        metavar="DIR",
        help="the target, unless UNPACKENV_TARGET names one (default: as for a start)",
    )
    parser.add_argument(
        "--site-dir", type=path, default="", metavar="DIR", help="the site directory (default: this interpreter's)"
    )
    parser.add_argument("--remove", action="store_true", help="remove the hook again, if there is one")
    add_json(parser, "the path of the hook, and what was done,")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.start.python import hook_file

    if options.remove:
        removed = hook_file.remove(options.site_dir)
        hook_path = hook_file.hook_path(options.site_dir)
        outcome = "removed" if removed else "nothing to remove: there is no hook at"
        say(options, {"hook": hook_path, "outcome": "removed" if removed else "absent"}, [f"{outcome} {hook_path}"])
        return 0
    hook_path = hook_file.install(
        auto=options.auto, archive=options.archive, target=options.target, site_directory=options.site_dir
    )
    say(options, {"hook": hook_path, "outcome": "written"}, [f"wrote {hook_path}"])
    return 0
