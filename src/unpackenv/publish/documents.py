"""Manifests and indexes of archives (OCI image specification, version 1.1).

What is pushed twice has the same bytes, and so the same digest: a document has no time but that of SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from unpackenv.errors import SettingError
from unpackenv.start.remote.registry import (
    ARTIFACT,
    DIGEST,
    EMPTY,
    INDEX,
    MANIFEST,
    PLATFORM,
    PYTHON,
    TITLE,
    platform_of,
    python_of,
)

if TYPE_CHECKING:
    from unpackenv.publish.parcel import Parcel

CONFIG = b"{}"
"""The content of an empty configuration: a manifest has to have one."""
_CREATED = "org.opencontainers.image.created"
_VARIABLE = "SOURCE_DATE_EPOCH"


def digest_of(data: bytes) -> str:
    """Return the digest of a blob or a document, as registries name it."""
    return f"sha256:{sha256(data).hexdigest()}"


def manifest(parcel: Parcel) -> bytes:
    """Return the manifest of an archive; raises `SettingError` for a SOURCE_DATE_EPOCH that is no time."""
    known = {DIGEST: parcel.digest, PYTHON: parcel.python, PLATFORM: parcel.platform}
    layer = {
        "mediaType": f"{ARTIFACT}.tar+{parcel.codec}",
        "digest": parcel.blob,
        "size": parcel.size,
        "annotations": {TITLE: parcel.name},
    }
    return _encoded(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": {"mediaType": EMPTY, "digest": digest_of(CONFIG), "size": len(CONFIG)},
            "layers": [layer],
            "annotations": {**{name: value for name, value in known.items() if value}, **_created()},
        }
    )


def entry(manifest: bytes) -> dict[str, Any]:
    """Return what an index says of a manifest."""
    annotations: dict[str, str] = json.loads(manifest)["annotations"]
    described: dict[str, Any] = {
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "digest": digest_of(manifest),
        "size": len(manifest),
        "annotations": {name: annotations[name] for name in (DIGEST, PYTHON) if name in annotations},
    }
    system, _, architecture = annotations.get(PLATFORM, "").partition("/")
    if architecture:
        described["platform"] = {"os": system, "architecture": architecture}
    return described


def index(entries: list[dict[str, Any]]) -> bytes:
    """Return an index."""
    return _encoded(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "artifactType": ARTIFACT,
            "manifests": entries,
            "annotations": _created(),
        }
    )


def use_of(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the platform and the Python that an entry of an index is for."""
    return platform_of(entry), python_of(entry)


def in_words(entry: dict[str, Any]) -> str:
    """Return what an entry of an index is for, for people."""
    return " and ".join(filter(None, use_of(entry)))


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in document.items() if value}, indent=2).encode()


def _created() -> dict[str, str]:
    """Return the annotation that says when it was made, if that is to be said."""
    text = os.environ.get(_VARIABLE)
    if not text:
        return {}
    try:
        return {_CREATED: datetime.fromtimestamp(int(text), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}
    except (ValueError, OverflowError, OSError):
        raise SettingError(f"{text!r} is not a number of seconds since 1970", where=_VARIABLE) from None
