"""A file on an HTTP server: each read is a request for a range (RFC 9110, section 14).

Every thread has a connection of its own, which is kept. What may be better in a moment is tried again, after a while
that doubles each time (with jitter), until the time for it is over. Imported in the child of a start only: the modules
of the standard library for it are large.
"""

from __future__ import annotations

import _thread
import http.client
import random
import socket
import ssl
from base64 import b64encode
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

from unpackenv.errors import ArchiveNotFound, ArchiveUnreachable, NoSpace, UnpackenvError
from unpackenv.start.remote.address import Address
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TAIL = 1 << 20
"""How many of the last bytes of an archive are fetched first: footer, facts and table of contents of any usual one."""
_STALLED = 20.0
"""Seconds without a byte after which a connection is given up."""
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_PIECE = 1 << 20


class _TryAgain(Exception):
    """A request failed in a way that may be over soon; `after` is for how many seconds the server wants none."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class Server:
    """The server of the file at `url`. Methods raise `UnpackenvError`.

    No attempt begins after `timeout` seconds; one goes on for as long as bytes arrive.
    """

    def __init__(self, url: str, timeout: float, insecure: bool) -> None:
        self._origin = self._address = Address(url)
        self._timeout = timeout
        self._insecure = insecure
        self._connections: dict[int, http.client.HTTPConnection] = {}

    def look(self, whole: int) -> dict[str, Any]:
        """Fetch the last bytes of the file; return its `size`, its `tail` and its entity tag (`version`).

        A server that knows no ranges sends all of it: then `tail` is empty, and the file is in the open file `whole`.
        """
        found: dict[str, Any] = self._retried(lambda: self._look(whole))
        return found

    def fetch(self, buffer: memoryview, offset: int, size: int, version: str) -> None:
        """Fill a buffer with the bytes from `offset` on of a file that still has this `size` and `version`."""
        self._retried(lambda: self._fetch(buffer, offset, size, version))

    def close(self) -> None:
        """Close the connection of this thread; the next request makes another one."""
        connection = self._connections.pop(_thread.get_ident(), None)
        if connection:
            connection.close()

    # --- what is fetched ---

    def _look(self, whole: int) -> dict[str, Any]:
        response = self._get({"Range": f"bytes=-{TAIL}"})
        version = response.getheader("ETag", "")
        if response.status == 200:
            return {"size": self._receive_all(response, whole), "tail": b"", "version": version}
        first, size = self._range_of(response)
        data = bytearray(min(size - first, TAIL))
        if first != size - len(data):
            raise self._refusal(f"the server's answer begins at byte {first}, where the last {TAIL} were asked for")
        self._receive(response, memoryview(data))
        return {"size": size, "tail": bytes(data), "version": version}

    def _fetch(self, buffer: memoryview, offset: int, size: int, version: str) -> None:
        response = self._get({"Range": f"bytes={offset}-{offset + len(buffer) - 1}"})
        is_part = response.status == 206
        if not is_part or self._range_of(response) != (offset, size) or response.getheader("ETag", "") != version:
            raise self._refusal("has been replaced by another file since this start began", "Start again")
        self._receive(response, buffer)

    def _range_of(self, response: http.client.HTTPResponse) -> tuple[int, int]:
        """Return the first byte of an answer, and the size of the file (RFC 9110, section 14.4)."""
        text = response.getheader("Content-Range", "")
        unit, _, rest = text.partition(" ")
        span, _, size = rest.partition("/")
        first, _, last = span.partition("-")
        if unit != "bytes" or not (first.isdecimal() and last.isdecimal() and size.isdecimal()):
            raise self._refusal(f"the server's answer has no usable range ({text or 'none'})")
        if not int(first) <= int(last) < int(size):
            raise self._refusal(f"the server's answer has an impossible range ({text})")
        return int(first), int(size)

    def _receive(self, response: http.client.HTTPResponse, buffer: memoryview) -> None:
        at = 0
        while at < len(buffer):
            got = response.readinto(buffer[at:])
            if not got:
                raise _TryAgain(f"the server sent {at} of {len(buffer)} bytes")
            at += got
        if response.read(1):
            raise self._refusal("the server sent more bytes than were asked for")

    def _receive_all(self, response: http.client.HTTPResponse, whole: int) -> int:
        """Write all of an answer to an open file; return its size."""
        text = response.getheader("Content-Length", "")
        if not text.isdecimal():
            raise self._refusal("the server neither knows ranges nor says how long the file is")
        announced, status, size = int(text), os.fstatvfs(whole), 0
        if announced > status.f_bavail * status.f_frsize:
            raise NoSpace(
                f"has no room for the {announced / 1e6:.0f} MB of an archive whose server knows no ranges",
                where="the temporary directory",
                hint="Name another one with TMPDIR, or use a server that knows ranges",
                need=announced,
            )
        os.ftruncate(whole, 0)
        while piece := response.read(_PIECE):
            while piece:
                written = os.pwrite(whole, piece, size)
                piece, size = piece[written:], size + written
        if size != announced:
            raise _TryAgain(f"the server sent {size} of {announced} bytes")
        return size

    # --- one request ---

    def _get(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Return the answer with what was asked for, from wherever redirects lead; raises `_TryAgain` or an error."""
        for _ in range(_REDIRECTS):
            response = self._ask(headers)
            if response.status in (200, 206):
                return response
            location = response.getheader("Location")
            if response.status not in _REDIRECTING or not location:
                raise self._failure(response)
            self.close()
            self._address = self._address.follow(location, self._insecure)
        raise self._refusal(f"leads to other places more than {_REDIRECTS} times")

    def _ask(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        address, thread = self._address, _thread.get_ident()
        if address.user:
            headers = {**headers, "Authorization": _basic(address)}
        if thread not in self._connections:
            self._connections[thread] = _connect(address)
        connection = self._connections[thread]
        by_proxy = address.scheme == "http" and (connection.host, connection.port) != (address.host, address.port)
        target = address.origin + address.target if by_proxy else address.target
        connection.request("GET", target, headers={**headers, "Accept-Encoding": "identity"})
        return connection.getresponse()

    def _failure(self, response: http.client.HTTPResponse) -> Exception:
        status = f"{response.status} {response.reason}"
        if self._address is not self._origin and response.status in (400, 401, 403):
            self._address = self._origin  # where a redirect leads to may be valid for some minutes only
            return _TryAgain(f"the server answers {status}")
        if response.status in _AGAIN:
            return _TryAgain(f"the server answers {status}", _seconds_until(response.getheader("Retry-After", "")))
        if response.status in (404, 410):
            hint = "Check the URL, and that it was uploaded"
            return ArchiveNotFound(f"there is no archive ({status})", where=self._origin.shown, hint=hint)
        if response.status in (401, 403, 407):
            hint = "Check user and password, or the signature, of the URL, and how long it is valid"
            return self._refusal(f"the server refuses it ({status})", hint)
        return self._refusal(f"the server answers {status}")

    def _refusal(self, what: str, hint: str = "") -> ArchiveUnreachable:
        return ArchiveUnreachable(what, where=self._origin.shown, hint=hint)

    # --- until it works ---

    def _retried(self, work: Callable[[], Any]) -> Any:
        """Do `work`, again and again if its failures may be temporary, until the time is over; return what it does."""
        deadline, delay = time.monotonic() + self._timeout, _FIRST_DELAY
        while True:
            try:
                return work()
            except UnpackenvError:
                self.close()
                raise
            except ssl.SSLCertVerificationError as error:
                raise self._refusal(
                    f"the server's certificate is not valid ({error.verify_message})",
                    "Check the name and the clock; SSL_CERT_FILE names other authorities",
                ) from error
            except (_TryAgain, OSError, http.client.HTTPException) as error:
                self.close()
                wait = max(delay * random.uniform(0.5, 1.5), getattr(error, "after", 0.0))
                if time.monotonic() + wait > deadline:
                    raise self._refusal(
                        f"cannot be fetched within {self._timeout:g} s ({_reason(error)})",
                        "Check the network from here to the server; UNPACKENV_FETCH_TIMEOUT is how long it is tried",
                    ) from error
                time.sleep(wait)
                delay = min(2 * delay, _LONGEST_DELAY)


def _connect(address: Address) -> http.client.HTTPConnection:
    """Return a connection, through a proxy if the environment names one; it is opened with the first request."""
    proxy = "" if proxy_bypass(address.host) else getproxies().get(address.scheme, "")
    via = Address(proxy if "://" in proxy else f"http://{proxy}") if proxy else address
    if address.scheme == "http":
        return http.client.HTTPConnection(via.host, via.port, timeout=_STALLED)
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(via.host, via.port, timeout=_STALLED, context=context)
    if proxy:
        headers = {"Proxy-Authorization": _basic(via)} if via.user else {}
        connection.set_tunnel(address.host, address.port, headers)
    return connection


def _basic(address: Address) -> str:
    """Return the value of a header that names user and password (RFC 7617)."""
    return f"Basic {b64encode(address.user.encode()).decode('ascii')}"


def _seconds_until(retry_after: str) -> float:
    """Return the seconds that a Retry-After asks for (RFC 9110, section 10.2.3); 0 if it cannot be read."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"its host has no address: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"no byte for {_STALLED:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
