"""The trailer: the end of an archive, which names it. Read at every start, so it stays small.

An archive ends with its facts and, at a fixed distance from the end, a footer of 84 bytes that says
where everything else is and carries the digest (docs/format.md has the byte tables):

    zstd   frame … frame │ skippable frame [ columns │ facts │ footer ]
    xz     stream of blocks │ stream [ columns ] │ stream [ facts ] │ stream [ footer ]

The digest is the sha256 of the stored columns followed by the facts. The columns hold the sha256 of
every frame, so the digest pins every byte of the content.
"""

from __future__ import annotations

from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt, ArchiveUnreadable, ArchiveUnsupported
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from unpackenv.archive.blob import Blob

VERSION = 1
MAGIC = b"unpkenv\n"
# Sizes of the footer's numbers, in their order; then follow the digest, the CRC-32 of all these, and MAGIC. `struct`
# and `zlib` would be heavier than the rest of this module.
_NUMBERS = (8, 8, 8, 8, 4, 2, 2)
_DIGEST = sum(_NUMBERS)
_CRC = _DIGEST + 32
_MAGIC = _CRC + 4
FOOTER_SIZE = _MAGIC + len(MAGIC)

# Every codec: its number in the footer; its name, which is that of its module in `codecs`; how the
# names of its files end, the usual suffix first; and how many bytes of its container follow the footer.
CODECS = {
    1: ("zstd", (".zst", ".tzst"), 0),
    # End of LZMA2 data, check, index and stream footer of the stream that holds the footer: all of one length.
    2: ("xz", (".xz", ".txz"), 1 + 4 + 8 + 12),
}
# How archives are usually named, native ones and others.
SUFFIXES = (*(f".tar{suffixes[0]}" for _, suffixes, _ in CODECS.values()), ".tar.gz", ".tar")

# Facts fit one stored xz chunk. The columns of a million members, the most that there may be, are smaller.
FACTS_LIMIT = 1 << 16
COLUMNS_LIMIT = 1 << 26

# One read that holds footer and facts of any usual archive.
_TAIL = 4096
_IDENTITY = 64


class Footer:
    """The fields of the fixed-size footer. Offsets and sizes are in bytes of the archive file."""

    __slots__ = ("codec", "columns_offset", "columns_raw", "columns_size", "digest", "facts_offset", "facts_size")

    def __init__(
        self,
        codec: str,
        columns_offset: int,
        columns_size: int,
        columns_raw: int,
        facts_offset: int,
        facts_size: int,
        digest: bytes,
    ) -> None:
        self.codec = codec
        self.columns_offset = columns_offset
        self.columns_size = columns_size
        self.columns_raw = columns_raw
        self.facts_offset = facts_offset
        self.facts_size = facts_size
        self.digest = digest

    def pack(self) -> bytes:
        """Return the footer's bytes."""
        codec = next(number for number, (name, *_) in CODECS.items() if name == self.codec)
        columns = (self.columns_offset, self.columns_size, self.columns_raw)
        numbers = (*columns, self.facts_offset, self.facts_size, VERSION, codec)
        checked = b"".join(map(_little_endian, numbers, _NUMBERS)) + self.digest
        return checked + _little_endian(_crc32(checked), 4) + MAGIC

    @classmethod
    def unpack(cls, data: bytes) -> Footer:
        """Return the footer in `data`; raises `ArchiveUnsupported` or `ArchiveCorrupt`."""
        numbers, at = [], 0
        for size in _NUMBERS:
            numbers.append(int.from_bytes(data[at : at + size], "little"))
            at += size
        columns_offset, columns_size, columns_raw, facts_offset, facts_size, version, codec = numbers
        if version != VERSION:
            raise ArchiveUnsupported(
                f"its format version is {version}, this unpackenv reads version {VERSION}",
                hint="Pack it with the unpackenv that starts it",
                version=version,
            )
        if _little_endian(_crc32(data[:_CRC]), 4) != data[_CRC:_MAGIC] or codec not in CODECS:
            raise ArchiveCorrupt("its footer is damaged")
        name, digest = CODECS[codec][0], data[_DIGEST:_CRC]
        footer = cls(name, columns_offset, columns_size, columns_raw, facts_offset, facts_size, digest)
        columns = max(footer.columns_raw, footer.columns_size)
        if not 0 < footer.facts_size <= FACTS_LIMIT or columns > COLUMNS_LIMIT:
            raise ArchiveCorrupt("its footer announces a table of contents of an impossible size")
        return footer


