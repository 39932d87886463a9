"""Removing trees that nobody uses: a tree is in use while a process holds the shared lock on its stamp.

A tree goes under the lock of its place, its stamp first and held exclusively until all is gone: a
start that comes meanwhile finds no tree, waits for the place and unpacks again.
"""

from __future__ import annotations

import fcntl

from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt, LockTimeout, TargetRefused
from unpackenv.start import places, stamp
from unpackenv.start.cold import lock
from unpackenv.start.tree.removal import remove_tree
from unpackenv.start.tree.target import OURS, Sibling
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# To look at a stamp is no use of its tree: its time of access stays.
_STAMP = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
REMOVED, LEFTOVER, IN_USE, RECENT = "removed", "removed what a killed start left", "in use", "used recently"


class Finding:
    """One tree and what became of it; `size` is its unpacked size in bytes, where that is known."""

    __slots__ = ("outcome", "path", "size")

    def __init__(self, path: str, outcome: str, size: int = 0) -> None:
        self.path = path
        self.outcome = outcome
        self.size = size


def caches() -> list[str]:
    """Return the default places that hold trees: a start tags them before it unpacks there."""
    return [directory for directory in map(places.trees_of, places.roots().values()) if _is_cache(directory)]


def prune(directory: str, unused_for: float, dry_run: bool) -> Iterator[Finding]:
    """Remove the trees in a cache that no process uses or has begun to use for `unused_for` seconds.

    When it was last used is told from the stamp's times: to the day, and not at all on a mount
    with noatime, where the time of the unpack counts. Raises `TargetRefused` for a directory that
    is no cache of ours. What the operating system refuses is a finding, and the next tree is looked at.
    """
    if not os.path.isdir(directory):
        raise TargetRefused("is no directory", where=directory)
    if not _is_cache(directory):
        raise TargetRefused(
            f"has no {places.CACHE_TAG} of unpackenv, so what it holds may be somebody else's",
            where=directory,
            hint="Name the directory that holds the trees, such as /opt/unpackenv/env",
        )
    for name in sorted(_names(directory)):
        place = Sibling(os.path.join(directory, name), ours=True)
        had_lock = os.path.lexists(place.lock)
        try:
            lock_fd, _ = lock.acquire(place.lock, timeout=0)
        except LockTimeout:
            yield Finding(place.target, IN_USE)
            continue
        except OSError as error:
            yield Finding(place.target, _refused(error))
            continue
        try:
            yield from _prune(place, unused_for, dry_run)
            if not (had_lock if dry_run else os.path.lexists(place.target)):
                os.unlink(place.lock)
        except OSError as error:
            yield Finding(place.target, _refused(error))
        finally:
            os.close(lock_fd)


def _refused(error: OSError) -> str:
    return f"cannot be removed ({error.strerror})"


def _is_cache(directory: str) -> bool:
    """Whether a directory has the tag that a start writes: caches of other programs have one, too."""
    try:
        fd = os.open(os.path.join(directory, places.CACHE_TAG), _STAMP & ~os.O_NOATIME)
    except OSError:
        return False
    try:
        return b"unpackenv" in os.read(fd, 1024)
    finally:
        os.close(fd)


def _names(directory: str) -> set[str]:
    """Return the names of trees that are, or were, in a directory."""
    names = set()
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            names.add(entry.name)
        elif entry.name.startswith(".") and OURS in entry.name:
            names.add(entry.name[1:].partition(OURS)[0])
    return names - {"", ".", ".."}


def _prune(place: Sibling, unused_for: float, dry_run: bool) -> Iterator[Finding]:
    if any(map(os.path.lexists, place.leftovers)):
        yield Finding(place.target, LEFTOVER)
        if not dry_run:
            place.discard()
    if not os.path.isdir(place.target) or os.path.islink(place.target):
        return
    try:
        fd = os.open(os.path.join(place.target, stamp.NAME), _STAMP)
    except FileNotFoundError:
        yield Finding(place.target, LEFTOVER)
        if not dry_run:
            remove_tree(place.target)
        return
    try:
        size = _size(fd)
        status = os.fstat(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - max(status.st_atime, status.st_mtime) < unused_for:
            yield Finding(place.target, RECENT, size)
            return
        if not dry_run:
            stamp.remove(place.target)
            remove_tree(place.target)
        yield Finding(place.target, REMOVED, size)
    except BlockingIOError:
        yield Finding(place.target, IN_USE, size)
    finally:
        os.close(fd)


def _size(stamp_fd: int) -> int:
    try:
        facts = facts_text.decode(os.pread(stamp_fd, 1 << 16, 0))
        return int(facts_text.first(facts, "unpacked-size", "0"))
    except (ArchiveCorrupt, ValueError):
        return 0
