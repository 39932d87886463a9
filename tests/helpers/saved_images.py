"""Images as tars, made by hand: the forms of `docker save`, old and new, and of an OCI image layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

CONFIG = {"architecture": "amd64", "config": {"Env": ["PATH=/usr/bin", "PYTHON_VERSION=3.12.1"]}}


def layer(*members: tuple[str, object]) -> bytes:
    """Return the tar of a layer: a path with bytes, with a directory of this machine, or with a `tarfile.TarInfo`.

    A path that ends in "/" is a directory.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in members:
            if isinstance(content, Path):
                tar.add(content, path)
            elif isinstance(content, tarfile.TarInfo):
                content.name = path
                tar.addfile(content)
            else:
                assert isinstance(content, bytes)
                info = tarfile.TarInfo(path.rstrip("/"))
                info.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
                info.mode = 0o755 if path.endswith("/") else 0o644
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def link(target: str, kind: bytes = tarfile.LNKTYPE) -> tarfile.TarInfo:
    """Return a hard link, or with `tarfile.SYMTYPE` a symlink."""
    info = tarfile.TarInfo()
    info.type = kind
    info.linkname = target
    return info


def docker(path: Path, *layers: bytes) -> Path:
    """Write what `docker save` wrote before version 25."""
    files: dict[str, bytes] = {f"{number:064x}/layer.tar": data for number, data in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": ["app:latest"], "Layers": list(files)}]
    return _tar(path, {**files, "config.json": _dump(CONFIG), "manifest.json": _dump(manifest)})


def oci(path: Path, *layers: bytes, compress: str = "gzip", platforms: Sequence[str] = ("amd64",)) -> Path:
    """Write an OCI image layout, its layers compressed, with what BuildKit attests beside the image."""
    files: dict[str, bytes] = {"oci-layout": _dump({"imageLayoutVersion": "1.0.0"})}

    def blob(data: bytes, media: str, **more: object) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data), **more}

    shrink = {"gzip": lambda data: gzip.compress(data, 1), "zstd": zstandard.ZstdCompressor().compress}[compress]
    stored = [blob(shrink(data), f"application/vnd.oci.image.layer.v1.tar+{compress}") for data in layers]
    manifest = {
        "schemaVersion": 2,
        "config": blob(_dump(CONFIG), "application/vnd.oci.image.config.v1+json"),
        "layers": stored,
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    entries = [
        blob(_dump({**manifest, "annotations": {"for": platform}}), kind, platform={"architecture": platform})
        for platform in platforms
    ]
    attested = blob(_dump({**manifest, "layers": []}), kind, platform={"architecture": "unknown", "os": "unknown"})
    index = {"schemaVersion": 2, "manifests": [*entries, attested]}
    top = {"manifests": [blob(_dump(index), "application/vnd.oci.image.index.v1+json")]}
    return _tar(path, {**files, "index.json": _dump(top)})


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(layer(*files.items()))
    return path
