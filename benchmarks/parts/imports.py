"""The application's own imports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import measure
from measure import Command, Usage
from parts.common import WARM, Options, Part, compared, python, same
from tables import Claim, spread, table
from workload import Renderer

IMPORTS = "import pandas, plotly, flask, kaleido"
IMPORT_APP = f"import time; begin = time.perf_counter(); {IMPORTS}; print(time.perf_counter() - begin)"
LEAST_ROUNDS = 21  # a single import varies by a third, and 5 % are to be told
AGAIN = 7
"""Warm imports a round, besides the first."""


def imports(renderer: Renderer, options: Options) -> Part:
    """Does the application import as fast as from the plain tree?"""
    first: dict[str, list[Usage]] = {}
    again: dict[str, list[Usage]] = {}
    for number in range(max(LEAST_ROUNDS, options.rounds)):
        with options.fresh() as at:
            copied = Command("cp", lambda at: ["cp", "-a", f"{renderer.site}/.", at / "plain"], reads=renderer.site)
            (at / "plain").mkdir()
            measure.run(copied, at)
            # They take turns at going first, too.
            commands = _commands(renderer, at)[:: 1 if number % 2 else -1]
            _append(first, measure.in_turn(commands, 1, same(at)))
            _append(again, measure.in_turn(commands, AGAIN, same(at)))
    seconds = {
        kind: {
            name: {number: float(usage.output.split()[-1]) for number, usage in enumerate(runs)}
            for name, runs in usages.items()
        }
        for kind, usages in (("first", first), ("again", again))
    }
    rows = [(kind, name, spread(values.values())) for kind, found in seconds.items() for name, values in found.items()]
    ratios = {kind: compared(found, "bootstrap()", "plain tree") for kind, found in seconds.items()}
    text = (
        f"`{IMPORTS}`, timed within the process. `first`: the first import from a new file system, for bootstrap() "
        "in the process that has unpacked; `again`: in later processes."
    )
    return Part(
        [text, table(("when", "from", "s"), rows)],
        {"seconds": seconds},
        [
            Claim("import after a cold bootstrap() / from the plain tree", 1.05, ratios["first"]),
            Claim("import after a warm bootstrap() / from the plain tree", 1.05, ratios["again"]),
        ],
    )


def _commands(renderer: Renderer, at: Path) -> list[Command]:
    ours = {"UNPACKENV_ARCHIVE": str(renderer.zstd), "UNPACKENV_TARGET": str(at / "ours"), "UNPACKENV_LOG": "off"}
    plain = {**renderer.env, "PYTHONPATH": str(at / "plain")}
    return [
        python(renderer, "plain tree", ["-c", IMPORT_APP], plain),
        python(renderer, "bootstrap()", ["-c", f"{WARM}; {IMPORT_APP}"], {**renderer.env, **ours}),
    ]


def _append(to: dict[str, list[Usage]], usages: Mapping[str, list[Usage]]) -> None:
    for name, runs in usages.items():
        to.setdefault(name, []).extend(runs)
