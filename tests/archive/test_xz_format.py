"""The .xz format, against stock xz in both directions."""

from __future__ import annotations

import lzma
import os
import platform
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpackenv.archive import codecs
from unpackenv.archive.codecs import xz_format, zstd_extension
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, MemoryBudgetExceeded

RAW = b"".join(b"line %d\n" % (number * number) for number in range(40_000))
MEMORY = 1 << 27


def stock(*arguments: str, given: bytes = b"") -> bytes:
    run = subprocess.run(["xz", *arguments], input=given, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def blocks_of(path: Path) -> list[xz_format.Block]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return xz_format.read_blocks(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def decoded(path: Path, step: int = 1 << 16) -> bytes:
    """Decode a file block by block, as the reader of foreign archives does."""
    data = path.read_bytes()
    out = []
    for block in blocks_of(path):
        stored = data[block.offset : block.offset + block.stored_size]
        pieces = (stored[at : at + step] for at in range(0, len(stored), step))
        out.append(b"".join(xz_format.decode_block(block, pieces, MEMORY)))
    return b"".join(out)


# --- what stock xz wrote, we read ---


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
@pytest.mark.parametrize("layout", [["-T2", "--block-size=65536"], ["-T1"], ["-T1", "--block-size=100000"]])
def test_blocks_of_a_stock_archive(tmp_path: Path, check: str, layout: list[str]) -> None:
    path = tmp_path / "stock.xz"
    path.write_bytes(stock("-1", "-c", f"--check={check}", *layout, given=RAW))
    expected = {"-T1": 1, "--block-size=65536": -(-len(RAW) // 65536), "--block-size=100000": -(-len(RAW) // 100000)}
    assert len(blocks_of(path)) == expected[layout[-1]]
    assert decoded(path) == RAW


@pytest.mark.parametrize("padding", [0, 4, 4096])
def test_several_streams_with_padding(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "streams.xz"
    first = stock("-1", "-c", "--check=crc64", "-T2", "--block-size=65536", given=RAW[:200_000])
    empty = stock("-c", given=b"")
    last = stock("-1", "-c", "--check=sha256", given=RAW[200_000:])
    path.write_bytes(bytes(padding).join([first, empty, last]) + bytes(padding))
    assert decoded(path) == RAW == stock("-dc", str(path))
    assert [block.raw_size for block in blocks_of(path)] == [65536, 65536, 65536, 3392, len(RAW) - 200_000]


def test_filters_before_lzma2_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "filtered.xz"
    path.write_bytes(stock("-c", "--x86", "--delta=dist=4", "--lzma2=preset=1", given=RAW))
    assert decoded(path) == RAW


def test_a_block_may_come_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "small.xz"
    path.write_bytes(stock("-1", "-c", given=RAW[:3000]))
    assert decoded(path, step=1) == RAW[:3000]


# --- what we write, stock xz reads ---


def written(pieces: list[bytes], preset: int = 1) -> bytes:
    blocks = [xz_format.encode_block(piece, preset, 1 << 20) for piece in pieces]
    sizes = [(xz_format.unpadded_size(block), len(piece)) for block, piece in zip(blocks, pieces)]
    return xz_format.stream_header() + b"".join(blocks) + xz_format.index_and_footer(sizes)


@pytest.mark.parametrize("size", [1, 3, 4096, 100_000, len(RAW)])
def test_stock_xz_accepts_our_streams(tmp_path: Path, size: int) -> None:
    pieces = [RAW[at : at + size] for at in range(0, min(len(RAW), 40 * size), size)]
    path = tmp_path / "ours.xz"
    path.write_bytes(written(pieces))
    stock("-t", str(path))
    for threads in ("-T0", "-T1"):
        assert stock("-dc", threads, str(path)) == b"".join(pieces)
    assert lzma.decompress(path.read_bytes()) == b"".join(pieces) == decoded(path)
    listed = [line.split("\t") for line in stock("--robot", "-lvv", str(path)).decode().splitlines()]
    blocks = [line for line in listed if line[0] == "block"]
    assert [int(line[7]) for line in blocks] == [len(piece) for piece in pieces]
    # Sizes in the block headers are what lets xz decode in parallel.
    assert all(line[12] == "cu" for line in blocks)


def sources() -> bytes:
    return b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))[:2_000_000]


def machine_code() -> bytes:
    found = zstd_extension.find()
    assert found
    assert found.origin
    return Path(found.origin).read_bytes()[:2_000_000]


@pytest.mark.parametrize("kind", [sources, machine_code])
def test_text_and_machine_code_have_filters_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[], bytes]
) -> None:
    if kind is machine_code and platform.machine() != "x86_64":
        pytest.skip("there is no x86 machine code here")
    raw = kind()
    (tmp_path / "ours.xz").write_bytes(written([raw], preset=2))
    assert stock("-dc", str(tmp_path / "ours.xz")) == raw
    shown = stock("--robot", "-lvv", str(tmp_path / "ours.xz"))
    assert (b"--x86" in shown) == (kind is machine_code)
    monkeypatch.setattr(xz_format, "_CHAINS", xz_format._CHAINS[:1])
    assert (tmp_path / "ours.xz").stat().st_size < len(written([raw], preset=2))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 84, 127, 128, 65_535, 65_536])
