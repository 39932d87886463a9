"""`unpackenv inspect`: what is in an archive."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from typing import Any

from unpackenv.cli.common import archive_settings, first_figures, first_files, open_archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.toc import Toc
    from unpackenv.cli.common import Commands

# The metadata of an installed package, directly in a directory of the import path.
_INSTALLED = re.compile(r"([^-/]+)-([^-/]+)(?:\.dist-info/METADATA|(?:-[^/]*)?\.egg-info(?:/PKG-INFO)?)")
_NUMBERS = ("level", "frame-size", "first", "small", "frames", "files", "members", "unpacked-size")
_SIZES = ("frame-size", "unpacked-size")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "inspect",
        help="say what is in an archive",
        description="Print an archive's digest, facts and packages.",
    )
    parser.add_argument("archive", metavar="ARCHIVE", nargs="?", default="", help="default: as for a start")
    parser.add_argument("--files", action="store_true", help="list the members")
    parser.add_argument("--first", action="store_true", help="list the files that `pack --first` put first")
    parser.add_argument("--json", action="store_true", help="print JSON, with the frames; sizes are in bytes")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.report import amount, counted

    with open_archive(archive_settings(options.archive)) as archive:
        toc = archive.toc
        size = archive.blob.size
        packages = _packages(toc, archive.facts.get("import", []))
        facts = {key: _number(key, values) for key, values in archive.facts.items()}
        recorded = facts.get("first")
        first = recorded if isinstance(recorded, int) else 0
        members = [
            _fields(toc, kind, path, row)
            for kind, path, row in toc.paths()
            if options.files or (options.first and kind == "file" and row < first)
        ]
    if options.json:
        frames = [{"stored": stored, "raw": raw} for stored, raw in zip(toc.frame_stored, toc.frame_raw)]
        report = {"digest": archive.digest, "size": size, "facts": facts, "packages": packages, "frames": frames}
        report["first"] = first_figures(toc, first)
        print(json.dumps({**report, "members": members} if options.files or options.first else report))
        return 0
    print(f"{archive.path}\n  digest {archive.digest}\n  size {amount(size)}")
    for key, value in facts.items():
        print(f"  {key} {first_files(toc, first) if key == 'first' and first else _line(_text(key, value))}")
    print(f"  largest frame {amount(max(toc.frame_stored))}, decoded {amount(max(toc.frame_raw))}")
    print(f"  {counted(len(packages), 'package')}")
    for package in packages:
        print(_line(f"    {package['name']} {package['version']}"))
    for member in members:
        columns = f"{member['mode']:04o} {amount(member['size']):>9} {_when(member['mtime']):>16} {member['kind']:<9}"
        link = f" -> {_line(member['link'])}" if "link" in member else ""
        print(f"{columns} {_line(member['path'])}{link}")
    return 0


def _packages(toc: Toc, import_paths: list[str]) -> list[dict[str, str]]:
    """Return name and version of each package, from the names of its metadata."""
    prefixes = [f"{path}/" if path else "" for path in import_paths]
    packages: set[tuple[str, str]] = set()
    for kind, raw, _ in toc.paths():
        path = os.fsdecode(raw)
        if kind in ("file", "hard link") and path.endswith(("-info/METADATA", "-info/PKG-INFO", ".egg-info")):
            matches = [_INSTALLED.fullmatch(path[len(start) :]) for start in prefixes if path.startswith(start)]
            packages.update((_normal(match[1]), match[2]) for match in matches if match)
    return [{"name": name, "version": version} for name, version in sorted(packages)]


def _normal(name: str) -> str:
    """Return the name of a package as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _number(key: str, values: list[str]) -> list[str] | int:
    return int(values[0]) if key in _NUMBERS and len(values) == 1 and values[0].isdecimal() else values


def _text(key: str, value: list[str] | int) -> str:
    from unpackenv.report import amount

    if isinstance(value, int):
        return amount(value) if key in _SIZES else f"{value:,}"
    return " ".join(each or "." for each in value)


def _when(mtime: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(mtime))
    except (OSError, ValueError, OverflowError):  # a year that no calendar has
        return str(mtime)


def _line(text: str) -> str:
    """Return a text as one line."""
    return text.replace("\n", "\\n")


def _fields(toc: Toc, kind: str, path: bytes, row: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": kind, "path": os.fsdecode(path), "mode": 0o777, "size": 0, "mtime": 0}
    if kind == "directory":
        fields.update(mode=toc.dir_mode[row], mtime=toc.dir_mtime[row])
    elif kind == "file":
        fields.update(mode=toc.file_mode[row], mtime=toc.file_mtime[row], size=toc.file_size[row])
    elif kind == "symlink":
        fields.update(mtime=toc.link_mtime[row], link=os.fsdecode(toc.link_targets[row]))
    elif kind == "hard link":
        file = toc.hard_file[row]
        fields.update(mode=toc.file_mode[file], mtime=toc.file_mtime[file])
        fields.update(link=os.fsdecode(toc.dir_paths()[toc.file_dir[file]] + toc.file_names[file]))
    return fields
