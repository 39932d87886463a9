"""Starts whose archive is on a server: it is fetched first, or while the application starts."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import measure
from measure import Command, Fresh
from parts import fill
from parts.common import WARM, Options, Part, Rounds, compared, left_out, plain, walls
from parts.fill import BEFORE, BEHIND, ON_DEMAND, PICTURE
from rig.slow_server import Content, SlowServer, serving
from tables import Claim, count, megabytes, ratio, spread, table
from unpackenv.archive import trailer
from workload import Renderer

LEAST_ROUNDS = 7
FAST, SLOW = "1 Gbit/s", "100 Mbit/s"
RATES = {FAST: 1e9, SLOW: 1e8}
LATENCY = 5
"""Milliseconds of a round trip."""
LIMITS = {FAST: 0.50, SLOW: 0.40}
SHARE_LIMIT = 0.70
DOWNLOADED = "curl, then a start"
BY_URL = {BEFORE: "by URL, files first", BEHIND: "by URL, names first", ON_DEMAND: "by URL, on demand"}
IMPORTED, DRAWN = "imports done", "first JPEG"
_PATH = "/app.tar.zst"
_WHAT = f"""\
The archive is on a server (`benchmarks/rig/slow_server.py`). What it sends arrives at a rate that all connections
share; each new connection and each request takes a round trip of {LATENCY} ms. *{DOWNLOADED}*: curl writes the archive
to the new file system, then a start fills all files from there, before the application. *By URL*: nothing is downloaded
first. Whole processes, each sample on a new file system. *÷* divides within a round. *Until then*: what the server had
sent when the command ended; *in all*: when nothing of it was left. Trees that had to be complete were compared with the
plain one."""


@dataclass(frozen=True)
class _Start:
    """A start to measure: over which line, how it gets its files, until when."""

    line: str
    way: str
    how: str
    until: str = IMPORTED

    @property
    def name(self) -> str:
        return f"{self.line}, {self.way}, {self.until}"


@dataclass(frozen=True)
class _Fetched:
    """What a server has sent for one start."""

    then: int
    """Bytes until its command ended."""
    total: int
    """Bytes until nothing of it was left."""
    requests: int
    connections: int


def remote(renderer: Renderer, options: Options) -> Part:
    """How much sooner is an application there if it starts while its archive is fetched?"""
    archive, note = fill.packed(renderer, [renderer.python, fill.APP, os.devnull])
    size = archive.stat().st_size
    starts = [start for line in RATES for start in _starts(line)]
    with contextlib.ExitStack() as stack:
        content = {_PATH: Content(archive)}
        servers = {line: stack.enter_context(serving(content, rate, LATENCY)) for line, rate in RATES.items()}
        stack.enter_context(measure.adopting())  # after that: no sample waits for the servers
        meter = _Meter(renderer.tree, options.fresh)
        commands = [_command(renderer, archive, start, servers[start.line], meter) for start in starts]
        measure.warm_up(commands[0], meter.fresh)
        meter.fetched.clear()
        usages = measure.in_turn(commands, max(LEAST_ROUNDS, options.rounds), meter.fresh)
    times, fetched = walls(usages), meter.fetched
    header = ("line", "start", "until", "s", f"÷ {DOWNLOADED}", "until then MB", "in all MB", "requests", "connections")
    shown = table(header, [_row(start, times, fetched[start]) for start in starts])
    missing = {} if shutil.which("curl") else {DOWNLOADED: "curl is not installed"}
    data = {start.name: [asdict(each) for each in runs] for start, runs in fetched.items()}
    return Part(
        [_WHAT, f"- {note}\n- the archive is {megabytes(size)} MB", shown, *left_out(missing)],
        {"runs": plain(usages), "fetched": data, "bytes": size, "missing": missing},
        [
            *(_claim_of_time(start, times) for start in starts if start.how == BEHIND),
            *(_claim_of_bytes(start, fetched[start], size) for start in starts if start.how == ON_DEMAND),
        ],
    )


def _starts(line: str) -> list[_Start]:
    """Return the starts to measure over a line."""
    starts = [_Start(line, DOWNLOADED, BEFORE)] if shutil.which("curl") else []
    starts += [_Start(line, BY_URL[how], how) for how in (BEFORE, BEHIND)]
    return [*starts, _Start(line, BY_URL[ON_DEMAND], ON_DEMAND, DRAWN)] if line == SLOW else starts


def _row(start: _Start, times: Rounds, fetched: Sequence[_Fetched]) -> tuple[str, ...]:
    factor = _by_downloaded(start, times)
    return (
        start.line,
        start.way,
        start.until,
        spread(times[start.name].values()),
        "–" if factor is None else ratio(factor),
        megabytes(statistics.median(each.then for each in fetched)),
        megabytes(statistics.median(each.total for each in fetched)),
        count(statistics.median(each.requests for each in fetched)),
        count(statistics.median(each.connections for each in fetched)),
    )


def _by_downloaded(start: _Start, times: Rounds) -> float | None:
    return compared(times, start.name, _Start(start.line, DOWNLOADED, BEFORE, start.until).name)


def _claim_of_time(start: _Start, times: Rounds) -> Claim:
    return Claim(f"{start.name} / {DOWNLOADED}", LIMITS[start.line], _by_downloaded(start, times))


def _claim_of_bytes(start: _Start, fetched: Sequence[_Fetched], size: int) -> Claim:
    share = statistics.median(each.total for each in fetched) / size
    return Claim(f"{start.name}, fetched / archive", SHARE_LIMIT, share)


# --- one sample ----------------------------------------------------------------------------------


def _command(renderer: Renderer, archive: Path, start: _Start, server: SlowServer, meter: _Meter) -> Command:
    url = server.url(_PATH)
    digest = trailer.identify(str(archive)).digest

    def argv(at: Path) -> list[object]:
        target = f"UNPACKENV_TARGET={at / start.how}"
        imports: list[object] = ["-c", f"{WARM}\n{fill.IMPORTS}"]
        application = [fill.APP, at / PICTURE] if start.until == DRAWN else imports
        words = ["env", target, renderer.python, *application]
        if start.way != DOWNLOADED:
            return [*words[:1], f"UNPACKENV_ARCHIVE={url}#sha256={digest}", *words[1:]]
        file = shlex.quote(str(at / archive.name))
        script = f'curl --silent --show-error --fail --output {file} {url} && UNPACKENV_ARCHIVE={file} exec "$@"'
        return ["sh", "-c", script, "sh", *words]

    env = {**renderer.env, "RENDERER_BOOTSTRAP": "1", "UNPACKENV_FILL": start.how}
    return Command(start.name, argv, env, archive, prepare=lambda _: meter.begin(start, server))


class _Meter:
    """Directories for samples, and what the servers send for them."""

    def __init__(self, tree: Path, fresh: Fresh) -> None:
        self.fetched: dict[_Start, list[_Fetched]] = {}
        self._tree = tree
        self._settled = measure.settled(fresh, self._end)

    def begin(self, start: _Start, server: SlowServer) -> None:
        """The command of a start is about to begin."""
        self._start, self._server = start, server
        self._before = server.sent, server.requests, server.connections

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        """Yield a directory for a sample; in the end, wait until nothing of it is left, and look at its tree."""
        with self._settled() as at:
            yield at
            self._then = self._server.sent

    def _end(self, at: Path) -> None:
        sent, requests, connections = self._before
        server, start = self._server, self._start
        found = _Fetched(
            self._then - sent, server.sent - sent, server.requests - requests, server.connections - connections
        )
        self.fetched.setdefault(start, []).append(found)
        fill.check_filled(at / start.how)
        if start.how != ON_DEMAND:
            fill.check_same(self._tree, at / start.how)
        if start.until == DRAWN:
            fill.check_picture(at / PICTURE)
