"""Kill starts at random moments, and check the next start: `make soak`.

A start is killed by SIGKILL at a time spread evenly over its whole duration, from before the interpreter runs to after
the application does. The next start on the same target must end well, with a tree that `unpackenv verify --target`
finds complete, and without leftovers. No start may read a byte of a file that is not filled. Scenarios, archives, when
files are filled, and what is killed take turns; the seed tells the moments.

    make soak ARGS="--kills 200 --seed 7"
    make soak ARGS="--folder /mnt/other"
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.processes import IS_ROOT, is_gone, processes_with, run, start, wait_for
from helpers.support import describe, leftovers, make_tree
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree
from unpackenv import cli

ARCHIVES = ("native zstd", "native xz", "foreign tar.xz")
# What is killed: the application alone, everything that works for it, or any one of these processes.
WAYS = ("main", "all", "one")
FILLS = ("before", "behind", "on-demand")
MODULES = 300
# Beyond the measured duration, since a start may take longer than the one that was measured.
SPREAD = 1.15
# Of so many kills, one comes at once and one when the start has ended: however busy the machine was when it measured.
ENDS = 20
IN_PLACE = ".unpackenv.in-place"

# The application says when it begins, and when bootstrap() has ended and how. Then it reads every module.
APP = """
import os
os.write(1, b"began\\n")
import unpackenv
done = unpackenv.bootstrap({archive!r}, {target!r}, workers=2, in_place={in_place!r}, fill={fill!r})
os.write(1, done.outcome.encode() + b"\\n")
for index in range({modules}) if {fill!r} != "before" else ():
    with open(f"{target}/modules_{{index % 7}}/module_{{index}}.py") as file:
        if file.read() != "VALUE = {number}\\n" * (20 + index):
            os.write(1, b"wrong\\n")
"""


class Version:
    """A version of the packed tree, and its archives by name."""

    def __init__(self, folder: Path, number: int) -> None:
        tree = make_tree(folder / f"tree-{number}")
        modules = {
            f"modules_{index % 7}/module_{index}.py": f"VALUE = {number}\n" * (20 + index) for index in range(MODULES)
        }
        write_tree(tree, {**modules, f"only_{number}/__init__.py": "", "version.py": f"VERSION = {number}\n"})
        self.number = number
        self.state = describe(tree)
        self.archives = {name: folder / f"version-{number}-{name.replace(' ', '-')}" for name in ARCHIVES}
        for name, codec in (("native zstd", "zstd"), ("native xz", "xz")):
            pack_tree(self.archives[name], tree, codec)
        _tar(self.archives["foreign tar.xz"], tree)


def _tar(archive: Path, tree: Path) -> None:
    """Make an archive of many blocks with stock tar."""
    command = ["tar", "-C", str(tree), "-Jcf", str(archive), "."]
    env = {**os.environ, "XZ_OPT": "-T2 -0 --block-size=50KiB"}
    subprocess.run(command, check=True, capture_output=True, env=env)


class Scenario:
    """A kind of target, and what it holds before the start that is killed."""

    def __init__(self, name: str, folder: Path, *, old: bool, mounted: bool = False, in_place: bool = False) -> None:
        self.name = name
        self.old = old  # it holds the other version
        self.warm = name == "warm"
        self.in_place = in_place
        self._keeps_directory = mounted or in_place
        self.target = folder / name.replace(" ", "-") / "tree"
        self.target.parent.mkdir()
        if self._keeps_directory:
            self.target.mkdir()
        if mounted:
            make_mount_root(self.target)

    def clear(self) -> None:
        """Take away everything that is in and beside the target."""
        for path in [*self.target.parent.iterdir(), *(self.target.iterdir() if self.target.is_dir() else ())]:
            if path == self.target and self._keeps_directory:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def problems(self, version: Version, other: Version, archive: str) -> Iterator[str]:
        """Yield what is wrong with the tree that a start has called its own; `other` may have been there before."""
        yield from (f"left: {name}" for name in leftovers(self.target) if not (self.in_place and name == IN_PLACE))
        if archive.startswith("native"):
            yield from verified(version.archives[archive], self.target)
        found = {path: state for path, state in describe(self.target).items() if not path.startswith(b".unpackenv.")}
        known = version.state.keys() | (other.state.keys() if self.in_place else set())
        wrong = [path for path, state in version.state.items() if found.get(path) != state]
        yield from (f"missing or altered: {os.fsdecode(path)}" for path in wrong)
        yield from (f"extra: {os.fsdecode(path)}" for path in found.keys() - known)


def make_mount_root(target: Path) -> None:
    """Make a directory whose entries have to be renamed one by one: a mount, or without root in a closed parent."""
    if IS_ROOT:
        subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
    else:
        target.parent.chmod(0o555)


@contextlib.contextmanager
def scenarios(folder: Path) -> Iterator[list[Scenario]]:
    """Make all scenarios below a folder, and take their mounts away in the end."""
    mounts = folder / "mount-root" / "tree"
    try:
        yield [
            Scenario("absent", folder, old=False),
            Scenario("older version", folder, old=True),
            Scenario("mount root", folder, old=True, mounted=True),
            Scenario("in place", folder, old=True, in_place=True),
            Scenario("warm", folder, old=False),
        ]
    finally:
        if os.path.ismount(mounts):
            subprocess.run(["umount", "--lazy", mounts], check=True)
        elif mounts.exists():
            mounts.parent.chmod(0o755)


def verified(archive: Path, target: Path) -> list[str]:
    """Return what `unpackenv verify --target` has to say against a tree."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main(["verify", str(archive), "--target", str(target)])
        except SystemExit as end:
            return said.getvalue().splitlines() if end.code else []


