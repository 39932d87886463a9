"""A trace of one unpack, by worker and frame, in Chrome's trace event format; https://ui.perfetto.dev opens it.

Imported only if a trace is wanted. Each worker keeps its events until it has no more to do, and adds them to the file,
which has another name until the start has ended. Files that are filled behind the application are added after that: the
file is a whole trace at each moment.
"""

from __future__ import annotations

import _thread
import fcntl

from unpackenv.start.log import json_lines
from unpackenv.start.report import CHECK, FORK, LOCK
from unpackenv.start.unpack.source import Observer
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.report import Attempt, Clock

_HEAD = '{"displayTimeUnit": "ms", "traceEvents": [\n'
_TAIL = "\n]}\n"
_NEXT = ",\n"
# Phases of the process that starts; all others are of the process that unpacks.
_BEFORE = (CHECK, LOCK)


class Trace(Observer):
    """The trace of one start, on its way to the file `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Containers that share a volume may have the same process IDs.
        self._partial = f"{path}.{os.uname().nodename}.{os.getpid()}"
        self._mine = _Mine()
        self._fd = -1
        self._remove()  # a killed start may have left it, before this container restarted
        if os.path.exists(path) and not os.path.isfile(path):  # a device would be replaced
            self._problem = f"the trace {path} cannot be written (it is no regular file)"
        else:
            self._problem = json_lines.append(self._partial, _HEAD, "the trace")

    # --- steps of the workers ---

    def begin_worker(self, name: str) -> None:
        """Name this process or thread, and forget the events that it inherited in a fork."""
        pid, tid = os.getpid(), _thread.get_native_id()
        kinds = ("process_name", "thread_name") if pid == tid else ("thread_name",)
        named: dict[str, object] = {"ph": "M", "pid": pid, "tid": tid, "args": {"name": f"unpackenv {name}"}}
        self._mine.events = [{**named, "name": kind} for kind in kinds]

    def begin_step(self, frame: int = -1) -> None:
        self._mine.frame, self._mine.began = frame, time.perf_counter()

    def end_step(self, name: str) -> None:
        began, now, frame = self._mine.began, time.perf_counter(), self._mine.frame
        self._add(name, began, now - began, {"frame": frame} if frame >= 0 else {})
        self._mine.began = now

    def end_wait(self, path: str, seconds: float) -> None:
        """Add a wait, which may overlap with others and with steps: a pair of events of its own."""
        now = time.perf_counter()
        event: dict[str, object] = {"name": "wait", "cat": "open", "pid": os.getpid(), "tid": _thread.get_native_id()}
        event |= {"id": f"{now}", "args": {"path": path}}
        for kind, at in (("b", now - seconds), ("e", now)):
            self._mine.events.append({**event, "ph": kind, "ts": round(at * 1e6, 1)})
        self._flush()

    def end_worker(self) -> None:
        self._flush()

    # --- phases ---

    def add_phases(self, clock: Clock) -> None:
        """Add the phases of the process that unpacks."""
        self._add_phases(clock, tuple(clock.phases))
        self._flush()

    def keep_open(self) -> None:
        """Keep the file open, for this process and its children: they add to it when it has got its name."""
        try:
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, ValueError):  # it could not be made, which is known
            pass

    def end(self, attempt: Attempt, *, forked: bool) -> None:
        """Add the phases of the process that starts, and give the file its name; a failure stops no start.

        If that process `forked`, it has waited since for the one that unpacks.
        """
        self.begin_worker("start")
        ended = self._add_phases(attempt, _BEFORE)
        if forked:
            self._add(FORK, ended, time.perf_counter() - ended)
        self._flush(_TAIL)
        try:
            if not self._problem:
                os.rename(self._partial, self._path)
        except (OSError, ValueError) as error:
            self._problem = f"the trace {self._path} cannot be written ({error})"
        if self._problem:
            self._remove()
            attempt.warnings.append(self._problem)

    def _remove(self) -> None:
        try:
            os.unlink(self._partial)
        except (OSError, ValueError):
            pass

    def _add_phases(self, clock: Clock, names: tuple[str, ...]) -> float:
        """Add phases that followed each other; return when the last one ended."""
        began = clock.began
        for name in names:
            seconds = clock.phases.get(name, 0.0) / 1e3
            self._add(name, began, seconds)
            began += seconds
        return began

    # --- events ---

    def _add(self, name: str, began: float, seconds: float, arguments: dict[str, int] | None = None) -> None:
        """Add what this process or thread did; `began` and `seconds` are in seconds, the event in microseconds."""
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

    def _flush(self, end: str = _NEXT) -> None:
        text = _NEXT.join(map(json_lines.encoded, self._mine.events))
        self._mine.events = []
        if not self._problem and text:
            self._problem = self._insert(text, end)

    def _insert(self, text: str, end: str) -> str:
        """Add events: at the end of the file, or before its tail if it has got that meanwhile."""
        path = f"/proc/self/fd/{self._fd}" if self._fd >= 0 else self._partial
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # of this process, as its lock is
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                size = os.fstat(fd).st_size
                if os.pread(fd, len(_TAIL), size - len(_TAIL)) == _TAIL.encode():
                    text, size = _NEXT + text, size - len(_TAIL)
                    end = _TAIL
                os.pwrite(fd, (text + end).encode("ascii"), size)
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            return f"the trace {self._path} cannot be written ({error})"
        return ""


class _Mine(_thread._local):
    """The state of one worker: its events so far, its frame, and when its step began."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.frame = -1
        self.began = 0.0
