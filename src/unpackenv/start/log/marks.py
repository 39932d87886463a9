"""Points that the application reaches on its way to "ready", and what it imported meanwhile."""

from __future__ import annotations

from unpackenv.start.log import json_lines
from unpackenv.start.machine import usage
from unpackenv.start.process import this_process, write_line
from unpackenv.start.settings import END_VARIABLE, Log
from unpackenv.unpatched import os, time

READY = "ready"


def mark(name: str) -> None:
    """See `unpackenv.mark`."""
    process_ms = usage.age_of_process()
    log, end = this_process.log or Log({}), this_process.ended or _end_of_wrapper()
    bootstrap_ms = (time.monotonic() - end) * 1e3 if end else None
    import_ms, imports = _imports(name)
    this_process.points.append({"name": name, "process_ms": process_ms})
    if log.is_json:
        fields = {"name": name, "process_ms": process_ms, "bootstrap_ms": bootstrap_ms, "import_ms": import_ms}
        points = list(this_process.points)
        json_lines.write_mark(log, {**fields, "imports": imports, "points": points}, this_process.log_warnings)
    if log.form not in ("json", "off"):
        write_line(_text(name, process_ms, bootstrap_ms, import_ms, imports))
    if name == READY:
        this_process.is_ready = True
        this_process.points.clear()
        this_process.watch = None


def _imports(name: str) -> tuple[float | None, list[dict[str, object]]]:
    """Return the milliseconds spent importing and, once ready, the slowest imports; none if not measured."""
    watch = this_process.watch
    if watch is None:
        # The command of the wrapper need not call `bootstrap`: its first mark begins to measure.
        count = os.environ.get("UNPACKENV_IMPORTS", "")
        if name != READY and not this_process.is_ready and count.isdigit():
            this_process.watch_imports(int(count))
        return None, []
    return watch.milliseconds(), watch.end() if name == READY else []


def _text(
    name: str,
    process_ms: float | None,
    bootstrap_ms: float | None,
    import_ms: float | None,
    imports: list[dict[str, object]],
) -> str:
    after = []
    if process_ms is not None:
        after.append(f"{process_ms:.0f} ms after the start of the process")
    if bootstrap_ms is not None:
        after.append(f"{bootstrap_ms:.1f} ms after bootstrap")
    if import_ms is not None:
        after.append(f"{import_ms:.1f} ms of that importing")
    line = f"unpackenv: {name} {', '.join(after)}"
    if imports:
        line += "; slowest imports: " + ", ".join(f"{each['module']} {each['self_ms']:.0f}" for each in imports)
    return line


def _end_of_wrapper() -> float:
    """Return when the bootstrap of the wrapper ended, if this process was the wrapper before; else 0."""
    pid, _, end = os.environ.get(END_VARIABLE, "").partition(" ")
    try:
        return float(end) if pid == str(os.getpid()) else 0.0
    except ValueError:
        return 0.0
