"""The server that is as slow as a network: what it answers, and what it counts."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rig.environment import PATIENCE
from rig.slow_server import Content, SlowServer, serving

Connect = Callable[[SlowServer], http.client.HTTPConnection]
DATA = os.urandom(300_000)
# It holds the stderr of its parent open, as long as it runs.
PARENT = """
import signal, sys
from rig.slow_server import Content, serving
with serving({"/file": Content(sys.argv[1])}) as server:
    print(server.address, flush=True)
    signal.pause()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connections, which are closed in the end."""
    with contextlib.ExitStack() as stack:

        def connect(server: SlowServer) -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(server.address, timeout=PATIENCE)
            return stack.enter_context(contextlib.closing(made))

        yield connect


def ask(
    connection: http.client.HTTPConnection, asked: str = "", method: str = "GET", path: str = "/file"
) -> tuple[int, str | None, bytes]:
    """Return the status, the range, and the bytes of an answer; each says how many there are."""
    connection.request(method, path, headers={"Range": asked} if asked else {})
    response = connection.getresponse()
    body = response.read()
    assert method == "HEAD" or response.getheader("Content-Length") == str(len(body))
    return response.status, response.getheader("Content-Range"), body


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-299999", 0, 300_000),
        ("bytes=100-200099", 100, 200_100),
        ("bytes=299990-", 299_990, 300_000),
        ("bytes=299990-999999999", 299_990, 300_000),
        ("bytes=-7", 299_993, 300_000),
        ("bytes=-999999999", 0, 300_000),
    ],
)
@pytest.mark.parametrize("line", [{}, {"rate": 1e9}, {"rate": 1e9, "slow_start": True}, {"slow_start": True}])
def test_a_range_is_answered(
    connect: Connect, file: Path, asked: str, begin: int, end: int, line: dict[str, Any]
) -> None:
    with serving({"/file": Content(file)}, **line, latency=1) as server:
        status, where, body = ask(connect(server), asked)
        assert (status, where) == (206, f"bytes {begin}-{end - 1}/300000")
        assert body == DATA[begin:end]
        assert (server.connections, server.requests, server.sent) == (1, 1, end - begin)


@pytest.mark.parametrize("asked", ["", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "lines=1-2"])
def test_without_a_usable_range_it_is_the_whole_file(connect: Connect, file: Path, asked: str) -> None:
    with serving({"/file": Content(file)}) as server:
        assert ask(connect(server), asked) == (200, None, DATA)


@pytest.mark.parametrize("asked", ["bytes=300000-", "bytes=300000-300001", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(connect: Connect, file: Path, asked: str) -> None:
    with serving({"/file": Content(file)}) as server:
        assert ask(connect(server), asked) == (416, "bytes */300000", b"")
        assert server.sent == 0


def test_a_connection_serves_one_request_after_the_other(tmp_path: Path, connect: Connect, file: Path) -> None:
    (tmp_path / "empty").touch()
    headers = {"Content-Type": "text/plain"}
    with serving({"/file": Content(file), "/empty": Content(tmp_path / "empty", headers)}) as server:
        connection = connect(server)
        assert ask(connection, method="HEAD") == (200, None, b"")
        assert ask(connection, path="/file?signature=1") == (200, None, DATA)
        assert ask(connection, path="/missing")[0] == 404
        assert ask(connection, method="DELETE")[0] == 501
        assert ask(connection, path="/empty") == (200, None, b"")
        assert ask(connection, "bytes=-10") == (206, "bytes 299990-299999/300000", DATA[-10:])
        connection.request("GET", "/empty")
        response = connection.getresponse()
        assert response.read() == b""
        assert response.getheader("Content-Type") == "text/plain"
        assert (server.connections, server.requests, server.sent) == (1, 7, len(DATA) + 10)
        connection.request("GET", "/file", headers={"Connection": "close"})
        assert connection.getresponse().read() == DATA
        ask(connection)  # by another one
        assert (server.connections, server.requests, server.sent) == (2, 9, 3 * len(DATA) + 10)


def test_a_file_has_the_same_tag_until_it_is_another(connect: Connect, file: Path) -> None:
    def tag(server: SlowServer) -> str | None:
        connection = connect(server)
        connection.request("HEAD", "/file")
        return connection.getresponse().getheader("ETag")

    with serving({"/file": Content(file)}) as server:
        first = tag(server)
        assert first
        assert tag(server) == first
    file.write_bytes(DATA[1:])
    with serving({"/file": Content(file)}) as server:
        assert tag(server) not in (None, first)


def test_requests_may_be_sent_before_the_answer_to_the_last_one(file: Path) -> None:
    with serving({"/file": Content(file)}, latency=1) as server:
        with socket.create_connection(server.address.split(":"), PATIENCE) as client:
            request = b"GET /file HTTP/1.1\r\nRange: bytes=%d-%d\r\n\r\n"
            client.sendall(request % (0, 9) + request % (10, 19) + (request % (20, 29))[:-1])
            client.sendall(b"\n")
            answers = b""
            while answers.count(b"HTTP/1.1 206") < 3 or not answers.endswith(DATA[20:30]):
                answers += client.recv(10_000)
        assert DATA[:10] in answers
        assert (server.connections, server.requests, server.sent) == (1, 3, 30)


def test_what_is_no_http_has_an_answer(file: Path) -> None:
    with serving({"/file": Content(file)}) as server:
        with socket.create_connection(server.address.split(":"), PATIENCE) as client:
            client.sendall(b"\x16\x03\x01")  # as TLS begins
            answer = b""
            while more := client.recv(10_000):
                answer += more
        assert answer.startswith(b"HTTP/1.1 501 ")


def test_all_connections_share_the_line(tmp_path: Path, connect: Connect, file: Path) -> None:
    """One that has asked for much does not keep the others waiting for all of it."""
    with open(tmp_path / "large", "wb") as large:
        large.truncate(1 << 34)
    with serving({"/file": Content(file), "/large": Content(large.name)}, rate=1e9) as server:
        greedy = connect(server)
        greedy.request("GET", "/large")
        response = greedy.getresponse()
        response.read(1000)
        assert ask(connect(server)) == (200, None, DATA)
        response.read(1000)
        assert server.connections == 2
        response.close()
        assert ask(connect(server)) == (200, None, DATA), "a client that goes away is no reason to end"


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="does not start"), serving({"/file": Content(tmp_path / "missing")}):
        pass


def test_it_ends_with_its_parent(file: Path) -> None:
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-c", PARENT, file]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **path}
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
        _, errors = parent.communicate()
        assert errors == b""
