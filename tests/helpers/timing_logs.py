"""Timing logs for tests: lines as starts write them, with figures that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

TIME = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def start(outcome: str = "unpacked", milliseconds: float = 100.0, **fields: object) -> dict[str, object]:
    """Return the line of a start that went well, most of it the unpack."""
    defaults: dict[str, object] = {
        "unpackenv": "start", "schema": 1, "version": "0.1.0", "time": TIME, "host": "box", "pid": 1,
        "process_ms": milliseconds + 40, "warnings": [], "outcome": outcome, "milliseconds": milliseconds,
        "phases": {"check": milliseconds * 0.1, "unpack": milliseconds * 0.8, "publish": milliseconds * 0.1},
        "lock_wait_ms": 0.0, "cpu_ms": milliseconds * 1.5, "throttled_ms": 0.0, "files": 10, "size": 1000,
        "workers": 2, "workers_why": "cpus", "fill": "before", "fill_why": None, "target": "/opt/unpackenv/env/abc",
        "fetched": None,
    }  # fmt: skip
    return {**defaults, **fields}


def fetched(megabytes: float = 90.0, wait_ms: float = 300.0, **parts: object) -> dict[str, object]:
    """Return what a line says of a remote archive."""
    defaults = {"bytes": round(megabytes * 1e6), "cached": 0, "requests": 12, "retries": 0, "wait_ms": wait_ms}
    return {**defaults, **parts}


def error(reason: str = "no-space", milliseconds: float = 50.0, **fields: object) -> dict[str, object]:
    """Return the line of a start that failed."""
    phases = {"check": milliseconds * 0.1}
    words = {"reason": reason, "what": "does not fit", "where": "/target", "hint": "Make room", "facts": {}}
    return start("error", milliseconds, **{"unpackenv": "error", "phases": phases, "workers": 0, **words, **fields})


def mark(name: str = "ready", process_ms: float | None = 500.0, **fields: object) -> dict[str, object]:
    """Return the line of a point that an application named."""
    defaults: dict[str, object] = {
        "unpackenv": "mark", "schema": 1, "time": TIME, "host": "box", "pid": 1, "process_ms": process_ms,
        "warnings": [], "name": name, "bootstrap_ms": 300.0, "import_ms": None, "imports": [], "points": [],
    }  # fmt: skip
    return {**defaults, **fields}


def filled(milliseconds: float = 1200.0, *longest: tuple[str, float], **fields: object) -> dict[str, object]:
    """Return the line of a tree that was filled behind its application; `longest` are files and how long they took."""
    defaults: dict[str, object] = {
        "unpackenv": "filled", "schema": 1, "time": TIME, "host": "box", "pid": 1, "process_ms": milliseconds + 100,
        "warnings": [], "target": "/opt/unpackenv/env/abc", "milliseconds": milliseconds, "waits": len(longest),
        "waited_ms": float(sum(ms for _, ms in longest)),
        "longest": [{"path": path, "ms": ms} for path, ms in longest], "files": 10, "size": 1000,
        "fetched": None,
    }  # fmt: skip
    return {**defaults, **fields}


def killed(what: str = "cannot be filled", **fields: object) -> dict[str, object]:
    """Return the line of an application that was killed, since its tree could not be filled."""
    defaults: dict[str, object] = {
        "unpackenv": "killed", "schema": 1, "time": TIME, "host": "box", "pid": 1, "process_ms": 900.0, "warnings": [],
        "reason": "tree-unfilled", "what": what, "where": "/opt/unpackenv/env/abc", "hint": "Start again",
    }  # fmt: skip
    return {**defaults, **fields}


def write(path: Path, records: Iterable[dict[str, object]]) -> Path:
    """Write a log."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def events(workers: int = 2, frames: int = 6) -> dict[str, object]:
    """Return the trace of a start, in Chrome's format: phases, and workers that take frames in turn."""
    found: list[dict[str, object]] = []

    def add(thread: int, name: str, at: float, duration: float, **arguments: object) -> None:
        event = {"ph": "X", "name": name, "cat": "unpackenv", "pid": 10, "tid": thread, "args": arguments}
        found.append({**event, "ts": 5_000_000 + at, "dur": duration})

    for thread, name in enumerate(["unpackenv start", *(f"unpackenv worker {number}" for number in range(workers))]):
        found.append({"ph": "M", "name": "thread_name", "pid": 10, "tid": thread, "args": {"name": name}})
    rounds = -(-frames // workers)
    for frame in range(frames):
        for number, step in enumerate(("read" if frame < frames - 1 else "fetch", "verify", "decode", "write")):
            add(frame % workers + 1, step, 3000 + frame // workers * 10_000 + number * 2000, 1500, frame=frame)
    add(1, "open", 2000, 1000)
    add(1, "unpack", 3000, rounds * 10_000)
    add(0, "check", 0, 1000.1)
    add(0, "fork", 1000, 2000 + rounds * 10_000)
    return {"traceEvents": found}