# --- one kill ------------------------------------------------------------------------------------


class Kill:
    """One start that is killed, and the next one."""

    def __init__(
        self, scenario: Scenario, archive: str, way: str, version: Version, other: Version, fill: str = FILLS[0]
    ) -> None:
        self.scenario = scenario
        self.fill = fill  # of the start that is killed
        self.archive = archive
        self.way = way
        self.version = version  # of the start that is killed
        self.other = other
        self.after = 0.0  # seconds from the start
        self.moment = ""  # before, inside or after bootstrap()
        self.midway = False  # whether the next start had something to take away
        self.outcome = ""  # of the next start
        self.problems: list[str] = []

    def __str__(self) -> str:
        what = f"{self.scenario.name}, {self.archive}, fill={self.fill}, "
        what += f"{self.way} killed {self.moment} after {self.after:.4f} s"
        return f"{what}; next start {self.outcome}: " + "; ".join(self.problems[:5])

    @property
    def _mark(self) -> str:
        """What is in the environment of every process of the start that is killed."""
        return f"SOAKED={self.scenario.target}"

    def prepare(self) -> None:
        """Bring the target into the state in which the start finds it."""
        scenario = self.scenario
        if not (scenario.old or scenario.warm):
            scenario.clear()
            return
        done = run(self._command(self.version if scenario.warm else self.other))
        assert done.returncode == 0, f"cannot prepare {scenario.name}: {done.stderr}"

    def _command(self, version: Version, fill: str = FILLS[0]) -> list[object]:
        code = APP.format(
            archive=str(version.archives[self.archive]), target=str(self.scenario.target),
            in_place=self.scenario.in_place, fill=fill, modules=MODULES, number=version.number,
        )  # fmt: skip
        return [sys.executable, "-c", code]

    def duration(self) -> float:
        """Return the seconds that the start takes if nobody kills it."""
        self.prepare()
        began = time.monotonic()
        done = run(self._command(self.version, self.fill), environment(SOAKED=self.scenario.target))
        assert done.returncode == 0, done.stderr
        seconds = time.monotonic() - began
        wait_for(lambda: not processes_with(self._mark), "the fill to end")
        return seconds

    def happen(self, after: float, next_version: Version, chance: random.Random) -> None:
        """Start, kill `after` so many seconds, or if that is infinite, after the start; start again and look."""
        self.after = after
        self.prepare()
        began = time.monotonic()
        killed = start(self._command(self.version, self.fill), environment(SOAKED=self.scenario.target), new_group=True)
        try:
            if after == math.inf:
                os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
            else:
                time.sleep(max(0.0, began + after - time.monotonic()))
            kill(killed, self._mark, self.way, chance)
            self.midway = any(name != IN_PLACE for name in leftovers(self.scenario.target))
            self._start_again(next_version)
        finally:
            kill(killed, self._mark, "all", chance)
            said = killed.communicate(timeout=PATIENCE)[0].split()
        self.moment = "before" if not said else "inside" if len(said) == 1 else "after"
        if "wrong" in said:
            self.problems.append("the killed start has read what was not filled")
        self.problems += self._problems(next_version) if not self.problems else ()
        if self.problems:
            self.scenario.clear()

    def _problems(self, version: Version) -> Iterator[str]:
        other = self.other if version is self.version else self.version
        return self.scenario.problems(version, other, self.archive)

    def _start_again(self, version: Version) -> None:
        try:
            done = run(self._command(version))
        except subprocess.TimeoutExpired:
            self.outcome = "hung"
            self.problems.append("did not end")
            return
        self.outcome = "".join(done.stdout.split()[1:]) or "failed"
        if done.returncode:
            self.problems.append(done.stderr.strip())


