"""A directory that containers share: what one of them has fetched, the others read there.

DIR/ab/abcd….frame     the stored bytes of a frame, named by their sha256
DIR/ab/abcd….tail      the last bytes of an archive, and what is known of it, named by its digest
DIR/ab/abcd….manifest  a manifest of a registry, named by its sha256
DIR/ab/abcd….fetching  what a start is fetching, which it has locked: others wait for it

Nothing in it is trusted: bytes that do not have their hash are fetched again. A file gets its name when it is whole.
"""

from __future__ import annotations

import fcntl
import sys
from hashlib import sha256

from unpackenv.start.remote.remotefile import write_at
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME, TAIL, MANIFEST = ".frame", ".tail", ".manifest"
_FETCHING = ".fetching"
_DIGITS = 64
_LOOK, _LONGEST_LOOK = 0.01, 0.16
"""Seconds between two looks at what another start is fetching: few at first, but many starts may look."""
_ABANDONED = 3600.0
"""Seconds after which what a killed start was fetching is removed."""
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Cache:
    """The cache in a directory, of at most `limit` bytes after each start. What cannot be used is as if it were empty.

    Its methods raise no `OSError`: a start does without the cache then.
    """

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit

    def _path(self, name: str, suffix: str) -> str:
        return os.path.join(self._directory, name[:2], name + suffix)

    # --- frames ---

    def read_frame(self, name: str, buffer: memoryview) -> bool:
        """Fill a buffer with the frame that has this sha256; return whether that is there."""
        try:
            fd = _open_used(self._path(name, FRAME))
        except OSError:
            return False
        try:
            at = 0
            while at < len(buffer):
                got = os.preadv(fd, [buffer[at:]], at)
                if not got:
                    return False
                at += got
        except OSError:
            return False
        finally:
            os.close(fd)
        return sha256(buffer).hexdigest() == name

    def read(self, name: str, suffix: str) -> bytes:
        """Return what is kept under a name, unchecked; b"" for nothing."""
        try:
            fd = _open_used(self._path(name, suffix))
        except OSError:
            return b""
        try:
            return os.pread(fd, os.fstat(fd).st_size, 0)
        except OSError:
            return b""
        finally:
            os.close(fd)

    # --- fetching ---

    def lock(self, name: str, suffix: str = FRAME) -> Fetching | None:
        """Return the right to fetch something; None if another start has it, or if nothing can be written here."""
        path = self._path(name, suffix)
        while True:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                fd = os.open(path + _FETCHING, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o644)
            except OSError:
                return Fetching(path, -1)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return None
            if _is_at(fd, path + _FETCHING):
                return Fetching(path, fd)
            os.close(fd)  # meanwhile it has got its name

    def wait(self, name: str, timeout: float, read: Callable[[], bool], suffix: str = FRAME) -> Fetching | None:
        """Wait for another start that fetches something; return None when `read` could read it.

        If that start ended without it, or takes more than `timeout` seconds, return the right to fetch it.
        """
        deadline, pause = time.monotonic() + timeout, _LOOK
        while not read():
            fetching = self.lock(name, suffix)
            if fetching and read():  # just now
                fetching.give_up()
                return None
            if fetching:
                return fetching
            if time.monotonic() > deadline:
                return Fetching(self._path(name, suffix), -1)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
        return None

    # --- size ---

    def trim(self) -> int:
        """Remove what was not used for longest, until the rest fits the limit; return the bytes that are left."""
        return trim(self._directory, self._limit).left


def _open_used(path: str) -> int:
    """Open an entry to read it, and note that it was used now."""
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        os.utime(fd)
    except OSError:  # a cache that is not to be written
        pass
    return fd


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


class Fetching:
    """The right to fetch one entry of a cache; with `fd` -1, it is not kept there."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd

    def keep(self, data: bytes | memoryview) -> None:
        """Keep the fetched bytes in the cache, if there is room."""
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, 0)
            write_at(self._fd, data, 0)
            os.rename(self._path + _FETCHING, self._path)
        except OSError:
            self.give_up()
            return
        os.close(self._fd)
        self._fd = -1

    def give_up(self) -> None:
        """Leave the entry to others."""
        if self._fd < 0:
            return
        try:
            os.unlink(self._path + _FETCHING)
        except OSError:
            pass
        os.close(self._fd)
        self._fd = -1


class CacheEntry:
    """One file of a cache: its size in bytes, and when it was last used."""

    __slots__ = ("path", "size", "used")

    def __init__(self, path: str, size: int, used: float) -> None:
        self.path = path
        self.size = size
        self.used = used


class Trimmed:
    """What became of a cache: how many entries went, their bytes, the bytes that are left, and why others stayed."""

    __slots__ = ("count", "left", "refused", "removed")

    def __init__(self, left: int) -> None:
        self.count = 0
        self.removed = 0
        self.left = left
        self.refused = ""


def entries(directory: str) -> Iterator[CacheEntry]:
    """Yield what is in a cache: what is there to be used, or was left by killed starts."""
    for folder in _scan(directory):
        if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
            for each in _scan(folder.path):
                name, _, kind = each.name.partition(".")
                if name[:2] != folder.name or len(name) != _DIGITS or name.strip("0123456789abcdef"):
                    continue  # of another program
                try:
                    status = each.stat(follow_symlinks=False)
                except OSError:  # another start has removed it
                    continue
                is_left = kind.endswith(_FETCHING) and status.st_mtime < time.time() - _ABANDONED
                if is_left or f".{kind}" in (FRAME, TAIL, MANIFEST):
                    yield CacheEntry(each.path, status.st_size, 0.0 if is_left else status.st_mtime)


def _scan(directory: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(directory))
    except OSError:
        return []


def trim(directory: str, limit: int, unused_since: float = 0.0, *, dry_run: bool = False) -> Trimmed:
    """Remove entries that were last used before `unused_since`, and the oldest ones until the rest fits `limit` bytes.

    With `dry_run` nothing is removed, and the result is what would become of them.
    """
    found = sorted(entries(directory), key=lambda entry: entry.used)
    trimmed = Trimmed(sum(entry.size for entry in found))
    for entry in found:
        if trimmed.left <= limit and entry.used >= max(unused_since, 1.0):
            break
        try:
            if not dry_run:
                os.unlink(entry.path)
        except FileNotFoundError:  # another start has removed it
            trimmed.left -= entry.size
            continue
        except OSError as error:
            trimmed.refused = error.strerror or str(error)
            continue
        trimmed.count += 1
        trimmed.removed += entry.size
        trimmed.left -= entry.size
    return trimmed


def prune(directory: str, unused_for: float, dry_run: bool) -> Trimmed:
    """Remove what no start has used in the last `unused_for` seconds, however much there is."""
    return trim(directory, sys.maxsize, time.time() - unused_for, dry_run=dry_run)
