"""`verify_archive`: TOC, tar stream, facts and container say the same. `compare_tree`: so does a tree."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import CODECS, MTIME, describe, file_input, make_tree, members_of, pack, stock_unpack
from unpackenv.archive import codecs, container, facts, tarstream, verify
from unpackenv.archive.reader import open_archive
from unpackenv.archive.tarstream import BLOCK, DIRECTORY, FILE, HARD_LINK, SYMLINK
from unpackenv.archive.toc import Toc
from unpackenv.archive.verify import Difference, compare_tree, verify_archive
from unpackenv.archive.writer import Input
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, DigestMismatch, TreeMismatch

TAG = sys.implementation.cache_tag
honest = tarstream.header


@pytest.fixture
def members(tmp_path: Path) -> list[Input]:
    folder = tmp_path / "sources"
    folder.mkdir()
    return [
        Input(DIRECTORY, b"d", 0o755, MTIME),
        file_input(folder, b"d/f", b"content"),
        file_input(folder, b"d/g", b"g" * 3000),
        Input(SYMLINK, b"s", 0o777, MTIME, link=b"d/f"),
        Input(HARD_LINK, b"h", 0o644, MTIME, link=b"d/f"),
        file_input(folder, b"z", b""),
    ]


# --- sound ones ---


def test_a_sound_archive(tree: Path, packed: Path, codec: str) -> None:
    members = members_of(tree)
    progress: list[int] = []
    checked = verify_archive(str(packed), on_progress=progress.append)
    assert checked.members == len(members)
    assert checked.files == sum(member.kind == FILE for member in members)
    assert checked.unpacked_size == sum(member.size for member in members)
    assert len(progress) == checked.frames > 5
    assert progress == sorted(progress)
    assert verify_archive(str(packed), checked.digest) == checked
    with pytest.raises(DigestMismatch):
        verify_archive(str(packed), "0" * 64)


def test_only_a_few_frames_are_held_at_once(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    with open_archive(str(packed)) as archive:
        read_frame = archive.read_frame
        monkeypatch.setattr(archive, "read_frame", lambda number: (begun.append(number), read_frame(number))[1])
        for number, _ in enumerate(verify._decoded(archive)):
            assert len(begun) <= number + verify._WINDOW


# --- archives in which tar headers say something else than the TOC ---

Header = Callable[..., bytes]


def lie(**changes: object) -> Header:
    """A header that says of `d/f` something else."""

    def header(kind: str, path: bytes, mode: int, mtime: int, size: int = 0, link: bytes = b"") -> bytes:
        said = {"kind": kind, "path": path, "mode": mode, "mtime": mtime, "size": size, "link": link}
        return honest(**{**said, **(changes if path == b"d/f" else {})})  # type: ignore[arg-type]

    return header


def lie_of(subject: bytes, **changes: object) -> Header:
    def header(kind: str, path: bytes, mode: int, mtime: int, size: int = 0, link: bytes = b"") -> bytes:
        said = {"kind": kind, "path": path, "mode": mode, "mtime": mtime, "size": size, "link": link}
        return honest(**{**said, **(changes if path == subject else {})})  # type: ignore[arg-type]

    return header


def before(subject: bytes, what: bytes) -> Header:
    """Something in the stream before the header of `subject`."""

    def header(kind: str, path: bytes, *rest: object) -> bytes:
        return (what if path == subject else b"") + honest(kind, path, *rest)  # type: ignore[arg-type]

    return header


def without(subject: bytes) -> Header:
    def header(kind: str, path: bytes, *rest: object) -> bytes:
        return b"" if path == subject else honest(kind, path, *rest)  # type: ignore[arg-type]

    return header


def hard_link_first(kind: str, path: bytes, *rest: object) -> bytes:
    if path == b"h":
        return b""
    early = honest(HARD_LINK, b"h", 0o644, MTIME, 0, b"d/f") if path == b"d/f" else b""
    return early + honest(kind, path, *rest)  # type: ignore[arg-type]


def special(typeflag: bytes) -> bytes:
    header = bytearray(honest(FILE, b"device", 0o644, MTIME))
    header[156:157] = typeflag
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


LIES = {
    "path": (lie(path=b"d/F"), "path 'd/f', its tar header 'd/F'"),
    "path above": (lie(path=b"../f"), "tar header '../f'"),
    "absolute path": (lie(path=b"/d/f"), "tar header '/d/f'"),
    "mode": (lie(mode=0o755), "mode 420, its tar header 493"),
    "set-user-id": (lie(mode=0o4644), "mode 420, its tar header 2468"),
    "mtime": (lie(mtime=MTIME + 1), "d/f: its table of contents says mtime"),
    "size": (lie(size=6), "size 7, its tar header 6"),
    "kind": (lie_of(b"z", kind=DIRECTORY), "z: its tar stream has a directory that its table of contents does not"),
    "directory's path": (lie_of(b"d", path=b"D"), "path 'd', its tar header 'D'"),
    "directory's mode": (lie_of(b"d", mode=0o777), "d: .* mode"),
    "directory's mtime": (lie_of(b"d", mtime=0), "d: .* mtime"),
    "symlink's path": (lie_of(b"s", path=b"t"), "s: .* path"),
    "symlink's target": (lie_of(b"s", link=b"/etc/passwd"), "link 'd/f', its tar header '/etc/passwd'"),
    "symlink's mtime": (lie_of(b"s", mtime=7), "s: .* mtime"),
    "hard link's path": (lie_of(b"h", path=b"i"), "h: .* path"),
    "hard link's file": (lie_of(b"h", link=b"d/g"), "link 'd/f', its tar header 'd/g'"),
    "hard link's mode": (lie_of(b"h", mode=0o666), "h: .* mode"),
    "hard link's mtime": (lie_of(b"h", mtime=1), "h: .* mtime"),
    "hard link before its file": (hard_link_first, "h: a hard link comes before the file"),
    "missing directory": (without(b"d"), "d: .* lists a directory"),
    "missing empty file": (without(b"z"), "z: .* lists a file"),
    "missing symlink": (without(b"s"), "s: .* lists a symlink"),
    "missing hard link": (without(b"h"), "h: .* lists a hard link"),
    "extra directory": (before(b"z", honest(DIRECTORY, b"extra", 0o755, 0)), "extra: .* does not list"),
    "extra file": (before(b"z", honest(FILE, b"extra", 0o644, MTIME)), "z: .* path 'z', its tar header 'extra'"),
    "extra symlink": (before(b"z", honest(SYMLINK, b"extra", 0o777, 0, 0, b"x")), "extra: .* does not list"),
    "extra hard link": (before(b"z", honest(HARD_LINK, b"extra", 0o644, 0, 0, b"d/f")), "extra: .* does not list"),
    "end in the middle": (before(b"z", bytes(BLOCK)), "z: .* lists a file"),
    "wrong checksum": (before(b"z", b"x" * BLOCK), "wrong checksum|malformed"),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("header", "message"), LIES.values(), ids=LIES.keys())
def test_a_tar_header_that_says_something_else(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, header: Header, message: str
) -> None:
    path = tmp_path / "lying"
    with monkeypatch.context() as patch:
        patch.setattr(tarstream, "header", header)
        pack(path, members, codec, frame_size=2000)
    open_archive(str(path)).close()  # the TOC itself is sound
    with pytest.raises(ArchiveCorrupt, match=message) as caught:
        verify_archive(str(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("typeflag", [b"3", b"4", b"6"])
def test_a_device_in_the_stream(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typeflag: bytes
) -> None:
    path = tmp_path / "device"
    monkeypatch.setattr(tarstream, "header", before(b"z", special(typeflag)))
    pack(path, members)
    with pytest.raises(ArchiveUnsafe, match="never unpacked") as caught:
        verify_archive(str(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "end", [bytes(1536), bytes(10240), bytes(1023) + b"x", bytes(1024) + b"x" * 512, bytes(512) + b"x" * 512], ids=len
)
def test_a_stream_that_ends_in_something_else(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, end: bytes
) -> None:
    path = tmp_path / "end"
    with monkeypatch.context() as patch:
        patch.setattr(tarstream, "END_OF_ARCHIVE", end)
        pack(path, members, codec)
    with pytest.raises(ArchiveCorrupt, match="two blocks of zeros"):
        verify_archive(str(path))


def test_two_members_with_one_path(members: list[Input], tmp_path: Path, codec: str) -> None:
    path = tmp_path / "twice"
    pack(path, [*members, members[-1]], codec)
    with pytest.raises(ArchiveUnsafe, match="one path") as caught:
        verify_archive(str(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("key", ["codec", "frames", "files", "members", "unpacked-size"])
@pytest.mark.parametrize("value", [["7777"], []])
def test_facts_that_count_otherwise(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, key: str, value: list[str]
) -> None:
    path = tmp_path / "facts"
    encode = facts.encode
    with monkeypatch.context() as patch:
        patch.setattr(facts, "encode", lambda some: encode({**some, key: value}))
        pack(path, members, codec)
    with pytest.raises(ArchiveCorrupt, match=f"facts say {key}="):
        verify_archive(str(path))


@pytest.mark.parametrize("hidden", [b"hidden", b""], ids=["data", "empty"])
def test_something_hidden_behind_a_frame(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, hidden: bytes
) -> None:
    """A start decodes what the TOC announces; stock tools decode everything."""
    path = tmp_path / "hidden"
    make = codecs.encoder

    def encoder(codec: str, level: int, frame_size: int) -> Callable[[bytes], bytes]:
        encode = make(codec, level, frame_size)
        return lambda raw: encode(raw) + encode(hidden)

    with monkeypatch.context() as patch:
        patch.setattr(codecs, "encoder", encoder)
        patch.setattr(codecs, "encode_columns", lambda codec, raw: make_columns(codec, raw, make))
        pack(path, members, codec)
    with pytest.raises(ArchiveCorrupt):
        verify_archive(str(path))


def test_an_xz_index_that_only_stock_xz_refuses(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts a block's padding as data: rounded up, the sizes fit the TOC."""
    path = tmp_path / "index"
    unpadded_size = container.unpadded_size
    with monkeypatch.context() as patch:
        patch.setattr(container, "unpadded_size", lambda codec, frame: -(-unpadded_size(codec, frame) // 4) * 4)
        pack(path, members, "xz", frame_size=600)
    assert subprocess.run(["xz", "-tq", path], capture_output=True).returncode == 1
    open_archive(str(path)).close()
    with pytest.raises(ArchiveCorrupt, match="end elsewhere"):
        verify_archive(str(path))


@pytest.mark.parametrize(
    ("column", "row", "by"),
    [
        ("file_position", 0, 1),
        ("file_position", 2, -1),
        ("file_size", 1, -1),
        ("file_mode", 0, 1),
        ("file_mtime", 2, -1),
        ("dir_mode", 1, -1),
        ("dir_mtime", 1, 1),
        ("link_mtime", 0, 1),
        ("hard_file", 0, 1),
    ],
)
def test_a_table_of_contents_that_says_something_else(
    members: list[Input],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    column: str,
    row: int,
    by: int,
) -> None:
    path = tmp_path / "lying"
    encode = Toc.encode

    def lying(toc: Toc) -> bytes:
        getattr(toc, column)[row] += by
        return encode(toc)

    with monkeypatch.context() as patch:
        patch.setattr(Toc, "encode", lying)
        pack(path, members, codec)
    open_archive(str(path)).close()
    with pytest.raises(ArchiveCorrupt, match="its table of contents says"):
        verify_archive(str(path))


def make_columns(codec: str, raw: bytes, make: Callable[..., Callable[[bytes], bytes]]) -> bytes:
    if codec == "zstd":
        return make(codec, 19, len(raw))(raw)
    import lzma

    return lzma.compress(raw, check=lzma.CHECK_CRC32)


# --- trees ---


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
def test_valid_bytecode(site: Path, tmp_path: Path, mode: str, optimization: int) -> None:
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
