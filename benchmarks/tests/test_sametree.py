"""Two trees are the same only if every name, mode, time and byte is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sametree
from rig.sites import write_tree


def _change_a_byte(tree: Path) -> None:
    status = (tree / "package/one.py").stat()
    (tree / "package/one.py").write_text("ONE = 2\n")
    os.utime(tree / "package/one.py", (status.st_atime, status.st_mtime))


def _link_elsewhere(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("package")


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    one = write_tree(tmp_path / "one", {"package/one.py": "ONE = 1\n", "package/two.py": ""})
    (one / "link").symlink_to("package/one.py")
    shutil.copytree(one, tmp_path / "other", symlinks=True)
    return one, tmp_path / "other"


def test_trees_may_differ_in_what_unpackenv_keeps_and_in_empty_directories(trees: tuple[Path, Path]) -> None:
    (trees[1] / ".unpackenv.stamp").touch()
    (trees[1] / "package" / "locales").mkdir()
    assert sametree.differences(*trees) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_change_a_byte, "package/one.py: other bytes"),
        (_link_elsewhere, "link: another link"),
        (lambda tree: (tree / "package/two.py").chmod(0o600), "package/two.py: mode"),
        (lambda tree: os.utime(tree / "package/one.py", (1, 1)), "package/one.py: mode and time"),
        (lambda tree: (tree / "package/two.py").unlink(), "package/two.py: missing"),
        (lambda tree: (tree / "three.py").touch(), "three.py: one more"),
    ],
)
def test_every_other_difference_is_found(trees: tuple[Path, Path], change: Callable[[Path], object], says: str) -> None:
    change(trees[1])
    assert [line for line in sametree.differences(*trees) if line.startswith(says)]
