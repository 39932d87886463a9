"""The format of .xz files: blocks, index, stream header and footer.

The standard library's `lzma` decodes and encodes LZMA2 but neither writes nor finds the blocks of a
stream. The container around them is small and is written and read here, after "The .xz File Format"
1.2.1 (https://tukaani.org/xz/xz-file-format.txt); section numbers below are its.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, MemoryBudgetExceeded
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

MAGIC = b"\xfd7zXZ\x00"
FOOTER_MAGIC = b"YZ"
HEADER_SIZE = FOOTER_SIZE = 12
CHECK_CRC32 = 1
STEP = 1 << 18
_LZMA2 = 0x21
_X86 = 0x04
# Filters for data of any kind, for text, and for x86 machine code (5.3): what a block is encoded with.
_CHAINS: tuple[tuple[dict[str, int], ...], ...] = (
    ({"id": _LZMA2},),
    ({"id": _LZMA2, "lc": 4, "pb": 0},),
    ({"id": _X86}, {"id": _LZMA2}),
)
_TRY_DICTIONARY = 1 << 20
_SMALLEST_BLOCK = 5  # unpadded
_TRIES_FROM = 2  # for presets below, trying would take longer than encoding
_STORED_LIMIT = 1 << 16
# The blocks of honest archives are some MiB large, and padding makes their size a multiple of something.
_PARTS_LIMIT = 1 << 18
_PADDING_LIMIT = 1 << 20


class Block:
    """Where one block lies: offset in the file, sizes as its stream's index says (4.3), its stream's header."""

    __slots__ = ("header", "offset", "raw_size", "unpadded_size")

    def __init__(self, offset: int, unpadded_size: int, raw_size: int, header: bytes) -> None:
        self.offset = offset
        self.unpadded_size = unpadded_size
        self.raw_size = raw_size
        self.header = header

    @property
    def stored_size(self) -> int:
        """How many bytes it takes in the file, padding included."""
        return padded(self.unpadded_size)


# --- writing -----------------------------------------------------------------------------------


def stream_header(check: int = CHECK_CRC32) -> bytes:
    """Return the 12 bytes that open a stream (2.1.1)."""
    flags = bytes((0, check))
    return MAGIC + flags + struct.pack("<I", zlib.crc32(flags))


def encode_block(raw: bytes, preset: int, dict_size: int) -> bytes:
    """Return `raw` as one block with both sizes in its header (3.1), so that xz can decode it in parallel.

    Text and machine code have a chain of filters of their own, where a quick try says that it is smaller.
    """
    chain = _CHAINS[0]
    if preset >= _TRIES_FROM:
        chain = min(_CHAINS, key=lambda chain: len(_encode_raw(raw, chain, 0, _TRY_DICTIONARY)))
    data = _encode_raw(raw, chain, preset, dict_size)
    sizes = _varint(len(data)) + _varint(len(raw))
    header = _block_header(0xC0, sizes, dict_size, is_x86=len(chain) > 1)
    return header + data + bytes(-len(data) % 4) + struct.pack("<I", zlib.crc32(raw))


def _encode_raw(raw: bytes, chain: tuple[dict[str, int], ...], preset: int, dict_size: int) -> bytes:
    import lzma

    filters = [*chain[:-1], {**chain[-1], "preset": preset, "dict_size": dict_size}]
    return lzma.compress(raw, format=lzma.FORMAT_RAW, filters=filters)


def index_and_footer(blocks: list[tuple[int, int]], check: int = CHECK_CRC32) -> bytes:
    """Return what closes a stream (4, 2.1.2) of `blocks`, each a pair (unpadded size, decoded size)."""
    records = b"".join(_varint(unpadded) + _varint(raw) for unpadded, raw in blocks)
    index = b"\x00" + _varint(len(blocks)) + records
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", len(index) // 4 - 1) + bytes((0, check))
    return index + struct.pack("<I", zlib.crc32(tail)) + tail + FOOTER_MAGIC


def stored(payload: bytes) -> bytes:
    """Return a whole stream that holds `payload` readably, in one uncompressed LZMA2 chunk."""
    if not 0 < len(payload) <= _STORED_LIMIT:
        raise ValueError("a stored stream holds 1 to 65,536 bytes")
    header = _block_header(0x00, b"", 1 << 16, is_x86=False)
    data = b"\x01" + struct.pack(">H", len(payload) - 1) + payload + b"\x00"
    padding = bytes(-len(data) % 4)
    block = header + data + padding + struct.pack("<I", zlib.crc32(payload))
    return stream_header() + block + index_and_footer([(len(block) - len(padding), len(payload))])


STORED_PAYLOAD = HEADER_SIZE + 12 + 3  # where the payload begins in what `stored` returns


def unpadded_size(block: Buffer) -> int:
    """Return the size of a block that `encode_block` made, without its padding, as the index wants it."""
    data_size, _ = _read_varint(block, 2)
    header_size = (block[0] + 1) * 4
    return header_size + data_size + 4


def _block_header(flags: int, sizes: bytes, dict_size: int, is_x86: bool) -> bytes:
    filters = (bytes((_X86, 0)) if is_x86 else b"") + bytes((_LZMA2, 1, _dictionary_code(dict_size)))
    fields = bytes((flags | is_x86,)) + sizes + filters  # the lowest bits count the filters but one
    size = -(-(1 + len(fields) + 4) // 4) * 4
    header = bytes((size // 4 - 1,)) + fields
    header += bytes(size - 4 - len(header))
    return header + struct.pack("<I", zlib.crc32(header))


def _dictionary_code(size: int) -> int:
    """The smallest code whose dictionary size is at least `size` (5.3.1)."""
    for code in range(40):
        if (2 | code & 1) << (code // 2 + 11) >= size:
            return code
    return 40


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# --- reading -----------------------------------------------------------------------------------


def read_blocks(fd: int, size: int) -> list[Block]:
    """Return the blocks of all streams of the .xz file `fd` of `size` bytes, in the file's order.

    Walks the file from its end, as the format is made for: footer, index, header, and the stream
    before. Raises `ArchiveCorrupt`.
    """
    streams: list[list[Block]] = []  # from the last one
    left = _PARTS_LIMIT
    end = size
    while end > 0:
        if end % 4 or end < HEADER_SIZE + FOOTER_SIZE + 8:
            raise ArchiveCorrupt("it is truncated")
        footer = os.pread(fd, FOOTER_SIZE, end - FOOTER_SIZE)
        if footer[-4:] == bytes(4):  # stream padding (2.2)
            end -= _padding(fd, end)
            continue
        blocks, end = _read_stream(fd, end, footer)
        streams.append(blocks)
        left -= 1 + len(blocks)
        if left < 0:
            raise _too_many_parts()
    return [block for stream in reversed(streams) for block in stream]


def _padding(fd: int, end: int) -> int:
    """Return how many bytes of zeros, in fours, stand before `end`, of those in the last `_PADDING_LIMIT` bytes."""
    size = min(end, _PADDING_LIMIT)
    data = os.pread(fd, size, end - size)
    zeros = len(data) - len(data.rstrip(b"\0"))
    if zeros == _PADDING_LIMIT:
        raise ArchiveCorrupt("an xz stream has more padding than an archive needs")
    return zeros // 4 * 4


def _too_many_parts() -> ArchiveUnsupported:
    return ArchiveUnsupported(f"it has more than {_PARTS_LIMIT} xz blocks")


def _read_stream(fd: int, end: int, footer: bytes) -> tuple[list[Block], int]:
    crc, backward, flags = struct.unpack("<II2s2x", footer)
    if footer[-2:] != FOOTER_MAGIC or crc != zlib.crc32(footer[4:10]):
        raise ArchiveCorrupt("an xz stream does not end in a valid footer")
    index_size = (backward + 1) * 4
    index_start = end - FOOTER_SIZE - index_size
    if index_start < HEADER_SIZE:
        raise ArchiveCorrupt("an xz index is larger than its file")
    sizes = _parse_index(os.pread(fd, index_size, index_start))
    offset = index_start - sum(padded(unpadded) for unpadded, _ in sizes)
    start = offset - HEADER_SIZE
    header = os.pread(fd, HEADER_SIZE, start) if start >= 0 else b""
    if header[:6] != MAGIC or header[6:8] != flags or struct.unpack("<I", header[8:])[0] != zlib.crc32(flags):
        raise ArchiveCorrupt("an xz index does not fit its stream")
    import lzma

    if flags[0] or not lzma.is_check_supported(flags[1]):  # liblzma would decode it unchecked
        raise ArchiveUnsupported(
            f"this liblzma does not know the integrity check of an xz stream (flags {flags.hex()})",
            hint="Make it anew with xz's option --check=crc64",
        )
    blocks = []
    for unpadded, raw_size in sizes:
        blocks.append(Block(offset, unpadded, raw_size, header))
        offset += blocks[-1].stored_size
    return blocks, start


def padded(size: int) -> int:
    """Return the size of a block with its padding (3.3)."""
    return -(-size // 4) * 4


def dictionary_size(fd: int, block: Block) -> int:
    """Return the size of a block's dictionary, as its header tells (3.1, 5.3.1); raises `ArchiveCorrupt`."""
    header = os.pread(fd, 1024, block.offset) + bytes(1024)  # so that a damaged one has an end
    at = 2
    for _ in range((header[1] >> 6 & 1) + (header[1] >> 7)):  # sizes that are there
        _, at = _read_varint(header, at)
    while header[at] != _LZMA2:  # other filters come before it
        at += 2 + header[at + 1]
        if at >= (header[0] + 1) * 4:
            raise ArchiveCorrupt("an xz block is not compressed with LZMA2")
    code = header[at + 2]
    if code > 40:
        raise ArchiveCorrupt("an xz block has a dictionary of no known size")
    return (2 | code & 1) << (code // 2 + 11)


def parse_index_and_footer(data: bytes) -> list[tuple[int, int]]:
    """Return the records (unpadded, raw size) of what `index_and_footer` returned; raises `ArchiveCorrupt`."""
    if len(data) < FOOTER_SIZE + 8:
        raise ArchiveCorrupt("an xz index is damaged")
    records = _parse_index(data[:-FOOTER_SIZE])
    if index_and_footer(records) != data:
        raise ArchiveCorrupt("an xz stream does not end in a valid footer")
    return records


def _parse_index(index: bytes) -> list[tuple[int, int]]:
    index, crc = index[:-4], index[-4:]
    if index[:1] != b"\x00" or struct.unpack("<I", crc)[0] != zlib.crc32(index):
        raise ArchiveCorrupt("an xz index is damaged")
    count, at = _read_varint(index, 1)
    if count > len(index) // 2:
        raise ArchiveCorrupt("an xz index is damaged")
    if count > _PARTS_LIMIT:
        raise _too_many_parts()
    records = []
    for _ in range(count):
        unpadded, at = _read_varint(index, at)
        raw_size, at = _read_varint(index, at)
        if unpadded < _SMALLEST_BLOCK:
            raise ArchiveCorrupt("an xz index lists a block that is none")
        records.append((unpadded, raw_size))
    if len(index) - at > 3 or any(index[at:]):
        raise ArchiveCorrupt("an xz index has more than its records")
    return records


def _read_varint(data: Buffer, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                break
            return number, at
        shift += 7
    raise ArchiveCorrupt("an xz number has more bytes than it may have")


def decode_block(block: Block, stored: Iterable[Buffer], memory: int) -> Iterator[bytes]:
    """Yield the decoded bytes of one block, in pieces of at most `STEP` bytes.

    The decoder gets a stream of this block alone: the header, the block in the pieces `stored`, and an
    index that lists nothing else. So it checks all that it would check in the block's own stream: the
    block's end, its CRC or SHA-256, and that the index has its sizes. `memory` bounds its dictionary, in
    bytes. Raises `ArchiveCorrupt`, `ArchiveUnsupported` or `MemoryBudgetExceeded`.
    """
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)
    got = 0
    try:
        for given in chain((block.header,), stored):
            piece = decoder.decompress(given, max_length=STEP)
            while piece:
                got += len(piece)
                if got > block.raw_size:
                    raise ArchiveCorrupt("an xz block is larger than announced")
                yield piece
                piece = b"" if decoder.needs_input else decoder.decompress(b"", max_length=STEP)
        if got != block.raw_size:
            raise ArchiveCorrupt("an xz block is shorter than announced")
        index = index_and_footer([(block.unpadded_size, block.raw_size)], block.header[7])
        if decoder.decompress(index, max_length=1) or not decoder.eof or decoder.unused_data:
            raise ArchiveCorrupt("an xz block does not end where its index says")
    except (lzma.LZMAError, EOFError) as error:
        raise translated(error, memory) from error


def translated(error: Exception, memory: int) -> ArchiveCorrupt | MemoryBudgetExceeded | ArchiveUnsupported:
    """Return the error of ours that says what liblzma's means."""
    text = str(error)
    if "emory" in text:
        return MemoryBudgetExceeded(
            f"its xz dictionary needs more than the memory budget of {memory >> 20} MiB",
            hint="Raise UNPACKENV_MEMORY, or pack with a smaller dictionary",
        )
    if "nsupported" in text:
        return ArchiveUnsupported(f"this liblzma cannot decode it ({text})")
    return ArchiveCorrupt(f"an xz block does not decode ({text})")
