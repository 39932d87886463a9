"""Registries on loopback: a service that gives tokens for a real one, credentials, and one that may misbehave."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rig import registry

USER, PASSWORD = "user", "secret word"
# As `htpasswd -B` writes it, for them.
HTPASSWD = f"{USER}:$2y$05$unpackenvunpackenvunpOHs2.efbdto7ytUdkpSq2hAnpenGVHHe\n"
SERVICE, ISSUER = "registry", "token service"
_HOUR = 3600


def check_there() -> None:
    """Skip a test where there is no registry to be run."""
    if not shutil.which(registry.PROGRAM):
        pytest.skip(f"{registry.PROGRAM} is not installed")


def basic(user: str = USER, password: str = PASSWORD) -> str:
    """Return user and password as HTTP and Docker encode them."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def docker_config(address: str, user: str = USER, password: str = PASSWORD) -> str:
    """Return a configuration of Docker with credentials for a registry."""
    return json.dumps({"auths": {address: {"auth": basic(user, password)}}})


# --- a service that gives tokens -----------------------------------------------------------------


class Key:
    """A key that signs tokens, and its certificate; files in a directory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.private, self.certificate = folder / "key.pem", folder / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"]
        files = ["-keyout", self.private, "-out", self.certificate]
        subprocess.run([*command, *files], check=True, capture_output=True)

    def token(self, claims: dict[str, object]) -> str:
        """Return a signed token (RFC 7519)."""
        lines = self.certificate.read_text().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}
        text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", self.private]
        signature = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService(ThreadingHTTPServer):
    """Gives tokens to a user with the password, or with the identity token "identity", and to nobody else.

    `requests` are those so far: method, Authorization, and what is asked for. `expired` is how many of the next tokens
    have expired already; `allowed` is what tokens allow, of what is asked for.
    """

    daemon_threads = True

    def __init__(self, key: Key) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.key = key
        self.expired = 0
        self.allowed = {"pull", "push"}
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"

    @property
    def auth(self) -> dict[str, object]:
        """The section of a registry's configuration."""
        options = {"realm": self.realm, "service": SERVICE, "issuer": ISSUER}
        return {"token": {**options, "rootcertbundle": str(self.key.certificate)}}

    def token(self, scope: str) -> str:
        """Return a token for a scope, as much of it as is allowed."""
        kind, name, actions = scope.split(":")
        given = [action for action in actions.split(",") if action in self.allowed]
        now = int(time.time()) - (2 * _HOUR if self.expired > 0 else 0)
        self.expired -= 1
        unique = str(len(self.requests))
        claims = {
            "jti": unique,
            "iss": ISSUER,
            "aud": SERVICE,
            "nbf": now - _HOUR,
            "iat": now - _HOUR,
            "exp": now + _HOUR,
        }
        return self.key.token({**claims, "access": [{"type": kind, "name": name, "actions": given}]})


class _TokenHandler(BaseHTTPRequestHandler):
    server: TokenService

    def do_GET(self) -> None:
        self._give(urlsplit(self.path).query, self.headers.get("Authorization") == f"Basic {basic()}")

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._give(text, "refresh_token=identity" in text.split("&"))

    def _give(self, text: str, is_known: bool) -> None:
        asked = {name: values[0] for name, values in parse_qs(text).items()}
        self.server.requests.append((self.command, self.headers.get("Authorization", ""), asked))
        given = {"token": self.server.token(asked["scope"])} if is_known else {"errors": [{"code": "UNAUTHORIZED"}]}
        answer = json.dumps(given).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


# --- a registry that may misbehave ---------------------------------------------------------------


class Pretended(ThreadingHTTPServer):
    """A registry in memory, for one repository.

    `requests` are those so far: method, path, and headers by name. `fault(handler, number)` may answer the request with
    that number in another way, and then returns true. Uploads are told to go to `upload`, with the query of theirs.
    """

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _PretendedHandler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.upload = "/upload"
        self.fault: Callable[[Any, int], bool] = lambda handler, number: False
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"{self.server_address[0]!s}:{self.server_port}"

    def asked(self, method: str) -> list[tuple[str, dict[str, str]]]:
        """Return the requests with a method so far."""
        return [(path, headers) for each, path, headers in self.requests if each == method]


class _PretendedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Pretended

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        with self.server.lock:
            self.server.requests.append((self.command, self.path, dict(self.headers)))
            number = len(self.server.requests)
        return not self.server.fault(self, number)

    def do_GET(self) -> None:
        kind, name = self.path.split("/")[-2:]
        found: Any = self.server.manifests if kind == "manifests" else self.server.blobs
        self.answer(200, found[name]) if name in found else self.answer(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.answer(202, Location=self.server.upload)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        name = f"sha256:{sha256(data).hexdigest()}"
        if "/manifests/" in self.path:
            self.server.manifests.update({self.path.rpartition("/")[2]: data, name: data})
            self.answer(201, Docker_Content_Digest=name)
        elif parse_qs(urlsplit(self.path).query)["digest"] != [name]:
            self.answer(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "digest does not match content"}]}')
        else:
            self.server.blobs[name] = data
            self.answer(201)

    def answer(self, status: int, content: bytes = b"", **headers: str) -> bool:
        """Answer the request."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(content)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
