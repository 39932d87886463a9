"""Timing logs: the JSON lines of many starts, found among whatever else a container wrote.

A line of ours is known by `{"unpackenv": …`, wherever it begins: `docker compose logs` and log shippers
put a name or a time before it. All other lines are counted and left alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unpackenv.errors import TimingLogUnreadable
from unpackenv.report import counted
from unpackenv.report.timings import words

STDIN = "-"
_OURS = b'{"unpackenv":'
_SCHEMA = 1
_TEXT_LINE = b"unpackenv: "
_YEAR_3000 = 32_503_680_000
# No figure of a start is as large; what is would leave no room for the others in a picture.
_LARGEST = 1e15


@dataclass(frozen=True)
class Error:
    """Why a start failed: a stable code, and in words what, where, and what to do."""

    reason: str
    what: str
    where: str
    hint: str


@dataclass(frozen=True)
class Start:
    """One start. Times are in milliseconds, `time` is in seconds since 1970; None where the log does not know.

    `phases` are in their order; if all went well, together they are `milliseconds`. `process_ms` is the time
    from the start of the process to the end of the bootstrap. `where` names file and line of the log.
    """

    where: str
    outcome: str
    milliseconds: float
    phases: dict[str, float]
    lock_wait_ms: float
    time: float | None
    process_ms: float | None
    throttled_ms: float | None
    cpu_ms: float | None
    workers: int
    workers_why: str
    files: int
    size: int
    target: str
    error: Error | None

    @property
    def steps(self) -> dict[str, float]:
        """The phases, and of a start that failed what it was doing then."""
        rest = self.milliseconds - sum(self.phases.values())
        return {**self.phases, words.UNTIL_FAILED.name: rest} if self.error and rest > 0 else self.phases


@dataclass(frozen=True)
class Import:
    """One slow import: milliseconds of the module alone, and with all that it imported first."""

    module: str
    self_ms: float
    cumulative_ms: float


@dataclass(frozen=True)
class Mark:
    """A point that an application named. Milliseconds since its process started, since the bootstrap ended, and
    how many of the latter were spent importing; None where the log does not know. `start` is the process's own.
    """

    name: str
    process_ms: float | None
    bootstrap_ms: float | None
    import_ms: float | None
    imports: list[Import]
    start: Start | None


@dataclass
class Log:
    """What was read: starts and marks, and how many lines were neither.

    `other` lines are not ours, `text_lines` of them were written for people; `cut_off` ones do not reach
    their end, `unclear` ones hold what they cannot, `later` ones are of a later version.
    """

    names: list[str] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    other: int = 0
    text_lines: int = 0
    cut_off: int = 0
    unclear: int = 0
    later: int = 0


def read(paths: Sequence[str]) -> Log:
    """Read logs, `-` for standard input, as one. Raises `TimingLogUnreadable` if no start is in them, or `OSError`."""
    log = Log()
    for path in paths:
        if path == STDIN:
            _read_lines(log, "stdin", sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                _read_lines(log, path, file)
    if log.starts:
        return log
    lines = log.other + log.cut_off + log.unclear + log.later
    raise TimingLogUnreadable(
        f"no start is in {counted(lines, 'line')}",
        where=", ".join(log.names),
        hint="Starts write what can be read here with UNPACKENV_LOG=json or UNPACKENV_LOG_FILE"
        + (f"; {log.text_lines} of the lines are of UNPACKENV_LOG=text, which is for people" if log.text_lines else ""),
    )


def _read_lines(log: Log, name: str, lines: Iterable[bytes]) -> None:
    log.names.append(name)
    # The start of a process, for its marks: numbers of processes come again, in every container.
    latest: dict[tuple[str, float | None], Start] = {}
    for number, line in enumerate(lines, 1):
        at = line.find(_OURS)
        if at < 0:
            log.other += 1
            log.text_lines += _TEXT_LINE in line
            continue
        try:
            record, _ = _decoder.raw_decode(line[at:].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            log.cut_off += 1
            continue
        try:
            _add(log, record, f"{name}:{number}", latest)
        except (AttributeError, KeyError, TypeError, ValueError):
            log.unclear += 1


_decoder = json.JSONDecoder()


def _add(log: Log, record: dict[str, Any], where: str, latest: dict[tuple[str, float | None], Start]) -> None:
    """Add one record to the log; it raises what comes of it if the record holds what it cannot."""
    kind, process = record["unpackenv"], (_text(record, "host"), _number_or_none(record, "pid"))
    if record["schema"] != _SCHEMA:
        log.later += 1
    elif kind == "mark":
        log.marks.append(_mark(record, latest.get(process)))
    else:
        start = _start(record, where)
        log.starts.append(start)
        latest[process] = start


def _start(record: Mapping[str, Any], where: str) -> Start:
    error = None
    if record["unpackenv"] == "error":
        error = Error(*(_text(record, name) for name in ("reason", "what", "where", "hint")))
    return Start(
        where=where,
        outcome=_printable(record["outcome"]),
        milliseconds=_number(record["milliseconds"]),
        # What is left of a phase when its parts are taken away may be a little less than nothing.
        phases={_printable(name): _number(max(value, 0)) for name, value in record["phases"].items()},
        lock_wait_ms=_number(record.get("lock_wait_ms") or 0),
        time=_time(record),
        process_ms=_number_or_none(record, "process_ms"),
        throttled_ms=_number_or_none(record, "throttled_ms"),
        cpu_ms=_number_or_none(record, "cpu_ms"),
        workers=int(_number(record.get("workers") or 0)),
        workers_why=_text(record, "workers_why"),
        files=int(_number(record.get("files") or 0)),
        size=int(_number(record.get("size") or 0)),
        target=_text(record, "target"),
        error=error,
    )


def _mark(record: Mapping[str, Any], start: Start | None) -> Mark:
    return Mark(
        name=_printable(record["name"]),
        process_ms=_number_or_none(record, "process_ms"),
        bootstrap_ms=_number_or_none(record, "bootstrap_ms"),
        import_ms=_number_or_none(record, "import_ms"),
        imports=[
            Import(_printable(each["module"]), _number(each["self_ms"]), _number(each["cumulative_ms"]))
            for each in record.get("imports") or ()
        ],
        start=start,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LARGEST:
        raise ValueError("number")  # nor is NaN
    return float(value)


def _number_or_none(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    return None if value is None else _number(value)


def _time(record: Mapping[str, Any]) -> float | None:
    time = _number_or_none(record, "time")
    if time is not None and time >= _YEAR_3000:
        raise ValueError("time")
    return time


def _text(record: Mapping[str, Any], name: str) -> str:
    """Return a text that may be unknown."""
    value = record.get(name)
    return "" if value is None else _printable(value)


def _printable(text: object) -> str:
    """Return a text without what a terminal would obey."""
    if not isinstance(text, str):
        raise TypeError("text")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
