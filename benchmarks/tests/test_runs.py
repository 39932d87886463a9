"""Every part of the benchmark runs on a small tree: its output, and the files that it keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cache
import measure
import peers
from parts import PARTS, common, log, steps, warm
from rig import freshfs
from rig.environment import environment
from rig.sites import write_tree
from workload import Workload

pytestmark = pytest.mark.slow  # half a minute, all parts together; no benchmark runs on another Python than the default

SITE = {f"package{number % 5}/module{number}.py": f"VALUE = {number}\n" * 50 for number in range(60)}
# The others are about certain packages: installed ones, or a tree that takes long to make.
ON_ANY_TREE = [name for name in PARTS if name not in ("workloads", "memory", "imports")]


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """A small tree for the interpreter that runs the tests, and only peers that are programs."""
    for module in (log, steps, warm):
        monkeypatch.setattr(module, "LEAST_ROUNDS", 2)
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


def test_what_unpackenv_takes_is_never_left_out(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    options = common.Options(1, freshfs.choose("auto"))
    workload.packed().path.write_bytes(b"no archive")
    with pytest.raises(measure.Failed, match="unpackenv, zstd"):
        PARTS["cold"](workload, options)
