"""Many starts at once: on one node, and on several that share one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import measure
from cache import execute, key, once
from fleetmodel import Line, Way
from measure import Command
from parts import fill
from parts.common import WARM, Options, Part, Rounds, compared, walls
from parts.fill import BEFORE, BEHIND
from parts.remote import LATENCY
from rig import freshfs
from rig.slow_server import Content, serving
from tables import ratio, spread, table
from unpackenv.archive import trailer
from workload import Renderer

RANKS = 64
SHARED, OWN = "a shared plain tree", "an unpack for each, tar.gz"
RATE = 1e8
NODES = (1, 2, 4)
_PATH = "/app.tar.zst"
_OWN = "tree-$RANK"
_DISK = 64 << 30  # sparse: for 64 trees
# Starts "$@" so many times at once, and ends well if all of them do. RANK says which one it is.
_AT_ONCE = """
count=$1 started= rank=0; shift
while [ $rank -lt $count ]; do
    RANK=$rank "$@" &
    started="$started $!" rank=$((rank + 1))
done
for process in $started; do wait $process || exit 1; done
"""
_WHAT = f"""\
*Ranks*: {RANKS} processes start at the same moment on one node and import flask, pandas and plotly; the time is that of
the last. *{SHARED.capitalize()}*: the packages are on the disk of the node already, which costs nothing here.
*{OWN.capitalize()}*: each unpacks a .tar.gz to a directory of its own, as with venv-pack or conda-pack.
*unpackenv*: one target for all, which is not there yet."""
_WHAT_OF_NODES = f"""\
*Nodes*: starts by URL that fill before the application, each with a target of its own, over one line of
{RATE / 1e6:.0f} Mbit/s with a round trip of {LATENCY} ms. All run on this machine, so a node's own work is slower the
more there are. *Model*: `benchmarks/fleetmodel.py`, from a start with its archive on the disk."""


def fleet(renderer: Renderer, options: Options) -> Part:
    """How long until the last of many starts has its packages?"""
    archive, note = fill.packed(renderer, [renderer.python, fill.APP, "/dev/null"])
    with measure.adopting():
        ranks = _ranks(renderer, archive, options)
        nodes, model = _nodes(renderer, archive, options)
    shown = [
        (name, spread(times.values()), _by(ranks, name, SHARED), _by(ranks, name, OWN)) for name, times in ranks.items()
    ]
    lines = [
        (name, spread(times.values()), f"{model[name]:.2f}", _range(time / model[name] for time in times.values()))
        for name, times in nodes.items()
        if name in model
    ]
    return Part(
        [
            _WHAT,
            f"- {note}",
            table((f"{RANKS} ranks", "until the last s", f"÷ {SHARED}", f"÷ {OWN}"), shown),
            _WHAT_OF_NODES,
            table(("nodes", "until the last s", "model s", "measured ÷ model"), lines),
        ],
        {"ranks": plain_rounds(ranks), "nodes": plain_rounds(nodes), "model": model},
    )


def plain_rounds(found: Rounds) -> dict[str, list[float]]:
    return {name: [*times.values()] for name, times in found.items()}


def _by(found: Rounds, name: str, peer: str) -> str:
    factor = compared(found, name, peer)
    return "–" if factor is None or name == peer else ratio(factor)


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{found[0]:.2f}–{found[-1]:.2f}"


# --- on one node ---------------------------------------------------------------------------------


def _ranks(renderer: Renderer, archive: Path, options: Options) -> Rounds:
    def packed(place: Path) -> None:
        execute(["tar", "-czf", place, "-C", renderer.tree, "."])

    gzipped = once(f"renderer-{key(str(renderer.tree))}.tar.gz", packed)
    unpack = 'mkdir "$1/$RANK" && tar -xzf "$2" -C "$1/$RANK" && PYTHONPATH="$1/$RANK" exec "$3" -c "$4"'

    def own(at: Path) -> list[object]:
        return at_once(RANKS, ["sh", "-c", unpack, "sh", at, gzipped, renderer.python, fill.IMPORTS])

    without = {"PYTHONDONTWRITEBYTECODE": "1"}
    tree = {**without, "PYTHONPATH": str(renderer.tree)}
    commands = [
        Command(SHARED, lambda _: at_once(RANKS, [renderer.python, "-c", fill.IMPORTS]), tree, renderer.tree),
        *(_starts(renderer, f"unpackenv, {how}", RANKS, how, archive, "tree") for how in (BEFORE, BEHIND)),
        Command(OWN, own, without, gzipped),
    ]
    fresh = measure.settled(freshfs.sized(options.file_system, _DISK).fresh)
    measure.warm_up(commands[1], fresh)
    return walls(measure.in_turn(commands, options.slow_rounds, fresh))


def at_once(count: int, words: Sequence[object]) -> list[object]:
    """Return a command that runs another one so many times at once."""
    return ["sh", "-c", _AT_ONCE, "sh", count, *words]


def _starts(renderer: Renderer, name: str, count: int, how: str, archive: object, target: str) -> Command:
    """Return so many starts at once; the name of `target` may have the word $RANK in it."""
    env = {**renderer.env, "UNPACKENV_ARCHIVE": str(archive), "UNPACKENV_FILL": how}

    def argv(at: Path) -> list[object]:
        start = f'UNPACKENV_TARGET="{at / target}" exec "$0" "$@"'
        return at_once(count, ["sh", "-c", start, renderer.python, "-c", f"{WARM}\n{fill.IMPORTS}"])

    return Command(name, argv, env, archive if isinstance(archive, Path) else None)


# --- on nodes that share a line ------------------------------------------------------------------


def _nodes(renderer: Renderer, archive: Path, options: Options) -> tuple[Rounds, dict[str, float]]:
    digest = trailer.identify(str(archive)).digest
    local = "the archive on the disk"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving({_PATH: Content(archive)}, RATE, LATENCY))
        stack.enter_context(measure.adopting())
        url = f"{server.url(_PATH)}#sha256={digest}"
        commands = [
            _starts(renderer, local, 1, BEFORE, archive, _OWN),
            *(_starts(renderer, str(count), count, BEFORE, url, _OWN) for count in NODES),
        ]
        fresh = measure.settled(options.fresh)
        measure.warm_up(commands[0], fresh)
        found = walls(measure.in_turn(commands, options.slow_rounds, fresh))
    work = sorted(found[local].values())[len(found[local]) // 2]
    way = Way("by URL", 0.0, archive.stat().st_size, work, 0.0, 0.0)
    line = Line(RATE / 8, RATE / 8)
    return found, {str(count): way.ready(count, line) for count in NODES}
