"""`unpackenv pack`: a tree of packages becomes an archive.

recognise -> scan -> check -> compile -> order -> write, each in a module of its own; here is their order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import unpackenv
from unpackenv.archive import codecs, writer
from unpackenv.archive.tarstream import BLOCK, DIRECTORY, FILE, HARD_LINK, SYMLINK, padding
from unpackenv.archive.toc import FRAME_LIMIT
from unpackenv.archive.writer import Input, Written
from unpackenv.errors import PackError, SettingError
from unpackenv.pack import bytecode, checks, distributions, first, layout, links, progress, sbom, scan, sources, strip
from unpackenv.pack.bytecode import Data
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.source import PackSource, recognise
from unpackenv.pack.sources import Chosen
from unpackenv.pack.strip import Stripped
from unpackenv.pack.temporary import Directory, room

FRAME_SIZES = range(1 << 12, FRAME_LIMIT + 1)
_OTHER_SUFFIXES = (
    ".zip", ".whl", ".egg", ".pyz", ".pex", ".jar", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".lz4", ".lzma",
    ".br", ".7z", ".rar", ".sqfs", ".squashfs", ".img", ".iso",
)  # fmt: skip
_KINDS = {"dir": DIRECTORY, "file": FILE, "symlink": SYMLINK, "hardlink": HARD_LINK}


@dataclass(frozen=True)
class Options:
    """The choices of a pack. Sizes are in bytes; 0 workers means one for each CPU.

    The codec has defaults for `level` and `frame_size`: with `best` for the smallest archive, with `fast` for quick
    packing, else for a small archive that a start unpacks with little memory.
    """

    codec: str = codecs.DEFAULT
    best: bool = False
    fast: bool = False
    level: int | None = None
    frame_size: int | None = None
    workers: int = 0
    exclude: Sequence[str] = ()
    strip: bool = False
    """Whether debug symbols are left out."""
    first: Sequence[str] = ()
    """Files that list what comes first in the archive (see `first`)."""
    target: str = ""
    fill: str = ""
    """When starts fill files, if no setting says it: before, behind, on-demand; "" if that is not recorded."""
    links: str = links.MODES[0]
    bytecode: str = "unchecked-hash"
    optimize: Sequence[int] = (0,)
    """The optimisation levels that bytecode is made for."""
    sources: str = sources.MODES[0]
    """Whether sources are packed beside their bytecode: all, none."""
    keep_sources: Sequence[str] = ()
    """Packages that keep their sources all the same."""
    sources_to: str = ""
    """Where sources that are left out are packed; "" for nowhere."""
    python: str | None = None
    sbom: bool = True
    """Whether an SBOM is written beside the archive, if the library for that is installed."""
    metadata_to: str = ""
    """An empty or absent directory for the packages' metadata; "" for none."""


@dataclass(frozen=True)
class SourcesLeftOut:
    """The sources that are left out: how many, and their bytes; and the packages that keep theirs, with the reason."""

    count: int
    size: int
    kept: dict[str, str]


@dataclass(frozen=True)
class Packed:
    """What was packed, for the closing summary."""

    path: str
    codec: str
    source: PackSource
    written: Written
    first: int
    """How many files come first."""
    sources: SourcesLeftOut | None
    """What became of the sources, if some are left out."""
    stripped: Stripped | None
    """What became of debug symbols, if they are left out."""
    sbom: str
    """The path of the SBOM, or ""."""
    packages: dict[str, int]
    """Bytes of each distribution, unpacked."""
    target: str
    """Where a start unpacks it by default; "" if no place is recorded."""
    seconds: float
    """How long compressing took."""


