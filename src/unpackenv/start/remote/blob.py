"""The bytes of an archive elsewhere, as a start holds them: the last ones are there, the rest is fetched when read.

This module imports nothing large, since the application's process has it for a moment.
"""

from __future__ import annotations

from unpackenv.archive.blob import Blob
from unpackenv.errors import ArchiveCorrupt
from unpackenv.start.remote import ahead, unpatched_network
from unpackenv.start.remote.address import STORES
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
    """The archive of the settings, of which `found` is known (see `RemoteFile.look`).

    The process that makes it is that of the application.
    """

    ahead = ahead.DEPTH

    def __init__(self, settings: Settings, found: dict[str, Any], traffic: Traffic) -> None:
        self.size = found["size"]
        self.traffic: Traffic = traffic
        self._settings = settings
        self._tail: bytes = found["tail"]
        self._version: str = found["version"]
        self._state: dict[str, str] = found["state"]
        self._application = os.getpid()
        self._files: dict[int, RemoteFile] = {}  # by process
        self._opening = ahead.new_lock()
        self._aheads: dict[tuple[int, int], Ahead] = {}  # by process and thread

    # --- reading ---

    def read_into(self, buffer: memoryview, offset: int) -> None:
        if offset + len(buffer) > self.size:
            raise ArchiveCorrupt("it is truncated")
        began = time.perf_counter()
        self._read([buffer], offset)
        self.traffic.add_wait(began)

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
        expected = self._aheads.get(ahead.reader())
        found = expected.take(place.offset) if expected else None
        if found is None:
            piece = Piece(place, buffer)
            self._fetch([piece])
        else:
            buffer[:] = found
        self.traffic.add_wait(began)

    def expect(self, places: list[Place]) -> None:
        reader = ahead.reader()
        if reader not in self._aheads:
            self._aheads[reader] = Ahead(self._fetch)
        self._aheads[reader].expect(places)

    def end_reading(self) -> None:
        """Close what this process has open, and see that the cache does not grow for ever."""
        pid = os.getpid()
        for reader in [reader for reader in self._aheads if reader[0] == pid]:
            self._aheads.pop(reader).stop()
        file = self._files.pop(pid, None)
        if file:
            file.close()
            cache = open_cache(self._settings)
            if cache:
                cache.trim()

    def _file(self) -> RemoteFile:
        pid = os.getpid()
        with self._opening:  # threads that fetch ahead come here together
            if pid not in self._files:
                isolated = pid != self._application
                self._files[pid] = open_file(self._settings, self.traffic, self._state, isolated=isolated)
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


def open_file(settings: Settings, traffic: Traffic, state: dict[str, str], *, isolated: bool) -> RemoteFile:
    """Return what is at the URL of the settings.

    `state` is what another process has found out about it; `isolated` says whether this one is not the application's.
    """
    scheme = settings.archive.partition("://")[0]
    if scheme in STORES:
        if isolated:
            unpatched_network.undo()
        from unpackenv.start.remote.stored import StoredFile

        return StoredFile(settings.archive, settings.fetch_timeout, traffic)
    if scheme == "oci":
        registry = unpatched_network.load("unpackenv.start.remote.registry")
        in_registry: RemoteFile = registry.OciFile(settings, traffic, open_cache(settings), state)
        return in_registry
    httpfile = unpatched_network.load("unpackenv.start.remote.httpfile")
    on_server: RemoteFile = httpfile.at(settings, traffic)
    return on_server
