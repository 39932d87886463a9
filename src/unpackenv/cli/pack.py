"""`unpackenv pack`: make an archive."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from unpackenv.archive import codecs
from unpackenv.cli.common import add_json, first_files, path, say, size
from unpackenv.errors import PlatformUnsupported
from unpackenv.pack import links, scan, sources
from unpackenv.pack.bytecode import LEVELS, MODES
from unpackenv.start.settings import BEFORE, FILLS

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
        "--exclude-tests", action="store_true",
        help=f"leave out what is in folders named {' or '.join(scan.TESTS)}; a few packages import theirs",
    )  # fmt: skip
    parser.add_argument(
        "--strip", action="store_true",
        help="leave out debug symbols of shared objects and programs (strip --strip-debug), where that changes nothing "
        "that is loaded",
    )  # fmt: skip
    parser.add_argument(
        "--first", action="append", type=path, default=[], metavar="FILE",
        help="put these files first in the archive, in this order: FILE lists paths in SRC, one a line, a folder for "
        "all files in it. May be repeated: then the first file of each list comes first, then the second of each, and "
        "so on (default: the order of the paths)",
    )  # fmt: skip
    parser.add_argument(
        "--target",
        type=path,
        default="",
        metavar="DIR",
        help="where starts unpack (default: a venv where it is now, else where the start finds a place)",
    )
    parser.add_argument(
        "--fill", metavar="WHEN", choices=FILLS, default="",
        help="when starts fill files, unless UNPACKENV_FILL says it: before the application starts, behind it (names "
        f"first), or on-demand (when they are opened) (default: {BEFORE})",
    )  # fmt: skip
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
        "--optimize", type=levels_of, default=(0,), metavar="LEVELS",
        help="make bytecode for these optimisation levels, such as 0,1,2: that of a plain interpreter, with -O, and "
        "with -OO (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--sources", metavar="MODE", choices=sources.MODES, default=sources.MODES[0],
        help="all, or none: modules are packed as bytecode only, half as many files. Tracebacks show no source lines "
        f"then. Packages that read their own sources keep them (default: {sources.MODES[0]})",
    )  # fmt: skip
    parser.add_argument(
        "--keep-sources", type=names, action="extend", default=[], metavar="NAMES",
        help="with --sources none: packages that keep their sources, too, with commas between them (default: "
        "those that read them)",
    )  # fmt: skip
    parser.add_argument(
        "--sources-to", type=path, default="", metavar="FILE",
        help="with --sources none: pack what is left out into an archive of its own, to be unpacked over the tree "
        "(default: nowhere)",
    )  # fmt: skip
    parser.add_argument(
        "--no-sbom", action="store_true",
        help="write no list of the packages beside the archive (FILE.cdx.json, a CycloneDX SBOM; it takes the extra "
        "unpackenv[build])",
    )  # fmt: skip
    parser.add_argument(
        "--metadata-to", type=path, default="", metavar="DIR",
        help="copy the packages' metadata (*.dist-info), without code, to an empty or absent folder: for scanners of "
        "images (default: nowhere)",
    )  # fmt: skip
    parser.add_argument(
        "--python", metavar="PATH", help="the interpreter that will run it (default: the venv's, else this one)"
    )
    add_json(parser, "what was packed")
    parser.set_defaults(run=run)


def levels_of(text: str) -> tuple[int, ...]:
    """Return optimisation levels with commas between them."""
    levels = {level.strip() for level in text.split(",")}
    if not levels <= set(map(str, LEVELS)):
        raise argparse.ArgumentTypeError(f"{text!r} is not 0, 1, 2, or several of them with commas between them")
    return tuple(sorted(map(int, levels)))


def names(text: str) -> list[str]:
    """Return names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    _check_system(options)
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
        exclude=[*options.exclude, *(scan.TESTS if options.exclude_tests else ())],
        strip=options.strip,
        first=options.first,
        target=options.target,
        fill=options.fill,
        links=options.links,
        bytecode=options.bytecode,
        optimize=options.optimize,
        sources=options.sources,
        keep_sources=options.keep_sources,
        sources_to=options.sources_to,
        python=options.python,
        sbom=not options.no_sbom,
        metadata_to=options.metadata_to,
    )
    # A build that is cancelled leaves neither half an archive nor a staging directory.
    packed = child.with_stop_signals(lambda: pack.pack(options.source, options.output, chosen, _warn))
    say(options, _fields(packed), _summary(packed, options))
    return 0


def _check_system(options: argparse.Namespace) -> None:
    """Raise `PlatformUnsupported` on another system: the packages there are for it, and starts are on Linux."""
    if sys.platform != "linux":
        import shlex

        command = shlex.join(["unpackenv", "pack", options.source, "-o", options.output])
        image = f"python:{sys.version_info[0]}.{sys.version_info[1]}"
        raise PlatformUnsupported(
            f"packages that are installed on {sys.platform} are for {sys.platform}, and an archive starts on Linux",
            where=options.source,
            hint="Install and pack them in a container of the image: "
            f'docker run --rm -v "$PWD":/work -w /work {image} sh -c '
            + shlex.quote(f"pip install 'unpackenv[build]' && {command}"),
        )


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _fields(packed: Packed) -> dict[str, object]:
    toc = packed.written.toc
    return {
        "path": packed.path,
        "size": packed.written.size,
        "digest": packed.written.digest,
        "codec": packed.codec,
        "kind": packed.source.kind,
        "python": packed.source.interpreter.cache_tag,
        "files": len(toc.file_names),
        "frames": len(toc.frame_raw),
        "unpacked_size": toc.unpacked_size,
        "first": packed.first,
        "target": packed.target or None,
        "sbom": packed.sbom or None,
        "packages": packed.packages,
        "seconds": round(packed.seconds, 3),
    }


def _summary(packed: Packed, options: argparse.Namespace) -> Iterator[str]:
    from unpackenv.report import amount

    toc, source, size = packed.written.toc, packed.source, packed.written.size
    ratio = size / max(1, toc.unpacked_size)
    yield f"{packed.path}: {amount(size)}, {ratio:.1%} of {amount(toc.unpacked_size)}"
    frames = len(toc.frame_raw)
    counts = f"{len(toc.file_names)} files, {frames} frame{'s' * (frames != 1)}"
    yield f"  {counts}, {source.kind}, for {source.interpreter.cache_tag}"
    if packed.first:
        yield f"  first {first_files(toc, packed.first)}"
    if packed.sources:
        left_out = packed.sources
        what = f"sources of {left_out.count:,} modules left out ({amount(left_out.size)})"
        yield f"  {what}: tracebacks show their names and numbers, and no lines"
        for package, reason in left_out.kept.items():
            yield f"    kept: {package}, {reason}"
    if packed.stripped:
        stripped = packed.stripped
        saved = f"{amount(stripped.before - stripped.after)} of {amount(stripped.before)}"
        yield f"  debug symbols of {stripped.count:,} files left out: {saved}"
        for reason, paths in stripped.kept.items():
            files = paths[0] if len(paths) == 1 else f"{len(paths):,} files (such as {paths[0]})"
            yield f"    kept: {files}, {reason}"
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
    if packed.sbom:
        yield f"  SBOM {packed.sbom}"
    elif not options.no_sbom:
        yield "  no SBOM: that takes the extra unpackenv[build]"
    yield f"  digest {packed.written.digest}"
