"""Where a cold start spends its time, step by step."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
from parts.common import Options, Part, python
from tables import Claim, milliseconds, spread, table
from workload import Renderer

LEAST_ROUNDS = 21
_FILES = 30_000
_STEPS = Path(__file__).parents[1] / "steps.py"
_NAME_STEPS = Path(__file__).parents[1] / "namesteps.py"
# Each step, and what it is counted by.
_ROWS = (
    ("open", "open: read the end of the file, compare its sha256, decode and parse the table of contents", "members"),
    ("parse", "… of it: bytes become columns, and are checked", "members"),
    ("paths", "paths of directories", "directories"),
    ("make directories", "make the directories", "directories"),
    ("read", "read the frames (page cache)", "stored"),
    ("hash", "sha256 of the frames", "stored"),
    ("decode", "decode the frames", "unpacked"),
    ("open directories", "open each directory, once a frame", "directories"),
    ("create", "create the files", "files"),
    ("write", "write them", "unpacked"),
    ("times", "set their times", "files"),
    ("close", "close them", "files"),
    ("python", "Python between the calls, with the timers", "files"),
    ("end directories", "times of the directories, at the end", "directories"),
)
_NAME_ROWS = (
    ("descriptor limit", "raise the limit on descriptors to the hard one", ""),
    ("plan", "plan who makes and fills what", "files"),
    ("make directories", "make the directories", "directories"),
    ("open directories", "open each directory, once a process", "opened"),
    ("create", "create the files, and keep them open", "files"),
    ("size", "set their sizes", "leases"),
    ("times", "set their times", "files"),
    ("lease", "take the leases, each with its signal", "leases"),
    ("python", "Python between the calls, with the timers", "files"),
)
_PROCESSES = (1, 2)
_UNITS = {
    "members": ("µs a member", 1e6),
    "directories": ("µs a directory", 1e6),
    "files": ("µs a file", 1e6),
    "opened": ("µs a directory", 1e6),
    "leases": ("µs a file", 1e6),
    "stored": ("ms a stored MB", 1e9),
    "unpacked": ("ms an unpacked MB", 1e9),
}


def steps(renderer: Renderer, options: Options) -> Part:
    """Where does a cold start spend its time, with one worker?"""
    rounds = max(LEAST_ROUNDS, options.rounds)
    found = [taken(renderer, options) for _ in range(rounds)]
    counts = found[0]
    rows = []
    for name, what, by in _ROWS:
        values = [one[name] for one in found]
        unit, scale = _UNITS[by]
        rows.append(
            (what, spread(values, milliseconds), f"{statistics.median(values) / counts[by] * scale:.2f} {unit}")
        )
    text = (
        f"{counts['files']:,.0f} files in {counts['directories']:,.0f} directories, {counts['frames']:.0f} frames. "
        "One thread, each call timed by itself, in a process of its own that has imported what it needs; "
        f"{rounds} rounds."
    )
    parsed = statistics.median(one["parse"] for one in found) * _FILES / counts["files"]
    claim = Claim(f"table of contents of {_FILES:,} files parsed, ms", 0.006, parsed, milliseconds)
    names = _names(renderer, options, rounds)
    data = {"rounds": found, **names.data}
    return Part([text, table(("step", "ms", "for each"), rows), *names.text], data, [claim])


def _names(renderer: Renderer, options: Options, rounds: int) -> Part:
    """Take the steps of names first, with one process and with two in turn."""
    found: dict[int, list[dict[str, float]]] = {number: [] for number in _PROCESSES}
    for turn in range(rounds):
        for number in _PROCESSES[:: -1 if turn % 2 else 1]:
            found[number].append(taken(renderer, options, _NAME_STEPS, number))
    rows = []
    for name, what, by in _NAME_ROWS:
        cells = []
        for runs in found.values():
            cells += [spread([one[name] for one in runs], milliseconds), _for_each(name, runs, by)]
        rows.append((what, *cells))
    walls = [(spread([one["wall"] for one in runs], milliseconds), "") for runs in found.values()]
    rows.append(("**all names, from the first process to the last**", *(cell for pair in walls for cell in pair)))
    shares = "; ".join(
        f"{number}: {one['files']:,.0f} files, {one['directories']:,.0f} directories"
        for number, (one, *_) in found.items()
    )
    processes = ", ".join(f"{workers}: {one['shards']:.0f}" for workers, (one, *_) in found.items())
    text = (
        "Names first, the same way: every name with its size, time and lease, and no contents. With two processes, the "
        f"steps are those of the slower one. What that made in the first round, by how many there are: {shares}. One "
        f"may hold {found[1][0]['descriptors']:,.0f} files here; if it makes more, it closes the first ones, which is "
        f"not measured. Because of that limit, a start has as many processes as follows, by workers: {processes}. "
        f"{rounds} rounds."
    )
    header = ("step", *(cell for number in _PROCESSES for cell in (f"{number} process(es), ms", "for each")))
    return Part([text, table(header, rows)], {"names": {str(number): runs for number, runs in found.items()}})


def _for_each(name: str, runs: Sequence[Mapping[str, float]], by: str) -> str:
    """Return what a step takes for each of what it is counted by, which differs between runs."""
    if not by:
        return ""
    unit, scale = _UNITS[by]
    return f"{statistics.median(one[name] / max(one[by], 1) for one in runs) * scale:.2f} {unit}"


def taken(renderer: Renderer, options: Options, script: Path = _STEPS, *arguments: object) -> dict[str, float]:
    """Return counts, and the seconds of each step of a cold start (see benchmarks/steps.py and namesteps.py)."""
    with options.fresh() as at:
        command = python(renderer, "the steps", [script, renderer.zstd, at, *arguments], renderer.env)
        found: dict[str, float] = json.loads(measure.run(command, at).output)
        return found