def pack(directory: str, output: str, options: Options, warn: Callable[[str], None]) -> Packed:
    """Pack the packages in `directory` into the archive `output`, which appears whole or not at all.

    `warn` gets a sentence about each possible mistake, as soon as it is found. Raises `PackError`, `SettingError` or
    `NoSpace`.
    """
    level, frame_size = _level_and_frame_size(options)
    _check_sources(options)
    path = os.path.abspath(output)
    for each in (path, os.path.abspath(options.sources_to)) if options.sources_to else (path,):
        _check_output(each)
    if options.metadata_to:
        sbom.check_empty(options.metadata_to)
    with_sbom = options.sbom and sbom.is_available()
    lists = [first.read(file) for file in options.first]
    workers = options.workers or len(os.sched_getaffinity(0))
    source = recognise(directory, options.python)
    with progress.bar("scan", None) as show_size:
        tree = scan.scan(source, options.exclude, path, options.links, show_size)
    layout.check(source, tree)
    checks.check_extensions(source, tree)
    checks.check_wheels(source, tree)
    _warn(warn, source, tree, output, options.codec)
    target = os.path.abspath(options.target) if options.target else source.target
    with Directory() as temporary:
        staging = temporary.make()
        modules = [entry for entry in tree.entries if entry.path.endswith(".py")]
        need = f"compiling takes about {sum(entry.size for entry in modules) / 1e6:.1f} MB"
        with room(os.path.dirname(staging), need), progress.step("compile", len(modules)) as show:
            chosen = sources.choose(tree, source, options.keep_sources) if options.sources == "none" else Chosen()
            compiled = bytecode.compile_tree(
                tree, source, options.bytecode, staging, workers, lambda done, _: show(done),
                levels=options.optimize, without_source=chosen.left_out,
            )  # fmt: skip
        for name in chosen.unused:
            warn(f"--keep-sources {name} is no package of the tree")
        stripped = None
        if options.strip:
            native = strip.find(compiled.tree, source)
            need = f"stripping takes about {sum(entry.size for entry in native) / 1e6:.1f} MB"
            with room(os.path.dirname(staging), need), progress.step("strip", len(native)) as show:
                compiled, stripped = strip.strip(native, compiled, source, staging, workers, show)
        for text in compiled.warnings:
            warn(text)
        for path_in_tree, reason in compiled.failed:
            warn(f"{path_in_tree} does not compile and is packed as it is: {reason}")
        order = first.order(compiled.tree.entries, lists, with_small=options.fill not in ("", "before"))
        for text in order.warnings:
            warn(text)
        began = time.monotonic()
        size = stream_size(order.entries)
        with progress.step("compress", size) as show:
            written = writer.write(
                path,
                members(source.root, order.entries, compiled.overlay),
                _facts(source, tree, target, level, frame_size, options),
                codec=options.codec,
                level=level,
                frame_size=frame_size,
                workers=workers,
                first=order.count,
                small=order.small,
                size=size,
                on_progress=show,
            )
        seconds = time.monotonic() - began
    left_out = _left_out(tree, compiled.tree)
    try:
        listed = sbom.write(path, written.digest, source, compiled.tree) if with_sbom else ""
        if options.sources_to:
            _write_sources(left_out, tree, source, options, workers)
        if options.metadata_to:
            sbom.copy_metadata(options.metadata_to, source, compiled.tree)
    except BaseException:
        os.unlink(path)  # all or nothing
        raise
    packages = distributions.sizes(source, compiled.tree)
    told = SourcesLeftOut(len(left_out), sum(entry.size for entry in left_out), chosen.kept)
    return Packed(
        path=output,
        codec=options.codec,
        source=source,
        written=written,
        first=order.count,
        sources=told if chosen.left_out else None,
        stripped=stripped,
        sbom=listed,
        packages=packages,
        target=target,
        seconds=seconds,
    )


def _check_sources(options: Options) -> None:
    """Raise `SettingError` for options that do not fit together."""
    if not options.optimize or not set(options.optimize) <= set(bytecode.LEVELS):
        raise SettingError("is none of 0, 1 and 2", where="--optimize")
    if options.sources == "none" and options.bytecode in ("keep", "none"):
        raise SettingError("needs bytecode that this pack makes, not --bytecode keep or none", where="--sources none")
    if options.sources == "none" and len(options.optimize) > 1:
        raise SettingError("has one module for all levels: name one with --optimize", where="--sources none")
    if options.sources != "none" and (options.keep_sources or options.sources_to):
        raise SettingError("needs --sources none", where="--keep-sources" if options.keep_sources else "--sources-to")


def _left_out(tree: Tree, packed: Tree) -> list[Entry]:
    """Return the sources of a tree that are not packed."""
    kept = {entry.path for entry in packed.entries}
    return [entry for entry in tree.entries if entry.path.endswith(".py") and entry.path not in kept]


def _write_sources(left_out: Sequence[Entry], tree: Tree, source: PackSource, options: Options, workers: int) -> None:
    """Write an archive of the sources that are left out, and their directories."""
    used = {""}
    for entry in left_out:
        directory = os.path.dirname(entry.path)
        while directory not in used:
            used.add(directory)
            directory = os.path.dirname(directory)
    names = {entry.path for entry in left_out} | used
    codec = codecs.get(codecs.of_file_name(options.sources_to) or codecs.DEFAULT)
    writer.write(
        os.path.abspath(options.sources_to),
        members(source.root, [entry for entry in tree.entries if entry.path in names], {}),
        {"generator": [f"unpackenv {unpackenv.__version__}"], "kind": ["sources"]},
        codec=codec.name,
        level=codec.fast_level,
        frame_size=codec.frame_size,
        workers=workers,
    )