def test_a_stored_stream_shows_its_payload(size: int) -> None:
    payload = RAW[:size]
    stream = xz_format.stored(payload)
    assert stream[xz_format.STORED_PAYLOAD : xz_format.STORED_PAYLOAD + size] == payload
    assert stock("-dc", given=stream) == payload


@pytest.mark.parametrize("size", [0, 65_537])
def test_a_stored_stream_is_one_chunk(size: int) -> None:
    with pytest.raises(ValueError, match=r"1 to 65,536 bytes"):
        xz_format.stored(bytes(size))


def test_a_stored_stream_is_what_the_format_document_says() -> None:
    stream = xz_format.stored(b"abc")
    block = bytes.fromhex("02 00 21 01 08 00 00 00 d8 0f 23 13") + b"\x01\x00\x02abc\x00"
    block += b"\x00" + struct.pack("<I", zlib.crc32(b"abc"))
    index = bytes.fromhex("00 01 17 03")
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", 1) + b"\x00\x01"
    footer = struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"
    assert stream == bytes.fromhex("fd 37 7a 58 5a 00 00 01 69 22 de 36") + block + index + footer


# --- the index ---

NUMBERS = st.integers(5, 2**63 - 1)


@settings(max_examples=100)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
def test_an_index_is_read_as_it_was_written(records: list[tuple[int, int]]) -> None:
    assert xz_format.parse_index_and_footer(xz_format.index_and_footer(records)) == records


def indexed(index: bytes) -> bytes:
    """Close a stream with an index of these bytes, checksums right."""
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", len(index) // 4 - 1) + b"\x00\x01"
    return index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


@pytest.mark.parametrize(
    "index",
    [
        b"\x01\x00",  # not an index
        b"\x00\x02\x17\x03",  # fewer records than it counts
        b"\x00\x01\x17\x03\x17\x03",  # more
        b"\x00\x00" + bytes(4),  # more padding than there may be
        b"\x00" + b"\xff" * 9 + b"\x01",  # a number of more than 63 bits
        b"\x00\x01" + b"\xff" * 9 + b"\x01\x03",
        b"\x00\x01\x17" + b"\x80" * 4,  # a number that does not end
        b"\x00\x01\x97\x00\x03",  # one byte more than it needs
        b"\x00\x01\x00\x00",  # a block that takes no room
        b"\x00\x02\x17\x03\x04\x00",  # the check of a block as a block of its own
        b"\x00\xff\xff\xff\xff\x0f",  # more records than bytes
        b"",
    ],
)
def test_an_index_with_right_checksums_may_still_be_wrong(tmp_path: Path, index: bytes) -> None:
    path = tmp_path / "crafted.xz"
    path.write_bytes(xz_format.stored(b"abc")[:44] + indexed(index))
    with pytest.raises(ArchiveCorrupt):
        xz_format.parse_index_and_footer(indexed(index))
    with pytest.raises(ArchiveCorrupt):
        blocks_of(path)


@pytest.mark.parametrize(("padding", "sound"), [(b"", True), (b"\0\0", True), (b"\0\1", False), (bytes(6), False)])
def test_padding_of_an_index_is_zero_and_short(tmp_path: Path, padding: bytes, sound: bool) -> None:
    stream = xz_format.stored(RAW[:128])
    path = tmp_path / "padded.xz"
    path.write_bytes(stream[: 12 + 148] + indexed(b"\x00\x01\x94\x01\x80\x01" + padding))
    assert (subprocess.run(["xz", "-tq", path], capture_output=True).returncode == 0) == sound
    if sound:
        assert decoded(path) == RAW[:128]
    else:
        with pytest.raises(ArchiveCorrupt, match="more than its records"):
            blocks_of(path)


