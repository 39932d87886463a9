"""The table of contents."""

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


def toc(renderer: Renderer, options: Options) -> Part:
    """How long does it take to read and check the table of contents?"""
    rounds = max(LEAST_ROUNDS, options.rounds)
    found = [steps(renderer, options) for _ in range(rounds)]
    files, members = round(found[0]["files"]), round(found[0]["members"])
    rows, scaled = [], {}
    for name, what in (
        ("parse", "parse: bytes become columns, and are checked"),
        ("open", "open: read the file's end, compare its sha256, decode, parse, check the container"),
    ):
        values = [one[name] for one in found]
        scaled[name] = statistics.median(values) * _FILES / files
        rows.append((what, spread(values, milliseconds), milliseconds(scaled[name])))
    text = (
        f"{files:,} files, {members:,} members with directories and links. {rounds} rounds, each in a process of its "
        "own, which has imported what it needs before."
    )
    claim = Claim(f"table of contents of {_FILES:,} files parsed, ms", 0.006, scaled["parse"], milliseconds)
    return Part([text, table(("", "ms", f"ms for {_FILES:,} files"), rows)], {"rounds": found}, [claim])


def steps(renderer: Renderer, options: Options) -> dict[str, float]:
    """Return the seconds of each step of a cold start (see steps.py)."""
    with options.fresh() as at:
        command = python(renderer, "the steps", [_STEPS, renderer.zstd, at], renderer.env)
        found: dict[str, float] = json.loads(measure.run(command, at).output)
        return found
