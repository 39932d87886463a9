"""Images that another server has, in place of the registry that keeps them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

import containers
import registry
from rig import engine, slow_server

pytestmark = pytest.mark.containers


def keep(store: Path, content: bytes, place: str = "") -> str:
    """Keep a blob as the registry does, and a link to it at `place`; return its digest."""
    name = hashlib.sha256(content).hexdigest()
    files = {f"blobs/sha256/{name[:2]}/{name}/data": content, f"{place}/link": f"sha256:{name}".encode()}
    for path, data in files.items():
        file = store / "docker/registry/v2" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return f"sha256:{name}"


def described(digest: str, content: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": f"application/vnd.docker.{kind}", "digest": digest, "size": len(content)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The files of a registry with an image `small`, of one file."""
    with io.BytesIO() as memory:
        with tarfile.open(fileobj=memory, mode="w") as tar:
            member = tarfile.TarInfo("file")
            member.size = 12
            tar.addfile(member, io.BytesIO(b"of the image"))
        plain = memory.getvalue()
    layer = gzip.compress(plain)
    layers = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]}
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["none"]}, "rootfs": layers}
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": described(keep(tmp_path, config), config, "container.image.v1+json"),
        "layers": [described(keep(tmp_path, layer), layer, "image.rootfs.diff.tar.gzip")],
    }
    keep(tmp_path, json.dumps(manifest).encode(), "repositories/small/_manifests/tags/latest/current")
    return tmp_path


def test_an_image_is_pulled_from_the_files_of_a_registry(store: Path, tmp_path: Path) -> None:
    contents = registry.contents(store, "small")
    try:
        with slow_server.serving(contents, 1e9, 1) as server, engine.fresh() as docker:
            containers.pull(docker, f"{server.address}/small")
            containers.copy_from(docker, f"{server.address}/small", "/file", tmp_path / "copied")
    except engine.Unavailable as reason:
        pytest.skip(str(reason))
    assert (tmp_path / "copied").read_text() == "of the image"
