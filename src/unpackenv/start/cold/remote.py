"""The identity of a remote archive, from its last bytes.

A child fetches them, where that is possible: the application has none of the modules for it afterwards.
"""

from __future__ import annotations

import sys

from unpackenv.archive import trailer
from unpackenv.archive.blob import FileBlob
from unpackenv.archive.traffic import Traffic
from unpackenv.archive.trailer import Identity
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported
from unpackenv.start.machine import child
from unpackenv.start.remote import address
from unpackenv.start.remote.blob import RemoteBlob
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.blob import Blob
    from unpackenv.start.settings import Settings


def identify(settings: Settings) -> Identity:
    """Return the identity of the archive at a URL, which is open in `settings` from now on; raises `UnpackenvError`.

    The settings have the digest of the archive then, also if they only had that of a manifest before.
    """
    shown = address.check(settings.archive, settings.insecure)
    traffic, whole = Traffic(), _unnamed_file()
    try:
        found = child.with_stop_signals(lambda: _look(settings, traffic, whole))
    except BaseException:
        os.close(whole)
        traffic.close()
        raise
    blob: Blob
    if found["tail"]:
        os.close(whole)
        blob = RemoteBlob(settings, found, traffic)
    else:
        blob = FileBlob(whole, traffic)
    settings.blob, settings.digest = blob, found["digest"]
    key = settings.pin or settings.digest
    try:
        identity = trailer.identify_blob(blob, shown) or Identity(shown, blob.size, key, None, {})
    except (ArchiveUnsupported, ArchiveCorrupt) as error:
        error.where = shown
        raise
    identity.key = key
    return identity


def end(settings: Settings) -> None:
    """Close the archive, and leave nothing of what has fetched it in this process."""
    if settings.blob:
        settings.blob.end_reading()
        settings.blob.close()
    stored = sys.modules.get("unpackenv.start.remote.stored")
    if stored:
        stored.forget()


def _look(settings: Settings, traffic: Traffic, whole: int) -> dict[str, Any]:
    def look(isolated: bool) -> dict[str, Any]:
        from unpackenv.start.remote import tails

        return tails.look(settings, traffic, whole, isolated=isolated)

    if child.is_single_threaded():
        try:
            return child.run(lambda: look(True))
        except child.ForkRefused:
            pass
    return look(False)


def _unnamed_file() -> int:
    """Return an open file without a name, for an archive that cannot be read in parts.

    Where no such file can be, it is one that has no room.
    """
    directory = os.environ.get("TMPDIR") or "/tmp"
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system that has none, or no such directory
        pass
    import tempfile  # heavy, for the application

    try:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    except OSError:
        return os.memfd_create("unpackenv-whole")
