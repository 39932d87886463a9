"""The address of a remote archive."""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin, urlsplit

from unpackenv.errors import ArchiveUnreachable, SettingError

STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Schemes of object stores, and the library for each; an extra of the scheme's name installs it."""
SCHEMES = ("https", "http", "oci", *STORES)
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = re.compile(r"localhost|::1|127(\.[0-9]+){3}")


def check(url: str, insecure: bool) -> str:
    """Return what people may see of the URL of an archive; raises `SettingError` for one that is not fetched."""
    scheme, _, rest = url.partition("://")
    if scheme in _PORTS:
        address = Address(url)
        address.check(insecure)
        return address.shown
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise SettingError(f"an archive is fetched by one of {known}, not by {scheme}://", where="UNPACKENV_ARCHIVE")
    place, slash, path = rest.partition("?")[0].partition("/")
    user, _, bucket = place.rpartition("@")
    return f"{scheme}://{bucket if ':' in user else place}{slash}{path}"


class Address:
    """Where a file is on a server (RFC 3986). `shown` is for people: without user, password and query."""

    def __init__(self, text: str) -> None:
        """Raises `SettingError`."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise SettingError(f"is no URL ({error})", where="UNPACKENV_ARCHIVE") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise SettingError("is no https:// or http:// with a server", where="UNPACKENV_ARCHIVE")
        self.scheme = parts.scheme
        self.host = parts.hostname
        self.port = port or _PORTS[parts.scheme]
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        """What a request names: path and query."""
        self.user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if "@" in parts.netloc else ""
        """User and password, with a colon between them; "" for none."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.origin = f"{self.scheme}://{host}" + (f":{port}" if port else "")
        self.shown = self.origin + (parts.path or "/")

    @property
    def is_loopback(self) -> bool:
        """Whether the server is this machine."""
        return _LOOPBACK.fullmatch(self.host) is not None

    def check(self, insecure: bool) -> None:
        """Raise `SettingError` unless it is encrypted, on this machine, or `insecure` allows any."""
        if self.scheme == "http" and not self.is_loopback and not insecure:
            raise SettingError(
                "http:// is not encrypted: anybody on the way can see what is fetched",
                where=self.shown,
                hint="Use https://, or set UNPACKENV_INSECURE=yes",
            )

    def follow(self, location: str, insecure: bool) -> Address:
        """Return where a redirect leads; raises `ArchiveUnreachable` where it must not lead.

        Another server gets no credentials.
        """
        try:
            found = Address(urljoin(self.origin + self.target, location))
            found.check(insecure)
        except SettingError as error:
            raise ArchiveUnreachable(
                f"leads to another place, and that is refused: {error.what}", where=self.shown
            ) from None
        if found.scheme == "http" and self.scheme == "https":
            raise ArchiveUnreachable("leads from https:// to http://, which is refused", where=self.shown)
        if found.origin == self.origin and not found.user:
            found.user = self.user
        return found
