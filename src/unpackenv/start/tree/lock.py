"""One unpack for many starts: an exclusive `flock`, waited for with a timeout.

`flock`, because a POSIX record lock is dropped when any descriptor of the file is closed. It
belongs to the open file: the processes that do the work inherit it, and it is free only when the
last of them has ended. The file stays, with the name of the last holder in it. Only `prune` removes
it, and holds the lock meanwhile; a start that gets the lock of a removed file locks the new one.
"""

from __future__ import annotations

import errno
import fcntl
import stat

from unpackenv.errors import LockTimeout, TargetRefused
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def acquire(path: str, timeout: float, on_wait: Callable[[int], None] | None = None) -> tuple[int, bool]:
    """Lock the file at `path`, which is made if it is missing; return its descriptor and whether it had to wait.

    `timeout` is in seconds; `on_wait` is called again and again meanwhile, with a descriptor for `holder_of`. Raises
    `LockTimeout`, `TargetRefused` if something else is at `path`, or `OSError` if the file cannot be made.
    """
    pauses = _pauses(timeout)
    waited = False
    while True:
        fd = _open(path)
        try:
            while not _try(fd, path):
                if on_wait:
                    on_wait(fd)
                if not next(pauses, False):
                    raise _timeout(fd, path, timeout)
                waited = True
            if _is_at(fd, path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
                return fd, waited
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def holder_of(fd: int) -> str:
    """Return the name of the holder of an open lock, as it is in the file."""
    return os.pread(fd, 300, 0).decode("utf-8", "replace").strip() or "another process"


def _pauses(timeout: float) -> Iterator[bool]:
    """Sleep before each yield, a little longer each time, until `timeout` seconds have passed.

    flock has no timeout of its own, and an alarm signal would be the application's.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while time.monotonic() < deadline:
        time.sleep(pause)
        yield True
        pause = min(_LONGEST_PAUSE, pause * 2)


def _open(path: str) -> int:
    """Open the lock; refuse a link or a device, which others may have put there to redirect the write."""
    try:
        fd = os.open(path, _FLAGS, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _in_the_way(path) from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(fd)
        raise _in_the_way(path)
    return fd


def _in_the_way(path: str) -> TargetRefused:
    return TargetRefused(
        "is in the place of the lock, and is a link or no regular file",
        where=path,
        hint="Remove it, or name another target with UNPACKENV_TARGET",
    )


def _try(fd: int, path: str) -> bool:
    """Try to lock; return whether this process has the lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise TargetRefused(
            f"is on a file system that takes no locks ({error.strerror}), and starts would disturb each other",
            where=path,
            hint="Name a target on another file system with UNPACKENV_TARGET",
        ) from error
    return True


def _timeout(fd: int, path: str, timeout: float) -> LockTimeout:
    holder = holder_of(fd)
    return LockTimeout(
        f"{holder} has been unpacking for longer than {timeout:g} s",
        where=path,
        hint="Raise UNPACKENV_LOCK_TIMEOUT, or look what that process waits for",
        holder=holder,
    )


def _is_at(fd: int, path: str) -> bool:
    """Whether `path` still is the file that was locked."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
