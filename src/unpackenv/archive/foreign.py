"""Foreign archives: .tar.xz, .tar.zst, .tar.gz and .tar that plain tools made, as chunks of the tar stream.

A multi-block .xz and a multi-frame .zst are cut where they can be decoded alone, so that several
threads decode at once. What has one block, or blocks too large for the memory budget, is one
stream that is decoded in small chunks, one after the other.
"""

from __future__ import annotations

import io
import zlib
from functools import partial

from unpackenv.archive import tarstream, trailer, xz, zstd
from unpackenv.archive.codecs import LARGEST_WINDOW, decoder, import_zstandard
from unpackenv.archive.trailer import ZSTD
from unpackenv.errors import ArchiveCorrupt, MemoryBudgetExceeded
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Fill = Callable[[memoryview], int]

CHUNK = 4 << 20
_READ = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_GZIP_READ = 1 << 16
# A member of an honest archive is the whole archive, or a block of 64 KiB.
_GZIP_LIMIT = 1 << 18
_SKIPPABLE = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))


class Pieces:
    """The tar stream of an open archive, in pieces of at most `largest` bytes.

    `fills(first, step)` yields the pieces `first`, `first` + `step`, … in order, each as a function
    that decodes it into a buffer of `largest` bytes and returns its size; it is for the use of one
    thread or process. At most `most_workers` can share the work. `window` is what a decoder takes
    beside a piece, in bytes.
    """

    def __init__(
        self, fills: Callable[[int, int], Iterator[Fill]], largest: int, most_workers: int, window: int
    ) -> None:
        self.fills = fills
        self.largest = largest
        self.most_workers = most_workers
        self._window = window

    def memory_each(self, workers: int) -> int:
        """Return the bytes that each of so many workers needs; one alone has two pieces."""
        return (self.largest if workers > 1 else 2 * self.largest) + self._window


def open_pieces(fd: int, path: str, memory: int, *, serial: bool = False) -> Pieces:
    """Return the tar stream of the archive `fd`; `memory` is the budget of all workers, in bytes.

    With `serial` it is one stream, which takes the least memory.

    Raises `ArchiveUnsupported` for what is no archive, `ArchiveCorrupt`, or `MemoryBudgetExceeded`.
    """
    head = os.pread(fd, tarstream.BLOCK, 0)
    size = os.fstat(fd).st_size
    if head.startswith(xz.MAGIC):
        return _xz(fd, size, memory, serial)
    if head.startswith((zstd.MAGIC, *_SKIPPABLE)):
        return _zstd(fd, size, memory, serial)
    if head.startswith(_GZIP_MAGIC):
        return _stream(_gzip(fd), 0)
    if tarstream.begins_tar(head):
        return _stream(iter(lambda: os.read(fd, CHUNK), b""), 0)
    from unpackenv.archive import refusals

    raise refusals.no_archive(head, path)


