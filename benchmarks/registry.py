"""What a registry keeps of an image, and an index of wheels for builds, on loopback."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rig.slow_server import Content

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def size(name: str) -> int:
    """Return the bytes that a registry keeps of an image `ADDRESS/NAME`: compressed layers and configuration."""
    address, _, path = name.partition("/")
    request = urllib.request.Request(f"http://{address}/v2/{path}/manifests/latest", headers={"Accept": _MANIFEST})
    with urllib.request.urlopen(request) as response:
        manifest = json.load(response)
    return sum(part["size"] for part in (manifest["config"], *manifest["layers"]))


def contents(data: Path, image: str) -> dict[str, Content]:
    """Return what a pull of an image asks for, by path, so that another server can answer; `data` is the registry's."""
    root = data / "docker" / "registry" / "v2"

    def blob(digest: str) -> Path:
        algorithm, _, name = digest.partition(":")
        return root / "blobs" / algorithm / name[:2] / name / "data"

    digest = (root / "repositories" / image / "_manifests" / "tags" / "latest" / "current" / "link").read_text()
    manifest = json.loads(blob(digest).read_text())
    described = Content(blob(digest), {"Content-Type": _MANIFEST, "Docker-Content-Digest": digest})
    parts = [part["digest"] for part in (manifest["config"], *manifest["layers"])]
    return {
        "/v2/": Content(os.devnull),
        **{f"/v2/{image}/manifests/{name}": described for name in ("latest", digest)},
        **{f"/v2/{image}/blobs/{part}": Content(blob(part)) for part in parts},
    }


@contextlib.contextmanager
def wheels(directory: Path) -> Iterator[str]:
    """Serve wheels; yield the URL for pip's --find-links."""
    handler = functools.partial(_Wheels, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class _Wheels(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        if self.path.endswith(".whl"):  # pip keeps these, as it keeps those of a package index
            self.send_header("Cache-Control", "max-age=365000000, immutable, public")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass
