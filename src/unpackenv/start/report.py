"""What a start did and how long it took: the `Report`, and its one line on stderr."""

from __future__ import annotations

import os
import time

from unpackenv.errors import UnpackenvError
from unpackenv.start.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

UNPACKED, REUSED, WAITED, OFF, MISSING = "unpacked", "reused", "waited", "off", "missing"


class Report:
    """What one bootstrap did.

    `outcome` is "unpacked" (this start wrote the tree), "reused" (it was there), "waited" (another
    start wrote it meanwhile), "off" or "missing" (nothing was asked for, or no archive is there).
    `phases` are milliseconds by name, in their order; `milliseconds` is the whole. `size` is the
    unpacked size in bytes. `tried` are places that could not be used, each with the reason; `warnings`
    say what speaks against the one that was named. `key` names the
    archive in stamps and default places: its digest, or for one made by plain tar its size and time.
    `python` is the cache tag of the interpreter that it was packed for, where that is known.
    """

    __slots__ = (
        "archive", "bin", "digest", "files", "import_paths", "key", "milliseconds", "outcome",
        "phases", "python", "size", "target", "tried", "warnings", "workers",
    )  # fmt: skip

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        self.archive = ""
        self.digest = ""
        self.key = ""
        self.target = ""
        self.import_paths: list[str] = []
        self.bin = ""
        self.python = ""
        self.files = 0
        self.size = 0
        self.workers = 0
        self.phases: dict[str, float] = {}
        self.milliseconds = 0.0
        self.tried: list[str] = []
        self.warnings: list[str] = []

    def __repr__(self) -> str:
        return f"<Report {self.outcome} {self.target!r} {self.milliseconds:.1f} ms>"

    def text(self) -> str:
        """Return the line for people."""
        if not self.target:
            return f"unpackenv: {self.outcome}"
        phases = ", ".join(f"{name} {value:.0f}" for name, value in self.phases.items() if value >= 0.5)
        done = f"{self.outcome} {self.files} files, {self.size / 1e6:.1f} MB, at {self.target}"
        by = f" by {self.workers} worker{'s' if self.workers > 1 else ''}" if self.workers else ""
        line = f"unpackenv: {done} in {self.milliseconds:.1f} ms{by}"
        if phases:
            line += f" ({phases})"
        if self.tried:
            line += f"; not used: {'; '.join(self.tried)}"
        return line + (f"; warning: {' and '.join(self.warnings)}" if self.warnings else "")

    def fields(self) -> dict[str, object]:
        """Return everything, as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


class Clock:
    """Splits the time since it was made into named phases, in milliseconds."""

    __slots__ = ("_last", "_start", "phases")

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.phases: dict[str, float] = {}

    def lap(self, name: str, parts: Mapping[str, float] | None = None) -> None:
        """Account the time since the last lap to the phase `name`, less what its `parts` account for."""
        now = time.perf_counter()
        parts = parts or {}
        self.phases.update(parts)
        self.phases[name] = (now - self._last) * 1e3 - sum(parts.values())
        self._last = now

    @property
    def milliseconds(self) -> float:
        """Time since the clock was made."""
        return (time.perf_counter() - self._start) * 1e3


def log(settings: Settings, event: str, text: str, fields: dict[str, object]) -> None:
    """Write one line to stderr, in one write, as `settings.log` wants it."""
    if settings.log == "off":
        return
    if settings.log == "json":
        import json

        text = json.dumps({"unpackenv": event, **fields})
    write_line(text)


def log_error(error: UnpackenvError, log: str) -> None:
    """Write the line of a start that failed, as the setting `log` wants it; no start fails without a word."""
    if log == "json":
        import json

        fields = {"reason": error.reason, "what": error.what, "where": error.where, "hint": error.hint}
        write_line(json.dumps({"unpackenv": "error", **fields, **error.facts}, default=str))
    else:
        write_line(f"unpackenv: error: {error}")


def write_line(text: str) -> None:
    """Write one line to stderr, in one write; a closed stderr is none of our business."""
    try:
        os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def age_of_process() -> float:
    """Return the milliseconds since this process started; the kernel counts them in steps of 10."""
    try:
        with open("/proc/self/stat", "rb") as file:
            started = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return (now - started / os.sysconf("SC_CLK_TCK")) * 1e3


_ended: list[float] = []


def bootstrap_ended() -> None:
    """Remember when the bootstrap of this process ended, for `mark`."""
    _ended[:] = [time.perf_counter()]


def mark(name: str) -> None:
    """See `unpackenv.mark`."""
    age = age_of_process()
    fields: dict[str, object] = {"name": name, "process_ms": round(age, 1)}
    text = f"unpackenv: {name} {age:.0f} ms after the start of the process"
    if _ended:
        since = (time.perf_counter() - _ended[0]) * 1e3
        fields["bootstrap_ms"] = round(since, 1)
        text += f", {since:.1f} ms after bootstrap"
    log(Settings({}), "mark", text, fields)
