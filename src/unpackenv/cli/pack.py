"""`unpackenv pack`: make an archive."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from unpackenv.archive import codecs
from unpackenv.cli.common import path, size
from unpackenv.pack import links
from unpackenv.pack.bytecode import MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands
    from unpackenv.pack.pack import Packed

_BIGGEST = 8
_LONG = 30  # seconds of compressing after which --fast is suggested


def add(commands: Commands) -> None:
    """Add the command."""
    every = list(codecs.every())
    usual = ", ".join(f"{codec.name} {codec.frame_size >> 20}M" for codec in every)
    best = ", ".join(f"{codec.name} {codec.best_frame_size >> 20}M" for codec in every)
    within = ", ".join(f"{codec.name} {codec.levels[0]} to {codec.levels[-1]}" for codec in every)
    levels = ", ".join(f"{codec.name} {codec.level}" for codec in every)
    fast = "; ".join(
        f"{codec.name} {codec.fast_level}, about {codec.fraction_larger:.0%}% larger in 1/{codec.times_faster} of the "
        "time"
        for codec in every
    )
    suffixes = " or ".join(f".tar{codec.suffixes[0]}" for codec in every)
    parser = commands.add_parser(
        "pack",
        help="make an archive of installed packages",
        description="Make an archive of a site-packages folder, an install tree (pip --target, --prefix) or a venv.",
    )
    parser.add_argument("source", metavar="SRC", help="the folder to pack")
    parser.add_argument(
        "-o", "--output", type=path, metavar="FILE", required=True, help=f"the archive to write ({suffixes})"
    )
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        choices=codecs.names(),
        help=f"{' or '.join(codecs.names())} (default: by the name of FILE, else {codecs.DEFAULT})",
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument(
        "--fast", action="store_true",
        help=f"a low level: {fast}",
    )  # fmt: skip
    effort.add_argument(
        "--best", action="store_true",
        help=f"the highest level and the largest frames ({best}): smaller, slower to pack, more memory at the start",
    )  # fmt: skip
    parser.add_argument("--level", type=int, metavar="N", help=f"compression level, {within} (default: {levels})")
    parser.add_argument(
        "--frame-size", type=size, metavar="SIZE",
        help="bytes that a worker decodes at once, such as 8M; larger frames make a smaller archive and take more "
        f"memory (default: {usual})",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="how many workers compress (default: as many as CPUs)"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB",
        help="leave out files and folders whose name or path in SRC matches, such as tests or '*.pyi'; may be repeated "
        "(default: nothing)",
    )  # fmt: skip
    parser.add_argument(
        "--target",
        type=path,
        default="",
        metavar="DIR",
        help="where starts unpack (default: a venv where it is now, else where the start finds a place)",
    )
    parser.add_argument(
        "--links", metavar="MODE", choices=links.MODES, default=links.MODES[0],
        help="links that lead out of SRC: follow (pack what they lead to), keep (pack the links), or refuse "
        f"(default: {links.MODES[0]})",
    )  # fmt: skip
    parser.add_argument(
        "--bytecode", metavar="MODE", choices=MODES, default=MODES[0],
        help="unchecked-hash, checked-hash, timestamp: compile every module; an import compares the bytecode with its "
        "source never, by content, or by time. keep: pack the bytecode that is there. none: pack none "
        f"(default: {MODES[0]})",
    )  # fmt: skip
    parser.add_argument(
        "--python", metavar="PATH", help="the interpreter that will run it (default: the venv's, else this one)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.pack import pack
    from unpackenv.start.machine import child

    codec = options.codec or codecs.of_file_name(options.output) or codecs.DEFAULT
    chosen = pack.Options(
        codec=codec,
        best=options.best,
        fast=options.fast,
        level=options.level,
        frame_size=options.frame_size,
        workers=options.workers,
        exclude=options.exclude,
        target=options.target,
        links=options.links,
        bytecode=options.bytecode,
        python=options.python,
    )
    # A build that is cancelled leaves neither half an archive nor a staging directory.
    packed = child.with_stop_signals(lambda: pack.pack(options.source, options.output, chosen, _warn))
    for line in _summary(packed, options):
        print(line)
    return 0


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _summary(packed: Packed, options: argparse.Namespace) -> Iterator[str]:
    from unpackenv.report import amount

    toc, source, size = packed.written.toc, packed.source, packed.written.size
    ratio = size / max(1, toc.unpacked_size)
    yield f"{packed.path}: {amount(size)}, {ratio:.1%} of {amount(toc.unpacked_size)}"
    frames = len(toc.frame_raw)
    counts = f"{len(toc.file_names)} files, {frames} frame{'s' * (frames != 1)}"
    yield f"  {counts}, {source.kind}, for {source.interpreter.cache_tag}"
    biggest = list(packed.packages.items())[:_BIGGEST]
    yield "  largest: " + ", ".join(f"{name} {amount(taken)}" for name, taken in biggest)
    if packed.target:
        yield f"  target {packed.target}: starts unpack it there, unless they name another one (UNPACKENV_TARGET)"
        if not options.target:
            yield "    This environment is there now, and its scripts name that path. To start the archive on this"
            yield "    machine, name another target."
    codec = codecs.get(packed.codec)
    if packed.seconds > _LONG and not (options.fast or options.best or options.level):
        larger = amount(size * (1 + codec.fraction_larger))
        fast = f"{packed.seconds / codec.times_faster:.0f} s, for an archive of {larger}"
        yield f"  compressing took {packed.seconds:.0f} s; with --fast it would take about {fast}"
    yield f"  digest {packed.written.digest}"
