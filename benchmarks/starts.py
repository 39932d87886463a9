"""Make a timing log of real starts: cold, warm, contended, throttled to half a CPU, and failing.

    make demo
    .venv/bin/python benchmarks/starts.py -o build/starts.log
    .venv/bin/unpackenv timings build/starts.log

Every start is a separate process that runs the demo's application. Its stderr is appended to the log, as
a container runtime does. Throttling needs root: it makes a cgroup.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rig import freshfs

PROJECT = Path(__file__).resolve().parents[1]
# How many of a hundred starts are of each kind. Contended ones come in crowds.
SHARES = {"cold": 24, "warm": 36, "contended": 16, "throttled": 12, "failing": 12}
CROWD = 8
APP = """
import runpy, sys, unpackenv
runpy.run_path(sys.argv[1], run_name="__main__")
unpackenv.mark("ready")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, default=PROJECT / "build/demo/site-packages.tar.zst")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the log; what is there is overwritten")
    parser.add_argument("--count", type=int, default=200, help="how many starts (default: 200)")
    options = parser.parse_args()
    if not options.archive.exists():
        parser.error(f"{options.archive} is not there: run `make demo` first")
    # No tree is removed before the end: ext4 is slow where files were deleted a short time ago.
    with freshfs.choose("auto").fresh() as work, open(options.output, "wb") as log:
        starts = Starts(options.archive.resolve(), work, log.fileno())
        for kind, share in SHARES.items():
            count = round(options.count * share / 100)
            print(f"{kind}: {count} starts", file=sys.stderr)
            getattr(starts, kind)(count)


class Starts:
    """Runs starts of each kind; their targets are in `work`, what they write to stderr goes to the file `log`."""

    def __init__(self, archive: Path, work: Path, log: int) -> None:
        self._archive = archive
        self._work = work
        self._log = log
        self._targets = 0

    def cold(self, count: int) -> None:
        """Each finds nothing."""
        for _ in range(count):
            self._run(self._target())

    def warm(self, count: int) -> None:
        """Each finds the tree of an earlier one, which is not logged."""
        target = self._target()
        self._run(target, UNPACKENV_LOG="off")
        for _ in range(count):
            self._run(target)

    def contended(self, count: int) -> None:
        """Crowds that want the same target at once."""
        for begun in range(0, count, CROWD):
            target = self._target()
            crowd = [self._start(target) for _ in range(min(CROWD, count - begun))]
            for process in crowd:
                process.wait()

    def throttled(self, count: int) -> None:
        """Cold ones with half a CPU."""
        with half_a_cpu() as inside:
            for _ in range(count):
                self._start(self._target(), through=inside).wait()

    def failing(self, count: int) -> None:
        """For five reasons in turn."""
        damaged = self._work / "damaged.tar.zst"
        content = bytearray(self._archive.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        for number in range(count):
            target = self._target()
            with contextlib.ExitStack() as stack:
                wrong: dict[str, object] = {}
                if number % 5 == 0:
                    wrong = {"UNPACKENV_ARCHIVE": self._work / "forgotten.tar.zst"}
                elif number % 5 == 1:
                    wrong = {"UNPACKENV_ARCHIVE": damaged}
                elif number % 5 == 2:
                    wrong = {"UNPACKENV_DIGEST": "0" * 64}
                elif number % 5 == 3:
                    target.mkdir()
                    (target / "notes.txt").touch()
                else:
                    lock = stack.enter_context(open(target.with_name(f".{target.name}.unpackenv.lock"), "wb"))
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    wrong = {"UNPACKENV_LOCK_TIMEOUT": 0.5}
                self._run(target, fails=True, **wrong)

    def _run(self, target: Path, fails: bool = False, **variables: object) -> None:
        code = self._start(target, (), **variables).wait()
        if (code != 0) != fails:
            raise SystemExit(f"a start ended with {code}: see the end of the log")

    def _start(self, target: Path, through: Sequence[str] = (), **variables: object) -> subprocess.Popen[bytes]:
        settings = {"ARCHIVE": self._archive, "TARGET": target, "LOG": "json"}
        env = {name: value for name, value in os.environ.items() if not name.startswith("UNPACKENV")}
        env.update({f"UNPACKENV_{name}": str(value) for name, value in settings.items()})
        env.update({name: str(value) for name, value in variables.items()})
        command = [*through, sys.executable, "-c", APP, str(PROJECT / "docs/demo/app.py")]
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=self._log)

    def _target(self) -> Path:
        """Return a name for a new tree."""
        self._targets += 1
        return self._work / f"target-{self._targets}"


@contextlib.contextmanager
def half_a_cpu() -> Iterator[list[str]]:
    """Make a cgroup with a quota of half a CPU, and yield the words that run a command in it."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "cpu/cpu.cfs_quota_us").exists()
    group = (root / "cpu" if version_1 else root) / f"unpackenv-starts-{os.getpid()}"
    try:
        group.mkdir()
        if version_1:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("50000")
        else:
            (group / "cpu.max").write_text("50000 100000")
    except OSError as error:
        raise SystemExit(f"cannot limit the CPU, which needs root and cgroups: {error}") from error
    try:
        yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
    finally:
        group.rmdir()


if __name__ == "__main__":
    main()