def _warn(warn: Callable[[str], None], source: PackSource, tree: Tree, output: str, codec: str) -> None:
    if not output.endswith(codecs.get(codec).suffixes):
        warn(f"{output} will be compressed with {codec}, whatever its name says")
    for glob in tree.unused:
        warn(f"--exclude {glob} matches nothing")
    for text in (*layout.warnings(source, tree), *tree.warnings, *checks.warnings(source, tree)):
        warn(text)


def _check_output(output: str) -> None:
    directory = os.path.dirname(output)
    if not os.access(directory, os.W_OK):
        problem = "cannot be written" if os.path.isdir(directory) else "is no directory"
        raise PackError(f"{problem}, so the archive cannot be made in it", where=directory)
    if os.path.isdir(output):
        raise PackError("is a directory, but the archive will be a file", where=output)
    if os.path.exists(output) and not os.path.isfile(output):  # a device would be replaced
        raise PackError("is no regular file, but the archive will be one", where=output)
    suffix = os.path.splitext(output)[1].lower()
    if suffix in _OTHER_SUFFIXES and not codecs.of_file_name(output):
        names = " or ".join(f".tar{codec.suffixes[0]}" for codec in codecs.every())
        raise PackError(
            f"is named like an archive of another kind ({suffix})",
            where=output,
            hint=f"Name it {names}: it will be a tar archive, compressed with {' or '.join(codecs.names())}",
        )


def _level_and_frame_size(options: Options) -> tuple[int, int]:
    """Return level and frame size; raises `SettingError` if a number is out of range."""
    if options.workers < 0:
        raise SettingError(f"{options.workers} is less than 0", where="--workers")
    codec, level, frame_size = codecs.get(options.codec), options.level, options.frame_size
    if level is None:
        level = codec.best_level if options.best else codec.fast_level if options.fast else codec.level
    if frame_size is None:
        frame_size = codec.best_frame_size if options.best else codec.frame_size
    if level not in codec.levels:
        raise SettingError(
            f"{level} is not between {codec.levels[0]} and {codec.levels[-1]} ({codec.name})", where="--level"
        )
    if frame_size not in FRAME_SIZES:
        raise SettingError(f"{frame_size} is not between 4K and 128M", where="--frame-size")
    return level, frame_size


def members(root: str, entries: Iterable[Entry], overlay: Mapping[str, Data]) -> Iterator[Input]:
    """Yield the entries of the tree at `root` as input of the writer; `overlay` has data that the tree does not."""
    for entry in entries:
        path = os.fsencode(entry.path)
        link = os.fsencode(entry.link)
        data = overlay.get(entry.path) or Data(os.path.join(root, entry.path), 0)
        yield Input(_KINDS[entry.kind], path, entry.mode, entry.mtime, entry.size, link, *data)


def stream_size(entries: Iterable[Entry]) -> int:
    """Return the size of the tar stream of some members, without the extra headers of long names."""
    return sum(BLOCK + entry.size + padding(entry.size) for entry in entries)


def _facts(
    source: PackSource, tree: Tree, target: str, level: int, frame_size: int, options: Options
) -> dict[str, list[str]]:
    """Return the facts for a start; docs/format.md says what each means."""
    interpreter = source.interpreter
    facts = {
        "generator": [f"unpackenv {unpackenv.__version__}"],
        "kind": [source.kind],
        "import": list(source.import_paths),
        "bin": [source.bin if any(entry.path == source.bin for entry in tree.entries) else ""],
        "target": [target],
        "fill": [options.fill],
        "home": [source.home],
        "made-at": [source.target if source.target != target else ""],
        "python": [interpreter.cache_tag],
        "soabi": [interpreter.soabi],
        "machine": [interpreter.machine],
        "system": [interpreter.system],
        "libc": [checks.needed_libc(source, tree)],
        "native": ["yes" if checks.shared_objects(tree) else "no"],
        "bytecode": [options.bytecode],
        "optimize": [" ".join(map(str, options.optimize)) if tuple(options.optimize) != (0,) else ""],
        "sources": [options.sources if options.sources != sources.MODES[0] else ""],
        "level": [str(level)],
        "frame-size": [str(frame_size)],
    }
    return {key: values for key, values in facts.items() if key == "import" or values != [""]}
