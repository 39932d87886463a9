"""The table of contents."""

from __future__ import annotations

import json
from pathlib import Path

import measure
from parts.common import Options, Part, python
from tables import Claim, milliseconds, spread
from workload import Renderer

LEAST_ROUNDS = 21
_MEMBERS = 30_000
_STEPS = Path(__file__).parents[1] / "steps.py"


def toc(renderer: Renderer, options: Options) -> Part:
    """How long does it take to read and check the table of contents?"""
    rounds = max(LEAST_ROUNDS, options.rounds)
    found = [steps(renderer, options) for _ in range(rounds)]
    members = round(found[0]["members"])
    opened = [one["open"] for one in found]
    scaled = sorted(opened)[len(opened) // 2] * _MEMBERS / members
    text = (
        f"{members:,} members, {rounds} rounds, each in a process of its own: {spread(opened, milliseconds)} ms to "
        "open the archive once the modules for it are imported: read, check the sha256, decode, build the columns and "
        f"check them. For {_MEMBERS:,} members that is {milliseconds(scaled)} ms."
    )
    claim = Claim(f"table of contents of {_MEMBERS:,} members, ms", 0.006, scaled, milliseconds)
    return Part([text], {"open": opened, "members": members}, [claim])


def steps(renderer: Renderer, options: Options) -> dict[str, float]:
    """Return the seconds of each step of a cold start (see steps.py)."""
    with options.fresh() as at:
        command = python(renderer, "the steps", [_STEPS, renderer.zstd, at], renderer.env)
        found: dict[str, float] = json.loads(measure.run(command, at).output)
        return found
