"""Native archives: stock tools and the reader unpack what was packed, whatever the settings."""

from __future__ import annotations

import lzma
import os
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.support import AFTER_FOOTER, CODECS, MTIME, TAR_FLAG, describe, file_input, stock_unpack
from rig.sites import members_of, pack
from unpackenv.archive import RESERVED, codecs, tarstream, trailer, writer
from unpackenv.archive import facts as facts_text
from unpackenv.archive.reader import Archive, open_archive
from unpackenv.archive.tarstream import DIRECTORY, FILE, SYMLINK
from unpackenv.archive.verify import verify_archive
from unpackenv.archive.writer import Input
from unpackenv.errors import (
    ArchiveCorrupt,
    ArchiveUnreadable,
    ArchiveUnsupported,
    DigestMismatch,
    PackError,
    UnpackenvError,
)

FRAME_SIZES = {"tiny": 700, "small": 20_000, "large": 1 << 24}


def tar_stream(archive: Archive) -> bytes:
    """Decode an archive frame by frame, as a start does."""
    decode = archive.decoder()
    out = []
    for number, size in enumerate(archive.toc.frame_raw):
        raw = bytearray(size)
        decode(archive.read_frame(number), memoryview(raw))
        out.append(bytes(raw))
    return b"".join(out)


# --- against stock tools ---


