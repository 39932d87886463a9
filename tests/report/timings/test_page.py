"""The page: complete in one file, drawn by a real browser, safe whatever a log holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers import timing_logs
from helpers.browser import ask, look
from helpers.processes import python, result_of
from helpers.timing_logs import TIME, error, fetched, filled, killed, start
from unpackenv.report.timings import comparison, log, page, summary, trace
from unpackenv.report.timings.words import OUTCOMES, STEPS, UNPACK, phase_colours


def write(path: Path, starts: Path, before: Path | None = None, traced: Path | None = None) -> str:
    """Write a page and return it."""
    found = summary.summarize(log.read([str(starts)]))
    changes = comparison.compare(summary.summarize(log.read([str(before)])), found) if before else None
    page.write(str(path), found, changes, trace.read(str(traced)) if traced else None)
    return path.read_text()


def trace_file(path: Path) -> Path:
    path.write_text(json.dumps(timing_logs.events()))
    return path


class Elements(HTMLParser):
    """The elements of a page by name, their attributes, and the texts of titles and headings."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == [], "elements are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "br", "path", "use"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "br", "path", "use"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_in_a_browser(tmp_path: Path, log_of_all: Path) -> None:
    """Nothing is wrong on the console, and what the pictures are made of can be seen."""
    path = tmp_path / "page.html"
    behind = [start("named", 90), start("joined", 5), filled(900, ("a.so", 4)), killed()]
    log_of_all.write_text(log_of_all.read_text() + timing_logs.write(tmp_path / "behind", behind).read_text())
    write(path, log_of_all, before=log_of_all, traced=trace_file(tmp_path / "trace.json"))
    seen = look(path, tmp_path)
    assert seen.console == []
    drawn = phase_colours()
    drawn.update({name: word.colour for name, word in {**STEPS, **OUTCOMES}.items() if name not in ("off", "missing")})
    assert {
        name: seen.colours.get(colour, 0) for name, colour in drawn.items() if seen.colours.get(colour, 0) < 40
    } == {}


# How far the page reaches, the widest cell, the lowest text of pictures, and how many cells show no head.
NARROW = """{
    page: document.documentElement.scrollWidth,
    cell: Math.max(...[...document.querySelectorAll("td")].map(cell => cell.getBoundingClientRect().right)),
    text: Math.min(...[...document.querySelectorAll("svg text")].map(text => text.getBoundingClientRect().height)),
    heads: [...document.querySelectorAll("thead")].filter(head => head.offsetHeight).length,
    named: getComputedStyle(document.querySelector("td"), "::before").content,
}"""


@pytest.mark.parametrize("width", [420, 1000])
def test_on_a_screen_of_any_width(tmp_path: Path, log_of_all: Path, width: int) -> None:
    """Nothing sticks out, and pictures can be read; where tables do not fit, each cell says what it is."""
    path = tmp_path / "page.html"
    write(path, log_of_all, before=log_of_all, traced=trace_file(tmp_path / "trace.json"))
    found = ask(path, tmp_path, width, NARROW)
    assert found["page"] <= width
    assert found["text"] >= 9
    if width < 600:
        assert found["cell"] <= width
        assert (found["heads"], found["named"]) == (0, '"outcome"')
    else:
        assert found["heads"] > 3
        assert found["named"] == "none"


def test_of_few_starts_no_percentile_is_told_that_is_the_slowest(tmp_path: Path) -> None:
    def texts(count: int) -> list[str]:
        starts = timing_logs.write(tmp_path / "log", [start("unpacked", 100 + number) for number in range(count)])
        return Elements(write(tmp_path / "page.html", starts)).texts

    for count, shown in (1, ["p50"]), (2, ["p50", "slowest"]), (10, ["p50", "p90", "slowest"]), (
        100, ["p50", "p90", "p99", "slowest"]
    ):  # fmt: skip
        found = texts(count)
        heads = found[found.index("outcome") + 1 : found.index("p50 as a bar")]
        assert [head for head in heads if head] == ["starts", *(name for name in shown if name != "slowest"), "slowest"]
        labels = {text for text in found if text in ("p50", "p90", "p99", "slowest")}
        assert labels == {*shown, "slowest"}
    assert any("one start" in text for text in texts(1))


