"""Requests to servers by HTTP: authorization, redirects, and attempts until the time is over (RFC 9110).

What may be better in a moment is tried again. Imported in processes of a start only, as `connections` is.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from email.utils import parsedate_to_datetime

from unpackenv.errors import ArchiveNotFound, ArchiveUnreachable, UnpackenvError
from unpackenv.start.remote.address import Address
from unpackenv.start.remote.connections import Connections, TryAgain, basic
from unpackenv.start.remote.patience import Attempts, stalled_after, time_for
from unpackenv.unpatched import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from unpackenv.archive.traffic import Traffic
    from unpackenv.start.remote.connections import Connection

    T = TypeVar("T")

_STORED = 1_000_000
"""Bytes per second that a server can store, at least."""
_REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
# How `http.client` says that a proxy opens no way to a server.
_NO_TUNNEL = re.compile(r"Tunnel connection failed: ((?:403|407)\b.*)")
_PROXY = "Check user and password in http_proxy or https_proxy; no_proxy names servers that need none"


class _AtOnce(TryAgain):
    """A request failed since the server had closed a kept connection meanwhile, or wants another token."""


class Authorization:
    """What a server wants to know before it answers. This one says the user and password of its URL."""

    hint = "Check user and password, or the signature, of the URL, and how long it is valid"
    """What to do if the server refuses it."""

    def header(self, address: Address) -> str:
        """Return what to say to a server; "" for nothing."""
        return basic(address.user) if address.user else ""

    def renew(self, challenge: str, refused: str) -> bool:
        """Take note of what the server wants after a 401 (RFC 9110, section 11.6.1); whether to ask again.

        `refused` is what the server was told.
        """
        return False

    def note_taken(self) -> None:
        """Take note that the server takes what it is told."""


class Purpose:
    """What requests are for, in the words of errors.

    `what` is asked for, and `done` with it; `absent` is what to do if it is not there.
    """

    def __init__(
        self, what: str = "archive", done: str = "fetched", absent: str = "Check the URL, and that it was uploaded"
    ) -> None:
        self.what = what
        self.done = done
        self.absent = absent


class Requests:
    """Requests for what is at `origin`. Methods raise `UnpackenvError`, or `TryAgain`, which `retried` heeds.

    No attempt begins after `timeout` seconds; one has so many for each MiB.
    """

    def __init__(
        self,
        origin: Address,
        timeout: float,
        insecure: bool,
        connections: Connections,
        traffic: Traffic | None = None,
        authorization: Authorization | None = None,
        *,
        purpose: Purpose | None = None,
        shown: str = "",
    ) -> None:
        self.shown = shown or origin.shown
        self.connections = connections
        self._origin = self._address = origin
        self._timeout = timeout
        self._stalled = stalled_after(timeout)
        self._insecure = insecure
        self._traffic = traffic
        self._authorization = authorization or Authorization()
        self._purpose = purpose or Purpose()

    # --- one request ---

    def get(self, headers: Mapping[str, str], size: int = 0) -> http.client.HTTPResponse:
        """Return the answer with what was asked for, about `size` bytes, from wherever redirects lead."""
        for _ in range(_REDIRECTS):
            response = self._ask("GET", self._address, headers, None, size)
            if response.status in (200, 206):
                return response
            location = response.getheader("Location")
            if response.status not in _REDIRECTING or not location:
                raise self._failure(response)
            response.read(_STALE_BODY)
            if not response.isclosed():
                self.connections.drop()
            self._address = self._address.follow(location, self._insecure)
        raise self.refusal(f"leads to other places more than {_REDIRECTS} times")

    def send(
        self, method: str, headers: Mapping[str, str], body: Any = None, size: int = 0, expected: tuple[int, ...] = ()
    ) -> http.client.HTTPResponse:
        """Send something, and return the answer, which has one of the `expected` statuses."""
        response = self._ask(method, self._origin, headers, body, size)
        if response.status not in expected:
            raise self._failure(response)
        return response

    def _ask(
        self, method: str, address: Address, headers: Mapping[str, str], body: Any, size: int
    ) -> http.client.HTTPResponse:
        connection, is_kept = self.connections.to(address, self._stalled)
        said = {"Accept-Encoding": "identity", **headers}
        is_own = address.origin == self._origin.origin
        authorization = self._authorization.header(address) if is_own else ""
        if authorization:
            said["Authorization"] = authorization
        target = address.target
        if connection.proxy and address.scheme == "http":
            target = address.origin + target
            if connection.proxy.user:
                said["Proxy-Authorization"] = basic(connection.proxy.user)
        connection.deadline = time.monotonic() + time_for(size, self._timeout)
        if self._traffic:
            self._traffic.add(requests=1)
        try:
            response = _answer(connection, method, target, said, body, size)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            if is_kept and body is None:
                raise _AtOnce("the server has closed the connection") from error
            raise
        except OSError as error:
            refused = _NO_TUNNEL.fullmatch(str(error))
            if refused:
                raise self.refusal(f"the proxy refuses it ({refused[1]})", _PROXY) from None
            raise
        # Where a redirect leads to is nobody to ask for credentials.
        if is_own and response.status == 401:
            if self._authorization.renew(response.getheader("WWW-Authenticate", ""), authorization):
                raise _AtOnce("the server takes no token that it has given out")
        elif is_own:
            self._authorization.note_taken()
        return response

    def status_of(self, response: http.client.HTTPResponse) -> str:
        """Return the status of an answer that is no success, and what else the server says, for people."""
        return f"{response.status} {response.reason}"

    def _failure(self, response: http.client.HTTPResponse) -> Exception:
        status = self.status_of(response)
        if self._address is not self._origin and response.status in (400, 401, 403):
            self._address = self._origin  # where a redirect leads to may be valid for some minutes only
            return TryAgain(f"the server answers {status}")
        if response.status in _AGAIN:
            return TryAgain(f"the server answers {status}", _seconds_until(response.getheader("Retry-After", "")))
        if response.status in (404, 410):
            what, hint = self._purpose.what, self._purpose.absent
            return ArchiveNotFound(f"there is no {what} ({status})", where=self.shown, hint=hint)
        if response.status == 407:
            return self.refusal(f"the proxy refuses it ({status})", _PROXY)
        if response.status in (401, 403):
            return self.refusal(f"the server refuses it ({status})", self._authorization.hint)
        if response.status == 413:
            hint = "The server, or a proxy before it, limits how much may be sent; raise that limit"
            return self.refusal(f"the server refuses it ({status})", hint)
        return self.refusal(f"the server answers {status}")

    def count(self, received: int) -> None:
        """Count received bytes."""
        if self._traffic:
            self._traffic.add(bytes=received)

    def refusal(self, what: str, hint: str = "") -> ArchiveUnreachable:
        """Return an error about what is asked for."""
        return ArchiveUnreachable(what, where=self.shown, hint=hint)

    # --- until it works ---

    def retried(self, work: Callable[[], T], size: int = 0) -> T:
        """Do `work`, again and again if its failures may be temporary, until the time is over; return what it does.

        The time is longer where it sends `size` bytes.
        """
        allowed = self._timeout + size / _STORED
        attempts, hasty = Attempts(allowed), _HASTY
        while True:
            try:
                return work()
            except UnpackenvError:
                self.connections.drop()
                raise
            except ssl.SSLCertVerificationError as error:
                raise self.refusal(
                    f"the server's certificate is not valid ({error.verify_message})",
                    "Check the name and the clock; SSL_CERT_FILE names other authorities",
                ) from error
            except (TryAgain, OSError, http.client.HTTPException) as error:
                self.connections.drop()
                if isinstance(error, _AtOnce) and hasty:
                    hasty -= 1
                    continue
                if not attempts.wait(getattr(error, "after", 0.0)):
                    raise self.refusal(
                        f"cannot be {self._purpose.done} within {round(allowed, 1):g} s ({self._reason(error)})",
                        "Check the network from here to the server; UNPACKENV_FETCH_TIMEOUT is how long it is tried",
                    ) from error
                if self._traffic:
                    self._traffic.add(retries=1)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, socket.gaierror):
            return f"its host has no address: {error.strerror}"
        if isinstance(error, (TimeoutError, socket.timeout)):  # one and the same from CPython 3.10 on
            return f"no byte for {self._stalled:.3g} s"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return str(error) or type(error).__name__


_HASTY = 3
"""How often a request is repeated without a delay."""
_STALE_BODY = 1 << 16
"""How much of the content of a redirect is read, so that the connection can be used again."""


def _answer(
    connection: Connection, method: str, target: str, headers: Mapping[str, str], body: Any, size: int
) -> http.client.HTTPResponse:
    """Send a request, of which `size` bytes may be the body, and return the answer."""
    try:
        connection.request(method, target, body=body, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        if body is None or connection.sock is None:
            raise
        # A server that refuses a body may say so, and close the connection, before it has all of it.
    # It stores what it was sent before it answers.
    connection.sock.settimeout((connection.timeout or 0) + (size / _STORED if body is not None else 0))
    return connection.getresponse()


def _seconds_until(retry_after: str) -> float:
    """Return the seconds that a Retry-After asks for (RFC 9110, section 10.2.3); 0 if it cannot be read."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
