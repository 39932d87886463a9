"""The stamp: one small file that says that a tree is complete, and of which archive.

It is written last and removed first. `boot` says how far it may be trusted after a crash of the
machine (see `durable`). It holds no absolute path, so that a tree that is mounted
elsewhere is recognised. Who uses a tree holds a shared lock on its stamp.
"""

from __future__ import annotations

from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported
from unpackenv.unpatched import os

NAME = ".unpackenv.stamp"
SYNCED = "synced"
_VERSION = "1"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_LIMIT = 1 << 16


def read(tree: str) -> tuple[dict[str, list[str]], int] | None:
    """Return the facts of the stamp of `tree` and its open descriptor, locked shared; None without a stamp."""
    try:
        # Others may have put a FIFO there.
        fd = os.open(os.path.join(tree, NAME), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    import fcntl  # not on Windows, where `bootstrap()` must still be able to say what it cannot do

    try:
        facts = facts_text.decode(os.read(fd, _LIMIT))
        if facts.get("stamp") == [_VERSION] and "end" in facts:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # else the tree was pruned meanwhile
                return facts, fd
    except (OSError, ArchiveCorrupt):
        pass
    os.close(fd)
    return None


def beside(tree: str) -> str:
    """Return how the paths begin of what a start makes beside a tree."""
    parent, name = os.path.split(tree)
    return os.path.join(parent, f".{name}.unpackenv")


def is_certain(facts: dict[str, list[str]]) -> bool:
    """Whether no crash of the machine can have taken what a stamp vouches for: it was synced, or is of this boot."""
    return facts_text.first(facts, "boot") in (SYNCED, boot_id())


def boot_id() -> str:
    """Return the id of this boot of the machine; "" where /proc is missing."""
    try:
        fd = os.open(_BOOT_ID, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def write(directory_fd: int, facts: dict[str, list[str]], partial: str = NAME + ".partial") -> None:
    """Write the stamp into a directory, whole or not at all; `partial` is its name before, and goes with it."""
    text = facts_text.encode({"stamp": [_VERSION], **facts, "end": ["1"]})
    if len(text) > _LIMIT:  # `read` would not see its end
        raise ArchiveUnsupported("it names more directories to import from than a stamp can hold")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644, dir_fd=directory_fd)
    try:
        os.fchmod(fd, 0o644)
        while text:  # a disk that is almost full takes some of it, and says so the next time
            text = text[os.write(fd, text) :]
    finally:
        os.close(fd)
    os.rename(partial, NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def remove(directory: str) -> None:
    """Take the stamp of a tree away, so that no start trusts the tree any more."""
    try:
        os.unlink(os.path.join(directory, NAME))
    except FileNotFoundError:
        pass
