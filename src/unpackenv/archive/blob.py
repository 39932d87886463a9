"""Where the bytes of an archive are: in a file, or elsewhere."""

from __future__ import annotations

from unpackenv.errors import ArchiveCorrupt
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.traffic import Traffic


class Place:
    """Where a frame is in an archive: `offset` and `size` of its stored bytes, and their sha256 (`digest`)."""

    __slots__ = ("digest", "offset", "size")

    def __init__(self, offset: int, size: int, digest: bytes) -> None:
        self.offset = offset
        self.size = size
        self.digest = digest


class Blob:
    """Bytes that can be read at any place, by several processes at once.

    Its methods raise `OSError`, `ArchiveCorrupt` where there are fewer bytes, or another `UnpackenvError`.
    """

    size: int
    """How many there are."""
    is_local = False
    """Whether all of them can be read in no time."""
    step = "fetch"
    """What a trace calls the time in which a worker reads a frame, or waits for one that is fetched ahead."""
    traffic: Traffic | None = None
    """How much of them was fetched, if they are not here."""
    ahead = 0
    """How many frames a worker announces before it reads them."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes from `offset` on."""
        raise NotImplementedError

    def expect(self, places: list[Place]) -> None:
        """Take note of what this process will read next, in that order: no more, no less.

        Only in a process that will not fork any more: it may have threads from now on.
        """

    def read_frame(self, buffer: memoryview, place: Place) -> None:
        """Fill a buffer with the stored bytes of a frame, unchecked."""
        self.read_into(buffer, place.offset)

    def descriptors(self) -> list[int]:
        """Return the descriptors that it has open."""
        return [self.traffic.fd] if self.traffic else []

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset` on."""
        if size > self.size - offset:
            raise ArchiveCorrupt("it is truncated")
        data = bytearray(size)
        self.read_into(memoryview(data), offset)
        return bytes(data)

    def end_reading(self) -> None:
        """Note that this process reads no more."""

    def close(self) -> None:
        """Close its descriptors."""
        if self.traffic:
            self.traffic.close()


class FileBlob(Blob):
    """The bytes of an open file."""

    is_local = True
    step = "read"

    def __init__(self, fd: int, traffic: Traffic | None = None) -> None:
        self.fd = fd
        self.traffic = traffic
        self.size = os.fstat(fd).st_size

    def read_into(self, buffer: memoryview, offset: int) -> None:
        at = 0
        while at < len(buffer):  # one call may read less: over 2 GiB, or from a network file system
            got = os.preadv(self.fd, [buffer[at:]], offset + at)
            if not got:
                raise ArchiveCorrupt("it is truncated")
            at += got

    def descriptors(self) -> list[int]:
        return [self.fd, *super().descriptors()]

    def close(self) -> None:
        os.close(self.fd)
        super().close()
