"""Where the bytes of an archive are: in a file, or elsewhere."""

from __future__ import annotations

from unpackenv.errors import ArchiveCorrupt
from unpackenv.unpatched import os


class Blob:
    """Bytes that can be read at any place, by several processes at once.

    Its methods raise `OSError`, `ArchiveCorrupt` where there are fewer bytes, or another `UnpackenvError`.
    """

    size: int
    """How many there are."""
    is_local = False
    """Whether all of them can be read in no time."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes from `offset` on."""
        raise NotImplementedError

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset` on."""
        if size > self.size - offset:
            raise ArchiveCorrupt("it is truncated")
        data = bytearray(size)
        self.read_into(memoryview(data), offset)
        return bytes(data)

    def close(self) -> None:
        """Give up what it has open."""
        raise NotImplementedError


class FileBlob(Blob):
    """The bytes of an open file."""

    is_local = True

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size

    def read_into(self, buffer: memoryview, offset: int) -> None:
        at = 0
        while at < len(buffer):  # one call may read less: over 2 GiB, or from a network file system
            got = os.preadv(self.fd, [buffer[at:]], offset + at)
            if not got:
                raise ArchiveCorrupt("it is truncated")
            at += got

    def close(self) -> None:
        os.close(self.fd)
