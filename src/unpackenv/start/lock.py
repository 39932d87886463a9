"""One unpack for many starts: an exclusive `flock`, waited for with a timeout.

`flock`, because a POSIX record lock is dropped when any descriptor of the file is closed. It
belongs to the open file, so the processes that do the work inherit it, and it is free only when
the last of them is gone.
"""

from __future__ import annotations

import fcntl
import os
import time

from unpackenv.errors import LockTimeout

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05


def acquire(path: str, timeout: float) -> tuple[int, bool]:
    """Lock the file at `path`, made if need be; return its descriptor and whether it had to wait.

    `timeout` is in seconds. Raises `LockTimeout`, or `OSError` if the file cannot be made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        waited = _wait(fd, path, timeout)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd, waited


def _wait(fd: int, path: str, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    pause = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return pause > 0
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise LockTimeout(
                    f"process {holder} has been unpacking for longer than {timeout:g} s",
                    where=path,
                    hint="Raise UNPACKENV_LOCK_TIMEOUT, or look what that process waits for",
                    holder=holder,
                ) from None
        # flock has no timeout of its own, and an alarm signal would be the application's.
        pause = min(_LONGEST_PAUSE, pause * 2 or _FIRST_PAUSE)
        time.sleep(pause)
