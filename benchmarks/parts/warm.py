"""Starts that find their tree."""

from __future__ import annotations

import measure
from parts.common import WARM, Options, Part, difference, plain, python, same, walls
from tables import Claim, milliseconds, spread, table
from workload import Renderer

LATE_MODULES = ("zstandard", "lzma", "hashlib", "psutil", "logging", "argparse")
WHICH_LATE = f"{WARM}; import sys; print(*[name for name in {LATE_MODULES} if name in sys.modules])"
LEAST_ROUNDS = 21


def warm(renderer: Renderer, options: Options) -> Part:
    """What does a start cost that finds its tree?"""
    nothing, only_import, start = "python -c pass", "import unpackenv", "import unpackenv; bootstrap()"
    become, wrapper = "python -c 'os.execvp(true)'", "python -m unpackenv -- true"
    words = {
        nothing: ["-c", "pass"],
        only_import: ["-c", "import unpackenv"],
        start: ["-c", WARM],
        become: ["-c", "import os; os.execvp('true', ['true'])"],
        wrapper: ["-m", "unpackenv", "--", "true"],
    }
    rounds = max(LEAST_ROUNDS, options.rounds)
    with options.fresh() as at:
        env = {**renderer.env, "UNPACKENV_ARCHIVE": str(renderer.zstd), "UNPACKENV_TARGET": str(at)}
        measure.run(python(renderer, "the cold start", ["-c", WARM], env), at)
        late = measure.run(python(renderer, "its modules", ["-c", WHICH_LATE], {**env, "UNPACKENV_LOG": "off"}), at)
        commands = [python(renderer, name, arguments, env) for name, arguments in words.items()]
        for command in commands:
            measure.run(command, at)
        usages = measure.in_turn(commands, rounds, same(at))
    times = walls(usages)
    baseline = {only_import: nothing, start: nothing, wrapper: become}
    more = {name: difference(times, name, base) for name, base in baseline.items()}
    rows = [
        (
            name,
            spread(values.values(), milliseconds),
            f"{milliseconds(more[name])} over {baseline[name]}" if name in more else "",
        )
        for name, values in times.items()
    ]
    return Part(
        [f"{rounds} rounds.", table(("command", "wall ms", "median difference ms"), rows)],
        {"runs": {name: plain(runs) for name, runs in usages.items()}, "late_modules": late.output.split()},
        [
            Claim("warm start over python -c pass, ms", 0.006, more[start], milliseconds),
            Claim(f"warm start: how many it imports of {', '.join(LATE_MODULES)}", 0, len(late.output.split()), str),
        ],
    )
