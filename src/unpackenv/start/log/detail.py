"""The log in detail: what only its lines in JSON tell of a start, and how these are written.

One module, because it is loaded only where somebody asked for such lines or a start is cold, and each module
costs a warm start 0.1 ms. docs/timing-log.md says what is in the lines, docs/timing-log.schema.json as a JSON Schema.
"""

from __future__ import annotations

from unpackenv.errors import UnpackenvError
from unpackenv.start import report
from unpackenv.start.report import Attempt, Log, Report
from unpackenv.unpatched import os, time

SCHEMA = 1
# Not blocking, because a FIFO that nobody reads must not stop a start.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
# Windows, where an application's `mark()` must not fail either, has none of these.
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_APPEND |= _CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_warned: set[str] = set()


def write_start(log: Log, done: Report) -> None:
    """Write the line of a start that went well."""
    _write(log, {**_common("start"), **_plain({"outcome": done.outcome, **done.fields()})})


def write_error(log: Log, error: UnpackenvError, attempt: Attempt) -> None:
    """Write the line of a start that failed."""
    known = Report(report.FAILED)
    known.phases = attempt.phases
    known.milliseconds = attempt.milliseconds
    known.lock_wait_ms = attempt.lock_wait_ms
    known.tried = attempt.tried
    known.warnings = attempt.warnings
    if attempt.identity:
        known.archive, known.archive_size = attempt.identity.path, attempt.identity.size
        known.digest, known.key = attempt.identity.digest, attempt.identity.key
    places = [attempt.place] if attempt.place else attempt.candidates
    if len(places) == 1:
        known.target, known.target_why = places[0].path, places[0].why
    if attempt.usage:
        attempt.usage.add_lost_child()
        known.cpu_ms, known.throttled_ms, known.peak_rss = attempt.usage.so_far()
    fields = {name: value for name, value in known.fields().items() if name not in _OF_TREES}
    told = {"reason": error.reason, "what": error.what, "where": error.where, "hint": error.hint, "facts": error.facts}
    _write(log, {**_common("error"), **_plain({"outcome": known.outcome, **told, **fields})})


# What a start that failed has nothing of.
_OF_TREES = ("bin", "files", "import_paths", "python", "size", "workers", "workers_why")


def write_mark(log: Log, fields: dict[str, object]) -> None:
    """Write the line of a point that the application has reached."""
    _write(log, {**_common("mark"), "warnings": [], **_plain(fields)})


def _common(kind: str) -> dict[str, object]:
    """What every line begins with."""
    return {
        "unpackenv": kind,
        "schema": SCHEMA,
        "time": round(time.time(), 3),
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "process_ms": age_of_process(),
    }


def _plain(fields: dict[str, object]) -> dict[str, object]:
    """Round milliseconds to microseconds, and say null for what has no value."""
    return {name: _rounded(value) for name, value in fields.items()}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return _plain(value)
    return None if value == "" else value


# --- writing --------------------------------------------------------------------------------------


def _write(log: Log, fields: dict[str, object]) -> None:
    problem = append(log.file, encoded(fields) + "\n", "the log file") if log.file else ""
    if problem and problem not in _warned:  # once a process: there may be many marks
        _warned.add(problem)
        if log.form == "json":  # what reads lines of JSON is to find nothing else
            fields["warnings"] = [*_list(fields["warnings"]), problem]
        else:
            report.write_line(f"unpackenv: warning: {problem}")
    if log.form == "json":
        report.write_line(encoded(fields))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def append(path: str, text: str, what: str) -> str:
    """Append to a file in one write, with which no other one mixes; return "", or why `what` cannot be written."""
    data = text.encode("ascii")
    try:
        fd = os.open(path, _APPEND, 0o644)
        try:
            written = os.write(fd, data)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no path"
        return f"{what} {path} cannot be written ({why})"
    return "" if written == len(data) else f"{what} {path} took only a part of what there was to write"


