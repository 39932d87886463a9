"""Servers on loopback: a registry of images, and an index of wheels for builds."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rig.slow_server import Content

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_SECONDS_TO_START = 10


@contextlib.contextmanager
def running(data: Path | None = None) -> Iterator[str]:
    """Run a registry of images, an empty one without `data`; yield its address. On loopback it needs no TLS."""
    if not shutil.which("docker-registry"):
        raise SystemExit("images: docker-registry is not installed")
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="registry-") as root:
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(data or Path(root, "data"))}},
            "http": {"addr": address},
        }
        file = Path(root, "config.json")  # JSON is YAML
        file.write_text(json.dumps(config))
        with open(Path(root, "log"), "wb") as log:
            command = ["setpriv", "--pdeathsig", "TERM", "docker-registry", "serve", str(file)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait(address, process, Path(root, "log"))
            yield address
        finally:
            process.send_signal(signal.SIGKILL)  # it has no state to save
            process.wait()


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/v2/").close()
            return
        except urllib.error.URLError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"images: docker-registry does not answer ({error}):\n{log.read_text()}") from None
        time.sleep(0.05)
