"""Small directories of packages, and archives of them, quick to make."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from unpackenv.archive import writer
from unpackenv.archive.tarstream import DIRECTORY, FILE, HARD_LINK, SYMLINK
from unpackenv.archive.writer import Input, Written

TAG = sys.implementation.cache_tag


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Make a directory of text files, by path."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def pack_tree(path: Path, tree: Path, codec: str = "zstd", **facts: str) -> str:
    """Pack a tree for the interpreter that runs the tests, and return the digest."""
    described = {"python": [TAG], "import": [""], **{key.replace("_", "-"): [value] for key, value in facts.items()}}
    return pack(path, members_of(tree), codec, facts=described).digest


def members_of(root: Path) -> list[Input]:
    """Return the members of a tree, each directory followed by what is in it."""
    top = os.fsencode(root)
    members: list[Input] = []
    first_name: dict[int, bytes] = {}

    def scan(prefix: bytes) -> None:
        for entry in sorted(os.scandir(os.path.join(top, prefix)), key=lambda entry: entry.name):
            path = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            mode, mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime_ns // 10**9)
            if entry.is_symlink():
                members.append(Input(SYMLINK, path, 0o777, mtime, link=os.readlink(entry.path)))
            elif entry.is_dir(follow_symlinks=False):
                members.append(Input(DIRECTORY, path, mode, mtime))
                scan(path + b"/")
            elif status.st_ino in first_name:
                members.append(Input(HARD_LINK, path, mode, mtime, link=first_name[status.st_ino]))
            else:
                first_name[status.st_ino] = path
                members.append(Input(FILE, path, mode, mtime, status.st_size, source=os.fsdecode(entry.path)))

    scan(b"")
    return members


def pack(
    path: Path,
    members: Sequence[Input],
    codec: str = "zstd",
    *,
    frame_size: int = 20_000,
    workers: int = 1,
    level: int = 1,
    facts: dict[str, list[str]] | None = None,
) -> Written:
    """Write an archive at a level that costs a test nothing."""
    return writer.write(
        str(path),
        members,
        {"python": ["cpython-39"], "import": [""], **(facts or {})},
        codec=codec,
        level=level,
        frame_size=frame_size,
        workers=workers,
    )
