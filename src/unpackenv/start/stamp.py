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
FIFO = RESERVED + "fill"
"""While files are filled behind the application: a FIFO that the processes that fill them hold open."""
FILL_ALL = RESERVED + "fill-all"
"""In a tree that is filled on demand: somebody wants all of it."""
JOURNAL = RESERVED + "filled"
"""While files are filled behind the application: a byte for each, which is 0 until its content is whole."""
FILL_NAMES = (FIFO, FILL_ALL, JOURNAL)
LOCK, WORK = RESERVED + "lock", RESERVED + "work"
"""The lock and the work directory inside a target that is not replaced as a whole."""

# --- states of a tree ---
COMPLETE = "complete"
"""Its stamp is there: all that the archive holds was written."""
FILLING = "filling"
"""All names are there, and files are filled behind the applications that use it; without living processes that do so,
it is unfinished."""
UNFINISHED = "unfinished"
"""A start is writing it, or was killed meanwhile: the next one begins again."""
NO_TREE = ""
"""There is neither stamp nor mark: nothing, or the files of others."""

SYNCED = "synced"

FILL = "fill"
"""The fact of a stamp for a tree that is filled behind the application: one of the letters below."""
BEHIND, ON_DEMAND, WHOLE, SYNCED_WHOLE = "b", "d", "w", "s"
"""Files are missing, and are filled behind the application, or only when they are opened; none is missing if the
machine has not crashed since; none is missing."""
_KIND, _IS_FIFO = 0o170000, 0o010000  # of a mode, see inode(7)
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
    """Return the state of the tree at a path: `COMPLETE`, `FILLING`, `UNFINISHED` or `NO_TREE`.

    This is no use of the tree: the access time of its stamp stays.
    """
    if not os.path.exists(os.path.join(tree, NAME)):
        return UNFINISHED if os.path.exists(os.path.join(tree, UNFINISHED_MARK)) else NO_TREE
    is_filled = _has_living_fillers(tree)  # first: they say in the stamp that the tree is whole, and end then
    try:
        fd = _open_unseen(os.path.join(tree, NAME))
    except OSError:
        return COMPLETE
    try:
        if is_whole(fd):
            return COMPLETE
    except OSError:  # others have put a FIFO there
        return COMPLETE
    finally:
        os.close(fd)
    return FILLING if is_filled else UNFINISHED


def _open_unseen(path: str) -> int:
    """Open a file to read, if possible without a change of its access time."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # only its owner may do that
        return os.open(path, flags)


def _has_living_fillers(tree: str) -> bool:
    try:
        fd = os.open(os.path.join(tree, FIFO), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_mode & _KIND == _IS_FIFO and is_held(fd)
    finally:
        os.close(fd)


def is_shared(tree: str) -> bool:
    """Whether a tree was filled in place: others may have files in it, too."""
    return os.path.exists(os.path.join(tree, IN_PLACE_MARK))


def unfinish(tree: str, reason: str = "") -> None:
    """Replace the stamp with the mark, in one step: a start that is killed leaves one of them.

    The mark may hold the `reason` for applications that use the tree.
    """
    mark = os.path.join(tree, UNFINISHED_MARK)
    try:
        os.rename(os.path.join(tree, NAME), mark)
    except FileNotFoundError:
        pass
    touch(mark + ".new")  # a new file: readers of the stamp may have the old one open
    if reason:
        with open(mark + ".new", "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(reason)
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
    """Whether a tree needs no further check: it was synced, or written in this boot of the machine."""
    if FILL in facts and facts[FILL] != [WHOLE]:
        return facts[FILL] == [SYNCED_WHOLE]
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


# --- a tree that is filled behind the application ---


def make_fifo(tree: int) -> int:
    """Make the FIFO of the processes that fill the open directory `tree`; return their descriptor of it."""
    remove_fifo(tree)  # of a start that was killed
    os.mkfifo(FIFO, 0o644, dir_fd=tree)
    return os.open(FIFO, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=tree)


def remove_fifo(tree: int) -> None:
    """Remove the FIFO of the processes that fill a tree, and the wish to have all of it."""
    _remove(tree, (FIFO, FILL_ALL))


def remove_fill(tree: int) -> None:
    """Remove all that serves only while a tree is filled."""
    _remove(tree, FILL_NAMES)


def _remove(tree: int, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            os.unlink(name, dir_fd=tree)
        except FileNotFoundError:
            pass


def make_journal(tree: int, size: int) -> int:
    """Make the journal of a tree with `size` files; return its descriptor. It has all the blocks that it needs."""
    fd = os.open(JOURNAL, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=tree)
    os.pwrite(fd, bytes(size), 0)
    return fd


def is_left(tree: str, key: str) -> bool:
    """Whether files of a tree of archive `key` were filled in this boot, and nobody fills or uses it any more."""
    try:
        fd = _open_unseen(os.path.join(tree, NAME))
    except OSError:
        return False
    try:
        facts = facts_text.decode(os.read(fd, _LIMIT))
        if facts_text.first(facts, "key") != key or facts_text.first(facts, "boot") != boot_id() or is_whole(fd):
            return False
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (OSError, ArchiveCorrupt):
        return False
    finally:
        os.close(fd)


def is_all_wanted(tree: int) -> bool:
    """Whether somebody wants all of the open directory `tree`, which is filled on demand."""
    try:
        os.stat(FILL_ALL, dir_fd=tree, follow_symlinks=False)
    except OSError:
        return False
    return True


def open_fifo(tree: int) -> int:
    """Return a descriptor of the FIFO that is readable when the processes that fill the tree call, or have ended."""
    return os.open(FIFO, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=tree)


def is_held(fifo: int) -> bool:
    """Whether there are processes that fill the tree of an open FIFO."""
    import select

    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    for _, events in poll.poll(0):
        return not events & select.POLLHUP  # they call the watchers: what they have written is for these
    try:
        return os.read(fifo, 1) != b""
    except BlockingIOError:
        return True


def fill_of(stamp_fd: int) -> str:
    """Return how far the tree of an open stamp is filled: one of the letters; "" if it was unpacked before a start."""
    found = os.pread(stamp_fd, _LIMIT, 0).partition(b"\n%s=" % FILL.encode())[2]
    return found[:1].decode("ascii", "replace")


def is_whole(stamp_fd: int) -> bool:
    """Whether the tree of an open stamp has all of its files."""
    return fill_of(stamp_fd) not in (BEHIND, ON_DEMAND)


def set_fill(stamp_fd: int, letter: str) -> None:
    """Change how far the tree of an open stamp is filled: one byte, so that readers see the old or the new one."""
    at = os.pread(stamp_fd, _LIMIT, 0).index(b"\n%s=" % FILL.encode()) + len(FILL) + 2
    os.pwrite(stamp_fd, letter.encode(), at)


def failure(tree: int) -> str:
    """Return why the open directory `tree` could not be filled; "" if that is not known."""
    try:
        fd = os.open(UNFINISHED_MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=tree)
    except OSError:
        return ""
    try:
        return os.read(fd, _LIMIT).decode("utf-8", "replace")
    finally:
        os.close(fd)
