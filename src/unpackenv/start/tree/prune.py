"""Remove unused trees: a tree is in use while a process holds the shared lock on its stamp.

A tree is removed under the lock of its staging. Its stamp is removed first, and locked exclusively
until the end: a start that comes meanwhile finds no tree, waits for the place and unpacks again.
"""

from __future__ import annotations

import fcntl

from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt, LockTimeout, TargetRefused
from unpackenv.start import locations, stamp
from unpackenv.start.tree import lock
from unpackenv.start.tree.removal import remove_tree
from unpackenv.start.tree.staging import Sibling
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Looking at a stamp is no use of its tree: the access time stays.
_STAMP = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
REMOVED, LEFTOVER, IN_USE, RECENT = "removed", "removed what a killed start left", "in use", "used recently"


class Pruned:
    """One tree and its outcome; `size` is its unpacked size in bytes, where that is known."""

    __slots__ = ("outcome", "path", "size")

    def __init__(self, path: str, outcome: str, size: int = 0) -> None:
        self.path = path
        self.outcome = outcome
        self.size = size


def caches() -> list[str]:
    """Return the default places that hold trees: a start tags them before it unpacks there."""
    return [directory for directory in map(locations.trees_of, locations.roots().values()) if _is_cache(directory)]


def prune(directory: str, unused_for: float, dry_run: bool) -> Iterator[Pruned]:
    """Remove the trees in a cache that no process uses, or has begun to use in the last `unused_for` seconds.

    The time of the last use comes from the stamp. It is exact to the day; on a mount with noatime it is
    the time of the unpack. Raises `TargetRefused` for a directory that is no cache of
    unpackenv. If the system does not let a tree be removed, that is its outcome, and the next one follows.
    """
    if not os.path.isdir(directory):
        raise TargetRefused("is no directory", where=directory)
    if not _is_cache(directory):
        raise TargetRefused(
            f"has no {locations.CACHE_TAG} of unpackenv, so its contents may be of another program",
            where=directory,
            hint="Name the directory that holds the trees, such as /opt/unpackenv/env",
        )
    for name in sorted(_names(directory)):
        staging = Sibling(os.path.join(directory, name), is_cache=True)
        had_lock = os.path.lexists(staging.lock)
        try:
            lock_fd, _ = lock.acquire(staging.lock, timeout=0)
        except LockTimeout:
            yield Pruned(staging.target, IN_USE)
            continue
        except OSError as error:
            yield Pruned(staging.target, _refused(error))
            continue
        try:
            yield from _prune(staging, unused_for, dry_run)
            if not (had_lock if dry_run else os.path.lexists(staging.target)):
                os.unlink(staging.lock)
        except OSError as error:
            yield Pruned(staging.target, _refused(error))
        finally:
            os.close(lock_fd)


def _refused(error: OSError) -> str:
    return f"cannot be removed ({error.strerror})"


def _is_cache(directory: str) -> bool:
    """Whether a directory has the tag of unpackenv; other programs tag their caches, too."""
    try:
        fd = os.open(os.path.join(directory, locations.CACHE_TAG), _STAMP & ~os.O_NOATIME)
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
        else:
            names.add(stamp.tree_of(entry.name))
    return names - {"", ".", ".."}


def _prune(staging: Sibling, unused_for: float, dry_run: bool) -> Iterator[Pruned]:
    if any(map(os.path.lexists, staging.leftovers)):
        yield Pruned(staging.target, LEFTOVER)
        if not dry_run:
            staging.discard()
    if not os.path.isdir(staging.target) or os.path.islink(staging.target):
        return
    state = stamp.state_of(staging.target)
    if state == stamp.FILLING:
        yield Pruned(staging.target, IN_USE, _size_of(staging.target))
        return
    if state != stamp.COMPLETE:
        yield Pruned(staging.target, LEFTOVER)
        if not dry_run:
            remove_tree(staging.target)
        return
    fd = os.open(os.path.join(staging.target, stamp.NAME), _STAMP)
    try:
        size = _size(fd)
        status = os.fstat(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - max(status.st_atime, status.st_mtime) < unused_for:
            yield Pruned(staging.target, RECENT, size)
            return
        if not dry_run:
            stamp.remove(staging.target)
            remove_tree(staging.target)
        yield Pruned(staging.target, REMOVED, size)
    except BlockingIOError:
        yield Pruned(staging.target, IN_USE, size)
    finally:
        os.close(fd)


def _size_of(tree: str) -> int:
    fd = os.open(os.path.join(tree, stamp.NAME), _STAMP)
    try:
        return _size(fd)
    finally:
        os.close(fd)


def _size(stamp_fd: int) -> int:
    try:
        facts = facts_text.decode(os.pread(stamp_fd, 1 << 16, 0))
        return int(facts_text.first(facts, "unpacked-size", "0"))
    except (ArchiveCorrupt, ValueError):
        return 0
