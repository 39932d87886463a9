"""Foreign archives: tars that plain tools made, compressed by a codec or gzip, or not at all.

If a codec can split its file into pieces that decode alone, several workers decode at once. Everything else is one
stream that is decoded in small chunks, one after the other.
"""

from __future__ import annotations

import zlib

from unpackenv.archive import codecs, tarstream, trailer
from unpackenv.archive.codecs.base import CHUNK, READ, Pieces, stream
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, UnpackenvError
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_GZIP_READ = 1 << 16
# A member of an honest archive is the whole archive, or a block of 64 KiB.
_GZIP_LIMIT = 1 << 18


def open_pieces(fd: int, path: str, memory: int, *, serial: bool = False) -> Pieces:
    """Return the tar stream of the archive `fd`; `memory` is the budget of all workers, in bytes.

    With `serial` it is one stream, which takes the least memory.

    Raises `ArchiveUnsupported` if the file is no archive, `ArchiveCorrupt`, or `MemoryBudgetExceeded`.
    """
    head = os.pread(fd, tarstream.BLOCK, 0)
    if head.startswith(_GZIP_MAGIC):
        return stream(_gzip(fd), 0)
    if tarstream.is_header(head):  # needs no codec, and so imports none
        return _plain(fd)
    for codec in codecs.every():
        if codec.begins(head):
            return codec.pieces(fd, os.fstat(fd).st_size, memory, serial)
    if tarstream.begins_tar(head):
        return _plain(fd)
    from unpackenv.archive import refusals

    raise refusals.no_archive(head, path, trailer.SUFFIXES)


def not_native(fd: int, path: str) -> ArchiveUnsupported:
    """Return the error for an open file that is no native archive, but has to be one."""
    try:
        open_pieces(fd, path, 1 << 30)
    except ArchiveUnsupported as error:
        return error
    except UnpackenvError:  # a foreign archive that is damaged
        pass
    return ArchiveUnsupported(
        "it was not made by `unpackenv pack`, or its end is missing",
        hint="An archive made by plain tar can be started and unpacked; "
        f"`tar -tf {path} > /dev/null` checks it, as far as its compression has checksums. An archive that lost "
        "its end has to be copied again",
    )


def open_file(path: str) -> int:
    """Open an archive for reading; raises `ArchiveUnreadable`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise trailer.unreadable(error, path) from error


def _plain(fd: int) -> Pieces:
    return stream(iter(lambda: os.read(fd, CHUNK), b""), 0)


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
                piece = decoder.decompress(data, READ)
            except zlib.error as error:
                raise ArchiveCorrupt(f"its gzip stream does not decode ({error})") from error
            if piece:
                yield piece
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if not decoder.eof:
        raise ArchiveCorrupt("its gzip stream is truncated")
