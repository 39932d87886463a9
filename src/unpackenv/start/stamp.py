"""The stamp: one small file that says that a tree is complete, and of which archive.

It is written last and removed first. It holds no absolute path, so that a tree that is mounted
elsewhere is recognised. Who uses a tree holds a shared lock on its stamp.
"""

from __future__ import annotations

import os

from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt

NAME = ".unpackenv.stamp"
_VERSION = "1"
_LIMIT = 1 << 16


def read(tree: str) -> tuple[dict[str, list[str]], int] | None:
    """Return the facts of the stamp of `tree` and its open descriptor, locked shared; None without a stamp."""
    try:
        fd = os.open(os.path.join(tree, NAME), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    import fcntl  # not on Windows, where `bootstrap()` must still be able to say what it cannot do

    try:
        facts = facts_text.decode(os.read(fd, _LIMIT))
        if facts.get("stamp") == [_VERSION] and "end" in facts:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return facts, fd
    except (OSError, ArchiveCorrupt):
        pass
    os.close(fd)
    return None


def write(directory_fd: int, facts: dict[str, list[str]]) -> None:
    """Write the stamp into a directory, whole or not at all."""
    partial = NAME + ".partial"
    text = facts_text.encode({"stamp": [_VERSION], **facts, "end": ["1"]})
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644, dir_fd=directory_fd)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, text)
    finally:
        os.close(fd)
    os.rename(partial, NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def remove(directory: str) -> None:
    """Take the stamp of a tree away, so that no start trusts the tree any more."""
    try:
        os.unlink(os.path.join(directory, NAME))
    except FileNotFoundError:
        pass
