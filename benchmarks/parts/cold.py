"""Cold starts compared with all peers, and on other workloads with the main peers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import measure
import peers
import workload
from cache import Unavailable
from measure import Command
from parts.common import (
    FOREIGN,
    FOREIGN_IN_PLACE,
    MEMORY_LIMIT,
    OURS,
    OURS_XZ,
    THREADS,
    Options,
    Part,
    cold_start,
    compared,
    fresh_for,
    left_out,
    medians,
    plain,
    ratio_table,
    walls,
)
from tables import Claim, count, megabytes, seconds, spread, table
from workload import Renderer, Workload

LEAST_MEMORY = 80e6
_HEADER = ("command", "wall s", "user s", "system s", "switches", "memory MB, all processes", "sum of RSS MB",
           "largest process MB", "files")  # fmt: skip


def cold(renderer: Renderer, options: Options) -> Part:
    """How long does unpacking take, and how much memory, whole processes on a fresh file system?"""
    others, missing = peers.commands(renderer)
    ours = [
        cold_start(renderer, OURS, renderer.zstd),
        cold_start(renderer, THREADS, renderer.zstd, UNPACKENV_PARALLEL="threads"),
        cold_start(renderer, OURS_XZ, renderer.xz),
        cold_start(renderer, FOREIGN, peers.tar_xz(renderer)),
        cold_start(renderer, FOREIGN_IN_PLACE, peers.tar_xz(renderer), UNPACKENV_IN_PLACE="yes"),
    ]
    runs = _Runs(renderer, [*ours, *others], options)
    missing |= runs.survey.failed
    times, peaks = walls(runs.usages), runs.survey.peaks
    notes = [f"- {name}: {note}" for name, note in peers.notes().items() if name in times]
    notes.append(f"- Those that unpackenv is not measured by ran in every {measure.SELDOM}rd round only.")
    return Part(
        [runs.table(), "\n".join(notes), *left_out(missing), *ratio_table(times)],
        {**runs.data(), "missing": missing},
        [
            Claim("cold start / unsquashfs, zstd 19", 0.75, compared(times, OURS, peers.UNSQUASHFS), stretch=0.65),
            Claim("cold start / cp -a of the tree", 0.53, compared(times, OURS, peers.CP), stretch=0.45),
            Claim("cold start / XZ_OPT=-T0 tar -Jxf", 0.17, compared(times, OURS, peers.TAR_XZ), stretch=0.15),
            Claim("cold start / tar --zstd -xf", 0.90, compared(times, OURS, peers.TAR_ZSTD)),
            Claim("xz / XZ_OPT=-T0 tar -Jxf", 1.0, compared(times, OURS_XZ, peers.TAR_XZ)),
            Claim("plain-tar xz / XZ_OPT=-T0 tar -Jxf", 1.1, compared(times, FOREIGN, peers.TAR_XZ)),
            Claim("plain-tar xz, in place / XZ_OPT=-T0 tar -Jxf", 1.1, compared(times, FOREIGN_IN_PLACE, peers.TAR_XZ)),
            Claim(f"memory, {OURS}", LEAST_MEMORY, peaks[OURS].pss, megabytes),
            *(Claim(f"memory, {name}", MEMORY_LIMIT, peaks[name].pss, megabytes) for name in (THREADS, OURS_XZ)),
            Claim(f"memory, {FOREIGN}", foreign_limit(peers.tar_xz(renderer)), peaks[FOREIGN].pss, megabytes),
        ],
    )


def workloads(_: Renderer, options: Options) -> Part:
    """How does it do with other packages: a science stack, many small files, few big ones?"""
    text: list[str] = []
    data: dict[str, object] = {}
    kinds: Sequence[Callable[[], Workload]] = (workload.science, workload.small_files, workload.big_files)
    for make in kinds:
        try:
            made = make()
            others, missing = peers.commands(made, peers.MAIN)
        except Unavailable as error:
            text.append(f"- Left out: {make.__name__}: {peers.last_line(str(error))}")
            continue
        ours = [
            cold_start(made, OURS, made.zstd),
            cold_start(made, THREADS, made.zstd, UNPACKENV_PARALLEL="threads"),
        ]
        runs = _Runs(made, [*ours, *others], options)
        archives = {OURS: made.zstd, peers.TAR_XZ: peers.tar_xz(made), peers.TAR_ZSTD: peers.tar_zstd(made)}
        sizes = {name: path.stat().st_size for name, path in archives.items()}
        listed = ", ".join(f"{name} {megabytes(size)} MB" for name, size in sizes.items())
        raw = peers.tar(made).stat().st_size
        text += [f"### {made.what}", f"{megabytes(raw)} MB as tar; archives: {listed}.", runs.table()]
        text += [*left_out({**missing, **runs.survey.failed}), *ratio_table(walls(runs.usages))]
        data[made.name] = {**runs.data(), "bytes": sizes}
    return Part(text, data)


def foreign_limit(archive: Path) -> float:
    """Each worker holds one block of an archive that somebody else has cut."""
    return MEMORY_LIMIT + workload.xz_block_size(archive) * len(os.sched_getaffinity(0))


class _Runs:
    """Commands that unpack a workload, measured; ours must work, and of the others those that do are kept."""

    def __init__(self, made: Workload, commands: Sequence[Command], options: Options) -> None:
        fresh = fresh_for(options.file_system, made)
        # Memory first: the timed runs then find every program and its libraries in the page cache.
        self.survey = measure.survey(commands, options.memory_rounds, fresh)
        for name, reason in self.survey.failed.items():
            if name.startswith("unpackenv"):
                raise measure.Failed(reason)
        working = [command for command in commands if command.name in self.survey.peaks]
        seldom = {peer.name for peer in peers.PEERS} - {*peers.MAIN}
        self.usages = measure.in_turn(working, options.rounds, fresh, seldom)

    def table(self) -> str:
        rows = []
        for name, runs in self.usages.items():
            peak = self.survey.peaks[name]
            rows.append(
                (
                    name,
                    spread([usage.wall for usage in runs]),
                    seconds(medians(runs, lambda usage: usage.user)),
                    seconds(medians(runs, lambda usage: usage.system)),
                    count(medians(runs, lambda usage: usage.switches)),
                    *map(megabytes, (peak.pss, peak.rss, peak.largest)),
                    count(self.survey.files[name]),
                )
            )
        return table(_HEADER, rows)

    def data(self) -> dict[str, object]:
        return {"runs": plain(self.usages), "peaks": plain(self.survey.peaks), "files": self.survey.files}
