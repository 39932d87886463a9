"""What the starts of this process share: their state, and stderr."""

from __future__ import annotations

from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.log.import_times import Watch
    from unpackenv.start.report import Report
    from unpackenv.start.settings import Log


class Process:
    """The starts of one process.

    `trees` are those in use, by real path: the report of each, and the descriptor of its stamp. The descriptor has a
    shared lock and is never closed: the lock shows that the tree is in use. `first` is the report of the first
    bootstrap, for calls that name nothing; `idle` that of the first one that had nothing to do. `hooked` are the import
    paths that the hook has added here and adds in every other interpreter. `ended` is when the last bootstrap ended, in
    seconds of the monotonic clock, 0 if there was none; `log` is where its line went. `watch` measures imports, if
    that is turned on; `points` are those that the application has reached, in order, until it `is_ready`.
    `log_warnings` are warnings about the log itself that were written already.
    """

    __slots__ = ("ended", "first", "hooked", "idle", "is_ready", "log", "log_warnings", "points", "trees", "watch")

    def __init__(self) -> None:
        self.trees: dict[str, tuple[Report, int]] = {}
        self.first: Report | None = None
        self.idle: Report | None = None
        self.hooked: list[str] = []
        self.ended = 0.0
        self.log: Log | None = None
        self.watch: Watch | None = None
        self.points: list[dict[str, object]] = []
        self.is_ready = False
        self.log_warnings: set[str] = set()

    def stamps(self) -> list[int]:
        """Return the descriptors of the stamps of all trees in use."""
        return [fd for _, fd in self.trees.values()]

    def bootstrap_ended(self, log: Log, imports: int) -> None:
        """Remember for `mark` that a bootstrap has ended, and measure imports, to report the `imports` slowest."""
        self.ended, self.log = time.monotonic(), log
        self.watch_imports(imports)

    def watch_imports(self, count: int) -> None:
        """Measure imports from now on, to report the `count` slowest; 0: do not measure."""
        if count:
            from unpackenv.start.log.import_times import Watch

            self.watch = Watch(count)


this_process = Process()


def write_line(text: str) -> None:
    """Write one line to stderr, in one write; a closed stderr is no error."""
    try:
        os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        pass
