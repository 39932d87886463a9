"""Leases: an open of a leased file waits in the kernel until the holder of the lease gives the file free.

See "Leases" in fcntl(2). A lease belongs to the open file: it ends with its last descriptor, in whichever process. The
kernel breaks it by force when somebody has waited for `break_time()` seconds.
"""

from __future__ import annotations

import _signal
import fcntl

from unpackenv.archive import RESERVED
from unpackenv.unpatched import os, time

BREAK = _signal.SIGRTMIN + 5
"""Sent to the holder of a lease when somebody opens the file: with its descriptor, and queued, as this is a real-time
signal."""
OVERFLOW = _signal.SIGIO
"""Sent instead when the queue is full, without a descriptor."""
_BREAK_TIME = "/proc/sys/fs/lease-break-time"
_SIGINFO = 128  # bytes of a signalfd_siginfo, see signalfd(2): the signal's number comes first
_SIGNAL_FD = 20  # where its `ssi_fd` is


def block_signals() -> None:
    """Block both signals, so that they wait for `Breaks`; in every process that holds leases, before it does."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (BREAK, OVERFLOW))


def hold(fd: int) -> None:
    """Take a lease on a file that only this descriptor has open; raises `OSError` where there are none."""
    fcntl.fcntl(fd, fcntl.F_SETSIG, BREAK)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)


def take_over(fd: int) -> None:
    """Have the signals of an inherited lease sent to this process."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())


def is_wanted(fd: int) -> bool:
    """Whether somebody waits for the file, or was let in by force."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK


def give_free(fd: int) -> None:
    """End the lease, if it has not ended: opens that wait go on."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        pass


def break_time() -> float:
    """Return after how many seconds the kernel breaks a lease by force; infinite if it never does."""
    with open(_BREAK_TIME, encoding="ascii") as file:
        return float(file.read()) or float("inf")


def now() -> float:
    """Return the seconds since boot, those of a suspended machine included, as the kernel's limit counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def refusal(directory: int) -> str:
    """Return why files in the open `directory` cannot be filled behind the application; "" if they can."""
    name = RESERVED + "lease"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        hold(fd)
        give_free(fd)
        os.close(os.pidfd_open(os.getpid()))
        break_time()
    except OSError as error:
        return f"leases are not to be had ({error.strerror})"
    except AttributeError:
        return "this Python or kernel has no pidfd_open"
    finally:
        os.close(fd)
        os.unlink(name, dir_fd=directory)
    from importlib.machinery import PathFinder

    return "" if PathFinder.find_spec("_ctypes") else "this Python has no ctypes"


class Breaks:
    """Receives the signals that somebody waits, for the leases that this process owns."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        import ctypes

        mask = (ctypes.c_uint64 * 16)(1 << BREAK - 1 | 1 << OVERFLOW - 1)
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
        """Readable when there are signals."""
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def close(self) -> None:
        """Receive no more signals."""
        os.close(self.fd)

    def read(self) -> tuple[list[int], bool]:
        """Return the descriptors of the files that somebody waits for, and whether there are more that are not told."""
        wanted: list[int] = []
        overflow = False
        while True:
            try:
                data = os.read(self.fd, _SIGINFO * 64)
            except BlockingIOError:
                return wanted, overflow
            for at in range(0, len(data), _SIGINFO):
                if int.from_bytes(data[at : at + 4], "little") == OVERFLOW:
                    overflow = True
                else:
                    wanted.append(int.from_bytes(data[at + _SIGNAL_FD : at + _SIGNAL_FD + 4], "little"))
