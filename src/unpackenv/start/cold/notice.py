"""One line for people if a start takes longer than a second: it shows that the start is alive. In text logs only."""

from __future__ import annotations

import _signal

from unpackenv.start.machine import workers
from unpackenv.start.process import write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from unpackenv.archive.trailer import Identity
    from unpackenv.start.report import Attempt

    T = TypeVar("T")

AFTER_MS = 1000.0


def waiting(attempt: Attempt, holder: Callable[[], str], target: str) -> None:
    """Write which process this start is waiting for, if it has lasted that long; only then is `holder` called."""
    if is_wanted(attempt) and attempt.milliseconds >= AFTER_MS:
        attempt.is_announced = True
        write_line(f"unpackenv: waiting for {holder()}, which is unpacking to {target}")


def is_wanted(attempt: Attempt) -> bool:
    """Whether the log is for people, and has no line of this start yet."""
    return attempt.log.form == "text" and not attempt.is_announced


def unpacking(identity: Identity, target: str) -> str:
    """Return the line for an unpack that takes long."""
    size = identity.facts.get("unpacked-size", [""])[0]  # not checked yet
    what = f"{int(size) / 1e6:.1f} MB" if size.isdecimal() and len(size) < 20 else identity.path
    return f"unpackenv: unpacking {what} to {target}"


def run(work: Callable[[], T], text: str, delay_ms: float, *, isolated: bool) -> T:
    """Return what `work` returns; write `text` to stderr if that takes longer than `delay_ms` milliseconds.

    In a process of its own (`isolated`) an alarm signal interrupts the work; in the application's, a thread waits.
    """
    return _with_alarm(work, text, delay_ms / 1e3) if isolated else _with_thread(work, text, delay_ms / 1e3)


def _with_alarm(work: Callable[[], T], text: str, delay: float) -> T:
    _signal.signal(_signal.SIGALRM, lambda *_: write_line(text))
    _signal.setitimer(_signal.ITIMER_REAL, max(delay, 1e-3))
    try:
        return work()
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)


def _with_thread(work: Callable[[], T], text: str, delay: float) -> T:
    import _thread

    working = _thread.allocate_lock()

    def watch() -> None:
        if not working.acquire(timeout=max(delay, 0)):
            write_line(text)

    working.acquire()
    try:
        watcher = workers.start(watch, processes=False)
    except (OSError, RuntimeError):  # no thread can be started: there is no line
        watcher = None
    try:
        return work()
    finally:
        working.release()
        if watcher:
            watcher.join()