def encoded(value: object) -> str:
    """Return the JSON of plain values, in ASCII.

    Importing `json` takes 9 ms, since it imports `re`; loading its encoder in C alone a quarter of what a line costs.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
            return f'"{value}"'
        import json

        return json.dumps(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{encoded(name)}: {encoded(each)}" for name, each in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(encoded, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if isinstance(value, (int, float)) else encoded(str(value))


# --- what a start used ---------------------------------------------------------------------------


class Usage:
    """CPU time, throttling and peak memory, from when this is made."""

    __slots__ = ("_child_cpu_ms", "_child_rss", "_children", "_cpu", "_stat", "_throttled")

    def __init__(self) -> None:
        self._stat, self._throttled = find_throttled()
        self._cpu = time.process_time()
        self._children = _children_ms()
        self._child_cpu_ms = 0.0
        self._child_rss = 0

    def add_child(self, cpu_ms: float, peak_rss: int) -> None:
        """Add what a child said of itself with `usage_of_tree`."""
        self._child_cpu_ms += cpu_ms
        self._child_rss = max(self._child_rss, peak_rss)

    def add_lost_child(self) -> None:
        """Add what is known of a child that ended without a word: the largest that this process ever had."""
        self.add_child(0.0, _used_by_children()[1])

    def so_far(self) -> tuple[float, float | None, int | None]:
        """Return the CPU time, the throttled time (both in milliseconds) and the peak of memory (bytes).

        The CPU time is that of this process and its children, the throttled one None where the kernel
        counts none; the memory is that of the largest process, None where /proc is missing.
        """
        cpu_ms = (time.process_time() - self._cpu) * 1e3
        # Of all children the kernel's count has steps of 10 ms, and none where the program ignores SIGCHLD.
        cpu_ms += max(self._child_cpu_ms, _children_ms() - self._children)
        throttled = _throttled_ms(self._stat) if self._throttled is not None else None
        if throttled is not None and self._throttled is not None:
            throttled -= self._throttled
        return cpu_ms, throttled, max(_peak_rss(), self._child_rss) or None


def usage_of_tree() -> tuple[float, int]:
    """Return the CPU time in milliseconds of this process and its children, and the peak of the largest in bytes."""
    cpu_ms, peak_rss = _used_by_children()
    return time.process_time() * 1e3 + cpu_ms, max(_peak_rss(), peak_rss)


def age_of_process() -> float | None:
    """Return the milliseconds since this process started, which the kernel counts in steps of 10; None if unknown."""
    fields = _read("/proc/self/stat").rpartition(b")")[2].split()
    if not fields:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round(max(0.0, age) * 1e3, 1)


def _children_ms() -> float:
    times = os.times()
    return (times.children_user + times.children_system) * 1e3


def _peak_rss() -> int:
    """Return the peak of this process; `getrusage` would count the program that it was before an exec, too."""
    kilobytes = _read("/proc/self/status").partition(b"\nVmHWM:")[2].split(None, 1)
    return int(kilobytes[0]) << 10 if kilobytes else 0


def _used_by_children() -> tuple[float, int]:
    """Return CPU time in milliseconds, and the peak of the largest, of all that this process and they waited for."""
    try:
        import resource
    except ImportError:  # some interpreters come without
        return _children_ms(), 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e3, used.ru_maxrss << 10


# --- throttling ----------------------------------------------------------------------------------


def find_throttled(root: str = "/") -> tuple[str, float | None]:
    """Return the file that counts how long the own cgroup was throttled, and its count so far, as `_throttled_ms` does.

    Cgroups are looked for where every system mounts them: reading the list of mounts, as `limits` does, would take
    longer than all else here. Seen from inside a container the path may be the host's; then its own is the root.
    """
    for line in _read(f"{root}proc/self/cgroup").splitlines():
        number, controllers, path = os.fsdecode(line).split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            mount = f"{root}sys/fs/cgroup" + ("" if number == "0" else "/cpu")
            for directory in (mount + path, mount):
                stat = os.path.join(directory, "cpu.stat")
                count = _throttled_ms(stat)
                if count is not None:
                    return stat, count
    return "", None


def _throttled_ms(stat: str) -> float | None:
    """Return the milliseconds in a cpu.stat for which its cgroup was throttled, summed over CPUs; None without such."""
    for line in _read(stat).splitlines():
        name, _, count = line.partition(b" ")
        if name == b"throttled_usec":  # cgroups v2
            return int(count) / 1e3
        if name == b"throttled_time":  # v1: nanoseconds
            return int(count) / 1e6
    return None


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | _CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 1 << 14)
    except OSError:
        return b""
    finally:
        os.close(fd)
