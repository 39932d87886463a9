"""Fetch an archive with a cache: what another start has, or is fetching, is not fetched again."""

from __future__ import annotations

import json
from functools import partial
from hashlib import sha256

from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported
from unpackenv.start.remote import ahead
from unpackenv.start.remote.cache import TAIL
from unpackenv.start.remote.remotefile import footer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from unpackenv.archive.traffic import Traffic
    from unpackenv.start.remote.ahead import Piece
    from unpackenv.start.remote.cache import Cache, Fetching


class SharedFetch:
    """Fetches by `fetch_run`, which fills the buffers of neighbouring pieces, unless `cache` has them.

    A start waits for another one for at most `timeout` seconds.
    """

    def __init__(
        self, cache: Cache, fetch_run: Callable[[list[Piece]], None], timeout: float, traffic: Traffic
    ) -> None:
        self._cache = cache
        self._fetch_run = fetch_run
        self._timeout = timeout
        self._traffic = traffic

    def fetch(self, pieces: list[Piece]) -> None:
        """Fill the buffers of pieces, and finish them."""
        own, others = [], []
        for piece in pieces:
            if self._is_cached(piece):
                continue
            fetching = self._cache.lock(piece.name)
            if fetching is None:
                others.append(piece)
            elif self._is_cached(piece):  # another start has just fetched it
                fetching.give_up()
            else:
                own.append((piece, fetching))
        self._fetch_own(own)
        for piece in others:
            found = self._cache.wait(piece.name, self._timeout, partial(self._is_cached, piece))
            if found:
                self._fetch_own([(piece, found)])

    def _fetch_own(self, own: list[tuple[Piece, Fetching]]) -> None:
        rights = dict(own)
        try:
            for run in ahead.runs([piece for piece, _ in own]):
                self._fetch_run(run)
                for piece in run:
                    if sha256(piece.buffer).hexdigest() == piece.name:
                        rights[piece].keep(piece.buffer)
                    piece.finish()
        finally:
            for fetching in rights.values():
                fetching.give_up()

    def _is_cached(self, piece: Piece) -> bool:
        """Whether the cache has a piece, which is in its buffer then."""
        if not self._cache.read_frame(piece.name, piece.buffer):
            return False
        self._traffic.add(cached=len(piece.buffer))
        piece.finish()
        return True


def look(cache: Cache, digest: str, timeout: float, fetch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is known of an archive when its tail is there (see `RemoteFile.look`): from the cache, or by `fetch`.

    A start waits for another one for at most `timeout` seconds.
    """
    found: dict[str, Any] = {}

    def read() -> bool:
        nonlocal found
        found = _cached(cache.read(digest, TAIL), digest)
        return bool(found)

    fetching = cache.wait(digest, timeout, read, TAIL)
    if fetching is None:
        return found
    try:
        found = fetch()
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


def _is_sound(found: dict[str, Any], digest: str) -> bool:
    """Whether a tail is that of the archive with this digest, and has its whole table of contents."""
    footer, tail = footer_of(found), memoryview(found["tail"])
    begin = found["size"] - len(tail)
    if footer is None or footer.digest.hex() != digest or begin < 0 or footer.columns_offset < begin:
        return False
    columns, facts = footer.columns_offset - begin, footer.facts_offset - begin
    hashed = sha256(tail[columns : columns + footer.columns_size])
    hashed.update(tail[facts : facts + footer.facts_size])
    return hashed.digest() == footer.digest
