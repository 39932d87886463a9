"""A file on an HTTP server: each read is a request for a range (RFC 9110, section 14)."""

from __future__ import annotations

from unpackenv.start.remote import remotefile
from unpackenv.start.remote.address import Address
from unpackenv.start.remote.connections import Connections, TryAgain
from unpackenv.start.remote.remotefile import TAIL, RemoteFile
from unpackenv.start.remote.transport import Requests
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    from typing import Any

    from unpackenv.archive.traffic import Traffic
    from unpackenv.start.settings import Settings

_PIECE = 1 << 20


def at(settings: Settings, traffic: Traffic) -> HttpFile:
    """Return the file at the URL of the settings; raises `SettingError`."""
    address = Address(settings.archive)
    return HttpFile(Requests(address, settings.fetch_timeout, settings.insecure, Connections(), traffic))


class HttpFile(RemoteFile):
    """The file that `requests` ask for."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def look(self, whole: int) -> dict[str, Any]:
        return self._requests.retried(lambda: self._look(whole))

    def fetch(self, buffers: list[memoryview], offset: int, size: int, version: str) -> None:
        self._requests.retried(lambda: self._fetch(buffers, offset, size, version))

    def close(self) -> None:
        self._requests.connections.close()

    def ask(self) -> tuple[int | None, bool]:
        """Ask for the last byte; return the size of the file, None if that is not said, and whether ranges are known.

        Raises `UnpackenvError`.
        """
        return self._requests.retried(self._ask)

    def _ask(self) -> tuple[int | None, bool]:
        response = self._requests.get({"Range": "bytes=-1"}, 1)
        try:
            if response.status == 206:
                return self._range_of(response)[1], True
            text = response.getheader("Content-Length", "")
            return int(text) if text.isdecimal() else None, False
        finally:
            self._requests.connections.drop()  # all of the file may follow

    def _look(self, whole: int) -> dict[str, Any]:
        response = self._requests.get({"Range": f"bytes=-{TAIL}"}, TAIL)
        found: dict[str, Any] = {"version": response.getheader("ETag", ""), "tail": b"", "state": {}}
        if response.status == 200:
            return {**found, "size": self._receive_all(response, whole)}
        first, size = self._range_of(response)
        data = bytearray(min(size - first, TAIL))
        if first != size - len(data):
            raise self._requests.refusal(
                f"the server's answer begins at byte {first}, where the last {TAIL} were asked for"
            )
        self._receive(response, [memoryview(data)])
        return {**found, "size": size, "tail": bytes(data)}

    def _fetch(self, buffers: list[memoryview], offset: int, size: int, version: str) -> None:
        length = sum(map(len, buffers))
        response = self._requests.get({"Range": f"bytes={offset}-{offset + length - 1}"}, length)
        is_part = response.status == 206 and self._range_of(response) == (offset, size)
        if not is_part or (version and response.getheader("ETag", "") != version):
            raise remotefile.replaced(self._requests.shown)
        self._receive(response, buffers)

    def _range_of(self, response: http.client.HTTPResponse) -> tuple[int, int]:
        """Return the first byte of an answer, and the size of the file (RFC 9110, section 14.4)."""
        text = response.getheader("Content-Range", "")
        unit, _, rest = text.partition(" ")
        span, _, size = rest.partition("/")
        first, _, last = span.partition("-")
        if unit != "bytes" or not (first.isdecimal() and last.isdecimal() and size.isdecimal()):
            raise self._requests.refusal(f"the server's answer has no usable range ({text or 'none'})")
        if not int(first) <= int(last) < int(size):
            raise self._requests.refusal(f"the server's answer has an impossible range ({text})")
        return int(first), int(size)

    def _receive(self, response: http.client.HTTPResponse, buffers: list[memoryview]) -> None:
        for buffer in buffers:
            at = 0
            try:
                while at < len(buffer):
                    got = response.readinto(buffer[at:])
                    if not got:
                        raise TryAgain(f"the server sent {at} of {len(buffer)} bytes")
                    at += got
            finally:
                self._requests.count(at)
        if response.read(1):
            raise self._requests.refusal("the server sent more bytes than were asked for")

    def _receive_all(self, response: http.client.HTTPResponse, whole: int) -> int:
        """Write all of an answer to an open file; return its size."""
        text = response.getheader("Content-Length", "")
        if not text.isdecimal():
            raise self._requests.refusal("the server neither knows ranges nor says how long the file is")
        announced, size = int(text), 0
        remotefile.check_room(whole, announced)
        os.ftruncate(whole, 0)
        while piece := response.read(_PIECE):
            size = remotefile.write_at(whole, piece, size)
            self._requests.count(len(piece))
        if size != announced:
            raise TryAgain(f"the server sent {size} of {announced} bytes")
        return size