def test_an_index_that_is_larger_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / "large.xz"
    path.write_bytes(xz_format.stream_header() + indexed(b"\x00\x01" + b"\xff" * 8 + b"\x7f\x00"))
    with pytest.raises(ArchiveCorrupt):
        blocks_of(path)
    tail = struct.pack("<I", 0xFFFFFFFF) + b"\x00\x01"
    path.write_bytes(bytes(100) + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ")
    with pytest.raises(ArchiveCorrupt):
        blocks_of(path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    whole = written([RAW[:500], RAW[500:700]])
    path = tmp_path / "cut.xz"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ArchiveCorrupt):
            decoded(path)


def test_every_flip_outside_of_padding_is_found(tmp_path: Path) -> None:
    """The LZMA2 data is covered by the block's check, everything else by a CRC of its own."""
    whole = written([RAW[:500], RAW[500:700]])
    path = tmp_path / "flipped.xz"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(ArchiveCorrupt):
            decoded(path)


# --- one block ---


def alone(block: bytes, announced: int, more: int = 0) -> xz_format.Block:
    return xz_format.Block(0, xz_format.unpadded_size(block) + more, announced, xz_format.stream_header())


@pytest.mark.parametrize("announced", [0, 499, 501, 1 << 40])
def test_a_block_of_another_size_than_announced(announced: int) -> None:
    block = xz_format.encode_block(RAW[:500], 1, 1 << 16)
    with pytest.raises(ArchiveCorrupt, match="than announced"):
        b"".join(xz_format.decode_block(alone(block, announced), [block], MEMORY))


def test_a_block_is_decoded_in_small_pieces() -> None:
    """However well it was compressed: a bomb is stopped at the size that was announced."""
    block = xz_format.encode_block(bytes(20_000_000), 1, 1 << 16)
    pieces: list[int] = []
    with pytest.raises(ArchiveCorrupt, match="larger than announced"):
        pieces.extend(len(piece) for piece in xz_format.decode_block(alone(block, 1_000_000), [block], MEMORY))
    assert max(pieces) <= xz_format.STEP
    assert sum(pieces) <= 1_000_000


def test_a_dictionary_beyond_the_budget_is_said() -> None:
    block = xz_format.encode_block(RAW, 1, 1 << 26)
    with pytest.raises(MemoryBudgetExceeded, match="16 MiB"):
        b"".join(xz_format.decode_block(alone(block, len(RAW)), [block], 1 << 24))


def test_what_follows_a_block_is_not_taken_for_data() -> None:
    block = xz_format.encode_block(RAW[:500], 1, 1 << 16)
    with pytest.raises(ArchiveCorrupt):
        b"".join(xz_format.decode_block(alone(block, 500), [block + block], MEMORY))


@pytest.mark.parametrize("end", [-1, -4, -5, 1, 4])
def test_a_block_ends_with_its_check(end: int) -> None:
    """All of its data is there before the check is, and is not handed out as if it were sound."""
    block = xz_format.encode_block(RAW[:500], 1, 1 << 16)
    cut = block[:end] if end < 0 else block + bytes(end)
    with pytest.raises(ArchiveCorrupt):
        b"".join(xz_format.decode_block(alone(block, 500), [cut], MEMORY))


@pytest.mark.parametrize("more", [-4, -1, 1, 4])
def test_an_index_has_the_sizes_of_its_blocks(tmp_path: Path, more: int) -> None:
    """To the byte: padding hides what an index says wrongly from who goes by where blocks begin."""
    block = xz_format.encode_block(RAW[:500], 1, 1 << 16)
    with pytest.raises(ArchiveCorrupt):
        b"".join(xz_format.decode_block(alone(block, 500, more), [block], MEMORY))
    path = tmp_path / "lies.xz"
    path.write_bytes(
        xz_format.stream_header() + block + xz_format.index_and_footer([(xz_format.unpadded_size(block) + more, 500)])
    )
    with pytest.raises(ArchiveCorrupt):
        decoded(path)
    assert subprocess.run(["xz", "-tq", path], capture_output=True).returncode


@pytest.mark.parametrize("blocks", [[], [RAW[:500]]], ids=["empty", ""])
@pytest.mark.parametrize("flags", [b"\x00\x02", b"\x00\x0f", b"\x00\x11", b"\x01\x01"])
def test_a_check_that_xz_does_not_know(tmp_path: Path, flags: bytes, blocks: list[bytes]) -> None:
    """liblzma decodes what it cannot check; stock xz refuses it, also where there is nothing to check."""
    encoded = [xz_format.encode_block(raw, 1, 1 << 16) for raw in blocks]
    closing = xz_format.index_and_footer(
        [(xz_format.unpadded_size(block), len(raw)) for block, raw in zip(encoded, blocks)]
    )
    tail = closing[-8:-4] + flags
    path = tmp_path / "unknown.xz"
    path.write_bytes(
        xz_format.MAGIC + flags + struct.pack("<I", zlib.crc32(flags)) + b"".join(encoded)
        + closing[:-12] + struct.pack("<I", zlib.crc32(tail)) + tail + xz_format.FOOTER_MAGIC
    )  # fmt: skip
    with pytest.raises(ArchiveUnsupported, match="check"):
        blocks_of(path)
    assert subprocess.run(["xz", "-tq", path], capture_output=True).returncode


# --- frames of native archives ---


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC64])
def test_columns_have_the_check_of_the_format(check: int) -> None:
    codec = codecs.get("xz")
    assert codec.decode_columns(codec.encode_columns(RAW), len(RAW)) == RAW
    with pytest.raises(ArchiveCorrupt, match="check"):
        codec.decode_columns(lzma.compress(RAW, check=check), len(RAW))


def test_no_setting_helps_where_a_native_frame_has_too_large_a_dictionary() -> None:
    block = xz_format.encode_block(RAW, 1, 1 << 29)
    with pytest.raises(ArchiveCorrupt, match="larger dictionary") as caught:
        codecs.get("xz").decoder()(block, memoryview(bytearray(len(RAW))))
    assert "UNPACKENV_MEMORY" not in str(caught.value)
