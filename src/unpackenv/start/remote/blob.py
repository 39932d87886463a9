"""The bytes of an archive on a server, as a start holds them: the last ones are there, the rest is fetched when read.

This module imports nothing large, since the application's process has it for a moment; `server` does the work.
"""

from __future__ import annotations

from unpackenv.archive.blob import Blob
from unpackenv.errors import ArchiveCorrupt
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.remote.server import Server


class RemoteBlob(Blob):
    """A file at `url`, of `size` bytes, of which the last ones are in `tail`; `version` is its entity tag.

    `timeout` is for each read, in seconds, with all attempts.
    """

    def __init__(self, url: str, size: int, tail: bytes, version: str, timeout: float, insecure: bool) -> None:
        self._url = url
        self.size = size
        self._tail = tail
        self._version = version
        self._timeout = timeout
        self._insecure = insecure
        self._servers: dict[int, Server] = {}  # by process: connections are not shared

    def read_into(self, buffer: memoryview, offset: int) -> None:
        begin = self.size - len(self._tail)
        if offset + len(buffer) > self.size:
            raise ArchiveCorrupt("it is truncated")
        if offset >= begin:
            buffer[:] = self._tail[offset - begin : offset - begin + len(buffer)]
        elif len(buffer):
            self._server().fetch(buffer, offset, self.size, self._version)

    def _server(self) -> Server:
        pid = os.getpid()
        if pid not in self._servers:
            from unpackenv.start.remote.server import Server

            self._servers[pid] = Server(self._url, self._timeout, self._insecure)
        return self._servers[pid]

    def close(self) -> None:
        server = self._servers.pop(os.getpid(), None)
        if server:
            server.close()
