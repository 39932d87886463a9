"""Finding the lines of starts among other output of a container."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import timing_logs
from helpers.timing_logs import error, fetched, filled, killed, mark, start
from unpackenv.errors import TimingLogUnreadable
from unpackenv.report.timings import export, log, tables
from unpackenv.report.timings.comparison import compare
from unpackenv.report.timings.summary import summarize
from unpackenv.report.timings.words import UNTIL_FAILED


def line(record: dict[str, object]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def read(tmp_path: Path, content: bytes) -> log.TimingLog:
    path = tmp_path / "starts.log"
    path.write_bytes(content)
    return log.read([str(path)])


def test_lines_among_others(tmp_path: Path) -> None:
    """The name that Compose writes before a line, the time of a log shipper, and what the application has to say."""
    found = read(
        tmp_path,
        b"app-1  | " + line(start(milliseconds=1))
        + b"2023-11-14T22:13:20.123456789Z stderr F " + line(error())
        + b"Traceback (most recent call last):\n\n\xff\xfe\n"
        + line({"level": "info", "unpackenv": "start"})  # JSON of another program
        + b"unpackenv: reused 10 files\n"
        + line(start(milliseconds=2)),
    )  # fmt: skip
    assert [(each.outcome, each.milliseconds, each.where) for each in found.starts] == [
        ("unpacked", 1, f"{tmp_path}/starts.log:1"),
        ("error", 50, f"{tmp_path}/starts.log:2"),
        ("unpacked", 2, f"{tmp_path}/starts.log:8"),
    ]
    assert found.starts[1].error == log.Error("no-space", "does not fit", "/target", "Make room")
    assert (found.other, found.text_lines, found.cut_off, found.unclear) == (5, 1, 0, 0)


@pytest.mark.parametrize("kept", [13, 14, 100, -2])
def test_a_last_line_that_is_half_written(tmp_path: Path, kept: int) -> None:
    found = read(tmp_path, line(start()) + line(start())[:kept])
    assert (len(found.starts), found.cut_off) == (1, 1)


def test_a_line_in_the_middle_of_which_another_process_wrote(tmp_path: Path) -> None:
    found = read(tmp_path, line(start())[:80] + line(start()) + line(start()))
    assert (len(found.starts), found.cut_off) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"milliseconds": None}, {"milliseconds": "12"}, {"milliseconds": True}, {"milliseconds": -1},
        {"milliseconds": float("nan")}, {"milliseconds": float("inf")}, {"milliseconds": 10**20},
        {"phases": None}, {"phases": []}, {"phases": {"check": "1"}}, {"phases": {"check": float("nan")}},
        {"outcome": 3}, {"outcome": None}, {"time": -1}, {"time": 1e12}, {"cpu_ms": "much"}, {"workers": "two"},
        {"target": ["/a"]}, {"workers_why": 7}, {"fetched": 90}, {"fetched": ["bytes"]}, {"fetched": {"bytes": 90}},
        {"fetched": fetched(bytes="many")}, {"fetched": fetched(wait_ms=None)}, {"fetched": fetched(retries=-1)},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be(tmp_path: Path, wrong: dict[str, object]) -> None:
    found = read(tmp_path, line({**start(), **wrong}) + line(start()))
    assert (len(found.starts), found.unclear) == (1, 1)


def test_what_a_line_need_not_have(tmp_path: Path) -> None:
    """Null is what is not known, and fields that are not known here are of no interest."""
    record = start(time=None, process_ms=None, throttled_ms=None, workers_why=None, target=None, colour="blue")
    (found,) = read(tmp_path, line(record)).starts
    assert (found.time, found.process_ms, found.throttled_ms, found.target) == (None, None, None, "")


def test_a_later_version(tmp_path: Path) -> None:
    found = read(tmp_path, line(start(schema=2)) + line(start()))
    assert (len(found.starts), found.later, found.unclear) == (1, 1, 0)


def test_a_kind_that_a_later_version_has_added(tmp_path: Path) -> None:
    """Whatever fields it has, it is no start."""
    found = read(
        tmp_path, line({**start(), "unpackenv": "frozen"}) + line(start()) + line({"unpackenv": "x", "schema": 1})
    )
    assert (len(found.starts), found.later, found.unclear) == (1, 2, 0)


def test_what_became_of_files_behind_the_application(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        line(start("named", fill="behind")) + line(filled(700, ("a.so", 30.5), ("b.py", 4)))
        + line(start(fill_why="leases are not to be had")) + line(killed("no room")) + line(filled(1, waits="many")),
    )  # fmt: skip
    where = f"{tmp_path}/starts.log"
    assert found.filled == [
        log.FilledLine(
            f"{where}:2", timing_logs.TIME, 700, 2, 34.5, [log.Wait("a.so", 30.5), log.Wait("b.py", 4)], 10, 1000,
            "/opt/unpackenv/env/abc", None,
        )
    ]  # fmt: skip
    assert [(each.where, each.error.reason, each.error.what) for each in found.killed] == [
        (f"{where}:4", "tree-unfilled", "no room")
    ]
    assert [each.fill_why for each in found.starts] == ["", "leases are not to be had"]
    assert found.unclear == 1


def test_what_was_fetched(tmp_path: Path) -> None:
    """Lines of archives that were there have null; those of earlier versions have no such field."""
    earlier = {name: value for name, value in start().items() if name != "fetched"}
    lines = start(fetched=fetched(1.5, 20.5, retries=2)), start(), earlier, filled(fetched=fetched(2, cached=7))
    found = read(tmp_path, b"".join(map(line, lines)))
    assert [each.fetched for each in found.starts] == [log.Fetched(1_500_000, 0, 12, 2, 20.5), None, None]
    assert [each.fetched for each in found.filled] == [log.Fetched(2_000_000, 7, 12, 0, 300)]


def test_phases_of_less_than_nothing(tmp_path: Path) -> None:
    """What is left of a phase when its parts are taken away is rounded."""
    (found,) = read(tmp_path, line(start(phases={"fork": -0.001, "unpack": 100.0}))).starts
    assert found.phases == {"fork": 0, "unpack": 100}


def test_what_a_start_did_when_it_failed(tmp_path: Path) -> None:
    failed, well = read(tmp_path, line(error(milliseconds=50)) + line(start())).starts
    assert failed.steps == {"check": 5, UNTIL_FAILED.name: 45}
    assert well.steps == well.phases


def test_marks_know_the_start_of_their_process(tmp_path: Path) -> None:
    """Every container has a process 1, and each may start again."""
    found = read(
        tmp_path,
        line(mark("early")) + line(start("unpacked", host="a")) + line(start("waited", host="b"))
        + line(mark(host="a")) + line(mark(host="b")) + line(start("reused", host="a")) + line(mark(host="a")),
    )  # fmt: skip
    assert [each.start.outcome if each.start else None for each in found.marks] == [
        None,
        "unpacked",
        "waited",
        "reused",
    ]


def test_imports_of_a_mark(tmp_path: Path) -> None:
    imports = [{"module": "pandas", "self_ms": 20.5, "cumulative_ms": 300.0}]
    found = read(tmp_path, line(start()) + line(mark(imports=imports)) + line(mark(imports=[{"module": "x"}])))
    assert (found.marks[0].imports, found.unclear) == ([log.Import("pandas", 20.5, 300.0)], 1)


def test_text_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    record = start("un\x1b]0;title\x07packed\n", target="/a\u202eb", phases={"\x1b[2J": 1})
    (found,) = read(tmp_path, line(record)).starts
    assert (found.outcome + found.target + "".join(found.phases)).isprintable()


def test_several_logs_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(line(start("waited")))))
    path = timing_logs.write(tmp_path / "a.log", [start("unpacked")])
    found = log.read([str(path), "-"])
    assert [(each.outcome, each.where) for each in found.starts] == [("unpacked", f"{path}:1"), ("waited", "stdin:1")]


def test_no_start_in_it(tmp_path: Path) -> None:
    with pytest.raises(
        TimingLogUnreadable,
        match=r"no start is in 3 lines.*LOG=json or UNPACKENV_LOG_FILE for the starts; 2 of the lines are",
    ):
        read(tmp_path, b"unpackenv: reused\nx | unpackenv: ready 12 ms after the start\nhello\n")
    with pytest.raises(
        TimingLogUnreadable, match=r"no start is in 0 lines.*UNPACKENV_LOG=json or UNPACKENV_LOG_FILE for the starts$"
    ):
        read(tmp_path, b"")
    with pytest.raises(FileNotFoundError):
        log.read([str(tmp_path / "nowhere")])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from([*start(), *error(), *mark(), *filled(), *killed(), "other"])


@given(
    base=st.sampled_from(
        [start(), start(fetched=fetched()), error(), mark(), filled(9, ("a", 1), fetched=fetched()), killed()]
    ),
    changes=st.dictionaries(fields, values, max_size=4),
    noise=st.binary(max_size=30),
    cut=st.integers(0, 1000),
)
def test_no_line_stops_the_reading(
    tmp_path_factory: pytest.TempPathFactory,
    base: dict[str, object],
    changes: dict[str, object],
    noise: bytes,
    cut: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.log"
    path.write_bytes(noise + line({**base, **changes}) + line(start()) + line(base)[:cut])
    found = log.read([str(path)])
    read_lines = [*found.starts, *found.marks, *found.filled, *found.killed]
    counted = len(read_lines) + found.other + found.cut_off + found.unclear + found.later
    assert counted == len(path.read_bytes().splitlines(keepends=True)) or b"\r" in noise
    assert any(each.milliseconds == 100 for each in found.starts)
    figures = summarize(found)
    assert tables.all_tables(figures, compare(figures, figures))
    assert json.loads(export.to_json(figures))["starts"] == len(found.starts)
