"""An archive that is to be pushed: checked, open until it is sent, and described."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import TYPE_CHECKING

from unpackenv.archive import facts, reader, verify
from unpackenv.errors import ArchiveNotFound
from unpackenv.start.remote.registry import ANY, architecture

if TYPE_CHECKING:
    from unpackenv.archive.reader import Archive

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a step, by its name and its number of bytes; what it yields takes how many of them are done."""
_PIECE = 1 << 20


class Parcel:
    """An archive that is to be pushed.

    `digest` is that of the archive, `blob` that of its file as registries write it, `size` the bytes of the file.
    `platform` is such as linux/amd64; "" for an archive that runs on any, which has no machine code.
    """

    def __init__(self, archive: Archive) -> None:
        self.path = archive.path
        self.name = os.path.basename(archive.path)
        self.codec = archive.codec.name
        self.digest = archive.digest
        self.size = archive.blob.size
        self.python = facts.first(archive.facts, "python")
        self.platform = _platform(archive.facts)
        self.was_there = False
        """Whether the registry had it already; known when it is pushed."""
        self._archive = archive
        self.blob = f"sha256:{self._sha256()}"

    @property
    def purpose(self) -> str:
        """What it is for, in words."""
        return " and ".join(filter(None, (self.platform or ANY, self.python)))

    def read(self, size: int, offset: int) -> bytes:
        """Return some bytes of the file."""
        return self._archive.blob.read(min(size, self.size - offset), offset)

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _sha256(self) -> str:
        hashed = sha256()
        for offset in range(0, self.size, _PIECE):
            hashed.update(self.read(_PIECE, offset))
        return hashed.hexdigest()


def checked(path: str, watch: Watch) -> Parcel:
    """Open the archive at a path, and check every byte of it, as `verify` does.

    Raises `ArchiveNotFound` and the errors of `open_archive`, also for an archive that plain tar made.
    """
    if not os.path.exists(path):
        hint = "Name what `unpackenv pack` wrote"
        raise ArchiveNotFound("there is no archive", where=os.path.abspath(path), hint=hint)
    archive = reader.open_archive(path)
    try:
        with watch("verify", archive.toc.raw_size) as show:
            verify.verify_open(archive, show)
        return Parcel(archive)
    except BaseException:
        archive.close()
        raise


def _platform(described: dict[str, list[str]]) -> str:
    """Return the platform that an archive needs, by the facts that a start compares (see `interpreter.mismatch`)."""
    machine = facts.first(described, "machine") if facts.first(described, "native") == "yes" else ""
    return f"{facts.first(described, 'system', 'linux')}/{architecture(machine)}" if machine else ""
