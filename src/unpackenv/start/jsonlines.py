"""Lines of the log as JSON, on stderr and in a file to which many processes append.

docs/timing-log.md says what is in them, docs/timing-log.schema.json as a JSON Schema.
"""

from __future__ import annotations

import os
import time

from unpackenv.errors import UnpackenvError
from unpackenv.start import report
from unpackenv.start.report import Attempt, Log, Report

SCHEMA = 1
# Not blocking, because a FIFO that nobody reads must not stop a start.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_warned: set[str] = set()


def write_start(log: Log, done: Report) -> None:
    """Write the line of a start that went well."""
    _write(log, {**_common("start"), **_plain(done.fields())})


def write_error(log: Log, error: UnpackenvError, attempt: Attempt) -> None:
    """Write the line of a start that failed."""
    known = Report("error")
    known.phases = attempt.phases
    known.milliseconds = attempt.milliseconds
    known.lock_wait_ms = attempt.lock_wait_ms
    known.tried = attempt.tried
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
    _write(log, {**_common("error"), **_plain({**fields, **told})})


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


def age_of_process() -> float | None:
    """Return the milliseconds since this process started, which the kernel counts in steps of 10; None if unknown."""
    try:
        with open("/proc/self/stat", "rb") as file:
            started = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return round(max(0.0, now - started / os.sysconf("SC_CLK_TCK")) * 1e3, 1)


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
    problem = _append(log.file, _encoded(fields)) if log.file else ""
    if problem and problem not in _warned:  # once a process: there may be many marks
        _warned.add(problem)
        if log.form == "json":  # what reads lines of JSON is to find nothing else
            fields["warnings"] = [*_list(fields["warnings"]), problem]
        else:
            report.write_line(f"unpackenv: warning: {problem}")
    if log.form == "json":
        report.write_line(_encoded(fields))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _append(path: str, line: str) -> str:
    """Append a line in one write, and return "" or what is wrong; the kernel lets no other write come in between."""
    data = (line + "\n").encode("ascii")
    try:
        fd = os.open(path, _APPEND, 0o644)
        try:
            written = os.write(fd, data)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return f"the log file {path} cannot be written ({why})"
    return "" if written == len(data) else f"the log file {path} took only a part of a line"


def _encoded(fields: dict[str, object]) -> str:
    """Return the JSON of `fields`, by the encoder below `json.dumps`: `json` itself takes 9 ms to import, with `re`."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:  # an interpreter that was built without it
        import json

        return json.dumps(fields, default=str)
    encode = make_encoder(None, str, encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return "".join(encode(fields, 0))
