"""xz: frames are the blocks of one stream; table of contents, facts and footer have a stream each.

The standard library's `lzma` encodes and decodes.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate

from unpackenv.archive.codecs import xz_format
from unpackenv.archive.codecs.base import LARGEST_WINDOW, Codec, Pieces, read, stream
from unpackenv.errors import ArchiveCorrupt, MemoryBudgetExceeded
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from unpackenv.archive.codecs.base import Buffer, Decode, Encode, Sizes

_BLOCK_HEADER = 32  # bytes of a block's header that hold its sizes, and more


class _Xz(Codec):
    name = "xz"
    levels = range(10)
    level = 6
    fast_level, times_faster, fraction_larger = 1, 5, 1 / 6
    best_level = 9
    frame_size = 12 << 20  # a decoder takes a dictionary as large besides it
    best_frame_size = 64 << 20

    def seconds_per_byte(self, level: int) -> float:
        return 4e-7

    # --- frames and columns ---

    def encoder(self, level: int, frame_size: int) -> Encode:
        dictionary = max(1 << 12, min(frame_size, LARGEST_WINDOW, 1 << 26))
        return lambda raw: xz_format.encode_block(raw, level, dictionary)

    def decoder(self) -> Decode:
        return _decode

    def window(self, raw_size: int) -> int:
        return raw_size

    def encode_columns(self, raw: bytes) -> bytes:
        import lzma

        return lzma.compress(raw, check=lzma.CHECK_CRC32, preset=9)

    def decode_columns(self, stored: bytes, raw_size: int) -> bytes:
        import lzma

        try:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * LARGEST_WINDOW)
            raw = decompressor.decompress(stored, max_length=raw_size + 1)
        except lzma.LZMAError as error:
            raise ArchiveCorrupt(f"its table of contents does not decode ({error})") from error
        if decompressor.check != lzma.CHECK_CRC32:  # of one that it does not know, liblzma checks nothing
            raise ArchiveCorrupt("its table of contents has another check than the format's")
        if len(raw) != raw_size or not decompressor.eof or decompressor.unused_data:
            raise ArchiveCorrupt("its table of contents has another size than announced")
        return raw

    # --- container ---

    prefix = xz_format.stream_header()
    payload_offset = xz_format.STORED_PAYLOAD

    def unpadded_size(self, frame: bytes) -> int:
        return xz_format.unpadded_size(frame)

    def before_columns(self, frames: Sizes, columns_size: int, facts_size: int) -> bytes:
        return xz_format.index_and_footer(frames)

    def after_columns(self, facts: bytes, footer: bytes) -> bytes:
        return xz_format.stored(facts) + xz_format.stored(footer)

    def fits(self, before: bytes, frames: Sizes, columns_size: int, facts_size: int) -> bool:
        # Padding is known only to the index: a valid one with the right sizes it must be.
        records = xz_format.parse_index_and_footer(before)
        return [(xz_format.padded(unpadded), raw) for unpadded, raw in records] == frames

    def frames_end_there(self, fd: int, size: int, frames: Sizes, columns_offset: int) -> bool:
        offsets = accumulate((stored for stored, _ in frames), initial=len(self.prefix))
        headers = (os.pread(fd, _BLOCK_HEADER, offset) for _, offset in zip(frames, offsets))
        index = xz_format.index_and_footer(
            [(xz_format.unpadded_size(header), raw) for header, (_, raw) in zip(headers, frames)]
        )
        return os.pread(fd, len(index), columns_offset - len(index)) == index

    # --- archives of plain tar ---

    def begins(self, head: bytes) -> bool:
        return head.startswith(xz_format.MAGIC)

    def pieces(self, fd: int, size: int, memory: int, serial: bool) -> Pieces:
        blocks = xz_format.read_blocks(fd, size)

        def chunks(block: xz_format.Block) -> Iterator[bytes]:
            return xz_format.decode_block(block, read(fd, block.offset, block.stored_size), memory)

        def fill(block: xz_format.Block, out: memoryview) -> int:
            at = 0
            for chunk in chunks(block):
                out[at : at + len(chunk)] = chunk
                at += len(chunk)
            return at

        largest = max((block.raw_size for block in blocks), default=0)
        window = max((xz_format.dictionary_size(fd, block) for block in blocks), default=0)
        if serial or len(blocks) < 2 or 4 * largest > memory:
            return stream((chunk for block in blocks for chunk in chunks(block)), window)
        return Pieces(
            lambda first, step: (partial(fill, block) for block in blocks[first::step]), largest, len(blocks), window
        )


CODEC = _Xz()


def _decode(stored: Buffer, out: memoryview) -> None:
    at = 0
    # The decompressor copies what it was given and has not used yet: it gets a little at a time.
    given = (stored[begin : begin + xz_format.STEP] for begin in range(0, len(stored), xz_format.STEP))
    block = xz_format.Block(0, xz_format.unpadded_size(stored), len(out), CODEC.prefix)
    try:
        for piece in xz_format.decode_block(block, given, 2 * LARGEST_WINDOW):
            out[at : at + len(piece)] = piece
            at += len(piece)
    except MemoryBudgetExceeded as error:  # no setting can help
        raise ArchiveCorrupt("an xz frame has a larger dictionary than the format allows") from error
