"""Read timing logs: the JSON lines of many starts, among all other output of containers.

A record begins with `{"unpackenv": …`, anywhere in a line: `docker compose logs` and log shippers put a name or
a time before it. Other lines are only counted.
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
_RECORD = b'{"unpackenv":'
_SCHEMA = 1
_TEXT_LINE = b"unpackenv: "
_YEAR_3000 = 32_503_680_000
# No figure of a start is as large; in a picture a larger one would leave no room for the others.
_LARGEST = 1e15


@dataclass(frozen=True)
class Error:
    """Why a start failed: a stable code, what went wrong, where, and what to do."""

    reason: str
    what: str
    where: str
    hint: str


@dataclass(frozen=True)
class Fetched:
    """What was fetched of a remote archive, by the names of words.FETCHED: bytes, counts, and milliseconds."""

    bytes: int
    cached: int
    requests: int
    retries: int
    wait_ms: float


@dataclass(frozen=True)
class StartLine:
    """One start. Durations are in milliseconds, `time` is in seconds since 1970; None is unknown.

    `fetched` is None unless something of a remote archive was fetched. `fill_why` says why files were filled before the
    application although they were to be filled behind it, "" for all other starts. `phases` are in their order; if the
    start did not fail, their sum is `milliseconds`. `process_ms` is the time from the start of the process to the end
    of the bootstrap. `where` names file and line of the log.
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
    fetched: Fetched | None
    fill_why: str
    error: Error | None

    @property
    def steps(self) -> dict[str, float]:
        """The phases; for a start that failed, also the rest of its time."""
        rest = self.milliseconds - sum(self.phases.values())
        return {**self.phases, words.UNTIL_FAILED.name: rest} if self.error and rest > 0 else self.phases


@dataclass(frozen=True)
class Wait:
    """One open of a file that waited until the file was filled: its path in the tree, and milliseconds."""

    path: str
    ms: float


@dataclass(frozen=True)
class FilledLine:
    """A tree that was filled behind its application: milliseconds until that, and the opens that waited.

    `waits` is their number, `waited_ms` how long they waited together; `longest` are those that waited longest.
    `fetched` is what the start and those that filled the tree fetched together, None for an archive that was there.
    """

    where: str
    time: float | None
    milliseconds: float
    waits: int
    waited_ms: float
    longest: list[Wait]
    files: int
    size: int
    target: str
    fetched: Fetched | None


@dataclass(frozen=True)
class KilledLine:
    """An application that was killed, since its tree could not be filled."""

    where: str
    time: float | None
    error: Error


@dataclass(frozen=True)
class Import:
    """One slow import: milliseconds of the module alone, and with all that it imported first."""

    module: str
    self_ms: float
    cumulative_ms: float


@dataclass(frozen=True)
class Mark:
    """A point that an application marked: milliseconds since its process started, milliseconds since the bootstrap
    ended, and the part of the latter that went into imports; None is unknown. `start` is the start of its process.
    """

    name: str
    process_ms: float | None
    bootstrap_ms: float | None
    import_ms: float | None
    imports: list[Import]
    start: StartLine | None


@dataclass
class TimingLog:
    """The starts and marks of the logs, what came of trees that were filled behind their applications, and the numbers
    of lines that were left out.

    `other` lines have no record; `text_lines` of them are starts logged as text. Records that are `cut_off` lack their
    end, `unclear` ones hold impossible values, `later` ones are of a later version, or of a kind that it has added.
    """

    names: list[str] = field(default_factory=list)
    starts: list[StartLine] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    filled: list[FilledLine] = field(default_factory=list)
    killed: list[KilledLine] = field(default_factory=list)
    other: int = 0
    text_lines: int = 0
    cut_off: int = 0
    unclear: int = 0
    later: int = 0


def read(paths: Sequence[str]) -> TimingLog:
    """Read logs as one, `-` for standard input. Raises `TimingLogUnreadable` if they hold no start, or `OSError`."""
    log = TimingLog()
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
        hint="Set UNPACKENV_LOG=json or UNPACKENV_LOG_FILE for the starts"
        + (f"; {log.text_lines} of the lines are of UNPACKENV_LOG=text, which is for people" if log.text_lines else ""),
    )


def _read_lines(log: TimingLog, name: str, lines: Iterable[bytes]) -> None:
    log.names.append(name)
    # The latest start by host and pid, for its marks: each container uses the same pids.
    latest: dict[tuple[str, float | None], StartLine] = {}
    for number, line in enumerate(lines, 1):
        at = line.find(_RECORD)
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


def _add(log: TimingLog, record: dict[str, Any], where: str, latest: dict[tuple[str, float | None], StartLine]) -> None:
    """Add one record to the log; raises AttributeError, KeyError, TypeError or ValueError for impossible values."""
    kind, process = record["unpackenv"], (_text(record, "host"), _number_or_none(record, "pid"))
    if record["schema"] != _SCHEMA:
        log.later += 1
    elif kind in ("start", "error"):
        start = _start(record, where)
        log.starts.append(start)
        latest[process] = start
    elif kind == "mark":
        log.marks.append(_mark(record, latest.get(process)))
    elif kind == "filled":
        log.filled.append(_filled(record, where))
    elif kind == "killed":
        log.killed.append(KilledLine(where, _time(record), _error(record)))
    elif isinstance(kind, str):
        log.later += 1
    else:
        raise TypeError("kind")


def _start(record: Mapping[str, Any], where: str) -> StartLine:
    return StartLine(
        where=where,
        outcome=_printable(record["outcome"]),
        milliseconds=_number(record["milliseconds"]),
        # A phase without its parts is a difference, which may be slightly negative.
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
        fetched=_fetched(record),
        fill_why=_text(record, "fill_why"),
        error=_error(record) if record["unpackenv"] == "error" else None,
    )


def _error(record: Mapping[str, Any]) -> Error:
    return Error(*(_text(record, name) for name in ("reason", "what", "where", "hint")))


def _filled(record: Mapping[str, Any], where: str) -> FilledLine:
    return FilledLine(
        where=where,
        time=_time(record),
        milliseconds=_number(record["milliseconds"]),
        waits=int(_number(record["waits"])),
        waited_ms=_number(record["waited_ms"]),
        longest=[Wait(_printable(each["path"]), _number(each["ms"])) for each in record.get("longest") or ()],
        files=int(_number(record.get("files") or 0)),
        size=int(_number(record.get("size") or 0)),
        target=_text(record, "target"),
        fetched=_fetched(record),
    )


def _fetched(record: Mapping[str, Any]) -> Fetched | None:
    parts = record.get("fetched")  # lines of earlier versions have none
    if parts is None:
        return None
    counts = {name: int(_number(parts[name])) for name in words.FETCHED if name != "wait_ms"}
    return Fetched(**counts, wait_ms=_number(parts["wait_ms"]))


def _mark(record: Mapping[str, Any], start: StartLine | None) -> Mark:
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
    """Return a text of a record; "" if it is unknown."""
    value = record.get(name)
    return "" if value is None else _printable(value)


def _printable(text: object) -> str:
    """Return a text without control characters, which a terminal would obey."""
    if not isinstance(text, str):
        raise TypeError("text")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
