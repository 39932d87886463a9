"""Where a cold start spends its time, step by step."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import measure
from parts.common import Options, Part, python
from tables import Claim, milliseconds, spread, table
from workload import Renderer

LEAST_ROUNDS = 21
_FILES = 30_000
_STEPS = Path(__file__).parents[1] / "steps.py"
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
_UNITS = {
    "members": ("µs a member", 1e6),
    "directories": ("µs a directory", 1e6),
    "files": ("µs a file", 1e6),
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
    return Part([text, table(("step", "ms", "for each"), rows)], {"rounds": found}, [claim])


def taken(renderer: Renderer, options: Options) -> dict[str, float]:
    """Return counts, and the seconds of each step of a cold start (see benchmarks/steps.py)."""
    with options.fresh() as at:
        command = python(renderer, "the steps", [_STEPS, renderer.zstd, at], renderer.env)
        found: dict[str, float] = json.loads(measure.run(command, at).output)
        return found
