"""Fetch pieces of an archive with a cache: what another start has, or is fetching, is not fetched again."""

from __future__ import annotations

from functools import partial
from hashlib import sha256

from unpackenv.start.remote import ahead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
