"""Small tar archives in every form: those that plain tools write, and others that the formats allow."""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence

import zstandard

from helpers.crafted import extended, member, record, tar
from unpackenv.archive.codecs import xz_format

NOISE = bytes(number * number * 7 % 251 for number in range(24))
MEMBERS = (
    member("d/", tarfile.DIRTYPE, mode=0o755, mtime=1_600_000_000),
    member("d/a.py", data=b"A = 1\n" * 30, mode=0o644, mtime=1_600_000_001),
    member("b", data=NOISE, mode=0o600),
    member("s", tarfile.SYMTYPE, "d/a.py", mode=0o777),
    member("h", tarfile.LNKTYPE, "b", mode=0o600),
)
RAW = tar(*MEMBERS)
THIRDS = (RAW[:1111], RAW[1111:2222], RAW[2222:])
SKIPPABLE = b"\x5a\x2a\x4d\x18\x04\x00\x00\x00skip"
# Sizes in which one bit is set: without it they are 0.
LARGE = member("large", data=bytes(131072 - 512))
POWERS = (LARGE, RAW[:128], RAW[128:256], RAW[256:])


# --- zstd -----------------------------------------------------------------------------------------


def zstd(pieces: Sequence[bytes], *, sizes: bool = True, checks: bool = True) -> bytes:
    """Return a frame for each piece."""
    options = zstandard.ZstdCompressionParameters.from_level(3, write_content_size=sizes, write_checksum=checks)
    return b"".join(zstandard.ZstdCompressor(compression_params=options).compress(piece) for piece in pieces)


def _mixed_zstd() -> bytes:
    kinds = [(sizes, checks) for sizes in (True, False) for checks in (True, False)]
    empty = [zstd([b""], sizes=sizes, checks=checks) for sizes, checks in kinds]
    frames = [zstd([piece], sizes=sizes, checks=checks) for piece, (sizes, checks) in zip((*THIRDS, b""), kinds)]
    return b"".join(frame + more + SKIPPABLE for frame, more in zip(frames, empty))


# --- xz -------------------------------------------------------------------------------------------


