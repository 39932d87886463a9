"""What unpackenv keeps in a tree and beside it: the names, the states that they tell, and the stamp.

The stamp is one small file that says that a tree is complete, and of which archive. It is written last and removed
first. `boot` in it says how far it may be trusted after a crash of the machine (see `tree.reboot_check`). It holds no
absolute path, so that a tree that is mounted elsewhere is recognised. A process that uses a tree holds a shared lock on
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
"""In the place of the stamp while a tree is written at the target itself; in place, it is the journal, too."""
IN_PLACE_MARK = RESERVED + "in-place"
"""In a target that was filled in place: others have files there."""
PARTIAL = RESERVED + "partial."
"""Prefix of the name of a file that is being written in place."""
LOCK, WORK = RESERVED + "lock", RESERVED + "work"
"""The lock, and the directory that a tree is written in, of a target that stays where it is."""

# --- states of a tree ---
COMPLETE = "complete"
"""Its stamp is there: all that the archive holds was written."""
UNFINISHED = "unfinished"
"""A start is writing it, or was killed while it did: the next one begins anew."""
NOT_OURS = ""
"""There is neither stamp nor mark: nothing, or the files of others."""

SYNCED = "synced"
_VERSION = "1"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_LIMIT = 1 << 16


def beside(tree: str, what: str) -> str:
    """Return a path beside a tree: of its "lock", of what is written there ("work"), or of the "old" tree."""
    parent, name = os.path.split(tree)
    return os.path.join(parent, f".{name}{RESERVED}{what}")


def tree_beside(name: str) -> str:
    """Return the name of the tree that a name beside trees, as `beside` makes them, belongs to; "" if it is none."""
    return name[1:].partition(RESERVED)[0] if name.startswith(".") and RESERVED in name else ""


def state_of(tree: str) -> str:
    """Return the state of the tree at a path: `COMPLETE`, `UNFINISHED` or `NOT_OURS`."""
    if os.path.exists(os.path.join(tree, NAME)):
        return COMPLETE
    return UNFINISHED if os.path.exists(os.path.join(tree, UNFINISHED_MARK)) else NOT_OURS


def is_shared(tree: str) -> bool:
    """Whether a tree was filled in place, so that others may have files in it, too."""
    return os.path.exists(os.path.join(tree, IN_PLACE_MARK))


def unfinish(tree: str) -> None:
    """Put the mark in the place of the stamp, in one step: a start that is killed leaves one of them."""
    mark = os.path.join(tree, UNFINISHED_MARK)
    try:
        os.rename(os.path.join(tree, NAME), mark)
    except FileNotFoundError:
        pass
    touch(mark + ".new")  # a file that nobody who read the stamp has open
    os.rename(mark + ".new", mark)


def touch(path: str) -> None:
    """Make a file, if it is not there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))


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
