"""`compare_tree` finds every difference between a tree and its archive, and no other."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.support import MTIME, describe, make_tree, stock_unpack
from rig.sites import members_of, pack
from unpackenv.archive.compare import Difference, compare_tree
from unpackenv.archive.reader import open_archive
from unpackenv.errors import ArchiveCorrupt, TreeMismatch

TAG = sys.implementation.cache_tag


@pytest.fixture
def unpacked(packed: Path, codec: str, tmp_path: Path) -> Path:
    return stock_unpack(packed, codec, tmp_path / "unpacked")


def differences(packed: Path, root: Path, **options: object) -> list[Difference]:
    before = describe(root)
    with open_archive(str(packed)) as archive:
        found = compare_tree(archive, str(root), **options)  # type: ignore[arg-type]
    assert describe(root) == before
    return found


def test_a_tree_as_it_was_packed(tree: Path, packed: Path, unpacked: Path) -> None:
    assert differences(packed, unpacked) == []
    assert differences(packed, tree) == []
    (unpacked / ".unpackenv.stamp").write_text("ours")
    (unpacked / ".unpackenv.work").mkdir()
    (unpacked / ".unpackenv.work" / "file").write_text("ours")
    assert differences(packed, unpacked) == []


def flip(path: Path, at: int) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def resized(path: Path) -> None:
    os.truncate(path, 10)
    os.utime(path, (MTIME, MTIME))


NATIVE = "package/sub/native.so"
TREE_CHANGES: dict[str, tuple[Callable[[Path], object], list[tuple[str, str, str]]]] = {
    "file gone": (lambda root: (root / "old").unlink(), [("missing", "old", "a file")]),
    "symlink gone": (lambda root: (root / "dangling").unlink(), [("missing", "dangling", "a symlink")]),
    "directory gone": (
        lambda root: (root / "package/sub/empty").rmdir(),
        [("missing", "package/sub/empty", "a directory")],
    ),
    "first byte": (lambda root: flip(root / NATIVE, 0), [("altered", NATIVE, "content differs from byte 0 on")]),
    "a byte in the middle": (
        lambda root: flip(root / NATIVE, 54_321),
        [("altered", NATIVE, "content differs from byte 54321 on")],
    ),
    "last byte": (
        lambda root: flip(root / NATIVE, 99_999),
        [("altered", NATIVE, "content differs from byte 99999 on")],
    ),
    "two bytes in two frames": (
        lambda root: (flip(root / NATIVE, 5), flip(root / NATIVE, 90_000)),
        [("altered", NATIVE, "content differs from byte 5 on")],
    ),
    "size": (lambda root: resized(root / NATIVE), [("altered", NATIVE, "size is 10, was packed as 100000")]),
    "mode": (
        lambda root: (root / NATIVE).chmod(0o4755),
        [("altered", NATIVE, "mode is 4755, was packed as 0755")],
    ),
    "directory's mode": (
        lambda root: (root / "package").chmod(0o700),
        [("altered", "package", "mode is 0700, was packed as 0755")],
    ),
    "mtime": (
        lambda root: os.utime(root / "new", (1, 1)),
        [("altered", "new", f"mtime is 1, was packed as {1 << 33}")],
    ),
    "symlink's target": (
        lambda root: replace(root / "absolute", lambda path: path.symlink_to("/elsewhere")),
        [("altered", "absolute", "points to '/elsewhere', was packed to point to '/usr/bin/python3'")],
    ),
    "hard link is a copy": (
        lambda root: replace(
            root / "package/text-again", lambda path: shutil.copy2(path.parent / "sub/text.txt", path)
        ),
        [("altered", "package/text-again", "is no hard link of")],
    ),
    "file is a directory": (
        lambda root: replace(root / "old", Path.mkdir),
        [("altered", "old", "is a directory, was packed as a file")],
    ),
    "file is a link to its copy": (
        lambda root: (
            shutil.copy2(root / "old", root.parent / "copy"),
            replace(root / "old", lambda path: path.symlink_to(root.parent / "copy")),
        ),
        [("altered", "old", "is a symlink, was packed as a file")],
    ),
    "file is a FIFO": (
        lambda root: replace(root / "old", os.mkfifo),
        [("altered", "old", "is a special file, was packed as a file")],
    ),
    "symlink is a file": (
        lambda root: replace(root / "dangling", lambda path: path.write_text("x")),
        [("altered", "dangling", "is a file, was packed as a symlink")],
    ),
    "extra file": (lambda root: (root / "package/more.py").write_text("x"), [("extra", "package/more.py", "a file")]),
    "extra directory": (
        lambda root: ((root / "more").mkdir(), (root / "more/file").write_text("x")),
        [("extra", "more", "a directory"), ("extra", "more/file", "a file")],
    ),
    "extra symlink": (
        lambda root: (root / "package/up").symlink_to(".."),
        [("extra", "package/up", "a symlink")],
    ),
    "ours but not at the root": (
        lambda root: (root / "package/.unpackenv.stamp").write_text("x"),
        [("extra", "package/.unpackenv.stamp", "a file")],
    ),
}


@pytest.mark.parametrize(("change", "expected"), TREE_CHANGES.values(), ids=TREE_CHANGES.keys())
def test_a_change_of_a_tree_is_found(
    packed: Path, unpacked: Path, change: Callable[[Path], object], expected: list[tuple[str, str, str]]
) -> None:
    with open_archive(str(packed)) as archive:
        change(unpacked)
        found = compare_tree(archive, str(unpacked))
        assert [(kind, path) for kind, path, _ in found] == [(kind, path) for kind, path, _ in expected]
        assert all(detail.startswith(start) for (_, _, detail), (_, _, start) in zip(found, expected))
        kept = [one for one in found if one.kind != "extra"]
        assert compare_tree(archive, str(unpacked), extra=False) == kept


def test_a_directory_that_became_a_link_is_not_followed(packed: Path, unpacked: Path, tmp_path: Path) -> None:
    """Not even where all would be well behind it."""
    shutil.move(unpacked / "package", tmp_path / "elsewhere")
    (unpacked / "package").symlink_to(tmp_path / "elsewhere")
    found = differences(packed, unpacked)
    assert ("altered", "package") in [(one.kind, one.path) for one in found]
    assert ("missing", NATIVE) in [(one.kind, one.path) for one in found]
    assert not [one for one in found if one.kind == "extra"]


def test_a_file_that_may_not_be_read(packed: Path, unpacked: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (unpacked / "old").chmod(0)
    found = differences_only(packed, unpacked)
    assert [one.detail for one in found] == ["mode is 0000, was packed as 0644", "cannot be read (Permission denied)"]


def differences_only(packed: Path, root: Path) -> list[Difference]:
    with open_archive(str(packed)) as archive:
        return compare_tree(archive, str(root))


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_root_that_is_no_directory(packed: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TreeMismatch, match="not a directory"):
        differences_only(packed, tmp_path / name)


def test_a_damaged_frame_is_the_archive_s_fault(packed: Path, unpacked: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[2000] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    with pytest.raises(ArchiveCorrupt, match="damaged"):
        differences_only(tmp_path / "damaged", unpacked)


# --- bytecode ---


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "package").mkdir(parents=True)
    for name in ("module", "other"):
        source = root / "package" / f"{name}.py"
        source.write_text(f"NAME = {name!r}\n")
        os.utime(source, (MTIME, MTIME))
    return root


def compiled(site: Path, mode: str, optimization: int = -1) -> Path:
    source = site / "package" / "module.py"
    path = py_compile.compile(
        str(source),
        doraise=True,
        optimize=optimization,
        invalidation_mode=py_compile.PycInvalidationMode[mode],
    )
    return Path(str(path))


def bytecode_differences(site: Path, tmp_path: Path, **options: object) -> list[tuple[str, str]]:
    """Pack the tree as it is: then only bytecode can be wrong with it."""
    path = tmp_path / "site.tar"
    pack(path, members_of(site), facts={"python": [TAG]})
    found = differences(path, site, **options)
    assert all(one.kind == "bytecode" for one in found)
    return [(one.path, one.detail) for one in found]


MODES = ["TIMESTAMP", "CHECKED_HASH", "UNCHECKED_HASH"]


@pytest.mark.parametrize("optimization", [0, 1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_bytecode_of_any_mode_that_fits_is_no_difference(
    site: Path, tmp_path: Path, mode: str, optimization: int
) -> None:
    compiled(site, mode, optimization)
    assert bytecode_differences(site, tmp_path) == []


@pytest.mark.parametrize("optimization", [0, 2])
@pytest.mark.parametrize(
    ("mode", "detail"),
    [
        ("TIMESTAMP", "does not fit its source's mtime and size"),
        ("CHECKED_HASH", "does not fit its source's content"),
        ("UNCHECKED_HASH", ""),
    ],
)
def test_bytecode_of_a_source_that_changed(
    site: Path, tmp_path: Path, mode: str, detail: str, optimization: int
) -> None:
    path = compiled(site, mode, optimization)
    (site / "package" / "module.py").write_text("NAME = 'another'\n")
    expected = [(str(path.relative_to(site)), detail)] if detail else []
    assert bytecode_differences(site, tmp_path) == expected


def test_a_source_whose_mtime_was_not_restored(site: Path, tmp_path: Path) -> None:
    path = compiled(site, "TIMESTAMP")
    os.utime(site / "package" / "module.py", (MTIME + 1, MTIME + 1))
    assert [name for name, _ in bytecode_differences(site, tmp_path)] == [str(path.relative_to(site))]


def test_mtimes_beyond_32_bits_as_python_records_them(site: Path, tmp_path: Path) -> None:
    os.utime(site / "package" / "module.py", ((1 << 32) + 5, (1 << 32) + 5))
    path = compiled(site, "TIMESTAMP")
    assert path.read_bytes()[8:12] == struct.pack("<I", 5)
    assert bytecode_differences(site, tmp_path) == []


@pytest.mark.parametrize(
    ("offset", "field", "detail"),
    [
        (0, struct.pack("<HH", 1, 0x0A0D), "another version"),
        (4, struct.pack("<I", 2), "unknown flags"),
        (4, struct.pack("<I", 4), "unknown flags"),
        (8, struct.pack("<I", MTIME - 1), "mtime and size"),
        (12, struct.pack("<I", 99), "mtime and size"),
    ],
)
def test_headers_that_python_would_not_take(site: Path, tmp_path: Path, offset: int, field: bytes, detail: str) -> None:
    path = compiled(site, "TIMESTAMP")
    data = bytearray(path.read_bytes())
    data[offset : offset + len(field)] = field
    path.write_bytes(data)
    ((_, found),) = bytecode_differences(site, tmp_path)
    assert detail in found


@pytest.mark.parametrize("size", [0, 3, 15])
def test_bytecode_that_is_cut_off(site: Path, tmp_path: Path, size: int) -> None:
    os.truncate(compiled(site, "UNCHECKED_HASH"), size)
    assert [detail for _, detail in bytecode_differences(site, tmp_path)] == ["is cut off"]


def test_only_bytecode_of_the_interpreter_counts(site: Path, tmp_path: Path) -> None:
    path = compiled(site, "TIMESTAMP")
    path.rename(path.with_name("module.othertag-1.pyc"))
    (path.parent / "no-source.pyc").write_bytes(b"")
    (path.parent / f"gone.{TAG}.pyc").write_bytes(b"")
    (path.parent / f".{TAG}.pyc").write_bytes(b"")
    (site / "package" / "legacy.pyc").write_bytes(b"")
    assert bytecode_differences(site, tmp_path) == []
    os.utime(site / "package" / "module.py", (7, 7))
    assert bytecode_differences(site, tmp_path) == []
    assert len(bytecode_differences(site, tmp_path, cache_tag="othertag-1")) == 1


def test_a_checked_hash_of_another_interpreter_is_not_computed(site: Path, tmp_path: Path) -> None:
    path = compiled(site, "CHECKED_HASH")
    data = path.read_bytes()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    other = path.with_name("module.othertag-1.pyc")
    other.write_bytes(struct.pack("<HH", 1, 0x0A0D) + data[4:])
    (site / "package" / "module.py").write_text("NAME = 'another'\n")
    path.unlink()
    assert bytecode_differences(site, tmp_path, cache_tag="othertag-1") == []


def test_bytecode_that_appeared_later_is_extra_and_looked_at(site: Path, tmp_path: Path) -> None:
    archive = tmp_path / "site.tar"
    pack(archive, members_of(site), facts={"python": [TAG]})
    path = compiled(site, "TIMESTAMP").relative_to(site)
    found = differences(archive, site)
    assert found == [
        Difference("extra", "package/__pycache__", "a directory"),
        Difference("extra", str(path), "a file"),
    ]
    os.utime(site / "package" / "module.py", (7, 7))
    assert [(one.kind, one.path) for one in differences(archive, site, extra=False)] == [
        ("bytecode", str(path)),
        ("altered", "package/module.py"),
    ]


def test_odd_names_are_shown_as_python_has_them(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "odd")
    archive = tmp_path / "odd.tar"
    pack(archive, members_of(root))
    os.unlink(os.path.join(os.fsencode(root), b"odd", b"\xff\xfe not UTF-8"))
    assert [one.path for one in differences(archive, root)] == ["odd/\udcff\udcfe not UTF-8"]