# CRC-32 (IEEE 802.3, reflected) of each value of four bits.
_CRC32 = (
    0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
    0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
)  # fmt: skip


def _little_endian(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")


def _crc32(data: bytes) -> int:
    """Return what `zlib.crc32` does; to load zlib takes thirty times as long as this for a footer."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        crc = crc >> 4 ^ _CRC32[crc & 15]
        crc = crc >> 4 ^ _CRC32[crc & 15]
    return crc ^ 0xFFFFFFFF


class Identity:
    """The identity of an archive file, from its size, mtime and last bytes: enough for a warm start.

    `digest` is the hex digest of a native archive and "" for a foreign one (made by plain tar);
    `facts` is empty for a foreign one; `key` names the archive in default places and stamps.
    """

    __slots__ = ("digest", "facts", "footer", "key", "path", "size")

    def __init__(self, path: str, size: int, key: str, footer: Footer | None, facts: dict[str, list[str]]) -> None:
        self.path = path
        self.size = size
        self.key = key
        self.footer = footer
        self.digest = footer.digest.hex() if footer else ""
        self.facts = facts


def identify(path: str) -> Identity:
    """Read the tail of the archive at `path` and return its `Identity`.

    Hashes nothing and imports no codec: the archive is verified when it is unpacked. Raises
    `ArchiveUnreadable`, `ArchiveUnsupported` or `ArchiveCorrupt`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would keep a start waiting
        try:
            return identify_open(fd, path)
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(error, path) from error
    except (ArchiveUnsupported, ArchiveCorrupt) as error:
        error.where = path
        raise


def identify_blob(blob: Blob, path: str) -> Identity | None:
    """Return the identity of a native archive in a blob; None for another file. `path` is its name for people."""
    size = min(_TAIL, blob.size)
    return identify_tail(blob.read(size, blob.size - size), blob.size, path, blob.read)


def unreadable(error: OSError, path: str) -> ArchiveUnreadable:
    """Translate an `OSError` for the archive at `path`."""
    try:
        from unpackenv.archive import refusals
    except OSError:  # too many files are open for an import
        return ArchiveUnreadable(f"cannot be read ({error.strerror})", where=path)
    return refusals.unreadable(error, path, SUFFIXES)


def identify_open(fd: int, path: str) -> Identity:
    """Return the `Identity` of the open file `fd`; `path` is for its name only."""
    status = os.fstat(fd)
    size = status.st_size
    start = max(0, size - _TAIL)
    tail = os.pread(fd, size - start, start)
    identity = identify_tail(tail, size, path, lambda size, offset: os.pread(fd, size, offset))
    return identity or Identity(path, size, _foreign_key(status, tail[-_IDENTITY:]), None, {})


def identify_tail(tail: bytes, size: int, path: str, read: Callable[[int, int], bytes]) -> Identity | None:
    """Return the `Identity` of a native archive of `size` bytes with this `tail`; None for another file.

    `read(size, offset)` returns bytes before the tail.
    """
    footer, start = _find_footer(tail), size - len(tail)
    if footer is None:
        return None
    if max(footer.columns_offset + footer.columns_size, footer.facts_offset + footer.facts_size) > size:
        raise ArchiveCorrupt("it is truncated")
    if footer.facts_offset >= start:
        offset = footer.facts_offset - start
        text = tail[offset : offset + footer.facts_size]
    else:
        text = read(footer.facts_size, footer.facts_offset)
    if b"\0" in text:  # no path, and no variable of the environment, can hold one
        raise ArchiveCorrupt("its facts have a NUL byte")
    return Identity(path, size, footer.digest.hex(), footer, facts_text.decode(text))


def _find_footer(tail: bytes) -> Footer | None:
    for *_, following in CODECS.values():
        end = len(tail) - following
        if tail[end - len(MAGIC) : end] == MAGIC and end >= FOOTER_SIZE:
            return Footer.unpack(tail[end - FOOTER_SIZE : end])
    return None


def _foreign_key(status: os.stat_result, tail: bytes) -> str:
    """Return the key of a foreign archive, which has no digest: its size, mtime and last bytes stand for it."""
    import zlib

    return f"foreign-{status.st_size:x}-{status.st_mtime_ns:x}-{zlib.crc32(tail):08x}"
