"""One line while a start takes long, so that nobody takes it for dead: after a second, and only among lines of text."""

from __future__ import annotations

import _signal

from unpackenv.start.machine import workers
from unpackenv.start.output import write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from unpackenv.archive.trailer import Identity
    from unpackenv.start.report import Attempt

    T = TypeVar("T")

AFTER_MS = 1000.0


def waiting(attempt: Attempt, holder: Callable[[], str], target: str) -> None:
    """Say for whom this start has been waiting, once it has lasted that long; `holder` is only asked then."""
    if is_wanted(attempt) and attempt.milliseconds >= AFTER_MS:
        attempt.has_said = True
        write_line(f"unpackenv: waiting for {holder()}, which is unpacking to {target}")


def is_wanted(attempt: Attempt) -> bool:
    """Whether the log is for people, and they have heard nothing of this start yet."""
    return attempt.log.form == "text" and not attempt.has_said


def unpacking(identity: Identity, target: str) -> str:
    """Return what there is to say of an unpack that takes long."""
    size = identity.facts.get("unpacked-size", [""])[0]  # nobody has checked it yet
    what = f"{int(size) / 1e6:.1f} MB" if size.isdecimal() and len(size) < 20 else identity.path
    return f"unpackenv: unpacking {what} to {target}"


def run(work: Callable[[], T], text: str, delay_ms: float, *, isolated: bool) -> T:
    """Return what `work` returns; write `text` to stderr if that takes longer than `delay_ms` milliseconds.

    In a process of our own (`isolated`) an alarm signal interrupts the work; in an application's a thread waits.
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
    except (OSError, RuntimeError):  # no thread is to be had, and so no line
        watcher = None
    try:
        return work()
    finally:
        working.release()
        if watcher:
            watcher.join()
