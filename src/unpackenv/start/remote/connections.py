"""Connections to servers by HTTP, which are kept: directly, by TLS, or through a proxy (RFC 9112).

Imported in processes of a start only: the modules of the standard library for it are large.
"""

from __future__ import annotations

import _thread
import http.client
import io
import ssl
from base64 import b64encode

from unpackenv.errors import SettingError
from unpackenv.start.remote.address import Address
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    Connection = Union["_Plain", "_Encrypted"]


class TryAgain(Exception):
    """A request failed in a way that may be over soon; `after` is for how many seconds the server wants none."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class Connections:
    """The connections of one process, by thread and server."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], Connection] = {}

    def to(self, address: Address, stalled: float) -> tuple[Connection, bool]:
        """Return this thread's connection to a server, and whether it was used before.

        It fails after so many seconds without a byte.
        """
        key = (_thread.get_ident(), address.origin)
        is_kept = key in self._open
        if not is_kept:
            self._open[key] = _connect(address, stalled)
        return self._open[key], is_kept

    def drop(self) -> None:
        """Close all connections of this thread."""
        thread = _thread.get_ident()
        for key in [key for key in self._open if key[0] == thread]:
            self._open.pop(key).close()

    def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.popitem()[1].close()


class _Timed(io.RawIOBase):
    """What a socket sends, until a deadline: a byte now and then would take for ever."""

    def __init__(self, raw: Any, deadline: float) -> None:
        super().__init__()
        self._raw = raw
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if time.monotonic() > self._deadline:
            raise TryAgain("the server sends too slowly")
        got: int = self._raw.readinto(buffer)
        return got

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Kept(http.client.HTTPConnection):
    """A connection whose answers have a deadline; `proxy` is where it leads through."""

    deadline = 0.0
    proxy: Address | None = None

    def response_class(self, sock: Any, *arguments: Any, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        response = http.client.HTTPResponse(sock, *arguments, **options)
        raw: Any = response.fp
        response.fp = io.BufferedReader(_Timed(raw.detach(), self.deadline), 1 << 16)
        return response


class _Plain(_Kept):
    pass


class _Encrypted(_Kept, http.client.HTTPSConnection):
    pass


def _connect(address: Address, stalled: float) -> Connection:
    """Return a connection, through a proxy if the environment names one; it is opened with the first request."""
    proxy = _proxy_for(address)
    via = proxy or address
    connection: Connection
    if address.scheme == "http":
        connection = _Plain(via.host, via.port, timeout=stalled)
    else:
        context = ssl.create_default_context()
        connection = _Encrypted(via.host, via.port, timeout=stalled, context=context)
        if proxy:
            headers = {"Proxy-Authorization": basic(proxy.user)} if proxy.user else {}
            connection.set_tunnel(address.host, address.port, headers)
    connection.proxy = proxy
    return connection


def _proxy_for(address: Address) -> Address | None:
    """Return the proxy that the environment names for a server, if it does; raises `SettingError` for no URL."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # heavy

    named = "" if proxy_bypass(address.host) else getproxies().get(address.scheme, "")
    try:
        return Address(named if "://" in named else f"http://{named}") if named else None
    except SettingError as error:
        raise SettingError(error.what, where=f"{address.scheme}_proxy") from None


def basic(user: str) -> str:
    """Return the value of a header for user and password, with a colon between them (RFC 7617)."""
    return f"Basic {b64encode(user.encode()).decode('ascii')}"