def open_file(path: str) -> int:
    """Open an archive for reading; raises `ArchiveUnreadable`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise trailer.unreadable(error, path) from error


def _stream(chunks: Iterator[bytes], window: int) -> Pieces:
    return Pieces(lambda _first, _step: _fills(chunks), CHUNK, 1, window)


def _fills(chunks: Iterator[bytes]) -> Iterator[Fill]:
    """Yield functions that fill a buffer with what comes next, until nothing comes."""
    rest = memoryview(b"")
    ended = False

    def fill(out: memoryview) -> int:
        nonlocal rest, ended
        at = 0
        while at < len(out) and not ended:
            taken = rest[: len(out) - at]
            out[at : at + len(taken)] = taken
            at += len(taken)
            rest = rest[len(taken) :] or memoryview(next(chunks, b""))
            ended = not rest
        return at

    while not ended:
        yield fill


def _xz(fd: int, size: int, memory: int, serial: bool) -> Pieces:
    blocks = xz.read_blocks(fd, size)

    def chunks(block: xz.Block) -> Iterator[bytes]:
        return xz.decode_block(block, _read(fd, block.offset, block.stored_size), memory)

    def fill(block: xz.Block, out: memoryview) -> int:
        at = 0
        for chunk in chunks(block):
            out[at : at + len(chunk)] = chunk
            at += len(chunk)
        return at

    largest = max((block.raw_size for block in blocks), default=0)
    window = max((xz.dictionary_size(fd, block) for block in blocks), default=0)
    if serial or len(blocks) < 2 or 4 * largest > memory:
        return _stream((chunk for block in blocks for chunk in chunks(block)), window)
    return Pieces(
        lambda first, step: (partial(fill, block) for block in blocks[first::step]), largest, len(blocks), window
    )


def _zstd(fd: int, size: int, memory: int, serial: bool) -> Pieces:
    frames = zstd.read_frames(fd, size)
    zstandard = import_zstandard()
    window = min(memory, LARGEST_WINDOW)
    needed = max((frame.window for frame in frames), default=0)
    if needed > LARGEST_WINDOW:
        raise MemoryBudgetExceeded(
            f"its zstd window is larger than {LARGEST_WINDOW >> 20} MiB, which is the most that is decoded",
            hint="Pack it again without zstd's option --long, or with --long=27",
        )
    if needed > window:
        raise MemoryBudgetExceeded(
            f"its zstd window of {needed} bytes needs more than the memory budget of {memory}",
            hint=f"Raise UNPACKENV_MEMORY to {-(-needed >> 20)}M, or pack it with a smaller window",
        )

    def fills(first: int, step: int) -> Iterator[Fill]:
        decode = decoder(ZSTD)

        def fill(frame: zstd.Frame, out: memoryview) -> int:
            raw_size = frame.raw_size or 0
            decode(b"".join(_read(fd, frame.offset, frame.stored_size)), out[:raw_size])
            return raw_size

        return (partial(fill, frame) for frame in frames[first::step])

    largest = max((memory if frame.raw_size is None else frame.raw_size for frame in frames), default=0)
    stored = max((frame.stored_size for frame in frames), default=0)  # is held whole where frames are decoded alone
    if not serial and len(frames) > 1 and 4 * max(largest, stored) <= memory:
        return Pieces(fills, largest, len(frames), largest)

    def chunks() -> Iterator[bytes]:
        file = io.FileIO(fd, closefd=False)
        reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(file, read_across_frames=True)
        try:
            while chunk := reader.read(_READ):
                yield chunk
        except zstandard.ZstdError as error:
            raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error

    return _stream(chunks(), needed)


def _gzip(fd: int) -> Iterator[bytes]:
    """Decode gzip members, one after the other; as for gzip, zeros may follow the last one, and nothing else."""
    decoder = zlib.decompressobj(_GZIP_FORMAT)
    members = 1
    is_padded = False
    offset = 0
    while data := os.pread(fd, _GZIP_READ, offset):
        offset += len(data)
        while data:
            if decoder.eof:
                rest = data.lstrip(b"\0")
                is_padded = is_padded or len(rest) < len(data)
                data = rest
                if not data:
                    break
                if is_padded or members == _GZIP_LIMIT:
                    raise ArchiveCorrupt("something follows its gzip stream")
                decoder = zlib.decompressobj(_GZIP_FORMAT)
                members += 1
            try:
                piece = decoder.decompress(data, _READ)
            except zlib.error as error:
                raise ArchiveCorrupt(f"its gzip stream does not decode ({error})") from error
            if piece:
                yield piece
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if not decoder.eof:
        raise ArchiveCorrupt("its gzip stream is truncated")


def _read(fd: int, offset: int, size: int) -> Iterator[bytes]:
    while size:
        data = os.pread(fd, min(size, _READ), offset)
        if not data:
            raise ArchiveCorrupt("it is truncated")
        yield data
        offset += len(data)
        size -= len(data)
