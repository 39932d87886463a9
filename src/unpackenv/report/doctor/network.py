"""The way to the server of a remote archive: proxy, name, connection, certificate, and whether the clocks agree.

What is asked for here is the top of the server, without credentials. Nobody learns which archive it is.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from unpackenv.errors import ArchiveUnreachable, UnpackenvError
from unpackenv.report import counted
from unpackenv.report.doctor.findings import OK, PROBLEM, WARNING, Finding, of_error
from unpackenv.start.remote.address import Address
from unpackenv.start.remote.connections import Connections, TryAgain

_PATIENCE = 10.0  # seconds without a byte; a start tries again
_CLOCKS = 300.0  # seconds by which clocks may differ: signatures and tokens are refused soon after that
_SOON = 7 * 86400  # seconds
_OF_CLOCK = (9, 10)  # codes of OpenSSL: a certificate is not valid yet, or has expired
_OF_NAME = (62, 63, 64)  # codes of OpenSSL: a certificate is for another name


def examine(server: Address) -> Iterator[Finding]:
    """Yield the findings on the way to a server; nothing but the clock is looked at after a problem."""
    connections = Connections()
    try:
        connection, _ = connections.to(server, _PATIENCE)
        connection.deadline = time.monotonic() + 2 * _PATIENCE
        by_proxy = (connection.host, connection.port) != (server.host, server.port)
        if by_proxy:
            yield _proxy(server, connection)
        yield _network(connection, "the proxy " if by_proxy else "")
        if server.scheme == "https":
            yield _certificate(connection.sock)
        yield from _clock(connection, server.origin + "/" if by_proxy and server.scheme == "http" else "/")
    except ssl.SSLCertVerificationError as error:
        yield _not_valid(error)
        if not by_proxy:
            yield from _clock(_unverified(server), "/")
    except UnpackenvError as error:  # of the proxy's URL
        yield of_error("proxy", error)
    except _Unreachable as unreachable:
        yield unreachable.finding
    finally:
        connections.close()


class _Unreachable(Exception):
    """The server cannot be reached."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def _proxy(server: Address, connection: http.client.HTTPConnection) -> Finding:
    """Return the finding on a proxy; its user and password are not said."""
    text = f"{connection.host}:{connection.port} is asked for {server.host}, as {server.scheme}_proxy says"
    return Finding("proxy", OK, text, facts={"host": connection.host, "port": connection.port})


def _network(connection: http.client.HTTPConnection, what: str) -> Finding:
    """Connect, with TLS if that is wanted; raises `_Unreachable`, or `SSLCertVerificationError`."""
    host, port = connection.host, connection.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        began = time.perf_counter()
        connection.connect()
        seconds = time.perf_counter() - began
    except ssl.SSLCertVerificationError:
        raise
    except socket.gaierror as error:
        text, hint = f"{what}{host} has no address ({error.strerror})", "Check the name, and /etc/resolv.conf"
        raise _unreachable("network", text, hint) from error
    except ssl.SSLError as error:
        why = (error.reason or "no TLS").replace("_", " ").lower()
        text, hint = f"{what}{host}:{port} does not speak TLS as it should ({why})", "Is it https:// at this port?"
        raise _unreachable("TLS", text, hint) from error
    except (OSError, http.client.HTTPException) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        text = f"{what}{host}:{port} ({', '.join(addresses)}) cannot be connected to ({why})"
        raise _unreachable(
            "network", text, "Check firewalls, network policies, and whether a proxy is needed"
        ) from error
    text = f"{what}{host}:{port} ({', '.join(addresses)}): connected within {seconds * 1e3:.0f} ms"
    return Finding("network", OK, text, facts={"addresses": addresses, "seconds": seconds})


def _unreachable(topic: str, text: str, hint: str) -> _Unreachable:
    return _Unreachable(Finding(topic, PROBLEM, text, hint, ArchiveUnreachable.reason))


def _certificate(connected: Any) -> Finding:
    until = ssl.cert_time_to_seconds(connected.getpeercert()["notAfter"])
    left = until - time.time()
    date = datetime.fromtimestamp(until, timezone.utc).strftime("%Y-%m-%d")
    text = f"{connected.version()}; the server's certificate is valid until {date}"
    facts = {"version": connected.version(), "seconds_left": left}
    if left < _SOON:
        text += f", for {counted(int(left // 86400), 'day')} more"
        return Finding("TLS", WARNING, text, "Renew it: no start fetches anything after that", facts=facts)
    return Finding("TLS", OK, text, facts=facts)


def _not_valid(error: ssl.SSLCertVerificationError) -> Finding:
    text = f"the server's certificate is not valid ({error.verify_message.rstrip('.')})"
    if error.verify_code in _OF_CLOCK:
        hint = "Renew it, or set the clock of this machine"
    elif error.verify_code in _OF_NAME:
        hint = "Use the name for which it was issued"
    else:
        paths = ssl.get_default_verify_paths()
        known = paths.cafile or paths.capath or "no file"
        hint = f"Authorities are those of {known}; SSL_CERT_FILE names others, such as those of a proxy"
    return Finding("TLS", PROBLEM, text, hint, ArchiveUnreachable.reason)


def _unverified(server: Address) -> http.client.HTTPConnection:
    """Return a connection to a server that nobody vouches for: it is asked for nothing but the time."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(server.host, server.port, timeout=_PATIENCE, context=context)


def _clock(connection: http.client.HTTPConnection, target: str) -> Iterator[Finding]:
    """Yield whether the clock here and that of the server agree, if the server says what time it is."""
    try:
        connection.request("HEAD", target)
        date = parsedate_to_datetime(connection.getresponse().getheader("Date", ""))
        ahead = time.time() - date.timestamp()
    except (OSError, http.client.HTTPException, ValueError, TypeError, TryAgain):  # it is only a question
        return
    finally:
        connection.close()
    facts = {"seconds_ahead": ahead}
    if abs(ahead) <= _CLOCKS:
        yield Finding("clock", OK, "agrees with that of the server", facts=facts)
        return
    text = f"is {_in_words(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of the server"
    hint = "Set the clock of the machine: certificates, tokens and signatures are valid for a time only"
    yield Finding("clock", WARNING, text, hint, facts=facts)


def _in_words(seconds: float) -> str:
    for name, unit in (("day", 86400), ("hour", 3600)):
        if round(seconds / unit) >= 2:
            return counted(round(seconds / unit), name)
    return counted(round(seconds / 60), "minute")
