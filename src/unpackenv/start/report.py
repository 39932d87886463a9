"""What a start did and how long it took: the `Report`, what leads to it, and its one line on stderr.

The line as JSON is made by `detail`, which is imported only where somebody asked for it.
"""

from __future__ import annotations

import sys

from unpackenv.start.settings import path
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from unpackenv.archive.trailer import Identity
    from unpackenv.errors import UnpackenvError
    from unpackenv.start.log.detail import Usage
    from unpackenv.start.log.importtimes import Watch
    from unpackenv.start.places import Place

# What a start comes to, and its phases: the words of the log. What they mean is in report/timings/words.py.
UNPACKED, REUSED, WAITED, OFF, MISSING, FAILED = "unpacked", "reused", "waited", "off", "missing", "error"
OUTCOMES = (UNPACKED, REUSED, WAITED, OFF, MISSING, FAILED)
CHECK, LOCK, OPEN, UNPACK, PUBLISH, FORK = "check", "lock", "open", "unpack", "publish", "fork"
IMPORT_PATHS = "import paths"
PHASES = (CHECK, LOCK, OPEN, UNPACK, PUBLISH, FORK, IMPORT_PATHS)


class Report:
    """What one bootstrap did.

    `outcome` is "unpacked" (this start wrote the tree), "reused" (it was there), "waited" (another
    start wrote it meanwhile), "off" or "missing" (nothing was asked for, or no archive is there).
    `phases` are milliseconds by name, in their order; `milliseconds` is the whole, and `lock_wait_ms`
    what of it was spent waiting for another start. `archive_size` and `size`, that of the unpacked files, are in
    bytes. `target_why` says who named the target, `workers_why` what decided their number. `tried` are
    places that could not be used, each with the reason; `warnings` say what speaks against the one
    that was named. `key` names the archive in stamps and default places: its digest, or for one made
    by plain tar its size and time. `plain_paths` are those of `import_paths` that hold no name of the
    standard library, so that PYTHONPATH may name them. `python` is the cache tag of the interpreter
    that it was packed for, where that is known.

    `cpu_ms`, `throttled_ms` (held back by a CPU quota) and `peak_rss` (bytes, of the largest process)
    are None where nobody looked: after a warm start without a log in JSON, and where the kernel does not say.
    """

    __slots__ = (
        "archive", "archive_size", "bin", "cpu_ms", "digest", "files", "import_paths", "key", "lock_wait_ms",
        "milliseconds", "outcome", "peak_rss", "phases", "plain_paths", "python", "size", "target", "target_why",
        "throttled_ms", "tried", "warnings", "workers", "workers_why",
    )  # fmt: skip

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        self.archive = ""
        self.archive_size: int | None = None
        self.digest = ""
        self.key = ""
        self.target = ""
        self.target_why = ""
        self.import_paths: list[str] = []
        self.plain_paths: list[str] = []
        self.bin = ""
        self.python = ""
        self.files = 0
        self.size = 0
        self.workers = 0
        self.workers_why = ""
        self.phases: dict[str, float] = {}
        self.milliseconds = 0.0
        self.lock_wait_ms = 0.0
        self.cpu_ms: float | None = None
        self.throttled_ms: float | None = None
        self.peak_rss: int | None = None
        self.tried: list[str] = []
        self.warnings: list[str] = []

    def __repr__(self) -> str:
        return f"<Report {self.outcome} {self.target!r} {self.milliseconds:.1f} ms>"

    def text(self) -> str:
        """Return the line for people."""
        if not self.target:
            return f"unpackenv: {self.outcome}"
        phases = ", ".join(f"{name} {value:.0f}" for name, value in self.phases.items() if value >= 0.5)
        files = f"{self.files} file{'' if self.files == 1 else 's'}"
        done = f"{self.outcome} {files}, {self.size / 1e6:.1f} MB, at {self.target}"
        by = f" by {self.workers} worker{'s' if self.workers > 1 else ''}" if self.workers else ""
        line = f"unpackenv: {done} in {self.milliseconds:.1f} ms{by}"
        if phases:
            line += f" ({phases})"
        if self.throttled_ms:
            line += f"; throttled by the CPU quota for {self.throttled_ms:.0f} ms"
        if self.tried:
            line += f"; not used: {'; '.join(self.tried)}"
        return line + (f"; warning: {' and '.join(self.warnings)}" if self.warnings else "")

    def fields(self) -> dict[str, object]:
        """Return everything that a line of the log tells, as plain values."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "plain_paths"}


class Clock:
    """Splits the time since it was made into named phases, in milliseconds."""

    __slots__ = ("_last", "began", "phases")

    def __init__(self) -> None:
        self.began = self._last = time.perf_counter()
        self.phases: dict[str, float] = {}

    def lap(self, name: str, parts: Mapping[str, float] | None = None) -> None:
        """Account the time since the last lap to the phases `parts`, and what they leave of it to the phase `name`.

        That may be one of the parts, and then has both.
        """
        now = time.perf_counter()
        parts = parts or {}
        self.phases.update(parts)
        self.phases[name] = parts.get(name, 0.0) + (now - self._last) * 1e3 - sum(parts.values())
        self._last = now

    @property
    def milliseconds(self) -> float:
        """Time since the clock was made."""
        return (time.perf_counter() - self.began) * 1e3


class Log:
    """Where lines go: to stderr in one `form` ("text", "json" or "off"), and to a `file` or none ("").

    It takes the settings as they are: also a start whose settings are wrong has its line.
    """

    __slots__ = ("file", "form")

    def __init__(self, arguments: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> None:
        self.form = str(arguments.get("log") or environ.get("UNPACKENV_LOG") or "text")
        self.file = str(arguments.get("log_file") or environ.get("UNPACKENV_LOG_FILE", ""))
        try:
            self.file = path(self.file)
        except ValueError:  # the settings say what is wrong with it
            self.file = ""
        if sys.platform == "win32":  # nothing of what the lines in JSON tell is there
            self.form, self.file = self.form.replace("json", "text"), ""

    @property
    def is_json(self) -> bool:
        """Whether a line in JSON is wanted anywhere."""
        return self.form == "json" or self.file != ""


class Attempt(Clock):
    """A start on its way: its phases, and what is known of it when its line is due, however it ends."""

    __slots__ = ("candidates", "has_said", "identity", "lock_wait_ms", "log", "place", "tried", "usage", "warnings")

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.identity: Identity | None = None
        self.candidates: list[Place] = []
        self.place: Place | None = None  # of these, the one where it is at work
        self.tried: list[str] = []
        self.lock_wait_ms = 0.0
        self.warnings: list[str] = []
        self.has_said = False  # that it takes long
        self.usage: Usage | None = None
        if log.is_json:
            self.measure_usage()

    def measure_usage(self) -> Usage:
        """Measure from now on what is measured only for a line in JSON, or a cold start: a warm one takes less long."""
        if self.usage is None:
            from unpackenv.start.log.detail import Usage

            self.usage = Usage()
        return self.usage

    def ended(self, done: Report) -> None:
        """Complete the report, and write its line."""
        done.phases = self.phases
        done.milliseconds = self.milliseconds
        done.lock_wait_ms = self.lock_wait_ms
        done.tried = self.tried
        done.warnings = [*done.warnings, *self.warnings]
        if self.identity:
            done.archive, done.archive_size = self.identity.path, self.identity.size
        if self.usage:
            done.cpu_ms, done.throttled_ms, done.peak_rss = self.usage.so_far()
        if self.log.is_json:
            from unpackenv.start.log import detail

            detail.write_start(self.log, done)
        if self.log.form == "text" and done.target:  # a machine without an archive wants to hear nothing
            write_line(done.text())

    def failed(self, error: UnpackenvError, *, is_caught: bool = False) -> None:
        """Write the line of a start that failed; where the exception `is_caught` by nobody else, also for people."""
        if self.log.is_json:
            from unpackenv.start.log import detail

            detail.write_error(self.log, error, self)
        if is_caught and self.log.form != "json":  # no start fails without a word
            write_line(f"unpackenv: error: {error}")


def write_line(text: str) -> None:
    """Write one line to stderr, in one write; a closed stderr is none of our business."""
    try:
        os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        pass


# When the last bootstrap of this process ended, in seconds of the monotonic clock, and where its line went.
last_end: list[tuple[float, Log]] = []


# What measures the imports of this process, if anything does.
watches: list[Watch] = []


def bootstrap_ended(log: Log, imports: int) -> None:
    """Remember for `mark` that the bootstrap of this process has ended, and measure imports from now on, if asked."""
    last_end[:] = [(time.monotonic(), log)]
    watch_imports(imports)


def watch_imports(count: int) -> None:
    """Measure imports from now on, to tell the `count` slowest."""
    if count:
        from unpackenv.start.log.importtimes import Watch

        watches[:] = [Watch(count)]
