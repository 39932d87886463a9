"""The format of .zst files: where frames begin and end, and skippable frames.

After RFC 8878 (https://www.rfc-editor.org/rfc/rfc8878), sections 3.1.1 and 3.1.2. Decoding itself is a
library's.
"""

from __future__ import annotations

from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported
from unpackenv.unpatched import os

MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_FIRST = 0x184D2A50
SKIPPABLE_MAGICS = tuple((_SKIPPABLE_FIRST + number).to_bytes(4, "little") for number in range(16))
_SKIPPABLE_HEADER = 8
_RLE = 1
# The frames of honest archives are some hundred KiB large, or more.
_PARTS_LIMIT = 1 << 18


class Frame:
    """Where one frame lies; `raw_size` is None where its header does not say."""

    __slots__ = ("offset", "raw_size", "stored_size", "window")

    def __init__(self, offset: int, stored_size: int, raw_size: int | None, window: int) -> None:
        self.offset = offset
        self.stored_size = stored_size
        self.raw_size = raw_size
        self.window = window


def read_frames(fd: int, size: int) -> list[Frame]:
    """Return the frames of the .zst file `fd` of `size` bytes, without the skippable ones.

    Walks from block header to block header and decodes nothing. Raises `ArchiveCorrupt`.
    """
    frames = []
    offset = parts = 0
    while offset < size:
        parts += 1
        if parts > _PARTS_LIMIT:
            raise ArchiveUnsupported(f"it has more than {_PARTS_LIMIT} zstd frames")
        header = os.pread(fd, 18, offset)
        magic = int.from_bytes(header[:4], "little")
        if magic & ~0xF == _SKIPPABLE_FIRST and len(header) >= _SKIPPABLE_HEADER:
            offset += _SKIPPABLE_HEADER + int.from_bytes(header[4:8], "little")
        elif header[:4] == MAGIC:
            frame = _read_frame(fd, offset, header)
            frames.append(frame)
            offset += frame.stored_size
        else:
            raise ArchiveCorrupt(f"no zstd frame at byte {offset}")
    if offset != size:
        raise ArchiveCorrupt("its last zstd frame is truncated")
    return frames


def _read_frame(fd: int, offset: int, header: bytes) -> Frame:
    """Parse a frame header (3.1.1.1) and skip along the block headers (3.1.1.2)."""
    header += bytes(18 - len(header))
    descriptor = header[4]
    single_segment = descriptor >> 5 & 1
    at = 5
    window = 0
    if not single_segment:
        exponent, mantissa = header[at] >> 3, header[at] & 7
        window = (1 << 10 + exponent) // 8 * (8 + mantissa)
        at += 1
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    if any(header[at : at + dictionary]):
        raise ArchiveUnsupported("it is compressed with a zstd dictionary", hint="Pack it without zstd's option -D")
    at += dictionary
    content_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    raw_size = int.from_bytes(header[at : at + content_bytes], "little") if content_bytes else None
    if content_bytes == 2 and raw_size is not None:
        raw_size += 256
    position = offset + at + content_bytes
    last = False
    while not last:
        block = os.pread(fd, 3, position)
        if len(block) < 3:
            raise ArchiveCorrupt("a zstd frame is truncated")
        word = int.from_bytes(block, "little")
        last = bool(word & 1)
        position += 3 + (1 if word >> 1 & 3 == _RLE else word >> 3)
    if descriptor >> 2 & 1:
        position += 4
    return Frame(offset, position - offset, raw_size, window or raw_size or 0)