def kill(process: subprocess.Popen[str], mark: str, way: str, chance: random.Random) -> None:
    """Kill a start: its main process, all its processes, or one of them."""
    if way == "one":
        end(chance.choice(processes_with(mark) or [process.pid]))
        return
    process.kill()
    process.wait()
    if way == "all":
        killed: set[int] = set()

        def all_are_gone() -> bool:
            killed.update(found := processes_with(mark))
            for pid in found:
                end(pid)
            return not found and all(map(is_gone, killed))

        wait_for(all_are_gone, "all processes of a start to end")


def end(pid: int) -> None:
    """Kill a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# --- many ----------------------------------------------------------------------------------------


def soak(kills: int, seed: int, folder: Path, say: Callable[[str], None] = print) -> list[Kill]:
    """Kill so many starts, whose files are below `folder`, and return what became of each."""
    chance = random.Random(seed)
    versions = [Version(folder, number) for number in (1, 2)]
    done: list[Kill] = []
    with scenarios(folder) as all_scenarios:
        # Every combination in turn; the durations of each are measured when it first comes.
        every = itertools.product(WAYS, FILLS, ARCHIVES, all_scenarios)
        turns = itertools.cycle(each for each in every if can_be_filled(*each[1:]))
        durations: dict[tuple[str, str, str], float] = {}
        for number, (way, fill, archive, scenario) in zip(range(kills), turns):
            version, other = versions if number % 2 else reversed(versions)
            one = Kill(scenario, archive, way, version, other, fill)
            key = (scenario.name, archive, fill)
            if key not in durations:
                durations[key] = one.duration()
            # Where two versions take turns, the next start may be of either, if nobody is at work for the killed one.
            next_version = other if scenario.old and way == "all" and chance.random() < 0.4 else version
            after = {0: 0.0, 1: math.inf}.get(number % ENDS, chance.uniform(0, durations[key] * SPREAD))
            one.happen(after, next_version, chance)
            done.append(one)
            if one.problems:
                say(f"FAILED {one}")
            if (number + 1) % 50 == 0:
                say(f"{number + 1} kills, {sum(bool(each.problems) for each in done)} failures")
    return done


def can_be_filled(fill: str, archive: str, scenario: Scenario) -> bool:
    """Whether there is anything to try: other starts fill before, whatever they are told."""
    return fill == FILLS[0] or (archive.startswith("native") and not (scenario.in_place or scenario.warm))


def table(kills: list[Kill]) -> str:
    """Return the counts, by scenario, archive and when files are filled, as Markdown."""
    columns = ("before", "inside", "after", "midway", "unpacked", "waited", "reused", "failures")
    lines = [
        f"| scenario | archive | fill | kills | {' | '.join(columns)} |", "|---|---|---|" + "---:|" * (len(columns) + 1)
    ]  # fmt: skip
    totals: Counter[str] = Counter()

    def kind(one: Kill) -> tuple[str, str, str]:
        return one.scenario.name, one.archive, one.fill

    for names, group in itertools.groupby(sorted(kills, key=kind), key=kind):
        counts: Counter[str] = Counter()
        for one in group:
            counts.update(["kills", one.moment, one.outcome])
            counts.update({"midway": one.midway, "failures": bool(one.problems)})
        totals.update(counts)
        lines.append(_row(names, counts, columns))
    return "\n".join([*lines, _row(("all", "", ""), totals, columns)])


def _row(names: tuple[str, ...], counts: Counter[str], columns: tuple[str, ...]) -> str:
    return f"| {' | '.join(names)} | {counts['kills']} | " + " | ".join(str(counts[key]) for key in columns) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill starts at random moments and look at what the next one does.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16), help="default: another each time")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary directory)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that mounts and files are taken away
    print(f"{options.kills} kills, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="unpackenv-soak-", dir=options.folder) as folder:
        kills = soak(options.kills, options.seed, Path(folder), lambda text: print(text, flush=True))
    print(
        f"\nbefore, inside, after: bootstrap(), when the kill came; midway: it left something behind\n\n{table(kills)}"
    )
    return 1 if any(one.problems for one in kills) else 0


if __name__ == "__main__":
    sys.exit(main())
