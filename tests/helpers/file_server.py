"""An HTTP server on loopback for one file, which may misbehave."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar


class FileServer(ThreadingHTTPServer):
    """Serves `data` at every path, in ranges if `ranges` is set.

    `requests` are those for content so far: path, and headers by name; `heads` are those for headers only. `ahead` is
    by how many seconds its clock is ahead. `fault(handler, number)` may answer the request with that number in another
    way, and then returns true.
    """

    daemon_threads = True
    request_queue_size = 200

    def __init__(self, data: bytes, host: str, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((host, 0), handler)
        self.data = data
        self.ranges = True
        self.version = '"one"'
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.heads: list[tuple[str, dict[str, str]]] = []
        self.ahead = 0.0
        self.sent = 0
        self.fault: Callable[[Any, int], bool] = lambda handler, number: False
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and content in one packet
    server: FileServer

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers)))
            number = len(self.server.requests)
        if not self.server.fault(self, number):
            self.serve()

    def do_HEAD(self) -> None:
        with self.server.lock:
            self.server.heads.append((self.path, dict(self.headers)))
        self.answer(200, ETag=self.server.version, Content_Length=str(len(self.server.data)))

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(timestamp or time.time() + self.server.ahead)

    def serve(self, version: str = "", cut: int = 0, flip: bool = False, more: int = 0) -> None:
        """Send what is asked for; without its last `cut` bytes, with `more` bytes, or with a flipped bit."""
        data, asked = self.server.data, self.headers.get("Range", "")
        if asked and self.server.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first) if first else max(0, len(data) - int(last))
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
            data = data[begin:end]
        else:
            self.send_response(200)
        if flip:
            data = bytes([data[0] ^ 1]) + data[1:]
        data += bytes(more)
        self.send_header("ETag", version or self.server.version)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) - cut])
        self.wfile.flush()
        with self.server.lock:
            self.server.sent += len(data)
        if cut:
            self.close_connection = True

    def answer(self, status: int, content: bytes = b"", **headers: str) -> bool:
        """Send an answer, without content unless there is some."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(content)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        return True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Tunnel(_Handler):
    """Connects clients with servers, as a proxy does for TLS."""

    def do_CONNECT(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        if self.server.fault(self, len(self.server.requests)):
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            ends = {self.connection: other, other: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    ends[end].sendall(data)


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 for two days; return it with its key, in one file. `public.pem` is without."""
    path, public = folder / "certificate.pem", folder / "public.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", public]
    subprocess.run([*command, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + public.read_text())
    return path


Server = TypeVar("Server", bound=ThreadingHTTPServer)


@contextmanager
def listening(server: Server) -> Iterator[Server]:
    """Have a server answer until the context ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def tunneling() -> Iterator[FileServer]:
    """Run a proxy for TLS until the context ends."""
    with serving(b"", handler=_Tunnel) as server:
        yield server


@contextmanager
def serving(
    data: bytes, host: str = "127.0.0.1", certificate: Path | None = None, handler: type[_Handler] = _Handler
) -> Iterator[FileServer]:
    """Serve a file until the context ends; by TLS with a `certificate` and its key in one file."""
    server = FileServer(data, host, handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with listening(server):
        yield server
