"""What a start did and how long it took, as data: the `Report`, and the `Attempt` that leads to it."""

from __future__ import annotations

from unpackenv.unpatched import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from unpackenv.archive.trailer import Identity
    from unpackenv.start.locations import TargetCandidate
    from unpackenv.start.machine.usage import Usage
    from unpackenv.start.settings import Log

# The outcomes of a start and its phases, as the log names them; report/timings/words.py says what they mean.
UNPACKED, NAMED, JOINED, WAITED, REUSED = "unpacked", "named", "joined", "waited", "reused"
OFF, MISSING, FAILED = "off", "missing", "error"
OUTCOMES = (UNPACKED, NAMED, JOINED, WAITED, REUSED, OFF, MISSING, FAILED)
CHECK, LOCK, OPEN, UNPACK, PUBLISH, FORK = "check", "lock", "open", "unpack", "publish", "fork"
NAMES = "names"
IMPORT_PATHS = "import paths"
BEHIND, ON_DEMAND = "behind", "on-demand"
PHASES = (CHECK, LOCK, OPEN, NAMES, UNPACK, PUBLISH, FORK, IMPORT_PATHS)


class Report:
    """What one bootstrap did.

    `outcome` is "unpacked" (this start wrote the tree), "named" (it made the names, and files are filled
    behind the application), "joined" (the processes of another start fill the tree), "reused" (it was
    there), "waited" (another start wrote it meanwhile), "off" (starts are turned off) or "missing" (there
    is no archive).
    `phases` are milliseconds by name, in their order; `milliseconds` is the total, and `lock_wait_ms`
    the part of it that was spent waiting for another start. `archive_size` and `size`, that of the unpacked files, are
    in bytes. `target_why` says what named the target, `workers_why` what decided the number of workers. `tried` are
    places that could not be used, each with the reason; `warnings` are sentences about what may be
    wrong. `key` names the archive in stamps and default places: its digest, or for one made by plain
    tar its size, time and last bytes. `plain_paths` are those of `import_paths` that hold no name of
    the standard library: PYTHONPATH may name them. `python` is the cache tag of the interpreter
    that it was packed for, if that is known.

    `fill` says when files are filled ("before" or "behind"), "" if this start did not unpack; `fill_why` why that is
    before the start although it was to be behind it.

    `fetched` counts what came from a remote archive until now: "bytes", "requests", "retries", "cached" (bytes that a
    cache had) and "wait_ms" (milliseconds that workers waited for it, all together); it is None for an archive that is
    here, and for a start that asked for nothing.

    `cpu_ms`, `throttled_ms` (held back by a CPU quota) and `peak_rss` (bytes, of the largest process)
    are None if they were not measured: after a warm start without a log in JSON, or if the kernel does not count them.
    """

    __slots__ = (
        "archive", "archive_size", "bin", "cpu_ms", "digest", "fetched", "files", "fill", "fill_why", "import_paths",
        "key", "lock_wait_ms", "milliseconds", "outcome", "peak_rss", "phases", "plain_paths", "python", "size",
        "target", "target_why", "throttled_ms", "tried", "warnings", "workers", "workers_why",
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
        self.fetched: dict[str, float] | None = None
        self.fill = ""
        self.fill_why = ""
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
        what = f"{self.outcome} {counted_files(self.files)}, {self.size / 1e6:.1f} MB, at {self.target}"
        by = f" by {self.workers} worker{'s' if self.workers > 1 else ''}" if self.workers else ""
        line = f"unpackenv: {what} in {self.milliseconds:.1f} ms{by}"
        if phases:
            line += f" ({phases})"
        if self.outcome == NAMED:
            line += "; filling them " + ("when they are opened" if self.fill == ON_DEMAND else "behind the application")
        elif self.outcome == JOINED:
            line += "; another start is filling them"
        elif self.fill_why:
            line += f"; filled before the start: {self.fill_why}"
        if self.fetched:
            line += f"; fetched {fetched_text(self.fetched)}"
        if self.throttled_ms:
            line += f"; throttled by the CPU quota for {self.throttled_ms:.0f} ms"
        if self.tried:
            line += f"; not used: {'; '.join(self.tried)}"
        return line + (f"; warning: {' and '.join(self.warnings)}" if self.warnings else "")

    def fields(self) -> dict[str, object]:
        """Return the fields of the line in a log, as plain values."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "plain_paths"}


def fetched_text(fetched: Mapping[str, float]) -> str:
    """Return how much was fetched, in words."""
    requests, retries = int(fetched["requests"]), int(fetched["retries"])
    text = f"{fetched['bytes'] / 1e6:.1f} MB in {requests} request{'' if requests == 1 else 's'}"
    if fetched["cached"]:
        text += f", {fetched['cached'] / 1e6:.1f} MB from the cache"
    if retries:
        text += f", {retries} tried again"
    return f"{text}, waited {fetched['wait_ms']:.0f} ms for it"


def counted_files(number: int) -> str:
    """Return a number of files, in words."""
    return f"{number} file{'' if number == 1 else 's'}"


class Clock:
    """Splits the time since it was made into named phases, in milliseconds."""

    __slots__ = ("_last", "began", "phases")

    def __init__(self) -> None:
        self.began = self._last = time.perf_counter()
        self.phases: dict[str, float] = {}

    def end_phase(self, name: str, parts: Mapping[str, float] | None = None) -> None:
        """Split the time since the last phase ended: the phases `parts` get their milliseconds, `name` gets the rest.

        If `name` is one of the parts, it gets both.
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


class Attempt(Clock):
    """A start in progress: its phases, and what its line needs, however it ends.

    `candidate` is the one of the `candidates` that it is trying, if any. `usage` is measured for lines in JSON and cold
    starts only: it takes longer than a whole warm start.
    """

    __slots__ = (
        "candidate", "candidates", "identity", "is_announced", "lock_wait_ms", "log", "tried", "usage", "warnings"
    )  # fmt: skip

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.identity: Identity | None = None
        self.candidates: list[TargetCandidate] = []
        self.candidate: TargetCandidate | None = None
        self.tried: list[str] = []
        self.lock_wait_ms = 0.0
        self.warnings: list[str] = []
        self.is_announced = False  # whether people know that it takes long
        self.usage: Usage | None = None

    def complete(self, report: Report) -> None:
        """Copy what this start has measured and noted into a report."""
        report.phases = self.phases
        report.milliseconds = self.milliseconds
        report.lock_wait_ms = self.lock_wait_ms
        report.tried = self.tried
        report.warnings = [*report.warnings, *self.warnings]
        if self.identity and self.identity.path:  # else it is remote, and nobody has asked for it
            report.archive, report.archive_size = self.identity.path, self.identity.size
        if self.usage:
            report.cpu_ms, report.throttled_ms, report.peak_rss = self.usage.so_far()
