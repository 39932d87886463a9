"""The contract of a codec: how frames are compressed, and the container that makes them a file for stock tools.

A codec is a module of this package with one object, `CODEC`, of a class that inherits from `Codec`. An archive is

    prefix │ frame … frame │ before the columns │ columns │ after the columns: facts, footer

and stock tools take it for a file of that compression. Every byte of the container follows from the rest, so a reader
can check it. docs/format.md has the byte tables.

A codec's module imports a library only in the method that uses it: `--help`, and the search for the codec of a file,
import the modules of all codecs.
"""

from __future__ import annotations

from unpackenv.archive import trailer
from unpackenv.archive.toc import FRAME_LIMIT
from unpackenv.errors import ArchiveCorrupt
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]
    Decode = Callable[[Buffer, memoryview], None]
    Encode = Callable[[bytes], bytes]
    Sizes = list[tuple[int, int]]
    Fill = Callable[[memoryview], int]

LARGEST_WINDOW = FRAME_LIMIT
"""The most bytes of window (zstd) or dictionary (xz) that a decoder may take besides the frame itself."""

CHUNK = 4 << 20
"""The size of the pieces of a stream that one worker decodes, in bytes."""
READ = 1 << 18


class Codec:
    """One codec. Sizes are in bytes; all bytes that are decoded may come from an attacker."""

    # --- what people choose ---

    name: str
    """What options and facts call it; also the name of its module."""
    levels: range
    """The levels that it has."""
    level: int
    """The level of `pack`: the smallest archive that still packs at an acceptable speed."""
    fast_level: int
    """The level of `pack --fast`."""
    times_faster: int
    """How many times faster `--fast` is than the default, about."""
    fraction_larger: float
    """By which fraction its archive is larger, about."""
    best_level: int
    """The level of `pack --best`."""
    frame_size: int
    """The frame size of `pack`: a start of two workers stays well within its memory."""
    best_frame_size: int
    """The frame size of `pack --best`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How names of its files end, the usual suffix first, as `trailer.CODECS` says."""
        return next(suffixes for name, suffixes, _ in trailer.CODECS.values() if name == self.name)

    def seconds_per_byte(self, level: int) -> float:
        """Return how long encoding a byte takes, about: what progress goes by until the first frame is done."""
        raise NotImplementedError

    # --- frames ---

    needs_extension = False
    """Whether decoding needs zstandard's C extension, so that a runtime has to have it."""

    def encoder(self, level: int, frame_size: int) -> Encode:
        """Return a function that encodes one frame of at most `frame_size` bytes, for the use of one thread.

        Equal bytes give equal frames. Raises `ArchiveUnsupported` where a library is missing.
        """
        raise NotImplementedError

    def decoder(self) -> Decode:
        """Return a function `decode(stored, out)` that fills `out` exactly, for the use of one thread.

        It raises `ArchiveCorrupt` if the frame does not decode to `len(out)` bytes, and never writes or allocates more
        than that, `window`, and a few buffers of fixed size. Raises `ArchiveUnsupported` where a library is missing.
        """
        raise NotImplementedError

    def window(self, raw_size: int) -> int:
        """Return what `decode` allocates while it decodes frames of at most `raw_size` bytes."""
        raise NotImplementedError

    # --- columns ---

    def encode_columns(self, raw: bytes) -> bytes:
        """Return the columns of the table of contents as they are stored."""
        raise NotImplementedError

    def decode_columns(self, stored: bytes, raw_size: int) -> bytes:
        """Return the columns; raises `ArchiveCorrupt` if they have not `raw_size` bytes."""
        out = bytearray(raw_size)
        self.decoder()(stored, memoryview(out))
        return bytes(out)

    # --- container ---

    prefix = b""
    """What stands before the first frame."""
    payload_offset = 0
    """How far from the end of the columns the facts begin."""

    def unpadded_size(self, frame: bytes) -> int:
        """Return the size of a frame as `before_columns` wants it, which may leave out padding."""
        return len(frame)

    def before_columns(self, frames: Sizes, columns_size: int, facts_size: int) -> bytes:
        """Return what stands between the last frame and the columns; `frames` are pairs (unpadded, raw size)."""
        raise NotImplementedError

    def after_columns(self, facts: bytes, footer: bytes) -> bytes:
        """Return facts and footer in their container.

        Both are in it as they are; as many bytes follow the footer as `trailer.CODECS` says of this codec.
        """
        return facts + footer

    def check_container(
        self, found: tuple[bytes, bytes, bytes], frames: Sizes, facts: bytes, footer: bytes, columns_size: int
    ) -> None:
        """Raise `ArchiveCorrupt` unless the bytes `found` are those that belong there.

        `found` is what stands before the frames, before the columns and after them; `frames` are pairs (stored, raw
        size).
        """
        opening, before, after = found
        if opening != self.prefix or after != self.after_columns(facts, footer):
            raise ArchiveCorrupt("its container is damaged")
        if not self.fits(before, frames, columns_size, len(facts)):
            raise ArchiveCorrupt("its container does not fit its table of contents")

    def fits(self, before: bytes, frames: Sizes, columns_size: int, facts_size: int) -> bool:
        """Whether `before` may stand before the columns; `frames` are pairs (stored, raw size).

        May raise `ArchiveCorrupt`. A codec with padding, whose unpadded sizes no table of contents has, overrides it.
        """
        return before == self.before_columns(frames, columns_size, facts_size)

    def frames_end_there(self, fd: int, size: int, frames: Sizes, columns_offset: int) -> bool:
        """Whether each frame of an archive ends where its stored size says, by what stock tools go by.

        `fd` is the archive, of `size` bytes; `frames` are pairs (stored, raw size). May raise `ArchiveCorrupt`.
        `verify` asks it of an archive whose container is sound.
        """
        raise NotImplementedError

    # --- archives of plain tar in this compression ---

    def begins(self, head: bytes) -> bool:
        """Whether a file that begins with the 512 bytes `head` is compressed so."""
        raise NotImplementedError

    def pieces(self, fd: int, size: int, memory: int, serial: bool) -> Pieces:
        """Return the tar stream of the file `fd` of `size` bytes, which `begins` so.

        Cut, where that can be, where it can be decoded alone, so that several workers decode at once; with `serial`, or
        where such pieces are too large for `memory`, the budget of all workers, as one stream. Raises `ArchiveCorrupt`,
        `ArchiveUnsupported`, or `MemoryBudgetExceeded`.
        """
        raise NotImplementedError


# --- what `pieces` returns, and what helps to make it ------------------------------------------


class Pieces:
    """The tar stream of an open archive, in pieces of at most `largest` bytes.

    `fills(first, step)` yields the pieces `first`, `first` + `step`, … in order, each as a function
    that decodes it into a buffer of `largest` bytes and returns its size; it is for the use of one
    thread or process. At most `most_workers` can share the work. `window` is what a decoder takes
    besides a piece, in bytes.
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


def stream(chunks: Iterator[bytes], window: int) -> Pieces:
    """Return what one worker decodes as `chunks` of any size, with a window of `window` bytes."""
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


def read(fd: int, offset: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of a file, a little at a time; raises `ArchiveCorrupt` where it has fewer."""
    while size:
        data = os.pread(fd, min(size, READ), offset)
        if not data:
            raise ArchiveCorrupt("it is truncated")
        yield data
        offset += len(data)
        size -= len(data)
