"""The interface to a file that is elsewhere."""

from __future__ import annotations

from unpackenv.archive import trailer
from unpackenv.errors import ArchiveUnreachable, NoSpace
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.trailer import Footer

TAIL = 1 << 18
"""How many of the last bytes of an archive are fetched first: footer, facts and table of contents of any usual one."""
_PIECE = 8 << 20


class RemoteFile:
    """A file that is elsewhere. Methods raise `UnpackenvError`; threads may call them at once."""

    def resolve(self) -> str:
        """Find out which file it is; return the digest of the archive, if a digest that the user pinned vouches for it.

        Otherwise "": then the settings have it.
        """
        return ""

    def look(self, whole: int) -> dict[str, Any]:
        """Fetch the last bytes of the file, and return what is known by then.

        That is its `size`; its `tail`; a `version`, which another content would not have; and `state`, which lets
        another process go on from there. A server that knows no parts of files sends all of it: then `tail` is empty,
        and the file is in the open file `whole`.
        """
        raise NotImplementedError

    def fetch(self, buffers: list[memoryview], offset: int, size: int, version: str) -> None:
        """Fill buffers, one after the other, with the bytes from `offset` on of a file that is still that version.

        A `version` "" stands for any.
        """
        raise NotImplementedError

    def fetch_all(self, whole: int, size: int, version: str) -> None:
        """Write all of the file, in order, to the open file `whole`."""
        check_room(whole, size)
        buffer = memoryview(bytearray(min(size, _PIECE)))
        for offset in range(0, size, _PIECE):
            piece = buffer[: size - offset]
            self.fetch([piece], offset, size, version)
            write_at(whole, piece, offset)

    def close(self) -> None:
        """Close what is open in this process."""


def footer_of(found: dict[str, Any]) -> Footer | None:
    """Return the footer in what `look` found; None for an archive that plain tar made. Raises `UnpackenvError`."""
    identity = trailer.identify_tail(found["tail"], found["size"], "", lambda size, offset: b"")
    return identity.footer if identity else None


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write bytes to an open file; return where they end."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
    return offset


def check_room(fd: int, size: int) -> None:
    """Raise `NoSpace` unless a file of that size fits where the open file is."""
    status = os.fstatvfs(fd)
    if size > status.f_bavail * status.f_frsize:
        raise NoSpace(
            f"has no room for the {size / 1e6:.0f} MB of an archive that can only be fetched as a whole",
            where="the temporary directory",
            hint="Name another one with TMPDIR, or use a server that knows ranges",
            need=size,
        )


def replaced(shown: str) -> ArchiveUnreachable:
    """Return the error for a file that is no longer the one that was looked at."""
    return ArchiveUnreachable(
        "has been replaced by another file since this start began", where=shown, hint="Start again"
    )
