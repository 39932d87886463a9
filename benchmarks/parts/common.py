"""Shared by the parts: how often and where to measure, the result of a part, unpackenv's commands, comparisons."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measure import Command, Fresh, Peak, Usage
from rig.freshfs import FileSystem
from tables import Claim, ratio, table
from workload import Workload

COLD = "import sys, unpackenv; unpackenv.bootstrap(sys.argv[1], sys.argv[2])"
WARM = "import unpackenv; unpackenv.bootstrap()"
# By default the workers are processes where the caller has a single thread, as here.
OURS, OURS_XZ, THREADS = "unpackenv, zstd", "unpackenv, xz", "unpackenv, zstd, threads"
BEST = "unpackenv, --best"
FOREIGN, FOREIGN_IN_PLACE = "unpackenv, plain-tar xz", "unpackenv, plain-tar xz, in place"
MEMORY_LIMIT = 96e6

Rounds = Mapping[str, Mapping[int, float]]
"""A figure of each command, by the number of the round."""


@dataclass(frozen=True)
class Options:
    """How often to measure, and where."""

    rounds: int
    file_system: FileSystem

    @property
    def memory_rounds(self) -> int:
        """The peak varies little, and looking at it slows the run down."""
        return max(1, self.rounds // 4)

    @property
    def slow_rounds(self) -> int:
        """Of what takes minutes."""
        return max(1, self.rounds // 3)

    @property
    def fresh(self) -> Fresh:
        return self.file_system.fresh


@dataclass
class Part:
    """What a part found."""

    text: list[str]
    data: dict[str, object]
    claims: list[Claim] = field(default_factory=list)


def cold_start(workload: Workload, name: str, archive: Path, **env: str) -> Command:
    """Return the command of a start that unpacks `archive`."""
    return Command(name, lambda at: [workload.python, "-c", COLD, archive, at], {**workload.env, **env}, archive)


def python(workload: Workload, name: str, arguments: Sequence[object], env: Mapping[str, str]) -> Command:
    """Return a command that runs Python."""
    return Command(name, lambda _: [workload.python, *arguments], env)


def on_cpus(command: Command, cpus: Iterable[int]) -> Command:
    """Return the same command, kept to some CPUs."""
    where = ",".join(map(str, cpus))
    return dataclasses.replace(command, argv=lambda at: ["taskset", "--cpu-list", where, *command.argv(at)])


def same(directory: Path) -> Fresh:
    """Return what yields one directory again and again."""
    return lambda: contextlib.nullcontext(directory)


def fresh_for(file_system: FileSystem, workload: Workload) -> Fresh:
    """Return what yields new directories of a file system, into which the tree of `workload` will be unpacked."""
    return functools.partial(file_system.fresh, workload.tree)


def cpus() -> list[int]:
    """Return the CPUs that may be used."""
    return sorted(os.sched_getaffinity(0))


# --- comparisons ---------------------------------------------------------------------------------


def walls(usages: Mapping[str, Sequence[Usage]]) -> Rounds:
    """Return the seconds of each command."""
    return {name: {usage.round: usage.wall for usage in runs} for name, runs in usages.items()}


def compared(values: Rounds, name: str, peer: str) -> float | None:
    """Return the median of the ratios within each round; None where one of both was not measured."""
    mine, others = values.get(name, {}), values.get(peer, {})
    ratios = [mine[number] / others[number] for number in mine if number in others]
    return statistics.median(ratios) if ratios else None


def difference(values: Rounds, name: str, base: str) -> float:
    """Return the median of the differences within each round."""
    return statistics.median(value - values[base][number] for number, value in values[name].items())


def ratio_table(values: Rounds) -> list[str]:
    """Return a table of ours divided by the others."""
    ours = [name for name in values if name.startswith("unpackenv")]
    rows = [(peer, *(_ratio(compared(values, name, peer)) for name in ours)) for peer in values if peer not in ours]
    header = ("÷ wall time of", *ours)
    return ["Our wall time ÷ that of the alternative in the same round, median of the rounds:", table(header, rows)]


def left_out(missing: Mapping[str, str]) -> list[str]:
    """Return the lines that say what could not be measured here, and why."""
    return ["\n".join(f"- Left out: {name}: {reason}" for name, reason in missing.items())] if missing else []


def plain(value: object) -> object:
    """Return dataclasses within lists and dicts as what JSON can hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return dataclasses.asdict(value) if isinstance(value, (Usage, Peak)) else value


def medians(runs: Sequence[Usage], of: Callable[[Usage], float]) -> float:
    """Return the median of a figure of several runs."""
    return statistics.median(map(of, runs))


def _ratio(value: float | None) -> str:
    return "–" if value is None else ratio(value)
