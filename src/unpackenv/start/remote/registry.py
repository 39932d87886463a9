"""An archive in a registry, as an OCI artifact (OCI distribution and image specifications, version 1.1).

A reference names a manifest, or an index of one manifest for each platform and Python. The manifest names the blob,
which is the archive, and its annotations the digest of the archive.
"""

from __future__ import annotations

import http.client
import json
import sys
from functools import cached_property
from hashlib import sha256

from unpackenv.errors import ArchiveNotFound, ArchiveUnreachable
from unpackenv.start.remote.cache import MANIFEST as MANIFEST_ENTRY
from unpackenv.start.remote.connections import Connections
from unpackenv.start.remote.httpfile import HttpFile
from unpackenv.start.remote.reference import DIGEST_FORM, Reference
from unpackenv.start.remote.remotefile import RemoteFile
from unpackenv.start.remote.tokens import LIMIT, RegistryAuthorization
from unpackenv.start.remote.transport import Requests
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.archive.traffic import Traffic
    from unpackenv.start.remote.cache import Cache
    from unpackenv.start.settings import Settings

# Media types of the specifications, and those that Docker had before.
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
_DOCKER = (
    "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"
)  # fmt: skip
ACCEPTED = {"Accept": ", ".join((MANIFEST, INDEX, *_DOCKER))}
"""Headers of a request for a manifest or an index."""
ARTIFACT = "application/vnd.unpackenv.archive.v1"
"""The type of the artifact; that of its blob adds `.tar+zstd` or `.tar+xz`."""
DIGEST, PYTHON, PLATFORM = "io.unpackenv.digest", "io.unpackenv.python", "io.unpackenv.platform"
"""Annotations: the digest of the archive; the cache tag of the interpreter, and the platform, that it is for."""
TITLE = "org.opencontainers.image.title"
ANY = "any platform"
"""What an archive without machine code is for; the entry of an index has no platform then."""
_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loong64",
}  # fmt: skip
_SAID = 160
"""How many characters of what a registry says are shown."""


def architecture(machine: str) -> str:
    """Return the architecture of a machine, which `uname -m` names, as the specifications call it."""
    return _ARCHITECTURES.get(machine, machine)


class RegistryRequests(Requests):
    """Requests to a registry, which says why it refuses one (distribution specification, "error codes")."""

    def status_of(self, response: http.client.HTTPResponse) -> str:
        status = super().status_of(response)
        try:
            error = json.loads(response.read(LIMIT))["errors"][0]
            said = " ".join(str(error.get("message") or error["code"]).split())
        except (ValueError, LookupError, TypeError, AttributeError, OSError, http.client.HTTPException):
            return status
        return f"{status}: {said[:_SAID]}" if said.isprintable() else status


