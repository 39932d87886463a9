"""`unpackenv inspect`: what is in an archive."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from unpackenv.cli.common import archive_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.toc import Toc
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "inspect", help="say what is in an archive", description="Print an archive's facts, digest and frames."
    )
    parser.add_argument("archive", metavar="ARCHIVE", nargs="?", default="", help="default: as for a start")
    parser.add_argument("--files", action="store_true", help="list the members")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.archive import reader
    from unpackenv.start import places

    with reader.open_archive(places.find_archive(archive_settings(options.archive))) as archive:
        toc = archive.toc
        frames = [{"stored": stored, "raw": raw} for stored, raw in zip(toc.frame_stored, toc.frame_raw)]
        members = [_described(toc, *member) for member in toc.paths()] if options.files else []
        size = os.fstat(archive.fd).st_size
        if options.json:
            found: dict[str, object] = {
                "digest": archive.digest,
                "size": size,
                "facts": archive.facts,
                "frames": frames,
            }
            print(json.dumps({**found, "members": members} if options.files else found))
            return 0
        print(f"{archive.path}\n  digest {archive.digest}\n  size {size}")
        for key, values in archive.facts.items():
            print(f"  {key} {' '.join(value or '.' for value in values)}")
        print(f"  largest frame {max(toc.frame_stored)} stored, {max(toc.frame_raw)} raw")
        for member in members:
            columns = f"{member['mode']:04o} {member['size']:>12} {member['mtime']:>11} {member['kind']:<9}"
            link = f" -> {_line(member['link'])}" if "link" in member else ""
            print(f"{columns} {_line(member['path'])}{link}")
    return 0


def _line(text: str) -> str:
    """Return a name as one line."""
    return text.replace("\n", "\\n")


def _described(toc: Toc, kind: str, path: bytes, row: int) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": kind, "path": os.fsdecode(path), "mode": 0o777, "size": 0, "mtime": 0}
    if kind == "directory":
        described.update(mode=toc.dir_mode[row], mtime=toc.dir_mtime[row])
    elif kind == "file":
        described.update(mode=toc.file_mode[row], mtime=toc.file_mtime[row], size=toc.file_size[row])
    elif kind == "symlink":
        described.update(mtime=toc.link_mtime[row], link=os.fsdecode(toc.link_targets[row]))
    elif kind == "hard link":
        file = toc.hard_file[row]
        described.update(mode=toc.file_mode[file], mtime=toc.file_mtime[file])
        described.update(link=os.fsdecode(toc.dir_paths()[toc.file_dir[file]] + toc.file_names[file]))
    return described
