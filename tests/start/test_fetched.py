"""What lines of the log say of a remote archive: how much was fetched of it, from where, and nothing that is secret."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helpers.documented import PROJECT
from helpers.file_server import FileServer, serving
from helpers.fills import wait_until_filled
from helpers.processes import python, run, start, wait_for, wrapper
from helpers.starts import boot_code
from rig.environment import environment
from rig.sites import pack_tree
from unpackenv.archive import trailer

pytestmark = pytest.mark.usefixtures("no_fill_left")

SCHEMA = json.loads((PROJECT / "docs" / "timing-log.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def archive(large: tuple[Path, dict[str, int]]) -> Path:
    return large[0]


class Starts:
    """Starts by URL, whose log is a file; the URL has a password and a signature."""

    def __init__(self, server: FileServer, archive: Path, target: Path) -> None:
        self.server = server
        self.log = target.parent / "log"
        digest = trailer.identify(str(archive)).digest
        secret = server.url.replace("//", "//user:SECRET@")
        self.env = environment(
            UNPACKENV_ARCHIVE=f"{secret}/a?signature=SECRET#sha256={digest}",
            UNPACKENV_TARGET=target,
            UNPACKENV_LOG_FILE=self.log,
            NO_PROXY="*",
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of the log; all of them must be as the schema says, and without secrets."""
        text = self.log.read_text() if self.log.exists() else ""
        assert "SECRET" not in text
        found = [json.loads(line) for line in text.splitlines()]
        for line in found:
            VALIDATOR.validate(line)
            assert set(line) == {*SCHEMA["properties"], *SCHEMA["$defs"][line["unpackenv"]]["properties"]}
        return found

    def run(self, *command: object, **variables: object) -> str:
        """Start a command to its end, and return what the start said to people."""
        env = {**self.env, **{name: str(value) for name, value in variables.items()}}
        done = run(wrapper("--", *command), env)
        assert "SECRET" not in done.stderr
        return done.stderr


@pytest.fixture
def starts(server: FileServer, archive: Path, target: Path) -> Starts:
    return Starts(server, archive, target)


def test_what_a_start_has_fetched(starts: Starts, archive: Path) -> None:
    """A start that finds the tree asks nobody, so it does not know the size of the archive either."""
    said = starts.run("true")
    fetched = starts.lines[0]["fetched"]
    assert (fetched["bytes"], fetched["requests"]) == (starts.server.sent, len(starts.server.requests))
    assert (fetched["retries"], fetched["cached"]) == (0, 0)
    assert fetched["wait_ms"] > 0
    shown = (
        rf"; fetched {starts.server.sent / 1e6:.1f} MB in {len(starts.server.requests)} requests, waited \d+ ms for it"
    )
    assert re.search(shown, said), said
    assert (starts.lines[0]["archive"], starts.lines[0]["archive_size"]) == (
        f"{starts.server.url}/a",
        archive.stat().st_size,
    )
    assert "; fetched" not in starts.run("true")
    warm = starts.lines[1]
    assert (warm["outcome"], warm["fetched"], warm["archive"], warm["archive_size"]) == ("reused", None, None, None)


def test_an_archive_that_is_here(starts: Starts, archive: Path) -> None:
    assert "; fetched" not in starts.run("true", UNPACKENV_ARCHIVE=archive)
    assert starts.lines[0]["fetched"] is None


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_tried_again_is_waited_for(site: Path, tmp_path: Path, target: Path, ranges: bool) -> None:
    """Before the end of the archive is there, which has all of this one; also if the server knows no ranges."""
    archive = tmp_path / "small.tar.zst"
    pack_tree(archive, site)
    with serving(archive.read_bytes()) as server:
        starts = Starts(server, archive, target)
        server.ranges = ranges
        server.fault = lambda handler, number: number == 1 and handler.answer(503, Retry_After="1")
        assert "1 tried again" in starts.run("true")
        fetched = starts.lines[0]["fetched"]
        assert (fetched["retries"], fetched["requests"], fetched["bytes"]) == (1, 2, archive.stat().st_size)
        assert fetched["wait_ms"] >= 1000