class OciFile(RemoteFile):
    """The archive that a reference names; manifests are kept in a cache, if there is one."""

    def __init__(
        self, settings: Settings, traffic: Traffic, cache: Cache | None = None, state: dict[str, str] | None = None
    ) -> None:
        """`state` is what `look` has found before; raises `SettingError`."""
        self._reference = Reference(settings.archive, settings.insecure)
        self._timeout = settings.fetch_timeout
        self._insecure = settings.insecure
        self._traffic = traffic
        self._cache = cache
        self._python = (settings.interpreter or {}).get("python", sys.implementation.cache_tag or "")
        self._connections = Connections()
        self._authorization = RegistryAuthorization(self._reference, self._timeout, self._insecure, self._connections)
        self._blob = ""
        if state and DIGEST_FORM.fullmatch(state["blob"]):
            self._blob, self._authorization.value = state["blob"], state.get("authorization", "")

    def resolve(self) -> str:
        manifest = self._manifest()
        blob = self._blob_of(manifest)
        self._blob = blob["digest"]
        annotations = {**(manifest.get("annotations") or {}), **(blob.get("annotations") or {})}
        return str(annotations.get(DIGEST, "")).lower() if self._reference.digest else ""

    def look(self, whole: int) -> dict[str, Any]:
        if not self._blob:
            self.resolve()
        found = self._file.look(whole)
        return {**found, "state": {"blob": self._blob, "authorization": self._authorization.value}}

    def fetch(self, buffers: list[memoryview], offset: int, size: int, version: str) -> None:
        if not self._blob:
            self.resolve()
        self._file.fetch(buffers, offset, size, version)

    def close(self) -> None:
        self._connections.close()

    def ask(self) -> tuple[int | None, bool]:
        """Ask for the last byte, as `HttpFile.ask` does."""
        if not self._blob:
            self.resolve()
        return self._file.ask()

    @property
    def is_authorized(self) -> bool:
        """Whether the registry has wanted credentials or a token so far, and has got them."""
        return bool(self._authorization.value)

    @cached_property
    def _file(self) -> HttpFile:
        return HttpFile(self._requests("blobs", self._blob))

    def _requests(self, kind: str, name: str) -> RegistryRequests:
        return RegistryRequests(
            self._reference.at(kind, name),
            self._timeout,
            self._insecure,
            self._connections,
            self._traffic,
            self._authorization,
            shown=self._reference.shown,
        )

    def _manifest(self) -> dict[str, Any]:
        """Return the manifest that is named; from an index, that for this machine."""
        document = self._document(self._reference.name)
        if "manifests" in document:
            document = self._document(self._chosen(document["manifests"])["digest"])
        return document

    def _document(self, name: str) -> dict[str, Any]:
        is_digest = DIGEST_FORM.fullmatch(name) is not None
        kept = self._cache.read(name[7:], MANIFEST_ENTRY) if self._cache and is_digest else b""
        if kept and f"sha256:{sha256(kept).hexdigest()}" == name:
            return parsed(kept, self._reference.shown)
        requests = self._requests("manifests", name)
        data = requests.retried(lambda: requests.get(ACCEPTED, LIMIT).read(LIMIT + 1))
        if is_digest and f"sha256:{sha256(data).hexdigest()}" != name:
            raise requests.refusal(f"the registry sent a manifest that does not have the digest {name}")
        document = parsed(data, self._reference.shown)
        if self._cache and is_digest:
            fetching = self._cache.lock(name[7:], MANIFEST_ENTRY)
            if fetching:
                fetching.keep(data)
        return document

    def _chosen(self, manifests: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the entry of an index for this machine; of several, that for this interpreter."""
        own = f"linux/{architecture(os.uname().machine)}"
        fitting = [each for each in manifests if platform_of(each) in (own, ANY)]
        if not fitting:
            there = ", ".join(dict.fromkeys(map(platform_of, manifests))) or "nothing"
            raise ArchiveNotFound(
                f"there is no archive for {own}, only for {there}",
                where=self._reference.shown,
                hint="Push one for this platform: unpackenv push --add",
            )
        return min(fitting, key=lambda each: (python_of(each) != self._python, platform_of(each) != own))

    def _blob_of(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return the descriptor of the blob that is the archive."""
        layers: list[dict[str, Any]] = manifest.get("layers") or []
        own = [each for each in layers if str(each.get("mediaType")).startswith(ARTIFACT)]
        found = own or (layers if len(layers) == 1 else [])  # a file that another program has pushed by itself
        if len(found) != 1:
            raise ArchiveNotFound(
                f"there is no archive among its {len(layers)} layers",
                where=self._reference.shown,
                hint="Push one: unpackenv push",
            )
        return found[0]


def parsed(manifest: bytes, shown: str) -> dict[str, Any]:
    """Return a manifest or an index, whose digests can be used in URLs; raises `ArchiveUnreachable`."""
    try:
        document: dict[str, Any] = json.loads(manifest)
        digests = [each["digest"] for each in [*document.get("manifests", []), *document.get("layers", [])]]
        if all(map(DIGEST_FORM.fullmatch, digests)):
            return document
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ArchiveUnreachable("the registry sent a manifest that cannot be read", where=shown)


def platform_of(entry: dict[str, Any]) -> str:
    """Return the platform of an entry of an index, such as linux/amd64."""
    if "platform" not in entry:
        return ANY
    platform = entry["platform"] or {}
    return f"{platform.get('os', '?')}/{platform.get('architecture', '?')}"


def python_of(entry: dict[str, Any]) -> str:
    """Return the cache tag of the interpreter that an entry of an index is for; "" if that is not known."""
    return str((entry.get("annotations") or {}).get(PYTHON, ""))
