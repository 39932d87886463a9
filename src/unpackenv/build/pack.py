"""`unpackenv pack`: a tree of packages becomes an archive.

recognise -> scan -> compile -> write, each in a module of its own; here is their order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import unpackenv
from unpackenv.archive import trailer, writer
from unpackenv.archive.tarstream import DIRECTORY, FILE, HARD_LINK, SYMLINK
from unpackenv.archive.toc import FRAME_LIMIT
from unpackenv.archive.writer import Input, Written
from unpackenv.build import bytecode, checks, distributions, progress, scan, source
from unpackenv.errors import PackError, SettingError

# Measured on the renderer's packages, see docs/design.md: the smallest archive that still packs at
# an acceptable speed, and whose frames leave a start of two workers well within its memory.
DEFAULT_LEVEL = {trailer.ZSTD: 20, trailer.XZ: 6}
DEFAULT_FRAME_SIZE = {trailer.ZSTD: 16 << 20, trailer.XZ: 12 << 20}  # xz takes a dictionary as large beside it
BEST_LEVEL = {trailer.ZSTD: 22, trailer.XZ: 9}
BEST_FRAME_SIZE = {trailer.ZSTD: 128 << 20, trailer.XZ: 64 << 20}
FRAME_SIZES = range(1 << 12, FRAME_LIMIT + 1)
_LEVELS = {trailer.ZSTD: range(1, 23), trailer.XZ: range(10)}
_KINDS = {"dir": DIRECTORY, "file": FILE, "symlink": SYMLINK, "hardlink": HARD_LINK}


@dataclass(frozen=True)
class Options:
    """What may be chosen; sizes are in bytes, 0 workers are as many as there are CPUs.

    `level` and `frame_size` are by default those of the codec: `best` for the smallest archive, else for a small one
    that packs quickly and starts with little memory.
    """

    codec: str = trailer.ZSTD
    best: bool = False
    level: int | None = None
    frame_size: int | None = None
    workers: int = 0
    exclude: Sequence[str] = ()
    target: str = ""
    bytecode: str = "unchecked-hash"
    python: str | None = None


@dataclass(frozen=True)
class Packed:
    """What was packed, for the closing summary."""

    path: str
    source: source.Source
    written: Written
    packages: dict[str, int]
    """Bytes of each distribution, unpacked."""
    failed: list[tuple[str, str]]
    """Sources that do not compile, with the compiler's reason."""
    unused: tuple[str, ...]
    """Globs of `exclude` that nothing matched."""
    warnings: list[str]
    """What will not work where the archive is unpacked."""


def pack(directory: str, output: str, options: Options) -> Packed:
    """Pack the packages in `directory` into the archive `output`, which appears whole or not at all.

    Raises `PackError` or `SettingError`.
    """
    level, frame_size = _chosen(options)
    _check_output(output)
    workers = options.workers or len(os.sched_getaffinity(0))
    described = source.recognise(directory, options.python)
    tree = scan.scan(described, options.exclude, os.path.abspath(output))
    checks.check_extensions(described, tree)
    target = os.path.abspath(options.target) if options.target else described.target
    with tempfile.TemporaryDirectory(prefix="unpackenv-") as staging:
        with progress.step("compile", sum(entry.path.endswith(".py") for entry in tree.entries)) as show:
            compiled = bytecode.compile_tree(
                tree, described, options.bytecode, staging, workers, lambda done, _: show(done)
            )
        size = sum(entry.size for entry in compiled.tree.entries)
        with progress.step("compress", size) as show:
            written = writer.write(
                os.path.abspath(output),
                members(described.root, compiled.tree.entries, compiled.overlay),
                _facts(described, tree, target, level, frame_size, options),
                codec=options.codec,
                level=level,
                frame_size=frame_size,
                workers=workers,
                on_progress=show,
            )
    packages = distributions.sizes(described, compiled.tree)
    return Packed(output, described, written, packages, compiled.failed, tree.unused, checks.warnings(described, tree))


def _check_output(output: str) -> None:
    directory = os.path.dirname(os.path.abspath(output))
    if not os.access(directory, os.W_OK):
        what = "cannot be written" if os.path.isdir(directory) else "is no directory"
        raise PackError(f"{what}, and the archive is to be made in it", where=directory)
    if os.path.isdir(output):
        raise PackError("is a directory, and the archive is to be a file", where=output)


def _chosen(options: Options) -> tuple[int, int]:
    """Return level and frame size, checked with the other numbers."""
    if options.workers < 0:
        raise SettingError(f"{options.workers} is less than 0", where="--workers")
    level, frame_size = options.level, options.frame_size
    if level is None:
        level = (BEST_LEVEL if options.best else DEFAULT_LEVEL)[options.codec]
    if frame_size is None:
        frame_size = (BEST_FRAME_SIZE if options.best else DEFAULT_FRAME_SIZE)[options.codec]
    levels = _LEVELS[options.codec]
    if level not in levels:
        raise SettingError(f"{level} is not within {levels[0]} and {levels[-1]} ({options.codec})", where="--level")
    if frame_size not in FRAME_SIZES:
        raise SettingError(f"{frame_size} is not within 4K and 128M", where="--frame-size")
    return level, frame_size


def members(root: str, entries: Iterable[scan.Entry], overlay: Mapping[str, str]) -> Iterator[Input]:
    """Yield the entries of the tree at `root` as what is written; the data of those in `overlay` is there."""
    for entry in entries:
        path = os.fsencode(entry.path)
        link = os.fsencode(entry.link)
        data = overlay.get(entry.path) or os.path.join(root, entry.path)
        yield Input(_KINDS[entry.kind], path, entry.mode, entry.mtime, entry.size, link, data)


def _facts(
    described: source.Source, tree: scan.Tree, target: str, level: int, frame_size: int, options: Options
) -> dict[str, list[str]]:
    """Return what a start has to know; docs/format.md says what each means."""
    interpreter = described.interpreter
    facts = {
        "generator": [f"unpackenv {unpackenv.__version__}"],
        "kind": [described.kind],
        "import": list(described.import_paths),
        "bin": [described.bin if any(entry.path == described.bin for entry in tree.entries) else ""],
        "target": [target],
        "made-at": [described.target if described.target != target else ""],
        "python": [interpreter.cache_tag],
        "soabi": [interpreter.soabi],
        "machine": [interpreter.machine],
        "system": [interpreter.system],
        "libc": [checks.needed_libc(described, tree)],
        "native": ["yes" if checks.shared_objects(tree) else "no"],
        "bytecode": [options.bytecode],
        "level": [str(level)],
        "frame-size": [str(frame_size)],
    }
    return {key: values for key, values in facts.items() if key == "import" or values != [""]}
