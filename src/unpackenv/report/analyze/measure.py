"""Measure on this machine what a tree costs as a plain layer of an image, and packed.

A layer is a tar. It is compressed as by `docker build`, with gzip at its default level, and unpacked by stock tar,
as by a pull. The packed form is made by the code of `pack` with its defaults, except that bytecode stays as it is,
and unpacked by the code of a start.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from unpackenv.archive import codecs, reader, trailer, writer
from unpackenv.archive.codecs import zstd_extension
from unpackenv.archive.pooled import in_order
from unpackenv.archive.tarstream import DIRECTORY
from unpackenv.archive.toc import Toc
from unpackenv.archive.writer import Input
from unpackenv.errors import PackError
from unpackenv.pack import pack as packing
from unpackenv.pack import progress, runtime, scan
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.source import PackSource, as_is
from unpackenv.start.bootstrap import Unpack
from unpackenv.start.report import Report
from unpackenv.start.settings import Log
from unpackenv.start.unpack import preflight

_GZIP_WINDOW = 31
_ZSTD_LEVEL = 3  # of BuildKit with compression=zstd
_PIECE = 1 << 20
_RUNS, _SECONDS_FOR_RUNS = 3, 5.0
_BLOCK = 512
_CODEC = codecs.get(codecs.DEFAULT)
_FRAME, _SAMPLES = _CODEC.frame_size, 4  # the frames of a sample


class Levels(NamedTuple):
    """Compression levels of the layers' gzip and of the archive."""

    gzip: int
    archive: int


_EXACT, _QUICK = Levels(6, _CODEC.level), Levels(1, 3)


@dataclass(frozen=True)
class Layer:
    """A layer of an image: its bytes as gzip and as zstd, its bytes on the disk, and the seconds to unpack it there."""

    gzip: float
    zstd: float
    disk: float
    seconds: float

    def __add__(self, other: Layer) -> Layer:
        return Layer(
            self.gzip + other.gzip, self.zstd + other.zstd, self.disk + other.disk, self.seconds + other.seconds
        )

    def __mul__(self, factor: float) -> Layer:
        return Layer(self.gzip * factor, self.zstd * factor, self.disk * factor, self.seconds * factor)


@dataclass(frozen=True)
class Measured:
    """What was measured; sizes are in bytes, times in seconds."""

    sample: int
    """The bytes of the sample from which the sizes of plain layer and archive are estimated; 0 if they are measured."""
    plain: Layer
    archive: float
    """Bytes of the archive."""
    packed: Layer
    """Archive and runtime."""
    runtime: int
    """Bytes of the runtime on the disk; 0 if none can be made here."""
    unpack: list[float]
    """Seconds of each unpack of the archive to a new place, the cold part of a start."""
    workers: int
    toc: Toc
    """The table of contents of the archive."""
    archive_factor: float
    """The factor that corrects the sizes of its frames."""

    @property
    def start(self) -> float:
        """The seconds that a cold start adds to one of a plain image: the median of the unpacks."""
        return statistics.median(self.unpack)


def measure(source: PackSource, tree: Tree, archive: str, scratch: str, *, quick: bool) -> Measured:
    """Measure a tree and `archive`; for "" an archive of the tree is made. `scratch` is an empty directory.

    With `quick`, layer and archive are made at quick levels, and a sample corrects their sizes. Times are still those
    of the whole tree.
    """
    levels, sample, gzip_factor, archive_factor = _EXACT, 0, 1.0, 1.0
    if quick and sum(entry.size for entry in tree.entries) > _SAMPLES * _FRAME:
        levels = _QUICK
        sample, gzip_factor, archive_factor = _correction(source, tree, _EXACT, _QUICK)
    plain = _layer(packing.members(source.root, tree.entries, {}), levels.gzip, "layer, plain", scratch)
    if archive:
        archive_factor = 1.0
        with reader.open_archive(archive) as opened:
            toc = opened.toc
    else:
        archive = os.path.join(scratch, f"packed.tar{_CODEC.suffixes[0]}")
        toc = _pack(source, tree, levels.archive, archive)
    packed = _layer([_file(archive)], _EXACT.gzip, "layer, packed", scratch)
    runtime_layer = _runtime(scratch)
    runs, workers = _unpack_often(archive, scratch)
    return Measured(
        sample=sample,
        plain=replace(plain, gzip=plain.gzip * gzip_factor),
        archive=os.path.getsize(archive) * archive_factor,
        packed=packed * archive_factor + runtime_layer if runtime_layer else packed * archive_factor,
        runtime=round(runtime_layer.disk) if runtime_layer else 0,
        unpack=runs,
        workers=workers,
        toc=toc,
        archive_factor=archive_factor,
    )


def scratch_needed(size: int) -> int:
    """Return the bytes on the disk that measuring takes, for a tree of `size`: layers, archive, unpacked trees."""
    return size * (_RUNS + 2)


