"""`scan`: every member of a tree, in order."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.support import make
from unpackenv.errors import PackError, SettingError
from unpackenv.pack import scan, source
from unpackenv.pack.entries import Entry, Tree

VERSION = f"3.{sys.version_info.minor}"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LIB = f"lib/python{VERSION}/site-packages"


def scanned(root: Path, exclude: Sequence[str] = ()) -> dict[str, Entry]:
    return {entry.path: entry for entry in scan.scan(source.recognise(str(root)), exclude).entries}


def test_order_is_that_of_names(tmp_path: Path) -> None:
    make(tmp_path, "b.py", "a/z.py", "a/sub/x.py", "a-b/y.py", "a.py", "c/", "B.py")
    assert list(scanned(tmp_path)) == [
        "B.py", "a.py", "b.py", "a", "a/z.py", "a/sub", "a/sub/x.py", "a-b", "a-b/y.py", "c",
    ]  # fmt: skip


def test_order_is_that_of_bytes(tmp_path: Path) -> None:
    names = [b"\xff", b"\xc3\xa9", b"z", b"\xf0\x9f\x90\x8d"]
    for name in names:
        open(os.path.join(os.fsencode(tmp_path), name), "w").close()
    assert [os.fsencode(path) for path in scanned(tmp_path)] == sorted(names)


def test_in_order_puts_parents_before_their_members() -> None:
    paths = {"a": "dir", "a/b": "dir", "a/b/c": "file", "a.py": "file", "a/z": "symlink"}
    entries = [Entry(path, kind, 0, 0) for path, kind in sorted(paths.items(), reverse=True)]
    assert [entry.path for entry in scan.in_order(entries)] == ["a.py", "a", "a/z", "a/b", "a/b/c"]


def test_every_kind_of_entry_is_found(tmp_path: Path) -> None:
    make(tmp_path, "package/data", data="12345")
    (tmp_path / "package/link").symlink_to("../nowhere")
    (tmp_path / "package/data").chmod(0o6750)
    (tmp_path / "package").chmod(0o1770)
    os.utime(tmp_path / "package/data", ns=(0, 1_600_000_000_999_999_999))
    entries = scanned(tmp_path)
    assert entries["package/data"] == ("package/data", "file", 0o750, 1_600_000_000, 5, "")
    assert entries["package"][1:3] == ("dir", 0o770)
    assert entries["package"].size == 0
    assert (entries["package/link"].kind, entries["package/link"].link) == ("symlink", "../nowhere")


def test_root_is_described_but_no_entry(tmp_path: Path) -> None:
    os.utime(tmp_path, (0, 1_500_000_000))
    assert scan.scan(source.recognise(str(tmp_path))) == Tree((), 1_500_000_000)


def test_mtimes_before_1970_are_rounded_down(tmp_path: Path) -> None:
    os.utime(make(tmp_path, "old") / "old", ns=(0, -500_000_000))
    assert scanned(tmp_path)["old"].mtime == -1


def test_source_date_epoch_is_the_latest_mtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "old", "new")
    os.utime(tmp_path / "old", (0, 1_000_000_000))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    tree = scan.scan(source.recognise(str(tmp_path)))
    assert {entry.path: entry.mtime for entry in tree.entries} == {"old": 1_000_000_000, "new": 1_500_000_000}
    assert tree.root_mtime == 1_500_000_000


def test_source_date_epoch_has_to_be_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SettingError, match="'yesterday' is not a number"):
        scanned(tmp_path)


def hard_linked(root: Path) -> Path:
    make(root, "b/first", data="data")
    os.link(root / "b/first", root / "b/second")
    os.link(root / "b/first", root / "c")
    return root


def test_hard_links_follow_their_first_name_in_order(tmp_path: Path) -> None:
    entries = scanned(hard_linked(tmp_path))
    assert {path: (entry.kind, entry.size, entry.link) for path, entry in entries.items()} == {
        "c": ("file", 4, ""),
        "b": ("dir", 0, ""),
        "b/first": ("hardlink", 0, "c"),
        "b/second": ("hardlink", 0, "c"),
    }


def test_hard_link_whose_other_name_is_outside_is_a_file(tmp_path: Path) -> None:
    hard_linked(tmp_path)
    make(tmp_path / "b", "other/")
    os.rename(tmp_path / "b/second", tmp_path / "b/other/second")
    assert scanned(tmp_path / "b/other")["second"].kind == "file"


def test_symlink_with_two_names_is_two_symlinks(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    os.link(tmp_path / "a", tmp_path / "b", follow_symlinks=False)
    assert [entry.kind for entry in scanned(tmp_path).values()] == ["symlink", "symlink"]


@pytest.mark.parametrize("how", ["scan", "without"])
def test_next_name_is_the_file_when_the_first_is_left_out(tmp_path: Path, how: str) -> None:
    hard_linked(tmp_path)
    if how == "scan":
        entries = scanned(tmp_path, ["c"])
    else:
        entries = {entry.path: entry for entry in scan.without(scanned(tmp_path).values(), {"c"})}
    assert list(entries) == ["b", "b/first", "b/second"]
    assert (entries["b/first"].kind, entries["b/first"].size, entries["b/first"].link) == ("file", 4, "")
    assert (entries["b/second"].kind, entries["b/second"].link) == ("hardlink", "b/first")


@pytest.mark.parametrize(
    ("glob", "left"),
    [
        ("tests", "pandas/a.pyi pandas/b.py"),
        ("tests/", "pandas/a.pyi pandas/b.py"),
        ("pandas/tests", "pandas/a.pyi pandas/b.py tests/y.py"),
        ("*.pyi", "pandas/b.py pandas/tests/x.py tests/y.py"),
        ("pandas/*.py", "pandas/a.pyi tests/y.py"),
        ("[ab].*", "pandas/tests/x.py tests/y.py"),
        ("pandas", "tests/y.py"),
        ("PANDAS", "pandas/a.pyi pandas/b.py pandas/tests/x.py tests/y.py"),
    ],
)
@pytest.mark.parametrize("inner", ["", f"{LIB}/"])
def test_a_pattern_leaves_out_what_it_matches(tmp_path: Path, glob: str, left: str, inner: str) -> None:
    make(tmp_path, *(inner + path for path in ("pandas/a.pyi", "pandas/b.py", "pandas/tests/x.py", "tests/y.py")))
    files = [path for path, entry in scanned(tmp_path, ["unused", glob]).items() if entry.kind == "file"]
    assert files == [inner + path for path in left.split()]


def test_globs_that_match_nothing_are_told(tmp_path: Path) -> None:
    make(tmp_path, "pandas/tests/x.py", "tests/y.py")
    found = scan.scan(source.recognise(str(tmp_path)), ["test", "tests", "pandas/tests", "*.py", "*.pyi"])
    assert found.unused == ("test", "*.py", "*.pyi")  # all of the *.py are in what "tests" drops


def test_excluded_directory_is_gone_itself(tmp_path: Path) -> None:
    assert list(scanned(make(tmp_path, "a/tests/x.py"), ["tests"])) == ["a"]


def test_what_unpackenv_keeps_at_a_root_is_not_packed(tmp_path: Path) -> None:
    make(tmp_path, ".unpackenv.stamp", ".unpackenv.lock", ".unpackenv.work-1/x", ".unpackenvrc", "sub/.unpackenv.stamp")
    assert list(scanned(tmp_path)) == [".unpackenvrc", "sub", "sub/.unpackenv.stamp"]


def test_special_files_are_refused_unless_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, other in (("pipe", "socket"), ("socket", "pipe")):
            with pytest.raises(PackError, match="is a socket, FIFO or device") as caught:
                scanned(tmp_path, [other])
            assert caught.value.where == str(tmp_path / name)
        assert scanned(tmp_path, ["pipe", "socket"]) == {}


def test_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "open", "sealed")
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("sealed"))  # root may read everything
    with pytest.raises(PackError, match="cannot be read") as caught:
        scanned(tmp_path)
    assert caught.value.where == str(tmp_path / "sealed")


def test_directory_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = source.recognise(str(make(tmp_path, "sealed/x")))

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PackError, match="cannot be read") as caught:
        scan.scan(described)
    assert caught.value.where.rstrip("/") == str(tmp_path)


def test_only_the_output_itself_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "package/data.tar.zst", "data.tar.zst")
    found = scan.scan(source.recognise(str(tmp_path)), (), str(tmp_path / "data.tar.zst"))
    assert [entry.path for entry in found.entries] == ["package", "package/data.tar.zst"]
