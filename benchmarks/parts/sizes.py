"""Sizes of archives, and what frame size and level cost and gain."""

from __future__ import annotations

from collections.abc import Mapping

import measure
import peers
from cache import Unavailable
from parts.common import BEST, OURS, OURS_XZ, Options, Part, cold_start, left_out, plain, walls
from tables import Claim, megabytes, ratio, seconds, spread, table
from unpackenv.archive import codecs
from workload import Packed, Renderer

FRAME_MEBIBYTES = (4, 8, 12, 16, 24)
LEVELS = (3, 9, 15, 17, 19, 20, 22)
_CODEC = codecs.get(codecs.DEFAULT)
PEER = "XZ_OPT=-T0 tar -Jcf"


def sizes(renderer: Renderer, _: Options) -> Part:
    """How big are the archives?"""
    size = {
        OURS: renderer.packed().size,
        OURS_XZ: renderer.packed("--codec", "xz", codec="xz").size,
        PEER: peers.tar_xz(renderer).stat().st_size,
        "tar --zstd -cf, level 19": peers.tar_zstd(renderer).stat().st_size,
        "tar -cf, uncompressed": peers.tar(renderer).stat().st_size,
        BEST: renderer.packed("--best").size,
    }
    missing = {}
    for codec in ("zstd", "xz", "lz4"):
        try:
            size[f"mksquashfs, {codec}"] = peers.squashfs(renderer, codec).stat().st_size
        except Unavailable as error:
            missing[f"mksquashfs, {codec}"] = peers.last_line(str(error))
    peer = size[PEER]
    rows = [(name, megabytes(value), ratio(value / peer)) for name, value in size.items()]
    return Part(
        [table(("archive", "MB", f"× {PEER}"), rows), *left_out(missing)],
        {"bytes": size},
        [
            Claim(f"default archive / {PEER}", 1.08, size[OURS] / peer),
            Claim(f"archive of --best / {PEER}", 1.03, size[BEST] / peer),
            Claim(f"xz archive / {PEER}", 1.02, size[OURS_XZ] / peer),
        ],
    )


def frames(renderer: Renderer, options: Options) -> Part:
    """What does the size of the frames cost and gain?"""
    archives = {
        f"{size} MiB": _packed(renderer, "--frame-size", f"{size}M", size << 20 == _CODEC.frame_size)
        for size in FRAME_MEBIBYTES
    }
    return _settings(renderer, options, archives)


def levels(renderer: Renderer, options: Options) -> Part:
    """What does the level of the compression cost and gain?"""
    archives = {f"level {level}": _packed(renderer, "--level", level, level == _CODEC.level) for level in LEVELS}
    archives["--best"] = renderer.packed("--best")
    return _settings(renderer, options, archives)


def _packed(renderer: Renderer, option: str, value: object, is_default: bool) -> Packed:
    return renderer.packed() if is_default else renderer.packed(option, value)


def _settings(renderer: Renderer, options: Options, archives: Mapping[str, Packed]) -> Part:
    commands = [cold_start(renderer, name, packed.path) for name, packed in archives.items()]
    peaks = measure.peaks(commands, options.memory_rounds, options.fresh)
    usages = measure.in_turn(commands, options.rounds, options.fresh)
    peer = peers.tar_xz(renderer).stat().st_size
    rows = []
    for name, packed in archives.items():
        rows.append(
            (
                name,
                megabytes(packed.size),
                ratio(packed.size / peer),
                spread(walls(usages)[name].values()),
                spread([usage.cpu for usage in usages[name]]),
                megabytes(peaks[name].pss),
                seconds(packed.seconds),
                megabytes(packed.memory),
            )
        )
    header = ("", "archive MB", f"× {PEER}", "cold start s", "user+sys s", "memory MB", "pack s", "pack memory MB")
    text = "Memory is of all processes. Packing was measured once, when the archive was made."
    made = {name: [one.size, one.seconds, one.memory] for name, one in archives.items()}
    data: dict[str, object] = {"runs": plain(usages), "peaks": plain(peaks), "bytes, seconds, memory": made}
    return Part([text, table(header, rows)], data)
