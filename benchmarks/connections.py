"""Fetch an archive by URL over lines of several latencies and rates: for choosing how it is fetched.

    .venv/bin/python benchmarks/connections.py
    UNPACKENV_WORKERS=4 .venv/bin/python benchmarks/connections.py -n 5 --latency 50 --rate 1

Prints the seconds of starts that fill all files first, whole processes, each on a new tmpfs. The archive is that of
`make bench ARGS="--only remote"`. Change the code between two runs, or set variables of unpackenv, which starts have.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import measure
from measure import Command
from parts import fill
from parts.common import COLD, Options, walls
from rig import freshfs
from rig.slow_server import Content, serving
from tables import count, megabytes, ratio, seconds, spread, table
from unpackenv.archive import trailer
from workload import Renderer, Workload

LATENCIES = (1.0, 10.0, 50.0)
"""Milliseconds of a round trip."""
RATES = (0.1, 1.0, 10.0)
"""Gbit per second."""
_PATH = "/app.tar.zst"
_LOCAL = "a file that is here"
_HEADER = ("latency ms", "rate Gbit/s", "the line alone s", "start s", "÷ the line alone", "requests", "connections")


def main() -> None:
    options = _options()
    renderer = Renderer()
    archive, _ = fill.packed(renderer, [renderer.python, fill.APP, os.devnull])
    lines = [(latency, rate) for latency in options.latency or LATENCIES for rate in options.rate or RATES]
    tmpfs = next(kind for kind in freshfs.KINDS if kind.name == "tmpfs")
    print(measured(renderer, archive, lines, Options(options.rounds, tmpfs), slow_start=options.slow_start))


def measured(
    made: Workload, archive: Path, lines: Sequence[tuple[float, float]], options: Options, *, slow_start: bool
) -> str:
    """Return the table of starts over lines of some latencies and rates."""
    env = {name: value for name, value in os.environ.items() if name.startswith("UNPACKENV_")}
    size = archive.stat().st_size

    def start(name: str, source: str) -> Command:
        words = [made.python, "-c", COLD, source]
        return Command(name, lambda at: [*words, at], {**made.env, "UNPACKENV_FILL": fill.BEFORE, **env}, archive)

    with contextlib.ExitStack() as stack:
        servers = {
            f"{latency:g} ms, {rate:g} Gbit/s": stack.enter_context(
                serving({_PATH: Content(archive)}, rate * 1e9, latency, slow_start=slow_start)
            )
            for latency, rate in lines
        }
        digest = trailer.identify(str(archive)).digest
        local = start(_LOCAL, str(archive))
        remote = [start(name, f"{server.url(_PATH)}#sha256={digest}") for name, server in servers.items()]
        measure.warm_up(local, options.fresh)
        times = walls(measure.in_turn([local, *remote], options.rounds, options.fresh))
        rows = [(_LOCAL, "", "", spread(times[_LOCAL].values()), "", "", "")]
        for (latency, rate), (name, server) in zip(lines, servers.items()):
            alone = 2 * latency / 1e3 + size * 8 / (rate * 1e9)  # a connection and a request, and then every byte
            factor = statistics.median(times[name].values()) / alone
            asked, made_new = (figure / options.rounds for figure in (server.requests, server.connections))
            own = spread(times[name].values())
            rows.append(
                (f"{latency:g}", f"{rate:g}", seconds(alone), own, ratio(factor), count(asked), count(made_new))
            )
    variables = "".join(f", {name}={value}" for name, value in env.items())
    return f"{megabytes(size)} MB, {options.rounds} rounds{variables}\n\n{table(_HEADER, rows)}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--rounds", type=int, default=3, help="samples of each figure (default: 3)")
    parser.add_argument("--latency", type=float, action="append", help="milliseconds of a round trip; may be repeated")
    parser.add_argument("--rate", type=float, action="append", help="Gbit per second; may be repeated")
    parser.add_argument("--slow-start", action="store_true", help="connections begin slowly, as those of TCP do")
    return parser.parse_args()


if __name__ == "__main__":
    main()
