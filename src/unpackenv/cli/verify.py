"""`unpackenv verify`: check an archive or a tree."""

from __future__ import annotations

import argparse
import os
import sys

from unpackenv.cli.common import add_json, archive_settings, bar, open_archive, path, say
from unpackenv.errors import TreeMismatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from unpackenv.archive.compare import Difference
    from unpackenv.archive.reader import Archive
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "verify",
        help="check an archive, or a tree against its archive",
        description="Check every frame and every member of an archive; with --target, compare a tree with the archive. "
        "Exits with 1 if the tree differs, with 125 if the archive is damaged.",
    )
    parser.add_argument("archive", metavar="ARCHIVE", nargs="?", default="", help="default: as for a start")
    parser.add_argument(
        "--target", type=path, metavar="DIR", help="the tree to compare (default: none, check the archive by itself)"
    )
    parser.add_argument("--digest", metavar="SHA256", help="the digest that the archive must have (default: any)")
    add_json(parser, "what was compared, and each difference,")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.archive import compare, verify
    from unpackenv.report import counted
    from unpackenv.start import stamp
    from unpackenv.start.fill import joining
    from unpackenv.start.python import relocation

    settings = archive_settings(options.archive, options.digest)
    if options.target is None:
        with open_archive(settings) as archive:
            with bar("verify", archive.toc.raw_size) as show:
                verify.verify_open(archive, show)
            say(options, _fields(archive), [f"{archive.path}: sound"])
        return 0
    if not os.path.isdir(options.target):
        raise TreeMismatch("there is no such tree", where=options.target)
    if stamp.state_of(options.target) == stamp.FILLING:
        joining.complete(options.target)  # a file has another mtime while it is written
    with open_archive(settings) as archive, bar("verify", archive.toc.raw_size) as show:
        tag = archive.facts.get("python", [""])[0]
        made_at = relocation.made_at(archive.facts)
        # A directory that was filled in place may hold other files, too.
        extra = not stamp.is_shared(options.target)
        place = relocation.place_of_scripts(options.target)
        rewritten = relocation.rewriter(archive.facts, place)
        differences = compare.compare_tree(
            archive, options.target, tag, extra=extra, rewritten=rewritten, on_progress=show
        )
    lines = [f"{one.kind}: {one.path}" + (f" ({one.detail})" if one.detail else "") for one in differences]
    scripts = f", its scripts rewritten for {place}" if place not in ("", made_at) else ""
    say(
        options,
        _fields(archive, options.target, differences),
        lines or [f"{options.target}: complete and unaltered{scripts}"],
    )
    if differences:
        # Other files in a directory that was filled in place must not be removed with the tree.
        to_remove = "it" if extra else os.path.join(options.target, stamp.NAME)
        count = counted(len(differences), "difference")
        print(f"{options.target}: {count}. Remove {to_remove}, and the next start unpacks again", file=sys.stderr)
    return 1 if differences else 0


def _fields(archive: Archive, target: str | None = None, differences: Iterable[Difference] = ()) -> dict[str, object]:
    found = [difference._asdict() for difference in differences]
    return {"archive": archive.path, "digest": archive.digest, "target": target, "differences": found}
