"""Generated trees: the same each time, and of the promised size."""

from __future__ import annotations

from pathlib import Path

import pytest

import trees


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_small_files_are_as_many_as_promised_and_small(tmp_path: Path) -> None:
    trees.small_files(tmp_path, 3_000)
    sizes = [len(content) for content in contents(tmp_path).values()]
    assert len(sizes) == 3_000
    assert 200 < sum(sizes) / len(sizes) < 4096
    assert max(sizes) < 1 << 14
    assert len(set(contents(tmp_path).values())) > 2_600  # a tenth is empty, as __init__.py often is


def test_big_files_have_their_size_and_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "a.so").write_bytes(bytes(range(256)) * 10_000)
    (libraries / "b.so.1").write_bytes(b"machine code")
    (libraries / "c.py").write_bytes(b"no library")
    trees.big_files(tmp_path, libraries, 3, 4_000_000)
    files = contents(tmp_path / "big")
    assert [len(files[name]) for name in sorted(files)] == [4_000_000] * 3
    endless = (bytes(range(256)) * 10_000 + b"machine code") * 5
    assert b"".join(files[name] for name in sorted(files)) == endless[:12_000_000]


@pytest.mark.parametrize("make", [lambda at: trees.small_files(at, 500), lambda at: trees.one_file(at, 2)])
def test_they_are_the_same_each_time(tmp_path: Path, make: object) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make(tmp_path / name)  # type: ignore[operator]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
