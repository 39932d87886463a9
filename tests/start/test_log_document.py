"""docs/timing-log.md: starts write lines like its examples, and its tables have the fields of the schema."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helpers.documented import PROJECT
from helpers.file_server import serving
from helpers.held_fills import Held, is_awaited
from helpers.processes import is_waiting, python, run, start, wait_for, without_notices, wrapper
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree

DOCUMENT = (PROJECT / "docs" / "timing-log.md").read_text()
SCHEMA = json.loads((PROJECT / "docs" / "timing-log.schema.json").read_text())
KINDS = {kind: dict(described["properties"]) for kind, described in SCHEMA["$defs"].items()}


def fenced(language: str) -> list[str]:
    """Return the blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def rows_below(heading: str) -> set[str]:
    """Return the first column of the tables below a heading."""
    section = DOCUMENT.partition(f"\n### {heading}\n")[2]
    assert section, heading
    return set(
        re.findall(r"^\| `(\w+)` \|", re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)
    )


def test_examples_in_json() -> None:
    lines: list[dict[str, Any]] = [json.loads(block) for block in fenced("json")]
    assert [line["unpackenv"] for line in lines] == list(KINDS)
    for line in lines:
        jsonschema.validate(line, SCHEMA)
        assert set(line) == {*SCHEMA["properties"], *KINDS[line["unpackenv"]]}


def test_every_field_has_its_row() -> None:
    every = rows_below("Every line")
    both = rows_below("`start` and `error`")
    assert every == set(SCHEMA["properties"])
    for kind in ("start", "error"):
        assert both | rows_below(f"`{kind}`") == set(KINDS[kind]) - {"unpackenv"}
    for kind in ("mark", "filled", "killed"):
        assert rows_below(f"`{kind}`") == set(KINDS[kind]) - {"unpackenv"}


def shape(line: str, known: dict[str, str]) -> str:
    """Return a line of text without what differs from start to start."""
    for value, name in known.items():
        line = line.replace(value, name)
    line = re.sub(r"/opt/unpackenv/env/\w+", "TARGET", line).replace("/opt/unpackenv/site-packages.tar.zst", "ARCHIVE")
    phases = re.search(r"\((\w[^()]* \d+)\)(?=$|; )", line)
    for each in phases[1].split(", ") if phases else ():
        assert re.fullmatch(r".+ \d+", each)
        assert f"\n| `{each.rpartition(' ')[0]}` | " in DOCUMENT
    line = re.sub(r" \(\w[^()]* \d+\)(?=$|; )", " (PHASES)", line)
    line = re.sub(r"(: reused .*) \(PHASES\)", r"\1", line)  # none is shown that takes less than 0.5 ms
    line = re.sub(r"( ms for) \S+$", r"\1 FILE", line)
    line = re.sub(r"(slowest imports:).*", lambda found: f"{found[1]} {found[0].count(',') + 1} OF THEM", line)
    line = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", line)
    line = re.sub(r"\b1 request,", "1 requests,", line)
    return re.sub(r"\d+(\.\d+)?", "N", line)


def test_examples_in_text(tmp_path: Path, target: Path, slow: dict[str, str]) -> None:
    archive = tmp_path / "a.tar.zst"
    pack_tree(archive, write_tree(tmp_path / "tree", {f"{number}": os.urandom(9000).hex() for number in range(9)}))
    command = wrapper("--archive", archive, "--target", target, "--workers", 2, "--", "true")
    written = [run(command).stderr, run(command).stderr]
    other = target.with_name("other")
    waiting = wrapper("--archive", archive, "--target", other, "--", "true")
    first = start(waiting, {**slow, "STALLED": "publish"})
    wait_for((tmp_path / "started").exists, "the first start", first)
    second = start(waiting)
    wait_for(lambda: is_waiting(second.pid, other.with_name(".other.unpackenv.lock")), "the second to wait", second)
    Path(slow["GO"]).touch()
    written.append(without_notices(second.communicate(timeout=PATIENCE)[1]))
    first.communicate(timeout=PATIENCE)
    behind = target.with_name("behind")
    written.append(run(wrapper("--archive", archive, "--digest", "0" * 64, "--", "true")).stderr)
    written += lines_of_fills(tmp_path, archive, behind)
    remote = target.with_name("remote")
    written += lines_by_url(tmp_path, remote)
    (code,) = (block for block in fenced("python") if "mark" in block)
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_IMPORTS=3)
    written += python(code, env).stderr.splitlines(keepends=True)[1:]
    targets = {str(path): "TARGET" for path in (other, behind, remote, target)}
    known = {**targets, str(archive): "ARCHIVE"}
    shapes = [shape(line.rstrip("\n"), known) for line in written]
    assert shapes == [shape(line, {}) for block in fenced("text") for line in block.splitlines()]


def lines_of_fills(folder: Path, archive: Path, target: Path) -> list[str]:
    """Return what starts say whose files are filled behind them: the first, one that joins, and one that is killed."""
    held = Held(folder / "first", archive, target)
    opens = f"for n in 1 2; do cat {target}/$n > /dev/null & done; sleep 1200"
    first = held.named("sh", "-c", opens, UNPACKENV_WORKERS=2)
    second = held.start("true")
    joined = without_notices(second.communicate(timeout=PATIENCE)[1])
    for name in ("1", "2"):
        wait_for(lambda: is_awaited(target / name), "the opens", first)  # noqa: B023
    held.go()
    wait_for(lambda: held.lines("filled"), "the fill", first)
    held.kill_all()
    named, filled = without_notices(held.said[0]).splitlines()
    shutil.rmtree(target)
    held = Held(folder / "again", archive, target)
    third = held.named("sleep", 1200, FAILS="yes")
    held.go()
    killed = third.communicate(timeout=PATIENCE)[1].splitlines()[-1]
    held.kill_all()
    return [named, joined, filled, killed]


def lines_by_url(folder: Path, target: Path) -> list[str]:
    """Return what starts say of an archive that is fetched: one that unpacks it, and one whose files come later."""
    tree = write_tree(folder / "far", {f"{number}": os.urandom(150_000).hex() for number in range(9)})
    digest = pack_tree(folder / "far.tar.zst", tree)
    with serving((folder / "far.tar.zst").read_bytes()) as server:
        url = f"{server.url}/far.tar.zst#sha256={digest}"
        unpacked = run(wrapper("--archive", url, "--target", target, "--workers", 2, "--", "true")).stderr
        shutil.rmtree(target)
        held = Held(folder / "fetching", url, target)
        process = held.named("sleep", 1200, UNPACKENV_WORKERS=2)
        held.go()
        wait_for(lambda: held.lines("filled"), "the fill", process)
        held.kill_all()
    return [unpacked, *without_notices(held.said[0]).splitlines()]


@pytest.mark.parametrize("name", ["log", "log_file", "imports", "trace"])
def test_settings_are_there(name: str) -> None:
    assert f"`UNPACKENV_{name.upper()}=" in DOCUMENT
    assert f"`UNPACKENV_{name.upper()}`" in (PROJECT / "docs/reference.md").read_text()
