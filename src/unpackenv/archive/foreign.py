"""Foreign archives: .tar.xz, .tar.zst, .tar.gz and .tar that plain tools made, as chunks of the tar stream.

A multi-block .xz and a multi-frame .zst are cut where they can be decoded alone, so that several
threads decode at once. What has one block, or blocks too large for the memory budget, is one
stream that is decoded in small chunks, one after the other.
"""

from __future__ import annotations

import io
import os
import zlib

from unpackenv.archive import xz, zstd
from unpackenv.archive.codecs import LARGEST_WINDOW, import_zstandard
from unpackenv.errors import ArchiveCorrupt, ArchiveUnreadable, ArchiveUnsupported, MemoryBudgetExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Chunk = Callable[[], memoryview]

CHUNK = 4 << 20
_READ = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
_SKIPPABLE = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))


class Pieces:
    """The tar stream of an open archive, in order: each piece is a function that decodes it.

    Where `parallel`, the functions may be called at once from several threads; otherwise making
    the next one decodes it. `memory_each` is what one worker needs, in bytes.
    """

    def __init__(self, pieces: Iterator[Chunk], parallel: bool, memory_each: int) -> None:
        self.pieces = pieces
        self.parallel = parallel
        self.memory_each = memory_each


def open_pieces(fd: int, path: str, memory: int) -> Pieces:
    """Return the tar stream of the archive `fd`; `memory` is the budget of all workers, in bytes.

    Raises `ArchiveUnsupported` for what is no archive, `ArchiveCorrupt`, or `MemoryBudgetExceeded`.
    """
    head = os.pread(fd, 512, 0)
    size = os.fstat(fd).st_size
    if head.startswith(xz.MAGIC):
        return _xz(fd, size, memory)
    if head.startswith((zstd.MAGIC, *_SKIPPABLE)):
        return _zstd(fd, size, memory)
    if head.startswith(_GZIP_MAGIC):
        return _stream(_gzip(fd))
    if head[257:262] == b"ustar" or head == bytes(512):
        return _stream(iter(lambda: os.read(fd, CHUNK), b""))
    raise ArchiveUnsupported(
        "is neither an unpackenv archive nor a .tar, .tar.xz, .tar.zst or .tar.gz", where=path, hint="Check the COPY"
    )


def open_file(path: str) -> int:
    """Open an archive for reading; raises `ArchiveUnreadable`."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ArchiveUnreadable(f"cannot be read ({error.strerror})", where=path) from error


def _stream(chunks: Iterator[bytes]) -> Pieces:
    return Pieces((_ready(memoryview(chunk)) for chunk in _gathered(chunks)), False, 2 * CHUNK)


def _ready(chunk: memoryview) -> Chunk:
    return lambda: chunk


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytearray]:
    """Join small chunks to chunks of about `CHUNK` bytes."""
    gathered = bytearray()
    for chunk in chunks:
        gathered += chunk
        if len(gathered) >= CHUNK:
            yield gathered
            gathered = bytearray()
    if gathered:
        yield gathered


def _xz(fd: int, size: int, memory: int) -> Pieces:
    blocks = xz.read_blocks(fd, size)

    def chunks(block: xz.Block) -> Iterator[bytes]:
        return xz.decode_block(block.header, _read(fd, block.offset, block.stored_size), block.raw_size, memory)

    # A block and its dictionary, which is never larger than the block has to be.
    each = 2 * max((block.raw_size for block in blocks), default=0)
    if len(blocks) == 1 or 2 * each > memory:
        return _stream(chunk for block in blocks for chunk in chunks(block))

    def decode(block: xz.Block) -> memoryview:
        out = bytearray(block.raw_size)
        at = 0
        for chunk in chunks(block):
            out[at : at + len(chunk)] = chunk
            at += len(chunk)
        return memoryview(out)

    return Pieces((_bound(decode, block) for block in blocks), True, each)


def _bound(decode: Callable[[xz.Block], memoryview], block: xz.Block) -> Chunk:
    return lambda: decode(block)


def _zstd(fd: int, size: int, memory: int) -> Pieces:
    frames = zstd.read_frames(fd, size)
    zstandard = import_zstandard()
    window = min(memory, LARGEST_WINDOW)
    if max((frame.window for frame in frames), default=0) > window:
        raise MemoryBudgetExceeded(
            f"its zstd window needs more than the memory budget of {window >> 20} MiB",
            hint="Raise UNPACKENV_MEMORY, or pack without --long",
        )
    each = max((2 * (memory if frame.raw_size is None else frame.raw_size) for frame in frames), default=0)

    def decode(frame: zstd.Frame) -> memoryview:
        stored = os.pread(fd, frame.stored_size, frame.offset)
        decompressor = zstandard.ZstdDecompressor(max_window_size=window)
        try:
            return memoryview(decompressor.decompress(stored, max_output_size=frame.raw_size or 0))
        except zstandard.ZstdError as error:
            raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error

    if len(frames) > 1 and 2 * each <= memory:
        return Pieces((_bound_frame(decode, frame) for frame in frames), True, each)

    def chunks() -> Iterator[bytes]:
        file = io.FileIO(fd, closefd=False)
        reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(file, read_across_frames=True)
        try:
            while chunk := reader.read(_READ):
                yield chunk
        except zstandard.ZstdError as error:
            raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error

    return _stream(chunks())


def _bound_frame(decode: Callable[[zstd.Frame], memoryview], frame: zstd.Frame) -> Chunk:
    return lambda: decode(frame)


def _gzip(fd: int) -> Iterator[bytes]:
    import gzip

    with gzip.GzipFile(fileobj=io.FileIO(fd, closefd=False), mode="rb") as file:
        try:
            while chunk := file.read(_READ):
                yield chunk
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveCorrupt(f"its gzip stream does not decode ({error})") from error


def _read(fd: int, offset: int, size: int) -> Iterator[bytes]:
    while size:
        data = os.pread(fd, min(size, _READ), offset)
        if not data:
            raise ArchiveCorrupt("it is truncated")
        yield data
        offset += len(data)
        size -= len(data)