def streams(pieces: Sequence[bytes], check: int = lzma.CHECK_CRC64, padding: int = 0) -> bytes:
    """Return an xz stream of one block for each piece, each with padding behind it."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    return b"".join(lzma.compress(piece, check=check, filters=filters) + bytes(padding) for piece in pieces)


def blocks(pieces: Sequence[bytes], check: int = lzma.CHECK_CRC32) -> bytes:
    """Return one xz stream of a block for each piece."""
    size = {lzma.CHECK_NONE: 0, lzma.CHECK_CRC32: 4, lzma.CHECK_CRC64: 8, lzma.CHECK_SHA256: 32}[check]
    encoded, sizes = [], []
    for piece in pieces:
        if piece:  # a stream of this block alone has the right check
            alone = streams([piece], check)
            (record,) = xz_format._parse_index(alone[-(struct.unpack("<I", alone[-8:-4])[0] + 1) * 4 - 12 : -12])
            encoded.append(alone[12 : 12 + xz_format.padded(record[0])])
        else:
            block = xz_format.encode_block(piece, 0, 1 << 16)[:-4]  # CRC32 and CRC64 of nothing are 0
            record = (xz_format.unpadded_size(block) - 4 + size, 0)
            encoded.append(block + bytes(size))
        sizes.append(record)
    return xz_format.stream_header(check) + b"".join(encoded) + xz_format.index_and_footer(sizes, check)


def filtered() -> bytes:
    """Return an xz stream with two filters before LZMA2."""
    filters = [{"id": lzma.FILTER_DELTA, "dist": 3}, {"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
    return lzma.compress(RAW, filters=filters)


# --- gzip -----------------------------------------------------------------------------------------


def gzipped(pieces: Sequence[bytes], header: bytes = b"") -> bytes:
    """Return a gzip member for each piece, with this header, or the shortest."""
    return b"".join((header or gzip.compress(b"", mtime=0)[:10]) + gzip.compress(piece)[10:] for piece in pieces)


def long_header() -> bytes:
    """Return a gzip header with everything that one may have: extra field, name, comment, and its own checksum."""
    header = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x04\x00\x41\x42\x00\x00" + b"name\0" + b"comment\0"
    return header + struct.pack("<H", zlib.crc32(header) & 0xFFFF)


# --- tar ------------------------------------------------------------------------------------------


def typed(kind: bytes, name: str = "typed", data: bytes = b"", *, signed: bool = False) -> bytes:
    """Return a member of any type; with `signed`, its checksum is that of signed bytes."""
    header = bytearray(member(name, data=data))
    header[156:157] = kind
    header[148:156] = b" " * 8
    sum_of_bytes = sum(byte - 256 if signed and byte > 127 else byte for byte in header[:512])
    header[148:156] = b"%06o\0 " % sum_of_bytes
    return bytes(header)


def v7(info: bytes) -> bytes:
    """Return a member without what came after version 7: magic, names of owners, devices, prefix."""
    header = bytearray(info)
    header[257:512] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


FORMS: dict[str, Callable[[], bytes]] = {
    "zstd": lambda: zstd([RAW]),
    "zstd, no check": lambda: zstd([RAW], checks=False),
    "zstd, no size": lambda: zstd([RAW], sizes=False),
    "zstd, neither": lambda: zstd([RAW], sizes=False, checks=False),
    "zstd of 3 frames": lambda: zstd(THIRDS),
    "zstd of 3 frames, no checks": lambda: zstd(THIRDS, checks=False),
    "zstd of 3 frames, no sizes": lambda: zstd(THIRDS, sizes=False),
    "zstd of 3 frames, neither": lambda: zstd(THIRDS, sizes=False, checks=False),
    "zstd of frames of all kinds, empty and skippable ones": _mixed_zstd,
    "zstd that begins with a skippable frame": lambda: SKIPPABLE + zstd(THIRDS[:2]) + SKIPPABLE + zstd(THIRDS[2:]),
    "zstd, sizes of one bit": lambda: zstd(POWERS),
    "zstd, sizes of one bit, no checks": lambda: zstd(POWERS, checks=False),
    "xz": lambda: streams([RAW]),
    "xz, no check": lambda: streams([RAW], lzma.CHECK_NONE),
    "xz, CRC32": lambda: streams([RAW], lzma.CHECK_CRC32),
    "xz, SHA-256": lambda: streams([RAW], lzma.CHECK_SHA256),
    "xz with filters": filtered,
    "xz of 3 blocks": lambda: blocks(THIRDS, lzma.CHECK_CRC64),
    "xz of 3 blocks, no checks": lambda: blocks(THIRDS, lzma.CHECK_NONE),
    "xz of 3 blocks and empty ones": lambda: blocks([b"", *THIRDS[:1], b"", *THIRDS[1:], b""]),
    "xz of 3 streams": lambda: streams(THIRDS),
    "xz of 3 streams and empty ones, padded": lambda: streams([*THIRDS[:2], b"", *THIRDS[2:], b""], padding=8),
    "gzip": lambda: gzipped([RAW]),
    "gzip of 3 members and empty ones, padded": lambda: gzipped([*THIRDS[:2], b"", *THIRDS[2:], b""]) + bytes(9),
    "gzip with a long header": lambda: gzipped([RAW], long_header()),
    "tar": lambda: tar(*MEMBERS[2:]),
    "tar of version 7": lambda: tar(*map(v7, MEMBERS[:2])),
    "tar of pax": lambda: tar(extended(b"x", record("mtime", b"7.5")), MEMBERS[2]),
    "tar of odd members": lambda: tar(typed(b"V"), typed(b"X", data=record("mtime", b"1")), typed(b"D", "e/")),
}