def test_what_the_cache_had(starts: Starts, target: Path, tmp_path: Path) -> None:
    cache = {"UNPACKENV_CACHE": tmp_path / "cache"}
    starts.run("true", **cache)
    said = starts.run("true", UNPACKENV_TARGET=target.with_name("other"), **cache)
    first, second = (line["fetched"] for line in starts.lines)
    assert first["bytes"] == starts.server.sent
    assert (second["bytes"], second["requests"]) == (0, 0)
    assert second["cached"] > first["cached"]  # of frames that are alike, one is fetched
    assert f"{second['cached'] / 1e6:.1f} MB from the cache" in said


@pytest.mark.parametrize("after", [0, 3])
def test_a_start_that_fails_does_not_know(starts: Starts, after: int) -> None:
    starts.server.fault = lambda handler, number: number > after and handler.answer(403)
    starts.run("true")
    (line,) = starts.lines
    assert (line["unpackenv"], line["reason"], line["fetched"]) == ("error", "archive-unreachable", None)
    assert line["archive"] == (f"{starts.server.url}/a" if after else None)
    assert line["where"] == f"{starts.server.url}/a"


@pytest.mark.parametrize("fill", ["behind", "on-demand"])
def test_what_was_fetched_until_all_was_filled(starts: Starts, target: Path, fill: str) -> None:
    """With what the start had fetched: that was for the names only."""
    process = start(wrapper("--fill", fill, "--", "sleep", "1200"), starts.env)
    wait_for(lambda: starts.lines, "the start", process)
    run(wrapper("fill", target))
    wait_for(lambda: len(starts.lines) == 2, "the fill", process)
    wait_until_filled(target)
    process.kill()
    _, said = process.communicate()
    by_kind = {line["unpackenv"]: line for line in starts.lines}
    named, filled = by_kind["start"], by_kind["filled"]
    assert (named["outcome"], named["fill"]) == ("named", fill)
    assert 0 < named["fetched"]["bytes"] <= filled["fetched"]["bytes"]
    assert (filled["fetched"]["bytes"], filled["fetched"]["requests"]) == (
        starts.server.sent,
        len(starts.server.requests),
    )
    assert filled["fetched"]["wait_ms"] >= named["fetched"]["wait_ms"]
    (line,) = (line for line in said.splitlines() if line.startswith("unpackenv: filled "))
    assert f"; fetched {starts.server.sent / 1e6:.1f} MB in {len(starts.server.requests)} requests, waited " in line
    assert "SECRET" not in said


def test_files_that_are_here_are_filled_without_fetching(starts: Starts, archive: Path, target: Path) -> None:
    process = start(
        wrapper("--fill", "behind", "--", "sleep", "1200"), {**starts.env, "UNPACKENV_ARCHIVE": str(archive)}
    )
    wait_for(lambda: len(starts.lines) == 2, "the fill", process)
    wait_until_filled(target)
    process.kill()
    assert "; fetched" not in process.communicate()[1]
    assert [line["fetched"] for line in starts.lines] == [None, None]


def test_timings_reads_it(starts: Starts, target: Path) -> None:
    starts.run("true")
    found = json.loads(run(wrapper("timings", starts.log, "--json")).stdout)
    assert found["outcomes"]["unpacked"]["fetched"]["bytes"]["largest"] == starts.server.sent
    shown = run([sys.executable, "-m", "unpackenv", "timings", starts.log]).stdout
    assert re.search(rf"unpacked  MB that were fetched +1 +{starts.server.sent / 1e6:.1f} ", shown), shown


def test_bootstrap_returns_it(starts: Starts) -> None:
    done = python(boot_code(rest="print(report.fetched)"), starts.env)
    assert f"'bytes': {starts.server.sent}, " in done.stdout, done.stderr
