"""Show how far a long step is: by a bar on a terminal, elsewhere by a line every ten seconds.

`rich` draws the bar (extra `build`). The first process of a container shows none: with `docker run --tty` its log is a
terminal.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def step(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show one step of `total` units while entered, as `bar` does; without a bar, print at the end how long it took."""
    started = time.monotonic()
    shown = _bar(total) is not None
    with bar(name, total) as show:
        yield show
    if not shown:
        print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)


@contextmanager
def bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show one step of `total` units while entered; call what it yields, often, with the units done so far.

    Without a total the units are bytes, and no end is shown.
    """
    progress = _bar(total)
    if progress is None:
        yield _Lines(name, total)
        return
    with progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.update(task, completed=done)


class _Lines:
    """Prints every ten seconds how far a step is."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._began = self._last = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"{self._name}: {self._how_far(done, now - self._began)}", file=sys.stderr)

    def _how_far(self, done: int, seconds: float) -> str:
        if self._total is None:
            return f"{done / 1e6:.1f} MB so far"
        done = min(done, self._total)
        left = f", about {_in_words(seconds * (self._total - done) / done)} left" if done else ""
        return f"{100 * done // max(1, self._total)}%{left}"


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def watched(name: str, total: int | None, work: Callable[[], T], besides: Callable[[], int] = lambda: 0) -> T:
    """Return what `work` returns; meanwhile show how many of `total` bytes it and its child processes have written.

    A separate process draws: `rich` moves a bar in a thread, and an unpack does not fork in a process with threads.
    Without a total only the bytes are shown. `besides` says how many bytes were written so far that do not count.
    """
    progress = _bar(total, auto_refresh=False)
    if progress is None:
        return work()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writer)
        _draw(progress, name, total, os.getppid(), reader, besides)
    os.close(reader)
    try:
        return work()
    finally:
        with suppress(BrokenPipeError):
            os.write(writer, b".")  # closing alone ends nothing: the processes of an unpack have it open, too
        os.close(writer)
        with suppress(ChildProcessError):  # where SIGCHLD is ignored, there is no child to wait for
            os.waitpid(pid, 0)


def _bar(total: int | None, *, auto_refresh: bool = True) -> Progress | None:
    if not sys.stderr.isatty() or os.getpid() == 1:
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, FileSizeColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    amount = FileSizeColumn() if total is None else TextColumn("{task.percentage:>3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=auto_refresh)


def _draw(
    progress: Progress, name: str, total: int | None, watched: int, stop: int, besides: Callable[[], int]
) -> NoReturn:
    """Draw until there is something to read from `stop`, or its end; then end this process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the watched process says when to stop
        written: dict[int, int] = {}
        if not _readable(stop):  # else the work has ended already
            with progress:
                task = progress.add_task(name, total=total)
                while not _readable(stop):
                    written.update(_written(watched))
                    progress.update(task, completed=max(0, sum(written.values()) - besides()), refresh=True)
    finally:
        os._exit(0)


def _readable(fd: int) -> bool:
    """Whether there is something to read, or the end of file, within a moment."""
    return bool(select.select([fd], [], [], _SECONDS_BETWEEN_LOOKS)[0])


def _written(pid: int) -> Iterator[tuple[int, int]]:
    """Yield `pid` and its descendants except this process, each with the bytes that it has written (proc_pid_io(5))."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            yield pid, next(int(line.split()[1]) for line in file if line.startswith("wchar:"))
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children = [int(child) for child in file.read().split()]
            for child in children:
                if child != os.getpid():
                    yield from _written(child)
    except OSError:  # the process has just ended, or hides its figures
        return
