"""How long packing takes."""

from __future__ import annotations

import shutil

import measure
import peers
from measure import Command
from parts.common import BEST, OURS, OURS_XZ, Options, Part, compared, left_out, plain, walls
from tables import Claim, megabytes, ratio, spread, table
from workload import Renderer

TAR_XZ, TAR_ZSTD, SQUASHFS = "XZ_OPT=-T0 tar -Jcf", "tar --zstd -cf, level 19", "mksquashfs, zstd 19"


def packing(renderer: Renderer, options: Options) -> Part:
    """How long does packing take, where the bytecode is there already?"""
    parent, name = renderer.tree.parent, renderer.tree.name

    def tar(label: str, flag: str, **env: str) -> Command:
        return Command(label, lambda at: ["tar", "-C", parent, flag, "-cf", at / "packed", name], env, renderer.tree)

    commands = [
        renderer.pack(OURS, lambda at: at / "packed.tar.zst"),
        renderer.pack(BEST, lambda at: at / "packed.tar.zst", "--best"),
        renderer.pack(OURS_XZ, lambda at: at / "packed.tar.xz", "--codec", "xz"),
        tar(TAR_XZ, "-J", XZ_OPT="-T 0"),
        tar(TAR_ZSTD, "--zstd", **peers.zstd_19()),
    ]
    missing = {}
    if shutil.which("mksquashfs"):
        pack = Command(SQUASHFS, lambda at: peers.squash(renderer, "zstd", at / "packed"), reads=renderer.tree)
        commands.append(pack)
    else:
        missing[SQUASHFS] = "mksquashfs is not installed"
    seldom = {command.name for command in commands} - {OURS, TAR_XZ}
    watched = measure.watched_in_turn(commands, options.slow_rounds, options.fresh, seldom)
    times = walls({name: [usage for usage, _ in runs] for name, runs in watched.items()})
    rows = [
        (
            name,
            spread(times[name].values()),
            spread([usage.cpu for usage, _ in runs]),
            megabytes(max(peak.pss for _, peak in runs)),
            ratio(compared(times, name, TAR_XZ) or 0),
        )
        for name, runs in watched.items()
    ]
    rounds = f"{options.slow_rounds} round(s); all but {OURS} and {TAR_XZ} in every {measure.SELDOM}rd only."
    header = ("command", "wall s", "user+sys s", "memory MB, all processes", f"× {TAR_XZ}")
    return Part(
        [rounds, table(header, rows), *left_out(missing)],
        {"runs": plain(watched)},
        [Claim(f"pack / {TAR_XZ}", 0.8, compared(times, OURS, TAR_XZ))],
    )
