"""`verify_archive`: TOC, tar stream, facts and container agree."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.support import CODECS, MTIME, file_input
from rig.sites import members_of, pack
from unpackenv.archive import codecs, facts, frames, tarstream
from unpackenv.archive.reader import open_archive
from unpackenv.archive.tarstream import BLOCK, DIRECTORY, FILE, HARD_LINK, SYMLINK
from unpackenv.archive.toc import Toc
from unpackenv.archive.verify import verify_archive
from unpackenv.archive.writer import Input
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, DigestMismatch

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


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_on_threads(packed: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Where a limit on processes is reached, those do that there are, or the caller alone."""
    start = threading.Thread.start
    begun: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if len(begun) == limit:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert verify_archive(str(packed)).frames > 5
    assert len(begun) == limit


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
        for number, _ in enumerate(frames.decoded(archive)):
            assert len(begun) <= number + frames._WINDOW


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
    encoding = codecs.get(codec)
    make, columns = encoding.encoder, []

    def encoder(level: int, frame_size: int) -> Callable[[bytes], bytes]:
        encode = make(level, frame_size)
        return encode if columns else lambda raw: encode(raw) + encode(hidden)

    def encode_columns(raw: bytes) -> bytes:
        columns.append(raw)
        return type(encoding).encode_columns(encoding, raw)

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "encoder", encoder)
        patch.setattr(encoding, "encode_columns", encode_columns)
        pack(path, members, codec)
    with pytest.raises(ArchiveCorrupt):
        verify_archive(str(path))


def test_an_xz_index_that_only_stock_xz_refuses(
    members: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts a block's padding as data: rounded up, the sizes fit the TOC."""
    path = tmp_path / "index"
    xz = codecs.get("xz")
    unpadded_size = xz.unpadded_size
    with monkeypatch.context() as patch:
        patch.setattr(xz, "unpadded_size", lambda frame: -(-unpadded_size(frame) // 4) * 4)
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
