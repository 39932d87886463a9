"""Memory with one big file."""

from __future__ import annotations

import measure
import peers
import workload
from parts.cold import foreign_limit
from parts.common import FOREIGN, MEMORY_LIMIT, OURS, OURS_XZ, Options, Part, cold_start, plain
from tables import Claim, megabytes, table
from workload import Renderer


def memory(_: Renderer, options: Options) -> Part:
    """Does memory stay bounded with a single file of 300 MB?"""
    made = workload.one_file()
    archives = {OURS: made.zstd, OURS_XZ: made.xz, FOREIGN: peers.tar_xz(made)}
    commands = [cold_start(made, name, archive) for name, archive in archives.items()]
    peaks = measure.peaks(commands, options.memory_rounds, options.fresh)
    limits = {OURS: MEMORY_LIMIT, OURS_XZ: MEMORY_LIMIT, FOREIGN: foreign_limit(archives[FOREIGN])}
    rows = [(name, *map(megabytes, (peak.pss, peak.largest, limits[name]))) for name, peak in peaks.items()]
    claims = [Claim(f"memory, one 300 MB file, {name}", limits[name], peaks[name].pss, megabytes) for name in limits]
    header = ("archive", "MB, all processes", "MB, largest process", "limit MB")
    return Part([table(header, rows)], {"peaks": plain(peaks)}, claims)
