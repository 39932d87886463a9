"""`unpackenv pack`: a tree of packages becomes an archive.

recognise -> scan -> check -> compile -> write, each in a module of its own; here is their order.
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
from unpackenv.pack import bytecode, checks, distributions, layout, links, progress, scan
from unpackenv.pack.bytecode import Data
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.source import PackSource, recognise
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
    target: str = ""
    links: str = links.MODES[0]
    bytecode: str = "unchecked-hash"
    python: str | None = None


@dataclass(frozen=True)
class Packed:
    """What was packed, for the closing summary."""

    path: str
    codec: str
    source: PackSource
    written: Written
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
    path = os.path.abspath(output)
    _check_output(path)
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
            compiled = bytecode.compile_tree(
                tree, source, options.bytecode, staging, workers, lambda done, _: show(done)
            )
        for text in compiled.warnings:
            warn(text)
        for path_in_tree, reason in compiled.failed:
            warn(f"{path_in_tree} does not compile and is packed as it is: {reason}")
        began = time.monotonic()
        size = stream_size(compiled.tree.entries)
        with progress.step("compress", size) as show:
            written = writer.write(
                path,
                members(source.root, compiled.tree.entries, compiled.overlay),
                _facts(source, tree, target, level, frame_size, options),
                codec=options.codec,
                level=level,
                frame_size=frame_size,
                workers=workers,
                size=size,
                on_progress=show,
            )
        seconds = time.monotonic() - began
    packages = distributions.sizes(source, compiled.tree)
    return Packed(output, options.codec, source, written, packages, target, seconds)


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
        "made-at": [source.target if source.target != target else ""],
        "python": [interpreter.cache_tag],
        "soabi": [interpreter.soabi],
        "machine": [interpreter.machine],
        "system": [interpreter.system],
        "libc": [checks.needed_libc(source, tree)],
        "native": ["yes" if checks.shared_objects(tree) else "no"],
        "bytecode": [options.bytecode],
        "level": [str(level)],
        "frame-size": [str(frame_size)],
    }
    return {key: values for key, values in facts.items() if key == "import" or values != [""]}
