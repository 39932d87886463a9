"""A file server on loopback, as slow as a network: rate and latency of all that it sends are limited.

    with serving({"/app.tar.zst": Content(path)}, rate=1e9, latency=5) as server:
        ... server.url("/app.tar.zst"), server.sent

Not every kernel can do that by itself (netem), so it is a model: one line, which all connections share, and on which a
byte takes its time; a round trip for each new connection, and one for each request. With `slow_start` a connection may
have few bytes on the way at first, and twice as many after each round trip; else any number. Nothing is ever lost.

It is a process of its own that takes hardly any CPU from those that are measured: one thread, and the kernel copies the
files. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from pathlib import Path

_CONNECTIONS, _REQUESTS, _SENT = range(3)
_COUNTERS_SIZE = 3 * 8
_PIECE_SECONDS = 0.001
_PIECE_SIZES = 32 << 10, 1 << 20
"""A piece keeps the line busy for about a millisecond, and is neither smaller nor larger than this."""
_FIRST_WINDOW = 10 * 1460
"""As RFC 6928 has it: ten segments."""
_NO_WINDOW = 1 << 62
_NICENESS = -10
"""A network does not wait for a CPU."""
_END_OF_HEAD = b"\r\n\r\n"
_HEAD_LIMIT = 1 << 16
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Content:
    """A file to serve, and what else its answer says of it."""

    file: str | os.PathLike[str]
    headers: Mapping[str, str] = field(default_factory=dict)


class SlowServer:
    """A server that runs, and what it has done so far."""

    def __init__(self, address: str, pid: int, counters: memoryview) -> None:
        self.address = address
        """Host and port."""
        self._pid = pid
        self._counters = counters

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    @property
    def connections(self) -> int:
        return int(self._counters[_CONNECTIONS])

    @property
    def requests(self) -> int:
        return int(self._counters[_REQUESTS])

    @property
    def sent(self) -> int:
        """Bytes of files; heads of answers do not count."""
        return int(self._counters[_SENT])

    @property
    def cpu(self) -> float:
        """Seconds that it has used a CPU."""
        return int(Path(f"/proc/{self._pid}/schedstat").read_text().split()[0]) / 1e9


@contextlib.contextmanager
def serving(
    contents: Mapping[str, Content], rate: float = 0, latency: float = 0, *, slow_start: bool = False
) -> Iterator[SlowServer]:
    """Serve files by their paths, at `rate` bits per second (0: as fast as it goes) and `latency` ms for a round trip.

    Raises `RuntimeError` if it does not start.
    """
    listed = {path: asdict(content) for path, content in contents.items()}
    described = json.dumps(listed, default=os.fspath)
    shared = os.memfd_create("counters")
    try:
        os.ftruncate(shared, _COUNTERS_SIZE)
        counters = memoryview(mmap.mmap(shared, _COUNTERS_SIZE)).cast("Q")
        window = _FIRST_WINDOW if slow_start else _NO_WINDOW
        command = [sys.executable, __file__, described, *map(str, (rate, latency, window, shared))]
        # It ends with the process that started it, whatever ends that.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            pass_fds=[shared],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        os.close(shared)
    with process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise RuntimeError("the slow server does not start")
            yield SlowServer(f"127.0.0.1:{port}", process.pid, counters)
        finally:
            process.kill()  # it has no state to save


# --- the process of the server -------------------------------------------------------------------


class _Line:
    """The line to all clients: it carries one piece after the other, each in its time."""

    def __init__(self, rate: float) -> None:
        self._seconds_of_byte = 8 / rate if rate else 0.0
        smallest, largest = _PIECE_SIZES
        self.piece = min(max(int(rate / 8 * _PIECE_SECONDS), smallest), largest) if rate else largest
        self._free_at = 0.0

    def be_idle_until(self, now: float) -> None:
        """Nothing was to be sent until now: that time is lost. Any other delay is made up for."""
        self._free_at = max(self._free_at, now)

    def carried_at(self, size: int) -> float:
        """Return when it will have carried so many bytes more."""
        return self._free_at + size * self._seconds_of_byte

    def carry(self, size: int) -> None:
        self._free_at = self.carried_at(size)


class _File:
    """A file to serve, which stays open."""

    def __init__(self, file: str, headers: Mapping[str, str]) -> None:
        self.fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self.size = status.st_size
        self.headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "ETag": f'"{status.st_size:x}-{status.st_mtime_ns:x}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            **headers,
        }


class _Answer:
    """An answer that is due at some time: its head, and which bytes of a file follow."""

    def __init__(self, due: float, head: bytes, is_last: bool, fd: int = -1, span: range = range(0)) -> None:
        self.due = due
        self.head = head
        self.is_last = is_last
        """Whether the connection ends with it."""
        self._fd = fd
        self._at, self._end = span.start, span.stop

    @property
    def is_sent(self) -> bool:
        return not self.head and self._at == self._end

    @property
    def size(self) -> int:
        """How many bytes of the file are to be sent."""
        return self._end - self._at

    def send(self, connection: socket.socket, most: int) -> int:
        """Send at most so many bytes of the file; return how many that were. Raises `OSError`."""
        if self.head:
            more = socket.MSG_MORE if self._at < self._end else 0
            self.head = self.head[connection.send(self.head, more) :]
        if self.head or self._at == self._end:
            return 0
        size = os.sendfile(connection.fileno(), self._fd, self._at, min(most, self.size))
        if not size:
            raise OSError("the file has become shorter")
        self._at += size
        return size


class _Window:
    """How many bytes a connection may have on the way: at first `size`, later as many more as have arrived."""

    def __init__(self, size: int, round_trip: float) -> None:
        self._free = size
        self._round_trip = round_trip
        self._on_the_way: deque[tuple[float, int]] = deque()

    def room(self, now: float) -> int:
        """Return how many bytes may be sent."""
        while self._on_the_way and self._on_the_way[0][0] <= now:
            self._free += 2 * self._on_the_way.popleft()[1]
        return self._free

    def opens_at(self) -> float:
        """Return when there is room, or was."""
        return 0.0 if self._free else self._on_the_way[0][0]

    def send(self, now: float, size: int) -> None:
        self._free -= size
        self._on_the_way.append((now + self._round_trip, size))


class _Connection:
    """A connection: what of a request has arrived, and the answers to be sent."""

    def __init__(self, connected: socket.socket, window: _Window) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self.window = window
        self.answers: deque[_Answer] = deque()
        self.is_new = True
        """Whether it has had no request."""
        self.is_blocked = False
        """Whether the client has to read first."""
        self.is_over = False
        """Whether its last answer has been sent."""
        self._received = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def due(self) -> float:
        """Return when something is to be sent, and can be."""
        if self.is_blocked or not self.answers:
            return inf
        return max(self.answers[0].due, self.window.opens_at())

    def heads(self) -> Iterator[str]:
        """Receive, and yield the heads of requests that are complete, or what is none. Raises `OSError`."""
        data = self.socket.recv(_HEAD_LIMIT)
        self._received += data
        if not data or len(self._received) > _HEAD_LIMIT:
            raise ConnectionError
        if not self._received[:1].isalpha():  # an engine tries TLS first, and wants an answer
            yield ""
        while _END_OF_HEAD in self._received:
            head, _, self._received = self._received.partition(_END_OF_HEAD)
            yield head.decode("latin-1")

    def send(self, most: int) -> int:
        """Send at most so many bytes for the first answer; return how many that were. Raises `OSError`."""
        try:
            size = self.answers[0].send(self.socket, most)
        except BlockingIOError:
            self.is_blocked = True
            return 0
        if self.answers[0].is_sent:
            self.is_over = self.answers.popleft().is_last
        return size


class _Server:
    """The server; `run` returns never."""

    def __init__(
        self, files: Mapping[str, _File], line: _Line, round_trip: float, window: int, counters: memoryview
    ) -> None:
        self._files = files
        self._line = line
        self._round_trip = round_trip
        self._window = window
        self._counters = counters
        self._connections: list[_Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        carried = None
        while True:
            now = time.monotonic()
            if carried is None:
                self._line.be_idle_until(now)
            carried = self._send(now)
            until = min((each.due() for each in self._connections), default=inf) if carried is None else carried
            self._receive(None if until == inf else max(0.0, until - time.monotonic()))

    # --- requests ---

    def _receive(self, seconds: float | None) -> None:
        """Take what arrives, within so many seconds."""
        blocked = [each for each in self._connections if each.is_blocked]
        # Of all its kind, only this one waits for less than a millisecond.
        readable, writable, _ = select.select([self._listener, *self._connections], blocked, [], seconds)
        for each in blocked:
            each.is_blocked = each not in writable
        for each in self._connections[:]:
            if each in readable:
                self._read(each)
        if self._listener in readable:
            window = _Window(self._window, self._round_trip)
            self._connections.append(_Connection(self._listener.accept()[0], window))
            self._counters[_CONNECTIONS] += 1

    def _read(self, connection: _Connection) -> None:
        try:
            for head in connection.heads():
                self._counters[_REQUESTS] += 1
                due = time.monotonic() + self._round_trip * (2 if connection.is_new else 1)
                connection.is_new = False
                connection.answers.append(self._answer(head, due))
        except OSError:
            self._close(connection)

    def _answer(self, request: str, due: float) -> _Answer:
        """Return the answer to a request (RFC 9110)."""
        first, *lines = request.split("\r\n")
        method, target, version = (*first.split(" "), "", "")[:3]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        file = self._files.get(target.partition("?")[0])
        fd, span, own = -1, range(0), {}
        if method not in ("GET", "HEAD"):
            status = HTTPStatus.NOT_IMPLEMENTED
        elif not file:
            status = HTTPStatus.NOT_FOUND
        else:
            fd, own = file.fd, dict(file.headers)
            status, span = _range_of(headers.get("range", ""), file.size)
            if status != HTTPStatus.OK:
                where = f"{span.start}-{span.stop - 1}" if span else "*"
                own["Content-Range"] = f"bytes {where}/{file.size}"
        is_last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
        if is_last:
            own["Connection"] = "close"
        return _Answer(due, _head(status, own, len(span)), is_last, fd, span if method == "GET" else range(0))

    def _close(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        connection.socket.close()

    # --- answers ---

    def _send(self, now: float) -> float | None:
        """Send what is due and what the line has carried by now, a piece for each connection in turn.

        It returns when the line will have carried the next piece, None if nothing is due. It ends soon, also if it is
        late: there may be new requests.
        """
        due = deque(each for each in self._connections if each.due() <= now)
        while due:
            connection = due.popleft()
            most = min(self._line.piece, connection.answers[0].size, connection.window.room(now))
            carried = self._line.carried_at(most)
            if carried > now or time.monotonic() > now + _PIECE_SECONDS:
                return carried
            self._counters[_SENT] += most  # before the client can have them
            try:
                size = connection.send(most)
            except OSError:
                self._counters[_SENT] -= most
                self._close(connection)
                continue
            self._counters[_SENT] -= most - size
            self._line.carry(size)
            connection.window.send(now, size)
            if connection.is_over:
                self._close(connection)
                continue
            self._connections.remove(connection)  # the next time, the others come first
            self._connections.append(connection)
            if connection.due() <= now:
                due.append(connection)
        return None


def _range_of(text: str, size: int) -> tuple[HTTPStatus, range]:
    """Return which bytes a Range asks for, and the status of the answer (RFC 9110, section 14)."""
    found = _RANGE.fullmatch(text)
    first, last = found.groups() if found else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return HTTPStatus.OK, range(size)
    begin = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    status = HTTPStatus.PARTIAL_CONTENT if begin < end else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return status, range(begin, max(begin, end))


def _head(status: HTTPStatus, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in {**headers, "Content-Length": length}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _main(described: str, rate: float, latency: float, window: int, shared: int) -> None:
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    counters = memoryview(mmap.mmap(shared, _COUNTERS_SIZE)).cast("Q")
    files = {path: _File(**content) for path, content in json.loads(described).items()}
    server = _Server(files, _Line(rate), latency / 1e3, window, counters)
    print(server.port, flush=True)
    server.run()


if __name__ == "__main__":
    _main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