def on_disk(entries: Iterable[Entry]) -> int:
    """Return the bytes that members take in whole blocks, with one block for a directory."""
    return sum(preflight.on_disk(1 if entry.kind == "dir" else entry.size) for entry in entries)


def unpack(archive: str, to: str) -> Report:
    """Unpack an archive as a start does, but for any interpreter, and without the settings of the environment."""
    arguments = {"archive": archive, "target": to, "digest": "any", "in_place": False, "sync": False, "log": "off"}
    size = trailer.identify(archive).facts.get("unpacked-size")
    start = Unpack(arguments, Log(arguments, {}))
    return progress.watched("unpack", int(size[0]) if size else None, start.run)


def _correction(source: PackSource, tree: Tree, exact: Levels, quick: Levels) -> tuple[int, float, float]:
    """Compress some frames of a tree at both levels; return their bytes, and the factors for gzip and archive."""
    whole = packing.stream_size(tree.entries)
    stride = -(-whole // (_FRAME * _SAMPLES))
    frames = writer.tar_stream(packing.members(source.root, tree.entries, {}), _FRAME)
    chosen = list(islice(frames, stride // 2, None, stride))
    workers = len(os.sched_getaffinity(0))

    def sizes(frame: bytes) -> list[int]:
        return [
            size
            for levels in (exact, quick)
            for size in (len(zlib.compress(frame, levels.gzip)), len(_encoder(levels)(frame)))
        ]

    with progress.bar("sample", len(chosen)) as show:
        results: list[list[int]] = []
        for result in in_order(sizes, chosen, workers, workers, lambda: show(len(results))):
            results.append(result)
            show(len(results))
    gzip, archive, quick_gzip, quick_archive = map(sum, zip(*results))
    return sum(map(len, chosen)), gzip / quick_gzip, archive / quick_archive


def _encoder(levels: Levels) -> Callable[[bytes], bytes]:
    return _CODEC.encoder(levels.archive, _FRAME)


def _layer(members: Iterable[Input], level: int, name: str, scratch: str) -> Layer:
    """Make a layer of `members` at a level of gzip, and unpack it."""
    place = os.path.join(scratch, name)
    os.mkdir(place)
    file = place + ".tar.gz"
    gzip = zlib.compressobj(level, wbits=_GZIP_WINDOW)
    zstd = zstd_extension.load().ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    members = list(members)
    zstd_size = tar_size = 0
    with progress.bar(name, sum(_BLOCK + member.size for member in members)) as show, open(file, "wb") as out:
        for piece in writer.tar_stream(members, _PIECE):
            out.write(gzip.compress(piece))
            zstd_size += len(zstd.compress(piece))
            tar_size += len(piece)
            show(tar_size)
        out.write(gzip.flush())
        zstd_size += len(zstd.flush())
    disk = sum(preflight.on_disk(1 if member.kind == DIRECTORY else member.size) for member in members)
    return Layer(os.path.getsize(file), zstd_size, disk, _untar(file, place))


def _untar(file: str, place: str) -> float:
    if not shutil.which("tar"):
        raise PackError("tar is not installed, and a pull is measured with it", where="PATH", hint="Install tar")
    began = time.perf_counter()
    process = subprocess.run(["tar", "-xzf", file, "-C", place], check=False, capture_output=True, text=True)
    if process.returncode:
        raise PackError(f"a layer could not be unpacked ({process.stderr.strip()[-300:]})", where=place)
    return time.perf_counter() - began


def _file(path: str) -> Input:
    return Input("file", b"site-packages.tar", 0o644, 0, os.path.getsize(path), source=path)


def _pack(source: PackSource, tree: Tree, level: int, to: str) -> Toc:
    with progress.bar("pack", packing.stream_size(tree.entries)) as show:
        written = writer.write(
            to,
            packing.members(source.root, tree.entries, {}),
            {"import": list(source.import_paths)},
            codec=_CODEC.name,
            level=level,
            frame_size=_FRAME,
            workers=len(os.sched_getaffinity(0)),
            on_progress=show,
        )
    return written.toc


def _runtime(scratch: str) -> Layer | None:
    """Return a runtime as a layer; None if no runtime can be made here."""
    directory = os.path.join(scratch, "runtime")
    try:
        runtime.write(directory)
    except PackError:
        return None
    entries = scan.scan(as_is(directory)).entries
    return _layer(packing.members(directory, entries, {}), _EXACT.gzip, "layer, runtime", scratch)


def _unpack_often(archive: str, scratch: str) -> tuple[list[float], int]:
    """Unpack to new places, and keep the trees: file systems are slower after many files were removed."""
    runs: list[float] = []
    workers = 0
    while len(runs) < _RUNS and sum(runs) < _SECONDS_FOR_RUNS:
        report = unpack(archive, os.path.join(scratch, f"unpacked-{len(runs)}"))
        runs.append(report.milliseconds / 1e3)
        workers = report.workers
    return runs, workers
