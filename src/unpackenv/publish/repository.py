"""A repository of a registry, to push to (OCI distribution specification, version 1.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unpackenv.errors import ArchiveNotFound
from unpackenv.publish.documents import digest_of
from unpackenv.start.remote.connections import Connections
from unpackenv.start.remote.registry import ACCEPTED, RegistryRequests
from unpackenv.start.remote.tokens import LIMIT, PUSH, RegistryAuthorization
from unpackenv.start.remote.transport import Authorization, Purpose

if TYPE_CHECKING:
    from unpackenv.start.remote.address import Address
    from unpackenv.start.remote.reference import Reference

Read = Callable[[int, int], bytes]
"""Returns at most that many bytes of a blob, from an offset on; b"" at its end."""
_PURPOSE = Purpose("repository", "pushed", "Check its name; some registries want it to be created first")
# A registry may answer with the place of a blob that it has.
_THERE = (200, 301, 302, 303, 307, 308)


class Repository:
    """The repository of a reference. Methods raise `UnpackenvError`; each attempt of one sends all of a blob again.

    `timeout` is in seconds, as for a start (UNPACKENV_FETCH_TIMEOUT); what is sent gives it more.
    """

    def __init__(self, reference: Reference, timeout: float, insecure: bool) -> None:
        self._reference = reference
        self._timeout = timeout
        self._insecure = insecure
        self._connections = Connections()
        self._authorization = RegistryAuthorization(reference, timeout, insecure, self._connections, PUSH)

    def tagged(self) -> bytes:
        """Return the manifest or index that has the tag; b"" if nothing has."""
        requests = self._requests(self._reference.at("manifests", self._reference.tag))
        try:
            return requests.retried(lambda: requests.get(ACCEPTED, LIMIT).read(LIMIT))
        except ArchiveNotFound:
            return b""

    def has_blob(self, digest: str) -> bool:
        """Whether a blob is there."""
        requests = self._requests(self._reference.at("blobs", digest))

        def ask() -> int:
            response = requests.send("HEAD", {}, expected=(*_THERE, 404))
            response.read()
            return response.status

        return requests.retried(ask) != 404

    def put_blob(self, digest: str, size: int, read: Read, show: Callable[[int], None] = lambda done: None) -> None:
        """Send a blob of `size` bytes; `show` gets how many of them are sent so far."""
        place = self._reference.at("blobs", "uploads/")
        requests = self._requests(place)

        def begin() -> Address:
            response = requests.send("POST", {"Content-Length": "0"}, expected=(202,))
            response.read()
            return place.follow(response.getheader("Location", ""), self._insecure)

        def send() -> None:
            address = requests.retried(begin)
            address.target += f"{'&' if '?' in address.target else '?'}digest={digest}"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            upload = self._requests(address)
            upload.send("PUT", headers, _Body(read, show), size, (201, 202, 204)).read()

        requests.retried(send, size)

    def put_manifest(self, name: str, media_type: str, document: bytes) -> None:
        """Give a manifest or an index to the registry, by its digest or a tag."""
        requests = self._requests(self._reference.at("manifests", name))

        def put() -> str:
            response = requests.send("PUT", {"Content-Type": media_type}, document, len(document), (200, 201, 202))
            response.read()
            return response.getheader("Docker-Content-Digest", "")

        stored = requests.retried(put)
        if stored not in ("", digest_of(document)):
            raise requests.refusal(f"the registry has stored another manifest than it was sent: {stored}")

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _requests(self, address: Address) -> RegistryRequests:
        """Return the requests for an address; only the registry itself gets credentials."""
        is_own = address.origin == self._reference.server.origin
        return RegistryRequests(
            address,
            self._timeout,
            self._insecure,
            self._connections,
            authorization=self._authorization if is_own else Authorization(),
            purpose=_PURPOSE,
            shown=self._reference.shown,
        )


class _Body:
    """A blob as `http.client` reads it, from the first byte on."""

    def __init__(self, read: Read, show: Callable[[int], None]) -> None:
        self._read = read
        self._show = show
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self._read(size, self._at)
        self._at += len(data)
        self._show(self._at)
        return data