@pytest.mark.parametrize("frame_size", FRAME_SIZES.values(), ids=FRAME_SIZES.keys())
def test_stock_tar_unpacks_the_same_tree(tree: Path, tmp_path: Path, codec: str, frame_size: int) -> None:
    members = members_of(tree)
    paths = [tmp_path / f"{workers}.tar" for workers in (1, 3)]
    for workers, path in zip((1, 3), paths):
        pack(path, members, codec, frame_size=frame_size, workers=workers)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert describe(stock_unpack(paths[0], codec, tmp_path / "out")) == describe(tree)
    run = subprocess.run(["tar", TAR_FLAG[codec], "--quoting-style=literal", "-tf", paths[0]], capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout == b"".join(member.path + (b"/\n" if member.kind == DIRECTORY else b"\n") for member in members)


def test_stock_decompressors_accept_the_whole_file(packed: Path, codec: str) -> None:
    tool = {"zstd": "zstd", "xz": "xz"}[codec]
    data = packed.read_bytes()
    for options in (["-t"], ["-t", "-T1"], ["-t", "-T0"]):
        subprocess.run([tool, "-q", *options], input=data, check=True)
    stream = subprocess.run([tool, "-qdc"], input=data, capture_output=True, check=True).stdout
    with open_archive(str(packed)) as archive:
        frames = tar_stream(archive)
    assert stream.startswith(frames)
    assert codec == "xz" or stream == frames


def test_bsdtar_and_tarfile_list_the_members_and_no_more(tree: Path, packed: Path, codec: str) -> None:
    expected = [member.path for member in members_of(tree)]
    if codec == "xz":
        with tarfile.open(packed, encoding="utf-8", errors="surrogateescape") as archive:
            names = [name.encode("utf-8", "surrogateescape").rstrip(b"/") for name in archive.getnames()]
        assert names == expected
    try:
        listed = subprocess.run(["bsdtar", "-tf", packed], capture_output=True, check=True).stdout
    except FileNotFoundError:
        return
    assert listed.count(b"\n") == len(expected)


def test_memory_that_a_decoder_needs_is_bounded_by_the_frame(packed: Path, codec: str) -> None:
    with open_archive(str(packed)) as archive:
        for number in range(len(archive.toc.frame_raw)):
            stored = archive.read_frame(number)
            if codec == "zstd":
                assert zstandard.get_frame_parameters(stored).window_size <= 1 << 15
                assert zstandard.frame_content_size(stored) == archive.toc.frame_raw[number]
            else:
                lzma.LZMADecompressor(memlimit=1 << 20).decompress(archive_header() + stored)


def archive_header() -> bytes:
    return bytes.fromhex("fd377a585a000001 6922de36")


# --- the reader ---


def test_the_reader_finds_every_file_in_the_stream(tree: Path, packed: Path) -> None:
    with open_archive(str(packed)) as archive:
        stream = tar_stream(archive)
        toc = archive.toc
        assert len(toc.frame_raw) > 5
        for kind, path, row in toc.paths():
            if kind == FILE:
                at, size = toc.file_position[row], toc.file_size[row]
                with open(os.path.join(os.fsencode(tree), path), "rb") as file:
                    assert stream[at : at + size] == file.read()
        assert facts_text.first(archive.facts, "python") == "cpython-39"
        assert archive.facts["files"] == [str(len(toc.file_names))]


def test_frames_end_where_the_format_document_says(tmp_path: Path, codec: str) -> None:
    sizes = [100, 500, 1500, 2500, 9000, 0, 0, 400]  # in the stream: a block of header, and whole blocks
    members = [file_input(tmp_path, b"%d" % number, b"x" * size) for number, size in enumerate(sizes)]
    path = tmp_path / "x"
    pack(path, members, codec, frame_size=4096)
    with open_archive(str(path)) as archive:
        # mark 1024 1024 (2048 do not fit) | 2048 | 3072 (9728 do not fit) | 4096 | 4096 | 1536 512 512 1024 | end
        assert list(archive.toc.frame_raw) == [1024 + 1024 + 1024, 2048, 3072, 4096, 4096, 3584, 1024]


def test_identity_needs_only_the_tail(packed: Path, codec: str) -> None:
    identity = trailer.identify(str(packed))
    with open_archive(str(packed)) as archive:
        assert identity.digest == identity.key == archive.digest
        assert identity.facts == archive.facts
    assert facts_text.first(identity.facts, "codec") == codec


def test_facts_longer_than_the_tail_are_read(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x"
    many = {"import": [f"directory/{number}" for number in range(2000)]}
    pack(path, [file_input(tmp_path, b"a", b"1")], codec, facts=many)
    assert trailer.identify(str(path)).facts["import"] == many["import"]
    verify_archive(str(path))


def test_the_digest_that_was_asked_for(packed: Path) -> None:
    digest = trailer.identify(str(packed)).digest
    open_archive(str(packed), digest.upper()).close()
    with pytest.raises(DigestMismatch, match=digest) as caught:
        open_archive(str(packed), "0" * 64)
    assert caught.value.where == str(packed)


def test_a_foreign_archive_is_not_native(tmp_path: Path) -> None:
    for content, says in (b"", "is empty"), (b"short", "is a text file"), (bytes(10_000), "not made by"):
        path = tmp_path / "foreign"
        path.write_bytes(content)
        assert trailer.identify(str(path)).footer is None
        with pytest.raises(ArchiveUnsupported, match=says):
            open_archive(str(path))


def test_a_version_of_the_future_is_said(packed: Path, codec: str, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = len(data) - trailer.FOOTER_SIZE - AFTER_FOOTER[codec]
    data[at + 36] = 9
    path = tmp_path / "future"
    path.write_bytes(data)
    with pytest.raises(ArchiveUnsupported, match="version is 9") as caught:
        open_archive(str(path))
    assert caught.value.facts["version"] == 9


def test_what_is_not_there_or_may_not_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises((ArchiveUnreadable, ArchiveUnsupported)) as caught:
            open_archive(str(path))
        assert caught.value.where == str(path)


def test_footers_that_announce_nonsense(packed: Path, codec: str, tmp_path: Path) -> None:
    """With the CRC right: whoever writes such a footer means harm."""
    footer = trailer.identify(str(packed)).footer
    assert footer is not None
    data = packed.read_bytes()
    at = len(data) - trailer.FOOTER_SIZE - AFTER_FOOTER[codec]
    path = tmp_path / "nonsense"
    fields = [name for name in footer.__slots__ if isinstance(getattr(footer, name), int)]
    assert len(fields) == 5
    for field in fields:
        right = getattr(footer, field)
        for value in {0, 1, right - 1, right + 1, len(data), 1 << 31, 1 << 32, (1 << 64) - 1} - {right}:
            if field == "facts_size" and value >= 1 << 32:
                continue
            setattr(footer, field, value)
            path.write_bytes(data[:at] + footer.pack() + data[at + trailer.FOOTER_SIZE :])
            with pytest.raises(UnpackenvError):
                verify_archive(str(path))
        setattr(footer, field, right)


def test_an_archive_without_facts(packed: Path, codec: str, tmp_path: Path) -> None:
    """Its digest right: whoever writes such a footer knows how to."""
    footer = trailer.identify(str(packed)).footer
    assert footer is not None
    data = packed.read_bytes()
    columns = data[footer.columns_offset : footer.columns_offset + footer.columns_size]
    footer.facts_size, footer.digest = 0, sha256(columns).digest()
    at = len(data) - trailer.FOOTER_SIZE - AFTER_FOOTER[codec]
    path = tmp_path / "without"
    path.write_bytes(data[:at] + footer.pack() + data[at + trailer.FOOTER_SIZE :])
    with pytest.raises(ArchiveCorrupt, match="impossible size"):
        open_archive(str(path))


@pytest.mark.parametrize("change", [lambda stored: stored[:-12], lambda stored: stored + bytes(4)])
def test_columns_that_are_no_whole_xz_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "columns"
    xz = codecs.get("xz")
    encode = xz.encode_columns
    monkeypatch.setattr(xz, "encode_columns", lambda raw: change(encode(raw)))
    pack(path, [file_input(tmp_path, b"a", b"1")], "xz")
    with pytest.raises(ArchiveCorrupt, match="another size"):
        open_archive(str(path))


# --- members of any kind ---

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, 0x2F} and name not in (b".", b".."))


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[str, bytes, int, int, bytes]]:
    """Members as (kind, path, mode, mtime, content or target), parents first, paths unique."""
    directories, members, taken = [b""], [], set()
    for _ in range(draw(st.integers(0, 12))):
        parent, name = draw(st.sampled_from(directories)), draw(NAMES)
        path = parent + name
        if path in taken or path.startswith(RESERVED.encode()):
            continue
        taken.add(path)
        kind = draw(st.sampled_from([DIRECTORY, FILE, FILE, SYMLINK]))
        content = draw(st.binary(max_size=3000)) if kind == FILE else draw(NAMES) if kind == SYMLINK else b""
        # GNU tar warns of times in the future, and before 1970.
        mode, mtime = draw(st.integers(0, 0o777)), draw(st.integers(0, MTIME))
        members.append((kind, path, 0o777 if kind == SYMLINK else mode | 0o400, mtime, content))
        if kind == DIRECTORY:
            directories.append(path + b"/")
    return members


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(), st.sampled_from(CODECS), st.integers(1, 5000), st.sampled_from([1, 2]))
def test_any_tree_is_packed_and_unpacked(
    tmp_path_factory: pytest.TempPathFactory,
    some: list[tuple[str, bytes, int, int, bytes]],
    codec: str,
    frame_size: int,
    workers: int,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    members = [
        file_input(folder, path, content, mode, mtime)
        if kind == FILE
        else Input(kind, path, mode, mtime, link=content if kind == SYMLINK else b"")
        for kind, path, mode, mtime, content in some
    ]
    archive = folder / "any.tar"
    written = pack(archive, members, codec, frame_size=frame_size, workers=workers)
    checked = verify_archive(str(archive), written.digest)
    assert checked.members == len(members)
    with open_archive(str(archive)) as opened:
        stream = tar_stream(opened)
        paths = [(kind, path) for kind, path, _ in opened.toc.paths()]
    assert sorted(paths) == sorted((member.kind, member.path) for member in members)
    scanner = tarstream.Scanner()
    found = [(m.kind, m.path.rstrip(b"/"), m.mode, m.mtime, m.link) for m in scanner.feed(memoryview(stream))]
    assert found == [(m.kind, m.path, m.mode, m.mtime, m.link) for m in members]


def test_the_longest_path_that_the_system_opens(tmp_path: Path, codec: str) -> None:
    """Longer than that has no name by which stock tools could open it either."""
    names = [b"%03d" % level + b"x" * 197 for level in range(20)]
    directories = [b"/".join(names[: depth + 1]) for depth in range(len(names))]
    path = directories[-1] + b"/" + b"f" * 70
    assert len(path) > 4000
    members = [Input(DIRECTORY, directory, 0o755, MTIME) for directory in directories]
    archive = tmp_path / "x"
    pack(archive, [*members, file_input(tmp_path, path, b"deep")], codec)
    assert verify_archive(str(archive)).members == 21
    run = subprocess.run(["tar", TAR_FLAG[codec], "-xOf", archive, path], capture_output=True)
    assert run.stdout == b"deep"


def test_an_archive_of_nothing(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "empty"
    pack(path, [], codec)
    assert verify_archive(str(path))[1:] == (1, 0, 0, 0)
    assert describe(stock_unpack(path, codec, tmp_path / "out")) == {}


@pytest.mark.slow
def test_a_file_over_4_gib(tmp_path: Path) -> None:
    """Sparse here, and nothing but zeros in the archive, with marks where 32 bits would wrap."""
    size = (1 << 32) + 12_345
    source = tmp_path / "big"
    marks = {0: b"start", (1 << 31) - 2: b"2 GiB", (1 << 32) - 2: b"4 GiB", size - 3: b"end"}
    with open(source, "wb") as file:
        file.truncate(size)
        for at, mark in marks.items():
            file.seek(at)
            file.write(mark)
    archive = tmp_path / "big.tar.zst"
    small = file_input(tmp_path, b"small", b"behind it")
    pack(archive, [Input(FILE, b"big", 0o644, MTIME, size, source=str(source)), small], frame_size=1 << 24, workers=2)
    with open_archive(str(archive)) as opened:
        toc = opened.toc
        assert list(toc.file_size) == [size, len(b"behind it")]
        first = len(tarstream.mark()) + 512
        assert list(toc.file_position) == [first, first + size + tarstream.padding(size) + 512]
        starts = toc.frame_starts()
        decode = opened.decoder()
        for number, (start, end) in enumerate(zip(starts, starts[1:])):
            raw = bytearray(end - start)
            for position, mark in [(first + at, mark) for at, mark in marks.items()] + [
                (toc.file_position[1], b"behind it")
            ]:
                if start <= position and position + len(mark) <= end:
                    if not any(raw):
                        decode(opened.read_frame(number), memoryview(raw))
                    assert raw[position - start : position - start + len(mark)] == mark
    assert archive.stat().st_size < 2_000_000


# --- failures while packing ---


def left(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith("out"))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("change", ["shrinks", "vanishes", "becomes unreadable"])
def test_a_file_that_changes_while_it_is_packed(tmp_path: Path, codec: str, workers: int, change: str) -> None:
    good = [file_input(tmp_path, b"%d" % number, random.Random(number).randbytes(3000)) for number in range(20)]
    bad = file_input(tmp_path, b"bad", b"x" * 5000)
    if change == "shrinks":
        os.truncate(bad.source, 4999)
    elif change == "vanishes":
        os.unlink(bad.source)
    else:
        os.unlink(bad.source)
        os.mkdir(bad.source)
    out = tmp_path / "out.tar"
    out.write_bytes(b"an older archive")
    with pytest.raises(PackError) as caught:
        pack(out, [*good, bad, *good[:0]], codec, frame_size=4096, workers=workers)
    assert caught.value.where == bad.source
    assert left(tmp_path) == ["out.tar"]
    assert out.read_bytes() == b"an older archive"
    assert threading.active_count() == 1 or "execnet" in sys.modules


def test_a_file_that_grows_is_packed_as_long_as_it_was(tmp_path: Path, codec: str) -> None:
    growing = file_input(tmp_path, b"log", b"12345")
    with open(growing.source, "ab") as file:
        file.write(b"6789")
    out = tmp_path / "out.tar"
    pack(out, [growing, file_input(tmp_path, b"next", b"next")], codec)
    verify_archive(str(out))
    tree = stock_unpack(out, codec, tmp_path / "tree")
    assert (tree / "log").read_bytes() == b"12345"


def test_nothing_is_left_when_the_caller_stops(tmp_path: Path, codec: str) -> None:
    def members() -> Iterator[Input]:
        yield file_input(tmp_path, b"a", b"1" * 10_000)
        raise KeyboardInterrupt

    out = tmp_path / "out.tar"
    with pytest.raises(KeyboardInterrupt):
        writer.write(str(out), members(), {}, codec=codec, level=1, frame_size=512, workers=2)

    def stop(done: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer.write(
            str(out),
            [file_input(tmp_path, b"a", b"1" * 10_000)],
            {},
            codec=codec,
            level=1,
            frame_size=512,
            workers=2,
            on_progress=stop,
        )
    assert left(tmp_path) == []


def test_facts_that_no_reader_would_take_are_not_written(tmp_path: Path, codec: str) -> None:
    with pytest.raises(PackError):
        pack(tmp_path / "out", [], codec, facts={"import": ["x" * 70_000]})
    assert left(tmp_path) == []


def test_progress_is_that_of_the_stream(tree: Path, tmp_path: Path, codec: str) -> None:
    seen: list[int] = []
    written = writer.write(
        str(tmp_path / "x"),
        members_of(tree),
        {},
        codec=codec,
        level=1,
        frame_size=9000,
        workers=2,
        on_progress=seen.append,
    )
    assert seen == sorted(seen)
    assert seen[-1] == written.toc.raw_size
    assert written.size == (tmp_path / "x").stat().st_size


# --- a frame is not believed ---


@pytest.mark.parametrize("announced", [-1, 1])
def test_a_frame_of_another_size_than_announced(packed: Path, announced: int) -> None:
    with open_archive(str(packed)) as archive:
        raw = bytearray(archive.toc.frame_raw[0] + announced)
        with pytest.raises(ArchiveCorrupt, match="than announced"):
            archive.decoder()(archive.read_frame(0), memoryview(raw))


def test_a_decoder_goes_on_after_a_frame_that_failed(packed: Path) -> None:
    with open_archive(str(packed)) as archive:
        decode = archive.decoder()
        raw = bytearray(archive.toc.frame_raw[0])
        for stored in (b"", b"junk", archive.read_frame(0)[: archive.toc.frame_stored[0] // 2]):
            with pytest.raises(UnpackenvError):
                decode(stored, memoryview(bytearray(len(raw))))
        decode(archive.read_frame(0), memoryview(raw))
        assert bytes(raw) == tar_stream(archive)[: len(raw)]