def test_the_browser_tells_what_is_wrong(tmp_path: Path) -> None:
    """As a page would be that runs a script, or loads something, or draws nothing."""
    path = tmp_path / "page.html"
    path.write_text("<!DOCTYPE html><title>x</title><script>nonsense()</script><img src='file:///nowhere.png'>")
    seen = look(path, tmp_path)
    assert any("nonsense is not defined" in line for line in seen.console)
    assert seen.colours.keys() == {"#ffffff"} or UNPACK.colour not in seen.colours


def test_complete_in_one_file(tmp_path: Path, log_of_all: Path) -> None:
    content = write(tmp_path / "page.html", log_of_all, log_of_all, trace_file(tmp_path / "trace.json"))
    elements = Elements(content)
    names = {name for name, _ in elements.found}
    assert not names & {"script", "link", "iframe", "object", "embed", "image", "img"}
    for name, attributes in elements.found:
        for attribute in ("src", "href", "xlink:href"):
            assert attributes.get(attribute, "#").startswith("#"), (name, attributes)
    assert not re.search(r"url\((?!#)|@import", content)
    policies = [each["content"] for name, each in elements.found if each.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    identifiers = [each["id"] for _, each in elements.found if "id" in each]
    assert len(identifiers) == len(set(identifiers))
    assert len(content) < 400_000


def test_what_is_on_it(tmp_path: Path, log_of_all: Path) -> None:
    content = write(tmp_path / "page.html", log_of_all, log_of_all, trace_file(tmp_path / "trace.json"))
    texts = Elements(content).texts
    for heading in (
        "How long starts took", "When they took that long", "What they spent it on", "The slowest starts",
        "The slowest start, step by step", "The workers of one start", "Before and after",
        "Starts that failed, applications that were killed", "When the application was ready",
    ):  # fmt: skip
        assert heading in texts
    for axis in (
        "duration of the start in milliseconds",
        "time of the start (UTC)",
        "milliseconds since the beginning of the trace",
        "milliseconds since the beginning of the start; each outcome has its own scale",
        "milliseconds since the beginning of the process",
    ):  # fmt: skip
        assert axis in texts
    assert "Files that were filled behind the application" not in texts
    # Words for the mouse: a phase of a start, a step of a worker.
    assert any(text.startswith("lock: 12.0 ms of 560 ms. load what unpacks") for text in texts)
    assert "decode (frame 5): 1.5 ms, from 27.0 ms" in texts
    assert "another start, which held the lock: 1,990 ms (100%)" in texts


def test_files_behind_the_application_are_on_it(tmp_path: Path) -> None:
    records = [
        start("named"),
        filled(987, ("a/b.so", 90)),
        start(fill_why="too few files may be open"),
        killed("no room"),
    ]
    texts = Elements(write(tmp_path / "page.html", timing_logs.write(tmp_path / "log", records))).texts
    for text in (
        "Files that were filled behind the application", "987", "a/b.so", "90.0", "too few files may be open",
        "tree-unfilled", "/opt/unpackenv/env/abc: no room",
    ):  # fmt: skip
        assert text in texts
    only_before = timing_logs.write(tmp_path / "log", [start(fill_why="too few files may be open")])
    assert "too few files may be open" in Elements(write(tmp_path / "page.html", only_before)).texts


def test_what_was_fetched_is_on_it(tmp_path: Path) -> None:
    heading, compared = "What was fetched of remote archives", "how long workers waited for it together, ms"
    records = [start(fetched=fetched(91.25, 300, retries=4)), filled(fetched=fetched(93))]
    remote = timing_logs.write(tmp_path / "remote.log", records)
    texts = Elements(write(tmp_path / "page.html", remote, before=remote)).texts
    assert heading in texts
    assert texts.count("91.2") + texts.count("91.3") == 4  # p50 and largest, before and after
    assert texts.count(compared) == 3
    assert any("; fetched 91.2 MB in 12 requests, 4 of them tried again; target /opt" in text for text in texts)
    plain = timing_logs.write(tmp_path / "plain.log", [start(), filled()])
    assert heading not in Elements(write(tmp_path / "page.html", plain, before=plain)).texts


def test_the_same_log_makes_the_same_page(tmp_path: Path, log_of_all: Path) -> None:
    assert write(tmp_path / "a.html", log_of_all) == write(tmp_path / "b.html", log_of_all)


@pytest.mark.parametrize(
    "records",
    [
        [start()],
        [error()],
        [start("off", 0, phases={}), start("off", 0, phases={}, time=TIME + 9)],
        [start("reused", 0, phases={"check": 0}), start("unpacked", 1e14, time=32503679999)],
        [start(phases={}), start(time=None, process_ms=None)],
        [start("unpacked", 1 + number / 7, time=TIME + number) for number in range(3500)],
        [start(phases={f"phase {number}": 2.0 for number in range(50)})],
        [start("$x^$ & <b>", phases={"_a" * 99: 9, "$\\frac": 1}), start("_", 5, time=TIME + 1)],
    ],
    ids=["one", "failed", "off", "extremes", "bare", "many", "phases", "names"],
)
def test_a_page_is_made_of_any_log(tmp_path: Path, records: list[dict[str, object]]) -> None:
    content = write(tmp_path / "page.html", timing_logs.write(tmp_path / "odd.log", records))
    Elements(content)
    assert len(content) < 600_000


def test_nothing_is_said_of_a_start_that_waited_for_nothing(tmp_path: Path) -> None:
    starts = timing_logs.write(tmp_path / "log", [start("reused", 0, phases={"check": 0})])
    assert "It waited for" not in write(tmp_path / "page.html", starts)
    starts = timing_logs.write(tmp_path / "log", [start(phases={"unpack": 90})])
    assert "It waited for unpack" in write(tmp_path / "page.html", starts)


def test_words_of_a_log_are_text_wherever_they_stand(tmp_path: Path) -> None:
    """What a log says is text, in tables, pictures and headings."""
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"
    records = [
        start(attack, 900, phases={attack: 900.0}, target=attack, workers_why=attack),
        error(attack, what=attack, where=attack, hint=attack),
        timing_logs.mark(attack),
        filled(9, (attack, 8)),
        killed(attack),
        start(fill_why=attack),
    ]
    events = timing_logs.events()
    for event in events["traceEvents"]:  # type: ignore[attr-defined]
        event.update(cat=attack, name=attack) if event["ph"] == "X" else event["args"].update(name=attack)
    (tmp_path / "trace.json").write_text(json.dumps(events))
    starts = timing_logs.write(tmp_path / f"{attack.replace('/', '-')}.log", records)
    content = write(tmp_path / "page.html", starts, starts, tmp_path / "trace.json")
    names = {name for name, _ in Elements(content).found}
    assert not names & {"script", "img", "image"}
    assert "{{ 7*7 }}" in content
    assert "alert(1)" in content


def test_without_the_extra(tmp_path: Path, log_of_all: Path) -> None:
    """The error says what to install."""
    for library in ("jinja2", "matplotlib"):
        code = f"""
import sys
sys.modules[{library!r}] = None
sys.argv[1:] = ["timings", {str(log_of_all)!r}, "--html", {str(tmp_path / "page.html")!r}]
from unpackenv.__main__ import main
main()
"""
        done = python(code)
        assert done.returncode == 125
        assert f"--html: the page needs {library}, which is not installed" in done.stderr
        assert "pip install 'unpackenv[report]'" in done.stderr
        assert not (tmp_path / "page.html").exists()


def test_tables_need_no_library(log_of_all: Path) -> None:
    """Tables in a pipe import neither the libraries of the page nor that of the terminal."""
    code = f"""
import io, sys
from unpackenv import cli
sys.stdout = io.StringIO()
try:
    cli.main(["timings", {str(log_of_all)!r}])
except SystemExit as end:
    code = end.code
sys.stdout = sys.__stdout__
result = [code, sorted({{"jinja2", "matplotlib", "numpy", "rich", "psutil", "zstandard"}} & set(sys.modules))]
"""
    assert result_of(code) == [0, []]
