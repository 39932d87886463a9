"""Every part of the benchmark runs on a small tree: its output, and the files that it keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cache
import connections
import measure
import peers
from parts import PARTS, common, fill, fleet, log, remote, steps, warm
from rig import freshfs
from rig.environment import environment
from rig.sites import write_tree
from workload import Workload

pytestmark = pytest.mark.slow  # half a minute, all parts together; no benchmark runs on another Python than the default

SITE = {f"package{number % 5}/module{number}.py": f"VALUE = {number}\n" * 50 for number in range(60)}
APP = """
import os, sys
if os.environ.get("RENDERER_BOOTSTRAP"):
    import unpackenv
    unpackenv.bootstrap()
import package1.module1
open(sys.argv[1], "wb").write(b"\\xff\\xd8\\xff")
"""
# The others are about certain packages: installed ones, or a tree that takes long to make.
ON_ANY_TREE = [name for name in PARTS if name not in ("workloads", "memory", "imports")]


def _unavailable() -> Workload:
    raise cache.Unavailable("not here")


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """A small tree for the interpreter that runs the tests, and only peers that are programs."""
    for module in (log, remote, steps, warm):
        monkeypatch.setattr(module, "LEAST_ROUNDS", 2)
    # An application that draws nothing, and no science stack.
    monkeypatch.setattr(fill, "LEAST_WARM_ROUNDS", 2)
    monkeypatch.setattr(fill, "_BYTECODE", ("--bytecode", "keep"))  # the tree has none
    monkeypatch.setattr(fill, "IMPORTS", "import package0.module0")
    monkeypatch.setattr(fleet, "RANKS", 4)
    monkeypatch.setattr(fill, "APP", write_tree(tmp_path / "app", {"app.py": APP}) / "app.py")
    monkeypatch.setattr(fill.workload, "science", _unavailable)
    for module in (cache, sys.modules["workload"]):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    # That of the whole machine would be empty.
    monkeypatch.setattr(measure, "can_drop_caches", lambda: False)
    monkeypatch.setattr(peers, "PEERS", [peer for peer in peers.PEERS if peer.name in peers.MAIN])
    made = Workload("test", "a small tree", sys.executable, lambda place: write_tree(place, SITE))
    made.env = environment()
    return made


@pytest.mark.parametrize("name", ON_ANY_TREE)
def test_a_part_runs(workload: Workload, name: str) -> None:
    part = PARTS[name](workload, common.Options(1, freshfs.choose("auto")))
    assert all(part.text)
    assert json.dumps(part.data)
    assert all(isinstance(claim.verdict, str) for claim in part.claims)
    for table in (text for text in part.text if text.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_lines_of_any_kind_are_compared(workload: Workload) -> None:
    lines = [(1.0, 0.1), (0.0, 10.0)]
    options = common.Options(1, freshfs.choose("auto"))
    text = connections.measured(workload, workload.zstd, lines, options, slow_start=True)
    *_, header, _, local, first, second = text.splitlines()
    assert len({line.count("|") for line in (header, local, first, second)}) == 1
    assert first.startswith("| 1 | 0.1 | 0.00")


def test_what_unpackenv_takes_is_never_left_out(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    options = common.Options(1, freshfs.choose("auto"))
    workload.packed().path.write_bytes(b"no archive")
    with pytest.raises(measure.Failed, match="unpackenv, zstd"):
        PARTS["cold"](workload, options)
