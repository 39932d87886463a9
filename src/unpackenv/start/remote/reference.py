"""References to archives in registries, `oci://REGISTRY/REPOSITORY:TAG` (OCI distribution specification)."""

from __future__ import annotations

import re

from unpackenv.errors import SettingError
from unpackenv.start.remote import credentials
from unpackenv.start.remote.address import Address

SCHEME = "oci://"
# As the distribution specification has them.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST_FORM = re.compile(r"sha256:[0-9a-f]{64}")


class Reference:
    """What `oci://REGISTRY/REPOSITORY:TAG` or `…@sha256:DIGEST` names; raises `SettingError`."""

    def __init__(self, text: str, insecure: bool = False, where: str = "UNPACKENV_ARCHIVE") -> None:
        rest, _, self.digest = text[len(SCHEME) :].partition("@")
        self.registry, _, path = rest.partition("/")
        self.repository, _, self.tag = path.partition(":")
        if not self.registry or not _REPOSITORY.fullmatch(self.repository):
            raise SettingError(
                f"is no reference to a registry ({self.repository!r} is no repository)",
                where=where,
                hint="It is oci://REGISTRY/REPOSITORY:TAG, for a start also with @sha256:DIGEST",
            )
        if self.tag and not _TAG.fullmatch(self.tag):
            raise SettingError(f"{self.tag!r} is no tag", where=where)
        if self.digest and not DIGEST_FORM.fullmatch(self.digest):
            raise SettingError(f"{self.digest!r} is no digest, which is sha256: and 64 digits", where=where)
        self.tag = self.tag or ("" if self.digest else "latest")
        self.shown = f"{SCHEME}{self.registry}/{self.repository}" + (f":{self.tag}" if self.tag else "")
        self.shown += f"@{self.digest}" if self.digest else ""
        host = self.registry
        if self.registry in credentials.DOCKER_HUB:
            host = "registry-1.docker.io"
            if "/" not in self.repository:
                self.repository = f"library/{self.repository}"
        try:
            self.server = Address(f"https://{host}")
        except SettingError as error:
            error.where = where
            raise
        if self.server.is_loopback or insecure:
            self.server = Address(f"http://{host}")

    @property
    def name(self) -> str:
        """How the registry calls it: its digest, or its tag."""
        return self.digest or self.tag

    def at(self, kind: str, name: str) -> Address:
        """Return the address of something in the repository: of the `kind` "manifests" or "blobs"."""
        return Address(f"{self.server.origin}/v2/{self.repository}/{kind}/{name}")
