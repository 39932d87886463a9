"""The cost of the timing log."""

from __future__ import annotations

import os

import measure
from parts.common import WARM, Options, Part, difference, python, same
from tables import Claim, fine_milliseconds, spread, table
from workload import Renderer

TIMED = f"import time; begin = time.perf_counter(); {WARM}; print(time.perf_counter() - begin)"
LEAST_ROUNDS = 61  # tenths of a millisecond are to be told


def log(renderer: Renderer, options: Options) -> Part:
    """What does the timing log cost a start that finds its tree, by a timer in its process?"""
    rounds = max(LEAST_ROUNDS, options.rounds)
    with options.fresh() as at:
        file = str(at.parent / f"{at.name}-log")
        forms = {
            "no log": {"UNPACKENV_LOG": "off"},
            "text": {"UNPACKENV_LOG": "text"},
            "json": {"UNPACKENV_LOG": "json"},
            "a file": {"UNPACKENV_LOG": "off", "UNPACKENV_LOG_FILE": file},
        }
        env = {**renderer.env, "UNPACKENV_ARCHIVE": str(renderer.zstd), "UNPACKENV_TARGET": str(at)}
        commands = [python(renderer, name, ["-c", TIMED], {**env, **form}) for name, form in forms.items()]
        for command in commands:
            measure.run(command, at)
        usages = measure.in_turn(commands, rounds, same(at))
        os.unlink(file)
    times = {name: {usage.round: float(usage.output.split()[-1]) for usage in runs} for name, runs in usages.items()}
    more = {name: difference(times, name, "no log") for name in forms}
    rows = [
        (name, spread(values.values(), fine_milliseconds), fine_milliseconds(more[name]))
        for name, values in times.items()
    ]
    claims = [
        Claim(f"the log as {name}, ms", 0.0005, more[name], fine_milliseconds) for name in forms if name != "no log"
    ]
    header = ("log", "import unpackenv; bootstrap(), ms", "median difference to none, ms")
    return Part([f"{rounds} rounds.", table(header, rows)], {"seconds": times}, claims)
