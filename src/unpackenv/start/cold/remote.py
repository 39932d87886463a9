"""The identity of a remote archive, from its last bytes.

A child fetches them, where that is possible: the application has none of the modules for it afterwards.
"""

from __future__ import annotations

from unpackenv.archive import trailer
from unpackenv.archive.blob import FileBlob
from unpackenv.archive.trailer import Identity
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported
from unpackenv.start.machine import child
from unpackenv.start.remote.address import Address
from unpackenv.start.remote.blob import RemoteBlob
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.blob import Blob
    from unpackenv.start.settings import Settings


def identify(settings: Settings) -> Identity:
    """Return the identity of the archive at a URL, which is open in `settings` from now on; raises `UnpackenvError`."""
    address = Address(settings.archive)
    address.check(settings.insecure)
    whole = _unnamed_file()
    try:
        found = child.with_stop_signals(lambda: _look(settings, whole))
    except BaseException:
        os.close(whole)
        raise
    blob: Blob = FileBlob(whole)
    if found["tail"]:
        blob.close()
        url, size, tail, version = settings.archive, found["size"], found["tail"], found["version"]
        blob = RemoteBlob(url, size, tail, version, settings.fetch_timeout, settings.insecure)
    settings.blob = blob
    try:
        identity = trailer.identify_blob(blob, address.shown)
    except (ArchiveUnsupported, ArchiveCorrupt) as error:
        error.where = address.shown
        raise
    if identity is None:
        hint = "Check the URL; of archives by URL, only those that `unpackenv pack` made can be read"
        raise ArchiveUnsupported("is no archive of `unpackenv pack`", where=address.shown, hint=hint)
    return identity


def _look(settings: Settings, whole: int) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        from unpackenv.start.remote.server import Server

        return Server(settings.archive, settings.fetch_timeout, settings.insecure).look(whole)

    if child.is_single_threaded():
        try:
            return child.run(look)
        except child.ForkRefused:
            pass
    return look()


def _unnamed_file() -> int:
    """Return an open file without a name, for an archive that cannot be read in parts."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
