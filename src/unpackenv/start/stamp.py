"""What unpackenv keeps in a tree and next to it: the names, the states that they show, and the stamp.

The stamp is a small file. It says that a tree is complete, and which archive it is from. It is written last and removed
first. Its fact `boot` says how far to trust it after a crash of the machine (see `tree.reboot_check`). It holds no
absolute path: a tree that is mounted elsewhere is recognised, too. A process that uses a tree holds a shared lock on
its stamp.
"""

from __future__ import annotations

from unpackenv.archive import RESERVED
from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported
from unpackenv.unpatched import os

# --- names in a tree ---
NAME = RESERVED + "stamp"
UNFINISHED_MARK = RESERVED + "unfinished"
"""Replaces the stamp while a tree is written in the target itself; with in-place, it is the journal, too."""
IN_PLACE_MARK = RESERVED + "in-place"
"""In a target that was filled in place: others have files there."""
PARTIAL = RESERVED + "partial."
"""Prefix of the name of a file that is being written in place."""
LOCK, WORK = RESERVED + "lock", RESERVED + "work"
"""The lock and the work directory inside a target that is not replaced as a whole."""

# --- states of a tree ---
COMPLETE = "complete"
"""Its stamp is there: all that the archive holds was written."""
UNFINISHED = "unfinished"
"""A start is writing it, or was killed meanwhile: the next one begins again."""
NO_TREE = ""
"""There is neither stamp nor mark: nothing, or the files of others."""

SYNCED = "synced"
_VERSION = "1"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_LIMIT = 1 << 16


def beside(tree: str, what: str) -> str:
    """Return a path next to a tree: of its "lock", of its "work" directory, or of the "old" tree that it replaces."""
    parent, name = os.path.split(tree)
    return os.path.join(parent, f".{name}{RESERVED}{what}")


def tree_of(name: str) -> str:
    """Return the name of the tree that a name made by `beside` belongs to; "" for any other name."""
    return name[1:].partition(RESERVED)[0] if name.startswith(".") and RESERVED in name else ""


def state_of(tree: str) -> str:
    """Return the state of the tree at a path: `COMPLETE`, `UNFINISHED` or `NO_TREE`."""
    if os.path.exists(os.path.join(tree, NAME)):
        return COMPLETE
    return UNFINISHED if os.path.exists(os.path.join(tree, UNFINISHED_MARK)) else NO_TREE


def is_shared(tree: str) -> bool:
    """Whether a tree was filled in place: others may have files in it, too."""
    return os.path.exists(os.path.join(tree, IN_PLACE_MARK))


def unfinish(tree: str) -> None:
    """Replace the stamp with the mark, in one step: a start that is killed leaves one of them."""
    mark = os.path.join(tree, UNFINISHED_MARK)
    try:
        os.rename(os.path.join(tree, NAME), mark)
    except FileNotFoundError:
        pass
    touch(mark + ".new")  # a new file: readers of the stamp may have the old one open
    os.rename(mark + ".new", mark)


def touch(path: str) -> None:
    """Make a file if there is none."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))


def read(tree: str) -> tuple[dict[str, list[str]], int] | None:
    """Return the facts of the stamp of `tree` and its open descriptor, locked shared; None without a stamp."""
    try:
        # Others may have put a FIFO there.
        fd = os.open(os.path.join(tree, NAME), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    import fcntl  # not on Windows, where `bootstrap()` must still raise its own error

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


def is_certain(facts: dict[str, list[str]]) -> bool:
    """Whether a tree needs no check after a crash of the machine: it was synced, or is of this boot."""
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
    """Write the stamp into a directory, whole or not at all: as `partial`, which is then renamed."""
    text = facts_text.encode({"stamp": [_VERSION], **facts, "end": ["1"]})
    if len(text) > _LIMIT:  # `read` would not see its end
        raise ArchiveUnsupported("it names more directories to import from than a stamp can hold")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644, dir_fd=directory_fd)
    try:
        os.fchmod(fd, 0o644)
        while text:  # an almost full disk takes a part of it, and fails at the next call
            text = text[os.write(fd, text) :]
    finally:
        os.close(fd)
    os.rename(partial, NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def remove(directory: str) -> None:
    """Remove the stamp of a tree: no start will trust the tree any more."""
    try:
        os.unlink(os.path.join(directory, NAME))
    except FileNotFoundError:
        pass
