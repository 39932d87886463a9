"""The lines of the log in JSON; loaded only if such a log is wanted.

docs/timing-log.md describes the lines, docs/timing-log.schema.json is their JSON Schema.
"""

from __future__ import annotations

from unpackenv.errors import UnpackenvError
from unpackenv.start.machine import usage
from unpackenv.start.process import write_line
from unpackenv.start.report import FAILED, Attempt, Report
from unpackenv.start.settings import Log
from unpackenv.unpatched import os, time

SCHEMA = 1
# Not blocking, because a FIFO that nobody reads must not stop a start.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
# Windows has none of these, and an application's `mark()` must not fail there.
_APPEND |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def write_start(log: Log, report: Report, log_warnings: set[str]) -> None:
    """Write the line of a start that went well; `log_warnings` are those that are not repeated."""
    _write(log, {**_common("start"), **_plain({"outcome": report.outcome, **report.fields()})}, log_warnings)


def write_error(log: Log, error: UnpackenvError, attempt: Attempt, log_warnings: set[str]) -> None:
    """Write the line of a start that failed."""
    if attempt.usage:
        attempt.usage.add_lost_child()
    report = Report(FAILED)
    attempt.complete(report)
    if attempt.identity:
        report.digest, report.key = attempt.identity.digest, attempt.identity.key
    candidates = [attempt.candidate] if attempt.candidate else attempt.candidates
    if len(candidates) == 1:
        report.target, report.target_why = candidates[0].path, candidates[0].why
    fields = {name: value for name, value in report.fields().items() if name not in _OF_TREES}
    error_fields = {
        "reason": error.reason, "what": error.what, "where": error.where, "hint": error.hint, "facts": error.facts
    }  # fmt: skip
    _write(log, {**_common("error"), **_plain({"outcome": report.outcome, **error_fields, **fields})}, log_warnings)


# Fields that a start that failed has no values for.
_OF_TREES = ("bin", "files", "fill", "fill_why", "import_paths", "python", "size", "workers", "workers_why")


def write_mark(log: Log, fields: dict[str, object], log_warnings: set[str]) -> None:
    """Write the line of a point that the application has reached."""
    _write(log, {**_common("mark"), "warnings": [], **_plain(fields)}, log_warnings)


def write_filled(log: Log, pid: int, fields: dict[str, object]) -> None:
    """Write the line that the tree of the application `pid` is filled."""
    _write(log, {**_common("filled", pid), "warnings": [], **_plain(fields)}, set())


def write_killed(log: Log, pid: int, error: UnpackenvError) -> None:
    """Write the line that the application `pid` was killed, since its tree cannot be filled."""
    fields: dict[str, object] = {"reason": error.reason, "what": error.what, "where": error.where, "hint": error.hint}
    _write(log, {**_common("killed", pid), "warnings": [], **_plain(fields)}, set())


def _common(kind: str, pid: int = 0) -> dict[str, object]:
    """Return the fields that every line begins with, of this process or another one."""
    return {
        "unpackenv": kind,
        "schema": SCHEMA,
        "time": round(time.time(), 3),
        "host": os.uname().nodename,
        "pid": pid or os.getpid(),
        "process_ms": usage.age_of_process(pid),
    }


def _plain(fields: dict[str, object]) -> dict[str, object]:
    """Round milliseconds to microseconds, and replace empty texts with null."""
    return {name: _rounded(value) for name, value in fields.items()}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return None if value == "" else value


# --- writing --------------------------------------------------------------------------------------


def _write(log: Log, fields: dict[str, object], log_warnings: set[str]) -> None:
    problem = append(log.file, encoded(fields) + "\n", "the log file") if log.file else ""
    if problem and problem not in log_warnings:  # once a process: there may be many marks
        log_warnings.add(problem)
        if log.form == "json":  # a reader of JSON lines must find nothing else
            fields["warnings"] = [*_list(fields["warnings"]), problem]
        else:
            write_line(f"unpackenv: warning: {problem}")
    if log.form == "json":
        write_line(encoded(fields))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def append(path: str, text: str, what: str) -> str:
    """Append to a file in one write, so that no other one mixes in; return "", or why `what` cannot be written."""
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
    return "" if written == len(data) else f"{what} {path} was written only in part"


def encoded(value: object) -> str:
    """Return the JSON of plain values, in ASCII.

    Importing `json` takes 9 ms, since it imports `re`; its encoder in C alone takes a quarter of the time of a line.
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
