"""zstd: frames, in a file that every zstd decodes; table of contents, facts and footer are in a skippable frame.

`zstandard` encodes and decodes. Where it is missing, CPython's own module decodes, from 3.14.
"""

from __future__ import annotations

import struct
from functools import partial

from unpackenv.archive import trailer
from unpackenv.archive.codecs import zstd_extension
from unpackenv.archive.codecs.base import LARGEST_WINDOW, READ, Codec, Pieces, read, stream
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, MemoryBudgetExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from unpackenv.archive.codecs import zstd_format
    from unpackenv.archive.codecs.base import Buffer, Decode, Encode, Fill, Sizes

_SKIPPABLE_MAGIC = 0x184D2A5E  # of the sixteen kinds of skippable frames, the one that archives have
_BLOCK = 1 << 17  # what a decoder that has no room for all output takes besides the window


class _Zstd(Codec):
    name = "zstd"
    # Levels and frame sizes were measured on the renderer's packages, see docs/design.md and docs/performance.md.
    levels = range(1, 23)
    level = 20
    fast_level, times_faster, fraction_larger = 9, 18, 1 / 8
    best_level = 22
    frame_size = 16 << 20
    best_frame_size = 128 << 20
    needs_extension = True

    def seconds_per_byte(self, level: int) -> float:
        return 2.9e-9 * 1.32**level

    # --- frames and columns ---

    def encoder(self, level: int, frame_size: int) -> Encode:
        zstandard = zstd_extension.load()
        window_log = max(10, min((frame_size - 1).bit_length(), LARGEST_WINDOW.bit_length() - 1))
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=frame_size, window_log=window_log, write_checksum=False
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        compress: Encode = compressor.compress
        return compress

    def decoder(self) -> Decode:
        zstandard = _zstandard()
        if zstandard:
            return _decoder(zstandard)
        from unpackenv.archive.codecs import zstd_stdlib

        return zstd_stdlib.decode

    def window(self, raw_size: int) -> int:
        return 0 if _zstandard() else raw_size + _BLOCK

    def encode_columns(self, raw: bytes) -> bytes:
        return self.encoder(19, len(raw))(raw)

    # --- container ---

    def before_columns(self, frames: Sizes, columns_size: int, facts_size: int) -> bytes:
        return struct.pack("<II", _SKIPPABLE_MAGIC, columns_size + facts_size + trailer.FOOTER_SIZE)

    def frames_end_there(self, fd: int, size: int, frames: Sizes, columns_offset: int) -> bool:
        from unpackenv.archive.codecs import zstd_format

        return [frame.stored_size for frame in zstd_format.read_frames(fd, size)] == [stored for stored, _ in frames]

    # --- archives of plain tar ---

    def begins(self, head: bytes) -> bool:
        from unpackenv.archive.codecs import zstd_format

        return head.startswith((zstd_format.MAGIC, *zstd_format.SKIPPABLE_MAGICS))

    def pieces(self, fd: int, size: int, memory: int, serial: bool) -> Pieces:
        from unpackenv.archive.codecs import zstd_format

        frames = zstd_format.read_frames(fd, size)
        most = min(memory, LARGEST_WINDOW)
        window = max((frame.window for frame in frames), default=0)
        if window > LARGEST_WINDOW:
            raise MemoryBudgetExceeded(
                f"its zstd window is larger than {LARGEST_WINDOW >> 20} MiB, which is the most that is decoded",
                hint="Pack it again without zstd's option --long, or with --long=27",
            )
        if window > most:
            raise MemoryBudgetExceeded(
                f"its zstd window of {window} bytes needs more than the memory budget of {memory}",
                hint=f"Raise UNPACKENV_MEMORY to {-(-window >> 20)}M, or pack it with a smaller window",
            )
        largest = max((memory if frame.raw_size is None else frame.raw_size for frame in frames), default=0)
        stored = max((frame.stored_size for frame in frames), default=0)  # each is held whole where it is decoded alone
        if serial or len(frames) < 2 or 4 * max(largest, stored) > memory:
            return stream(_chunks(_zstandard(), fd, frames, most), window)

        def fills(first: int, step: int) -> Iterator[Fill]:
            decode = self.decoder()

            def fill(frame: zstd_format.Frame, out: memoryview) -> int:
                raw_size = frame.raw_size or 0
                decode(b"".join(read(fd, frame.offset, frame.stored_size)), out[:raw_size])
                return raw_size

            return (partial(fill, frame) for frame in frames[first::step])

        return Pieces(fills, largest, len(frames), largest + self.window(largest))


CODEC = _Zstd()


def _zstandard() -> ModuleType | None:
    """Return zstandard, or None where CPython's module has to decode; raises `ArchiveUnsupported` without either."""
    try:
        return zstd_extension.load()
    except ArchiveUnsupported:
        from unpackenv.archive.codecs import zstd_stdlib

        if not zstd_stdlib.find():
            raise
        return None


def _decoder(zstandard: ModuleType) -> Decode:
    decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)

    def decode(stored: Buffer, out: memoryview) -> None:
        # With all input at hand and room for all output, zstd decodes straight into `out`.
        reader = decompressor.stream_reader(stored)
        got = 0
        try:
            while got < len(out):
                filled = reader.readinto(out[got:])
                if not filled:
                    break
                got += filled
            more = reader.read(1)
        except zstandard.ZstdError as error:
            raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error
        if got != len(out) or more:
            raise ArchiveCorrupt("a zstd frame has another size than announced")

    return decode


def _chunks(zstandard: ModuleType | None, fd: int, frames: list[zstd_format.Frame], window: int) -> Iterator[bytes]:
    """Yield what is in a file, decoded one frame after the other."""
    if zstandard is None:
        from unpackenv.archive.codecs import zstd_stdlib

        for frame in frames:
            yield from zstd_stdlib.decode_frame(read(fd, frame.offset, frame.stored_size), window)
        return
    from io import FileIO

    file = FileIO(fd, closefd=False)
    reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(file, read_across_frames=True)
    try:
        while chunk := reader.read(READ):
            yield chunk
    except zstandard.ZstdError as error:
        raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error
