"""The trailer: the end of an archive, which names it. Read at every start, so it stays small.

An archive ends with its facts and, at a fixed distance from the end, a footer of 84 bytes that says
where everything else is and carries the digest (docs/format.md has the byte tables):

    zstd   frame … frame │ skippable frame [ columns │ facts │ footer ]
    xz     stream of blocks │ stream [ columns ] │ stream [ facts ] │ stream [ footer ]

The digest is the sha256 of the stored columns followed by the facts. The columns hold the sha256 of
every frame, so the digest pins every byte of the content.
"""

from __future__ import annotations

import struct

from unpackenv.archive import facts as facts_text
from unpackenv.errors import ArchiveCorrupt, ArchiveUnreadable, ArchiveUnsupported
from unpackenv.unpatched import os

VERSION = 1
MAGIC = b"unpkenv\n"
LAYOUT = struct.Struct("<QQQQIHH32sI8s")
FOOTER_SIZE = LAYOUT.size

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
        import zlib

        number = next(number for number, (name, *_) in CODECS.items() if name == self.codec)
        fields = (
            self.columns_offset,
            self.columns_size,
            self.columns_raw,
            self.facts_offset,
            self.facts_size,
            VERSION,
            number,
            self.digest,
        )
        checked = LAYOUT.pack(*fields, 0, MAGIC)[:-12]
        return LAYOUT.pack(*fields, zlib.crc32(checked), MAGIC)

    @classmethod
    def unpack(cls, data: bytes) -> Footer:
        """Return the footer in `data`; raises `ArchiveUnsupported` or `ArchiveCorrupt`."""
        *places, version, number, digest, crc, _magic = LAYOUT.unpack(data)
        if version != VERSION:
            raise ArchiveUnsupported(
                f"its format version is {version}, this unpackenv reads version {VERSION}",
                hint="Pack it with the unpackenv that starts it",
                version=version,
            )
        import zlib

        if zlib.crc32(data[:-12]) != crc or number not in CODECS:
            raise ArchiveCorrupt("its footer is damaged")
        columns_offset, columns_size, columns_raw, facts_offset, facts_size = places
        footer = cls(CODECS[number][0], columns_offset, columns_size, columns_raw, facts_offset, facts_size, digest)
        columns = max(footer.columns_raw, footer.columns_size)
        if not 0 < footer.facts_size <= FACTS_LIMIT or columns > COLUMNS_LIMIT:
            raise ArchiveCorrupt("its footer announces a table of contents of an impossible size")
        return footer


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
    footer = _find_footer(tail)
    if footer is None:
        return Identity(path, size, _foreign_key(status, tail[-_IDENTITY:]), None, {})
    if max(footer.columns_offset + footer.columns_size, footer.facts_offset + footer.facts_size) > size:
        raise ArchiveCorrupt("it is truncated")
    if footer.facts_offset >= start:
        offset = footer.facts_offset - start
        text = tail[offset : offset + footer.facts_size]
    else:
        text = os.pread(fd, footer.facts_size, footer.facts_offset)
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
