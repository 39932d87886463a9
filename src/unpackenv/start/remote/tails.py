"""The tail of a remote archive: all that says what is in it. It is fetched first, or a cache has it."""

from __future__ import annotations

from unpackenv.errors import SettingError
from unpackenv.start.remote.blob import open_cache, open_file
from unpackenv.start.remote.remotefile import footer_of
from unpackenv.unpatched import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.traffic import Traffic
    from unpackenv.start.remote.remotefile import RemoteFile
    from unpackenv.start.settings import Settings


def look(settings: Settings, traffic: Traffic, whole: int, *, isolated: bool) -> dict[str, Any]:
    """Return what is known of an archive when its tail is there (see `RemoteFile.look`), and its `digest`.

    `isolated` says whether this process is not the application's. Raises `UnpackenvError`.
    """
    file = open_file(settings, traffic, {}, isolated=isolated)
    try:
        began = time.perf_counter()
        found = _look(file, settings, whole)
        traffic.add_wait(began)
        return found
    finally:
        file.close()


def _look(file: RemoteFile, settings: Settings, whole: int) -> dict[str, Any]:
    digest = settings.digest.lower() or file.resolve()
    if not digest:
        raise SettingError(
            "its manifest does not say the digest of the archive",
            where=settings.archive,
            hint="Add #sha256=DIGEST, which `unpackenv inspect` prints, or push it with `unpackenv push`",
        )
    cache = open_cache(settings)
    if cache is None:
        found = _fetched(file, whole)
    else:
        from unpackenv.start.remote import shared

        found = shared.look(cache, digest, settings.fetch_timeout, lambda: _fetched(file, whole))
    return {**found, "digest": digest}


def _fetched(file: RemoteFile, whole: int) -> dict[str, Any]:
    """Fetch the tail, and more if the table of contents is longer; all of an archive that has none."""
    found = file.look(whole)
    if not found["tail"]:
        return found
    footer, begin = footer_of(found), found["size"] - len(found["tail"])
    if footer is None:
        file.fetch_all(whole, found["size"], found["version"])
        found["tail"] = b""
    elif footer.columns_offset < begin:
        more = bytearray(begin - footer.columns_offset)
        file.fetch([memoryview(more)], footer.columns_offset, found["size"], found["version"])
        found["tail"] = bytes(more) + found["tail"]
    return found
