"""The trace of an unpack: what each worker did with each frame, and when, as Chrome and Perfetto read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.containers_by_hand import log_line
from helpers.file_server import serving
from helpers.fills import wait_until_filled
from helpers.processes import is_waiting, python, result_of, start, wait_for
from helpers.support import TAR_FLAG
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive import reader
from unpackenv.report.timings import trace as timeline
from unpackenv.report.timings import words
from unpackenv.start.unpack import trace as tracing

FETCH = "fetch"  # instead of read, if the archive is elsewhere
STEPS = tuple(step for step in words.STEPS if step != FETCH)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some frames full of noise, and a file that spans several."""
    files = {f"{number}": os.urandom(7000).hex() for number in range(20)}
    return write_tree(tmp_path / "tree", {**files, "spanning": os.urandom(40_000).hex()})


def events_of(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace, which must be as the format wants them."""
    trace = json.loads(path.read_text())
    assert trace["displayTimeUnit"] == "ms"
    for event in trace["traceEvents"]:
        assert {"ph", "name", "pid", "tid", "args"} <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["ts"] > 0
        elif event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
        else:
            assert (event["ph"], event["name"]) in (("b", "wait"), ("e", "wait"))
            assert event["ts"] > 0
            assert event["id"]
    return list(trace["traceEvents"])


def code(archive: Path, target: Path, trace: Path, **settings: object) -> str:
    arguments = {"archive": str(archive), "target": str(target), "trace": str(trace), "workers": 3, **settings}
    return f"import os, time, unpackenv\nbegan = time.perf_counter()\nreport = unpackenv.bootstrap(**{arguments!r})\n"


def check_times(events: list[dict[str, Any]], began: float, ended: float) -> None:
    """Whatever one thread did, it did one after the other, or one inside of the other, while the start ran."""
    by_thread: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            by_thread.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in by_thread.values():
        open_ends = [ended * 1e6 + 1]
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            assert begin >= began * 1e6 - 1
            while open_ends[-1] <= begin + 0.2:
                open_ends.pop()
            assert end <= open_ends[-1] + 0.2, "two spans overlap by half"
            open_ends.append(end)


@pytest.mark.parametrize("parallel", ["processes", "threads", "in the caller"])
def test_every_frame_of_every_worker(tree: Path, tmp_path: Path, target: Path, parallel: str) -> None:
    archive, trace = tmp_path / "a.tar.zst", tmp_path / "trace.json"
    pack_tree(archive, tree)
    with reader.open_archive(str(archive)) as opened:
        frames = len(opened.toc.frame_raw)
    assert frames > 6
    before = ""
    if parallel == "in the caller":  # which has another thread
        before = "import threading, time; threading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"
    kind = "threads" if parallel == "threads" else "auto"
    text = before + code(archive, target, trace, parallel=kind)
    pid, began, ended, phases = result_of(
        text + "result = os.getpid(), began, time.perf_counter(), list(report.phases)", environment()
    )
    events = events_of(trace)
    check_times(events, began, ended)
    done = Counter((event["name"], event["args"]["frame"]) for event in events if event["name"] in STEPS)
    assert done == Counter({(step, frame): 1 for step in STEPS for frame in range(frames)})
    names = {event["args"]["name"]: event for event in events if event["name"] == "thread_name"}
    assert set(names) == {f"unpackenv worker {number}" for number in range(3)} | {"unpackenv start"}
    assert len({event["pid"] for event in events}) == {"processes": 4, "threads": 2, "in the caller": 1}[parallel]
    own = [event["name"] for event in events if event["pid"] == pid and event["name"] in ("check", "lock", "fork")]
    assert own == ["check", "lock"] + ["fork"] * (parallel != "in the caller")
    assert {event["name"] for event in events if event["ph"] == "X"} == {*phases, *STEPS} - {"import paths"}
    assert list(tmp_path.glob("trace.json.*")) == []


@pytest.mark.parametrize("fill", ["behind", "on-demand"])
def test_files_that_are_filled_behind_the_application_are_added(
    tree: Path, tmp_path: Path, target: Path, fill: str
) -> None:
    """The file is a whole trace when the start has ended, and at each moment after that."""
    archive, trace = tmp_path / "a.tar.zst", tmp_path / "trace.json"
    pack_tree(archive, tree)
    with reader.open_archive(str(archive)) as opened:
        frames = range(len(opened.toc.frame_raw))
    before = """
import json
from unpackenv.start.fill import filler, filling
fill_frame, end_frame = filler.Filler._fill_frame, filling.Filling.end_frame
filler.Filler._fill_frame = lambda *arguments: time.sleep(0.3) or fill_frame(*arguments)  # so that an open waits
filling.Filling.end_frame = lambda *arguments: time.sleep(0.1) or end_frame(*arguments)  # all is filled before
"""
    env = environment(UNPACKENV_FILL=fill, UNPACKENV_TARGET=target, UNPACKENV_ARCHIVE=archive, UNPACKENV_WORKERS=2)
    rest = f"""
import os, sys, time, unpackenv
{before}
began = time.perf_counter()
report = unpackenv.bootstrap(trace={str(trace)!r})
at_once = json.load(open({str(trace)!r}))["traceEvents"]
for name in sorted(os.listdir({str(target)!r}), reverse=True):
    if not name.startswith("."):
        open(os.path.join({str(target)!r}, name)).read()
result = report.fill, list(report.phases), began, time.perf_counter(), at_once
"""
    used, phases, began, ended, at_once = result_of(rest, env)
    assert used == fill
    wait_until_filled(target)
    events = events_of(trace)
    assert all(event in events for event in at_once)
    assert {event["name"] for event in at_once if event["ph"] == "X"} >= {*phases, "verify", "fork"} - {"import paths"}
    check_times(events, began, ended + 60)
    steps = {(event["name"], event["args"].get("frame")) for event in events if event["ph"] == "X"}
    assert steps >= {(step, frame) for step in STEPS for frame in frames}
    names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names - {"unpackenv filler 0", "unpackenv filler 1"} == {
        "unpackenv start",
        "unpackenv holder 0",
        "unpackenv holder 1",
    }
    waits = {event["id"]: event for event in events if event["ph"] == "b"}
    ends = {event["id"]: event for event in events if event["ph"] == "e"}
    assert waits.keys() == ends.keys()
    assert {event["args"]["path"] for event in waits.values()} <= {*os.listdir(tree)}
    assert waits
    assert all(ends[number]["ts"] >= event["ts"] for number, event in waits.items())
    assert {"holder 0", "holder 1"} < {*timeline.read(str(trace)).workers}


@pytest.mark.parametrize("fill", ["before", "behind"])
@pytest.mark.parametrize("ranges", [True, False])
def test_frames_of_a_remote_archive_are_fetched(
    tree: Path, tmp_path: Path, target: Path, fill: str, ranges: bool
) -> None:
    """If the server knows no ranges, they are read from a temporary file."""
    archive, trace = tmp_path / "a.tar.zst", tmp_path / "trace.json"
    digest = pack_tree(archive, tree)
    with reader.open_archive(str(archive)) as opened:
        frames = range(len(opened.toc.frame_raw))
    with serving(archive.read_bytes()) as server:
        server.ranges = ranges
        url = f"{server.url}/a#sha256={digest}"
        env = environment(UNPACKENV_TARGET=target, UNPACKENV_FILL=fill)
        text = f"import os, unpackenv\nunpackenv.bootstrap({url!r}, trace={str(trace)!r})\nos.chdir({str(target)!r})\n"
        done = python(text + "for name in os.listdir():\n if name[0] != '.': open(name, 'rb').read()", env)
        assert done.returncode == 0, done.stderr
        wait_until_filled(target)
    steps = {(event["name"], event["args"].get("frame")) for event in events_of(trace) if event["ph"] == "X"}
    used, other = (FETCH, "read") if ranges else ("read", FETCH)
    assert steps >= {(step, frame) for step in (used, "verify", "decode", "write") for frame in frames}
    assert not [frame for step, frame in steps if step == other]


@pytest.mark.parametrize("option", ["", "--block-size=64KiB"], ids=["one stream", "blocks"])
def test_the_trace_of_a_plain_tar_has_its_decoders(tree: Path, tmp_path: Path, target: Path, option: str) -> None:
    archive, trace = tmp_path / "a.tar.xz", tmp_path / "trace.json"
    env = {**os.environ, "XZ_OPT": f"-1 {option}"}
    subprocess.run(["tar", "-C", tree, TAR_FLAG["xz"], "-cf", archive, "."], env=env, check=True)
    began, ended = result_of(code(archive, target, trace) + "result = began, time.perf_counter()")
    events = events_of(trace)
    check_times(events, began, ended)
    written = [event["args"]["frame"] for event in events if event["name"] == "write"]
    decoded = {event["args"]["frame"] for event in events if event["name"] == "decode"}
    assert written == list(range(len(written)))
    assert decoded >= set(written)
    decoders = {event["args"]["name"] for event in events if event["name"] == "thread_name"} - {"unpackenv start"}
    assert len(decoders) == (3 if option else 1)


def test_a_start_that_fails_leaves_its_trace(tree: Path, tmp_path: Path, target: Path) -> None:
    archive, trace = tmp_path / "a.tar.zst", tmp_path / "trace.json"
    pack_tree(archive, tree)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    done = python(code(archive, target, trace, workers=1))  # others are killed, with what they have not written yet
    assert done.returncode == 1
    failed = max(event["args"].get("frame", -1) for event in events_of(trace) if event["name"] == "verify")
    assert failed > 0


def test_traces_of_two_containers_with_one_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has process IDs of its own, and neither removes what the other has begun."""
    for host in "one", "two":
        monkeypatch.setattr(tracing.os, "uname", lambda host=host: SimpleNamespace(nodename=host))
        tracing.Trace(str(tmp_path / "trace.json"))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_warm_start_leaves_the_trace_alone(archive: Path, tmp_path: Path, target: Path) -> None:
    text = code(archive, target, tmp_path / "trace.json")
    python(text)
    before = (tmp_path / "trace.json").read_bytes()
    assert "reused" in python(text).stderr
    assert (tmp_path / "trace.json").read_bytes() == before


def test_a_start_that_waits_leaves_the_trace_alone(
    archive: Path, tmp_path: Path, target: Path, slow: dict[str, str]
) -> None:
    trace = tmp_path / "trace.json"
    command = [sys.executable, "-c", code(archive, target, trace)]
    first = start(command, {**slow, "STALLED": "publish"})
    wait_for((tmp_path / "started").exists, "the first start", first)
    second = start(command)
    wait_for(lambda: is_waiting(second.pid, target.with_name(".tree.unpackenv.lock")), "the second to wait", second)
    Path(slow["GO"]).touch()
    assert "waited" in second.communicate(timeout=PATIENCE)[1]
    first.communicate(timeout=PATIENCE)
    assert "publish" in {event["name"] for event in events_of(trace)}


@pytest.mark.parametrize("kind", ["nowhere", "directory", "FIFO"])
def test_a_trace_that_cannot_be_written_stops_nothing(archive: Path, tmp_path: Path, target: Path, kind: str) -> None:
    trace = {"nowhere": tmp_path / "nowhere" / "trace", "directory": tmp_path, "FIFO": tmp_path / "fifo"}[kind]
    os.mkfifo(tmp_path / "fifo")
    done = python(code(archive, target, trace, log="json"))
    (warning,) = log_line(done.stderr)["warnings"]
    assert warning.startswith(f"the trace {trace}")
    assert not [*tmp_path.parent.glob(f"{tmp_path.name}.*"), *tmp_path.glob("fifo.*")]
    assert (tmp_path / "fifo").is_fifo(), "what is no regular file, such as /dev/null, was replaced"


def test_no_trace_where_nobody_asks(archive: Path, target: Path) -> None:
    text = f"import sys, unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, workers=1)\n"
    assert result_of(text + "result = 'unpackenv.start.unpack.trace' in sys.modules") is False
