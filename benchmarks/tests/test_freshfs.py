"""A fresh file system for every sample: a real one of each kind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rig import freshfs
from rig.freshfs import FileSystem

TYPES = {"ext4": "ext4", "tmpfs": "tmpfs", "xfs": "xfs", "overlayfs": "overlay", "overlayfs-merged": "overlay"}


@pytest.fixture(params=[kind for kind in freshfs.KINDS if kind.name in TYPES], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> FileSystem:
    """A file system that is mounted."""
    found: FileSystem = request.param
    problem = found.problem()
    assert "busy" not in problem  # it was made, and not unmounted
    return pytest.skip(f"{found.name} cannot be mounted here: {problem}") if problem else found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "package" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "package" / "sub" / "module.py").write_text("VALUE = 1\n")
    return tmp_path / "tree"


def test_it_is_what_it_says_and_nothing_of_it_is_left(kind: FileSystem, tree: Path) -> None:
    for _ in range(2):
        with kind.fresh(tree) as directory:
            assert _type_of(directory) == TYPES[kind.name]
            assert not [path for path in directory.rglob("*") if not path.is_dir()]
            (directory / "file").write_text("of the last sample")
    assert not os.path.lexists(directory)
    assert str(directory.parent) not in Path("/proc/self/mounts").read_text()


def test_only_a_merged_directory_belongs_to_a_lower_layer(kind: FileSystem, tree: Path) -> None:
    with kind.fresh(tree) as directory:
        found = [str(path.relative_to(directory)) for path in directory.rglob("*")]
        assert sorted(found) == (["package", "package/sub"] if kind.is_merged else [])
        if kind.is_merged:
            lower = directory.parents[1] / "mount" / "lower" / "target" / "package" / "sub"
            upper = directory.parents[1] / "mount" / "upper" / "target"
            assert lower.is_dir()
            assert not upper.exists()
            (directory / "package" / "sub" / "module.py").touch()
            assert (upper / "package" / "sub" / "module.py").exists()
            assert not (lower / "module.py").exists()


def test_a_kind_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    def make(work: Path, _: Path | None) -> None:
        subprocess.run(["sh", "-c", "echo 'no loop devices' >&2; exit 1"], check=True, capture_output=True)

    assert FileSystem("bad", "", "", make).problem() == "no loop devices"  # type: ignore[arg-type]


def _type_of(directory: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next(mount[2] for mount in mounts if mount[1] == str(directory.parent))
