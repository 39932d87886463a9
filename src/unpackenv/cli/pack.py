"""`unpackenv pack`: make an archive."""

from __future__ import annotations

import argparse
import sys

from unpackenv.build.bytecode import MODES
from unpackenv.build.pack import BEST_FRAME_SIZE, DEFAULT_FRAME_SIZE, DEFAULT_LEVEL
from unpackenv.cli.common import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands

_BIGGEST = 8


def add(commands: Commands) -> None:
    """Add the command."""
    usual, best = (
        ", ".join(f"{codec} {most >> 20}M" for codec, most in sizes.items())
        for sizes in (DEFAULT_FRAME_SIZE, BEST_FRAME_SIZE)
    )
    levels = ", ".join(f"{codec} {level}" for codec, level in DEFAULT_LEVEL.items())
    parser = commands.add_parser(
        "pack",
        help="make an archive of installed packages",
        description="Make an archive of a site-packages folder, an install tree (pip --target, --prefix) or a venv.",
    )
    parser.add_argument("source", metavar="SRC", help="the folder to pack")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the archive to write (.tar.zst or .tar.xz)"
    )
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        choices=tuple(DEFAULT_LEVEL),
        help="zstd or xz (default: by the name of FILE, else zstd)",
    )
    parser.add_argument(
        "--best", action="store_true",
        help=f"the highest level and the largest frames ({best}): smaller, slower to pack, more memory at the start",
    )  # fmt: skip
    parser.add_argument(
        "--level", type=int, metavar="N", help=f"compression level, zstd 1 to 22, xz 0 to 9 (default: {levels})"
    )
    parser.add_argument(
        "--frame-size", type=size, metavar="SIZE",
        help=f"what a worker decodes at once, such as 8M; larger: smaller on disk, more memory (default: {usual})",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="how many compress at once (default: as many as CPUs)"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB",
        help="leave out files and folders whose name or path in SRC matches, such as tests or '*.pyi'; may be repeated "
        "(default: nothing)",
    )  # fmt: skip
    parser.add_argument(
        "--target",
        default="",
        metavar="DIR",
        help="where to unpack (default: a venv where it is now, else as the start finds a place)",
    )
    parser.add_argument(
        "--bytecode", metavar="MODE", choices=MODES, default=MODES[0],
        help="unchecked-hash, checked-hash, timestamp: compile what has none, to be compared with its source never, by "
        f"content, or by time; keep: leave what is there; none: pack none (default: {MODES[0]})",
    )  # fmt: skip
    parser.add_argument(
        "--python", metavar="PATH", help="the interpreter that will run it (default: the venv's, else this)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.build import pack
    from unpackenv.report import amount
    from unpackenv.start import isolation

    codec = options.codec or ("xz" if options.output.endswith(".xz") else "zstd")
    if not options.output.endswith({"xz": (".xz", ".txz"), "zstd": (".zst", ".tzst")}[codec]):
        print(f"warning: {options.output} will be compressed with {codec}, whatever its name says", file=sys.stderr)
    chosen = pack.Options(
        codec=codec,
        best=options.best,
        level=options.level,
        frame_size=options.frame_size,
        workers=options.workers,
        exclude=options.exclude,
        target=options.target,
        bytecode=options.bytecode,
        python=options.python,
    )
    # A build that is cancelled leaves neither half an archive nor a staging directory.
    packed = isolation.stoppable(lambda: pack.pack(options.source, options.output, chosen))
    for warning in packed.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for glob in packed.unused:
        print(f"warning: --exclude {glob} matches nothing", file=sys.stderr)
    for path, reason in packed.failed:
        print(f"warning: {path} does not compile and is packed as it is: {reason}", file=sys.stderr)
    toc, described = packed.written.toc, packed.source
    ratio = packed.written.size / max(1, toc.unpacked_size)
    print(f"{packed.path}: {amount(packed.written.size)}, {ratio:.1%} of {amount(toc.unpacked_size)}")
    frames = len(toc.frame_raw)
    counts = f"{len(toc.file_names)} files, {frames} frame{'s' * (frames != 1)}"
    print(f"  {counts}, {described.kind}, for {described.interpreter.cache_tag}")
    biggest = list(packed.packages.items())[:_BIGGEST]
    print("  largest: " + ", ".join(f"{name} {amount(size)}" for name, size in biggest))
    print(f"  digest {packed.written.digest}")
    return 0
