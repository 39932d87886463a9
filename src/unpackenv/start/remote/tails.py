"""The tail of a remote archive: all that says what is in it. It is fetched first, or a cache has it."""

from __future__ import annotations

import json
from hashlib import sha256

from unpackenv.archive import trailer
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, SettingError
from unpackenv.start.remote.blob import open_cache, open_file
from unpackenv.start.remote.cache import TAIL
from unpackenv.unpatched import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.traffic import Traffic
    from unpackenv.archive.trailer import Footer
    from unpackenv.start.remote.cache import Cache
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
    found = _shared(cache, file, digest, whole, settings) if cache else _fetched(file, whole)
    return {**found, "digest": digest}


def _fetched(file: RemoteFile, whole: int) -> dict[str, Any]:
    """Fetch the tail, and more if the table of contents is longer; all of an archive that has none."""
    found = file.look(whole)
    if not found["tail"]:
        return found
    footer, begin = _footer(found), found["size"] - len(found["tail"])
    if footer is None:
        file.fetch_all(whole, found["size"], found["version"])
        found["tail"] = b""
    elif footer.columns_offset < begin:
        more = bytearray(begin - footer.columns_offset)
        file.fetch([memoryview(more)], footer.columns_offset, found["size"], found["version"])
        found["tail"] = bytes(more) + found["tail"]
    return found


def _shared(cache: Cache, file: RemoteFile, digest: str, whole: int, settings: Settings) -> dict[str, Any]:
    """Return what a cache has; or fetch it, and put it there."""
    found: dict[str, Any] = {}

    def read() -> bool:
        nonlocal found
        found = _cached(cache.read(digest, TAIL), digest)
        return bool(found)

    fetching = cache.wait(digest, settings.fetch_timeout, read, TAIL)
    if fetching is None:
        return found
    try:
        found = _fetched(file, whole)
        if found["tail"] and _is_sound(found, digest):
            # What is for this start only, such as a token, stays out of it.
            known = {"size": found["size"], "blob": found["state"].get("blob", "")}
            fetching.keep(json.dumps(known).encode() + b"\n" + found["tail"])
            cache.trim()  # a small archive is all in its tail: nothing else will be fetched
    finally:
        fetching.give_up()
    return found


def _cached(data: bytes, digest: str) -> dict[str, Any]:
    """Return what is known by an entry of a cache; nothing if it is not sound."""
    head, _, tail = data.partition(b"\n")
    try:
        known = json.loads(head)
        blob = str(known["blob"])
        found = {"size": int(known["size"]), "tail": tail, "version": "", "state": {"blob": blob} if blob else {}}
        return found if _is_sound(found, digest) else {}
    except (ValueError, KeyError, TypeError, ArchiveCorrupt, ArchiveUnsupported):
        return {}


def _footer(found: dict[str, Any]) -> Footer | None:
    """Return the footer of a tail; None for an archive that plain tar made. Raises `UnpackenvError`."""
    identity = trailer.identify_tail(found["tail"], found["size"], "", lambda size, offset: b"")
    return identity.footer if identity else None


def _is_sound(found: dict[str, Any], digest: str) -> bool:
    """Whether a tail is that of the archive with this digest, and has its whole table of contents."""
    footer, tail = _footer(found), memoryview(found["tail"])
    begin = found["size"] - len(tail)
    if footer is None or footer.digest.hex() != digest or begin < 0 or footer.columns_offset < begin:
        return False
    columns, facts = footer.columns_offset - begin, footer.facts_offset - begin
    hashed = sha256(tail[columns : columns + footer.columns_size])
    hashed.update(tail[facts : facts + footer.facts_size])
    return hashed.digest() == footer.digest
