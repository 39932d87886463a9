"""Cold starts on other file systems, and with other states of the page cache."""

from __future__ import annotations

import dataclasses

import measure
import peers
from measure import COLD, DROPPED, WARM
from parts.common import OURS, Options, Part, cold_start, compared, fresh_for, left_out, plain, walls
from rig import freshfs
from tables import Claim, spread, table
from workload import Renderer

_PLACES = ("ext4", "xfs", "tmpfs", "overlayfs", "overlayfs-merged")
_STATES = {
    WARM: "warm: the archive or tree has just been read",
    COLD: "cold: the archive or tree is not in the page cache, but programs and what the kernel knows of files are",
    DROPPED: "dropped: the page cache is empty, for programs and the kernel's knowledge of files, too",
}


def places(renderer: Renderer, options: Options) -> Part:
    """What does it take on other file systems, and on the layers of a container?"""
    columns: dict[str, dict[str, list[measure.Usage]]] = {}
    missing: dict[str, str] = {}
    for kind in (kind for kind in freshfs.KINDS if kind.name in _PLACES):
        problem = kind.problem()
        if problem:
            missing[kind.name] = problem
            continue
        # A directory that others own has to be filled in place.
        ours = cold_start(renderer, OURS, renderer.zstd, UNPACKENV_IN_PLACE="yes" if kind.is_merged else "no")
        others, without = peers.commands(renderer, peers.MAIN)
        missing |= without
        measure.warm_up(ours, fresh_for(kind, renderer))
        columns[kind.name] = measure.in_turn([ours, *others], options.rounds, fresh_for(kind, renderer))
    what = "\n".join(f"- {kind.name}: {kind.what}" for kind in freshfs.KINDS if kind.name in columns)
    overlay = walls(columns.get("overlayfs", {}))
    return Part(
        [what, _table(columns), *left_out(missing)],
        {"runs": {name: plain(usages) for name, usages in columns.items()}, "missing": missing},
        [
            Claim("overlayfs, new directory / XZ_OPT=-T0 tar -Jxf", 0.17, compared(overlay, OURS, peers.TAR_XZ)),
        ],
    )


def caches(renderer: Renderer, options: Options) -> Part:
    """What does it take when the archive has to be read from the disk first?"""
    columns: dict[str, dict[str, list[measure.Usage]]] = {}
    others, missing = peers.commands(renderer, peers.MAIN)
    commands = [cold_start(renderer, OURS, renderer.zstd), *others]
    measure.warm_up(commands[0], options.fresh)
    for state in _STATES:
        if state == DROPPED and not measure.can_drop_caches():
            missing[DROPPED] = "takes root"
            continue
        in_state = [dataclasses.replace(command, cache=state) for command in commands]
        columns[state] = measure.in_turn(in_state, options.rounds, options.fresh)
    what = "\n".join(f"- {text}" for state, text in _STATES.items() if state in columns)
    disk = "How much a cold one costs is up to the disk; on a virtual machine the host may have the data in its memory."
    return Part(
        [what, disk, _table(columns), *left_out(missing)],
        {"runs": {state: plain(usages) for state, usages in columns.items()}},
    )


def _table(columns: dict[str, dict[str, list[measure.Usage]]]) -> str:
    """Return a table of the seconds of commands, with the ratio to ours, in several columns."""
    rows = []
    for name in next(iter(columns.values()), {}):
        cells = []
        for usages in columns.values():
            values = walls(usages)
            times = compared(values, name, OURS)
            cells.append(spread(values[name].values()) + ("" if name == OURS else f" ×{times:.2f}"))
        rows.append((name, *cells))
    return table(("command: s, × ours", *columns), rows)
