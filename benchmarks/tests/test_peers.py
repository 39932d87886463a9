"""The alternatives: each unpacks its tree, or says why it is missing here."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

import cache
import measure
import peers
from workload import Workload

# What takes no more than a program; the launchers need their packages and the renderer's wheels.
TOOLS = [
    peer for peer in peers.PEERS if peer.name.split()[0] in ("tar", "bsdtar", "cp", "unsquashfs", "unzip", "python")
]


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """A small tree, whose archives are made in a cache of its own."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")

    def make(place: Path) -> None:
        (place / "package" / "sub").mkdir(parents=True)
        (place / "package" / "__init__.py").write_text("VALUE = 1\n")
        (place / "package" / "sub" / "data.bin").write_bytes(bytes(range(256)) * 1000)
        (place / "top.py").touch()

    return Workload("test", "a small tree", sys.executable, make)


@pytest.mark.parametrize("peer", TOOLS, ids=[peer.name for peer in TOOLS])
def test_a_peer_unpacks_the_tree(tmp_path: Path, workload: Workload, peer: peers.Peer) -> None:
    found, missing = peers.commands(workload, [peer.name])
    if missing:
        pytest.skip(missing[peer.name])
    (tmp_path / "target").mkdir()
    measure.run(found[0], tmp_path / "target")
    assert found[0].reads.exists()
    # A tar has the name of the directory that was packed.
    assert _files(tmp_path / "target" / ("site-packages" if "tar" in peer.name else "")) == _files(workload.tree)


def test_what_is_missing_is_left_out_with_the_reason(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = workload.tree
    monkeypatch.setenv("PATH", "/nowhere")
    found, missing = peers.commands(workload, [peers.UNSQUASHFS, peers.TAR_XZ, "unzip", "pex"])
    assert not found
    assert missing == {
        peers.UNSQUASHFS: "mksquashfs, unsquashfs is not installed",
        peers.TAR_XZ: "tar is not installed",
        "unzip": "unzip is not installed",
        "pex": "there are no wheels of test",
    }


def test_the_peers_that_others_are_compared_with_are_there() -> None:
    names = [peer.name for peer in peers.PEERS]
    assert set(peers.MAIN) <= set(names)
    assert len(set(names)) == len(names)


def test_a_tool_that_fails_leaves_no_archive(workload: Workload, tmp_path: Path) -> None:
    def make(place: Path) -> None:
        place.write_text("half of it")
        cache.execute([sys.executable, "-c", "raise SystemExit('disk full')"])

    with pytest.raises(cache.Unavailable, match="disk full"):
        cache.once("archive", make)
    assert not (tmp_path / "cache" / "archive").exists()
    assert cache.once("archive", lambda place: place.write_text("all of it")).read_text() == "all of it"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["archive"]


def _files(root: Path) -> dict[Path, str]:
    return {
        path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
