"""A trace of one unpack, by worker and frame, in Chrome's trace event format; https://ui.perfetto.dev opens it.

Imported only where somebody asked for it. It puts itself around functions that are called once a frame, so that
the code that unpacks knows nothing of it. Each worker keeps its events until it has no more to do, and appends
them to the file, which has another name until the start has ended.
"""

from __future__ import annotations

import _thread

from unpackenv.start import report
from unpackenv.start.log import detail
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from unpackenv.start.report import Attempt, Clock

_HEAD = '{"displayTimeUnit": "ms", "traceEvents": [\n'
_TAIL = "\n]}\n"
# Phases of the process that started; the others are those of the one that unpacks.
_BEFORE = (report.CHECK, report.LOCK)


class Trace:
    """The trace of one start, on its way to the file `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Containers that share a volume may have the same process IDs.
        self._partial = f"{path}.{os.uname().nodename}.{os.getpid()}"
        self._mine = _Mine()
        self._remove()  # what a start left that was killed, in an earlier life of this container
        self._problem = detail.append(self._partial, _HEAD, "the trace")

    # --- what is called once a frame ---

    def watch_native(self, plan: Any, archive: Any) -> None:
        """Trace how the frames of `archive` are read, verified and decoded, and how `plan` writes them."""
        decoder = archive.decoder
        archive.read_stored = self._numbered(self._timed("read", archive.read_stored))
        archive.check_frame = self._timed("verify", archive.check_frame)
        archive.decoder = lambda: self._timed("decode", decoder())
        plan._write_frame = self._timed("write", plan._write_frame)
        plan.work = self._worker(plan.work)

    def watch_foreign(self, pieces: Any, job: Any) -> None:
        """Trace how `pieces` of the tar stream are decoded, which includes their read, and how `job` writes them."""
        pieces.fills = self._decoder(pieces.fills)
        job.take = self._counted(self._timed("write", job.take))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self._add(name, began, time.perf_counter() - began, {"frame": self._mine.frame})

        return timed

    def _numbered(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The first argument is the frame that this worker deals with from now on."""

        def numbered(frame: int, *arguments: object) -> Any:
            self._mine.frame = frame
            return call(frame, *arguments)

        return numbered

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Each call is for the next frame."""

        def counted(*arguments: object) -> Any:
            self._mine.frame += 1
            return call(*arguments)

        return counted

    def _worker(self, work: Callable[..., None]) -> Callable[..., None]:
        def worker(number: int, *arguments: object) -> None:
            self._begin(f"worker {number}")
            try:
                work(number, *arguments)
            finally:
                self._flush(",\n")

        return worker

    def _decoder(self, fills: Callable[[int, int], Iterator[Any]]) -> Callable[[int, int], Iterator[Any]]:
        def decoder(number: int, step: int) -> Iterator[Any]:
            self._begin(f"decoder {number}")
            try:
                for count, fill in enumerate(fills(number, step)):
                    self._mine.frame = number + count * step
                    yield self._timed("decode", fill)
            finally:
                self._flush(",\n")

        return decoder

    # --- phases ---

    def add_phases(self, clock: Clock) -> None:
        """Add the phases of the process that unpacks."""
        self._add_laps(clock, tuple(clock.phases))
        self._flush(",\n")

    def end(self, attempt: Attempt, *, forked: bool) -> None:
        """Add those of the process that started, and give the file its name; what is wrong with it stops no start.

        If it `forked`, it has waited since for the process that unpacks.
        """
        self._begin("start")
        ended = self._add_laps(attempt, _BEFORE)
        if forked:
            self._add(report.FORK, ended, time.perf_counter() - ended)
        self._flush(_TAIL)
        try:
            os.rename(self._partial, self._path)
        except (OSError, ValueError) as error:
            self._problem = self._problem or f"the trace {self._path} cannot be written ({error})"
            self._remove()
        if self._problem:
            attempt.warnings.append(self._problem)

    def _remove(self) -> None:
        try:
            os.unlink(self._partial)
        except (OSError, ValueError):
            pass

    def _add_laps(self, clock: Clock, names: tuple[str, ...]) -> float:
        """Add phases that followed each other; return when the last one ended."""
        began = clock.began
        for name in names:
            seconds = clock.phases.get(name, 0.0) / 1e3
            self._add(name, began, seconds)
            began += seconds
        return began

    # --- events ---

    def _begin(self, name: str) -> None:
        """Give this process or thread a name, and forget the events that a fork has brought along."""
        pid, tid = os.getpid(), _thread.get_native_id()
        kinds = ("process_name", "thread_name") if pid == tid else ("thread_name",)
        named: dict[str, object] = {"ph": "M", "pid": pid, "tid": tid, "args": {"name": f"unpackenv {name}"}}
        self._mine.events = [{**named, "name": kind} for kind in kinds]

    def _add(self, name: str, began: float, seconds: float, arguments: dict[str, int] | None = None) -> None:
        """Add what this process or thread did; times are in seconds here, and in microseconds there."""
        self._mine.events.append(
            {
                "ph": "X",
                "name": name,
                "cat": "unpackenv",
                "pid": os.getpid(),
                "tid": _thread.get_native_id(),
                "ts": round(began * 1e6, 1),
                "dur": round(seconds * 1e6, 1),
                "args": arguments or {},
            }
        )

    def _flush(self, end: str) -> None:
        text = ",\n".join(map(detail.encoded, self._mine.events)) + end
        self._mine.events = []
        if not self._problem:
            self._problem = detail.append(self._partial, text, "the trace")


class _Mine(_thread._local):
    """What one worker keeps: its events so far, and the frame that it deals with."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.frame = -1
