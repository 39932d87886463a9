"""The bytes of an archive elsewhere, as a start holds them: the last ones are there, the rest is fetched when read.

This module imports nothing large, since the application's process has it for a moment.
"""

from __future__ import annotations

from unpackenv.archive.blob import Blob
from unpackenv.errors import ArchiveCorrupt
from unpackenv.start.remote import ahead
from unpackenv.start.remote.address import STORES, Address
from unpackenv.start.remote.ahead import Ahead, Piece
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.blob import Place
    from unpackenv.archive.traffic import Traffic
    from unpackenv.start.remote.cache import Cache
    from unpackenv.start.remote.remotefile import RemoteFile
    from unpackenv.start.settings import Settings


class RemoteBlob(Blob):
    """The archive of the settings, of which `found` is known (see `RemoteFile.look`)."""

    def __init__(self, settings: Settings, found: dict[str, Any], traffic: Traffic) -> None:
        self.size = found["size"]
        self.traffic: Traffic = traffic
        self.ahead = ahead.DEPTH if ahead.can_run() else 0
        self._settings = settings
        self._tail: bytes = found["tail"]
        self._version: str = found["version"]
        self._state: dict[str, str] = found["state"]
        # By process: others share neither connections nor threads.
        self._files: dict[int, RemoteFile] = {}
        self._aheads: dict[int, Ahead] = {}

    # --- reading ---

    def read_into(self, buffer: memoryview, offset: int) -> None:
        if offset + len(buffer) > self.size:
            raise ArchiveCorrupt("it is truncated")
        began = time.perf_counter()
        self._read([buffer], offset)
        self._count_wait(began)

    def _read(self, buffers: list[memoryview], offset: int) -> None:
        """Fill buffers, one after the other: fetch what is not in the tail."""
        elsewhere, at, begin = [], offset, self.size - len(self._tail)
        for buffer in buffers:
            cut = min(max(begin - at, 0), len(buffer))
            if cut:
                elsewhere.append(buffer[:cut])
            if cut < len(buffer):
                buffer[cut:] = self._tail[at + cut - begin : at + len(buffer) - begin]
            at += len(buffer)
        if elsewhere:
            self._file().fetch(elsewhere, offset, self.size, self._version)

    def read_frame(self, buffer: memoryview, place: Place) -> None:
        began = time.perf_counter()
        expected = self._aheads.get(os.getpid())
        found = expected.take(place.offset) if expected else None
        if found is None:
            piece = Piece(place, buffer)
            self._fetch([piece])
        else:
            buffer[:] = found
        self._count_wait(began)

    def expect(self, places: list[Place]) -> None:
        pid = os.getpid()
        if pid not in self._aheads:
            self._aheads[pid] = Ahead(self._fetch, lambda: self._file().close())
        self._aheads[pid].expect(places)

    def close(self) -> None:
        """Close what this process has open, and see that the cache does not grow for ever."""
        pid = os.getpid()
        reading = self._aheads.pop(pid, None)
        if reading:
            reading.stop()
        file = self._files.pop(pid, None)
        if file:
            file.close()
            cache = open_cache(self._settings)
            if cache:
                cache.trim()
        super().close()

    def _count_wait(self, began: float) -> None:
        self.traffic.add(wait_us=int((time.perf_counter() - began) * 1e6))

    def _file(self) -> RemoteFile:
        pid = os.getpid()
        if pid not in self._files:
            self._files[pid] = open_file(self._settings, self.traffic, self._state)
        return self._files[pid]

    # --- fetching ---

    def _fetch(self, pieces: list[Piece]) -> None:
        """Fetch pieces that are neighbours."""
        cache = open_cache(self._settings)
        if cache:
            from unpackenv.start.remote.shared import SharedFetch

            SharedFetch(cache, self._fetch_run, self._settings.fetch_timeout, self.traffic).fetch(pieces)
        else:
            self._fetch_run(pieces)
            for piece in pieces:
                piece.finish()

    def _fetch_run(self, run: list[Piece]) -> None:
        self._read([piece.buffer for piece in run], run[0].place.offset)


def open_cache(settings: Settings) -> Cache | None:
    """Return the cache that the settings name, if they do."""
    if not settings.cache:
        return None
    from unpackenv.start.remote.cache import Cache

    return Cache(settings.cache, settings.cache_size)


def open_file(settings: Settings, traffic: Traffic, state: dict[str, str]) -> RemoteFile:
    """Return what is at the URL of the settings; `state` is what another process has found out about it."""
    scheme = settings.archive.partition("://")[0]
    if scheme == "oci":
        from unpackenv.start.remote.registry import OciFile

        return OciFile(settings, traffic, open_cache(settings), state)
    if scheme in STORES:
        from unpackenv.start.remote.stored import StoredFile

        return StoredFile(settings.archive, settings.fetch_timeout, traffic)
    from unpackenv.start.remote.httpfile import HttpFile
    from unpackenv.start.remote.transport import Connections, Requests

    address = Address(settings.archive)
    return HttpFile(Requests(address, settings.fetch_timeout, settings.insecure, Connections(), traffic))
