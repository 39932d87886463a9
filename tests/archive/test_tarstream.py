"""The tar scanner, against `tarfile`, and false headers, which it must not believe."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.crafted import record
from helpers.forms import typed, v7
from unpackenv.archive import tarstream
from unpackenv.archive.tarstream import BLOCK, DIRECTORY, END_OF_ARCHIVE, FILE, HARD_LINK, SYMLINK, Member, Scanner
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported, UnpackenvError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = {b"0": FILE, b"5": DIRECTORY, b"2": SYMLINK, b"1": HARD_LINK}


def scan(stream: bytes, chunk: int = 0) -> list[Member]:
    scanner = Scanner()
    members = []
    for at in range(0, len(stream), chunk or len(stream) or 1):
        members += scanner.feed(memoryview(stream)[at : at + (chunk or len(stream))])
    scanner.close()
    return members


def fields(members: list[Member]) -> list[tuple[object, ...]]:
    return [(m.kind, m.path.rstrip(b"/"), m.mode, m.mtime, m.size, m.link, m.position) for m in members]


def expected(stream: bytes) -> list[tuple[object, ...]]:
    """Return what `tarfile` makes of a stream."""
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape", encoding="utf-8") as archive:
        return [
            (
                KINDS[info.type],
                info.name.rstrip("/").encode("utf-8", "surrogateescape"),
                info.mode & 0o777,
                int(info.mtime // 1),
                info.size if info.isreg() else 0,
                info.linkname.encode("utf-8", "surrogateescape") if not info.isreg() and not info.isdir() else b"",
                info.offset_data,
            )
            for info in archive
        ]


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **changes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = size
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def stream_of(members: list[tarfile.TarInfo], form: int = tarfile.GNU_FORMAT, end: bytes = END_OF_ARCHIVE) -> bytes:
    out = []
    for info in members:
        out.append(info.tobuf(form, "utf-8", "surrogateescape"))
        out.append(b"d" * info.size + bytes(-info.size % BLOCK) if info.isreg() else b"")
    return b"".join(out) + end


MEMBERS = [
    member("a", size=1, mode=0o644, mtime=1_600_000_000),
    member("empty", mode=0o4755),
    member("b" * 95 + "/" + "c" * 95, size=512),
    member("directory", tarfile.DIRTYPE, mode=0o700),
    member("d" * 100, size=513, mtime=0),
    member("symlink", tarfile.SYMTYPE, linkname="l" * 100, mode=0o777),
    member("hard", tarfile.LNKTYPE, linkname="a"),
    member("caf\u00e9", size=1024),
]
LONG = [
    member("e" * 300, size=3),
    member("f/" * 600, tarfile.DIRTYPE),
    member("long link", tarfile.SYMTYPE, linkname="g/" * 200),
    member("h" * 101, tarfile.LNKTYPE, linkname="i" * 101),
    member("not UTF-8 \udcff\udcfe", size=2),
    member("\u65e5\u672c", tarfile.SYMTYPE, linkname="\u8a9e\udcff"),
    member("huge owner", uid=1 << 40, gid=1 << 30, size=1),
]
TIMES = [member(f"time {mtime}", mtime=mtime) for mtime in (-1, -86_400, 1 << 33, 1 << 40, -(1 << 40))]
FRACTIONS = [member(f"time {mtime}", mtime=mtime) for mtime in (0.5, 1.999, -0.5, -1.5, 1e9 + 0.25)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("chunk", [0, 1, 100, 511, 512, 513, 1500])
def test_members_are_those_of_tarfile(form: str, chunk: int) -> None:
    members = MEMBERS if form == "ustar" else MEMBERS + LONG + TIMES + (FRACTIONS if form == "pax" else [])
    stream = stream_of(members, FORMATS[form])
    assert fields(scan(stream, chunk)) == expected(stream)


def test_members_of_stock_tar(tree: Path, tmp_path: Path) -> None:
    for form in ("gnu", "posix", "oldgnu"):
        path = tmp_path / f"{form}.tar"
        subprocess.run(["tar", "-C", tree, "--format", form, "-cf", path, "."], check=True)
        assert fields(scan(path.read_bytes(), 10_000)) == expected(path.read_bytes())


@pytest.mark.parametrize("form", ["pax", "gnutar"])
def test_members_of_bsdtar(tree: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / "bsd.tar"
    try:
        subprocess.run(["bsdtar", "-C", tree, "--format", form, "-cf", path, "."], check=True)
    except FileNotFoundError:
        pytest.skip("no bsdtar here")
    assert fields(scan(path.read_bytes(), 10_000)) == expected(path.read_bytes())


NAMES = st.text(st.characters(min_codepoint=32, blacklist_categories=["Cs"]), min_size=1, max_size=150).map(
    lambda name: name.strip("/") or "x"
)
INFOS = st.builds(
    member,
    NAMES,
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    st.integers(0, 2000),
    mode=st.integers(0, 0o777),
    mtime=st.integers(-(1 << 40), 1 << 40),
    linkname=NAMES,
)


def honest(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Only files have data, only links have targets."""
    info.size = info.size if info.isreg() else 0
    info.linkname = info.linkname if info.issym() or info.islnk() else ""
    return info


@settings(max_examples=100)
@given(st.lists(INFOS.map(honest), max_size=6), st.sampled_from(["GNU", "pax"]), st.lists(st.integers(1, 3000)))
def test_any_members_in_any_chunks(infos: list[tarfile.TarInfo], form: str, cuts: list[int]) -> None:
    stream = stream_of(infos, FORMATS[form])
    scanner = Scanner()
    members = []
    view = memoryview(stream)
    for cut in [*cuts, len(stream)]:
        members += scanner.feed(view[:cut])
        view = view[cut:]
    scanner.close()
    assert fields(members) == expected(stream)
    assert scanner.end == len(stream) - len(END_OF_ARCHIVE)


@settings(max_examples=300)
@given(st.sampled_from(["GNU", "pax"]), st.data())
def test_damage_raises_only_errors_of_ours(form: str, data: st.DataObject) -> None:
    """With the checksum put right, so that it is the fields that are looked at."""
    stream = bytearray(stream_of([MEMBERS[2], LONG[0], TIMES[2], LONG[2]], FORMATS[form]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] = data.draw(st.integers(0, 255))
        block = at // BLOCK * BLOCK
        if data.draw(st.booleans()):
            checksummed(stream, block)
    try:
        scan(bytes(stream), 1000)
    except UnpackenvError:
        pass


# --- sizes that no test writes out: only headers are fed ---


@pytest.mark.parametrize("form", ["GNU", "pax"])
@pytest.mark.parametrize("size", [(1 << 33) - 1, 1 << 33, (1 << 40) + 1])
def test_sizes_beyond_8_gib(form: str, size: int) -> None:
    scanner = Scanner()
    header = member("huge", size=size).tobuf(FORMATS[form], "utf-8", "surrogateescape")
    (found,) = scanner.feed(memoryview(header))
    assert (found.size, found.position) == (size, len(header))
    left = size + tarstream.padding(size)
    for step in (BLOCK, left - BLOCK):
        assert scanner.feed(Chunk(step)) == []  # type: ignore[arg-type]
    (after,) = scanner.feed(memoryview(member("after").tobuf(tarfile.GNU_FORMAT)))
    assert (after.path, after.position) == (b"after", len(header) + left + BLOCK)


class Chunk:
    """A chunk of file data that is only as long as it says: the scanner must not look into it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: object) -> Iterator[int]:
        raise AssertionError("the scanner read file data")


# --- what a header must not do ---


def checksummed(stream: bytearray, at: int = 0) -> None:
    stream[at + 148 : at + 156] = b" " * 8
    stream[at + 148 : at + 156] = b"%06o\0 " % sum(stream[at : at + BLOCK])


def crafted(offset: int, field: bytes, info: tarfile.TarInfo | None = None) -> bytes:
    header = bytearray((info or member("name")).tobuf(tarfile.GNU_FORMAT))
    header[offset : offset + len(field)] = field
    checksummed(header)
    return bytes(header)


MODE, SIZE, MTIME, CHECKSUM, TYPE = 100, 124, 136, 148, 156


@pytest.mark.parametrize(
    ("typeflag", "name"),
    [
        (b"3", "a character device"),
        (b"4", "a block device"),
        (b"6", "a FIFO"),
        (b"S", "a sparse file"),
        (b"M", "the rest of a file from another volume"),
        (b"E", "a Solaris extended attribute"),
        (b"I", "the metadata of an inode"),
        (b"N", "a list of long names of an old GNU tar"),
        (b"Z", "of tar type 'Z'"),
        (b"\xff", "of tar type 'ÿ'"),
    ],
)
def test_what_is_never_unpacked(typeflag: bytes, name: str) -> None:
    with pytest.raises(ArchiveUnsafe, match=f"a member is {name}, which") as caught:
        scan(crafted(TYPE, typeflag) + END_OF_ARCHIVE)
    assert caught.value.facts["member"] == "name"
    assert ("--sparse" in caught.value.hint) == (typeflag == b"S")


def test_metadata_of_old_tars() -> None:
    """A volume's label and Solaris' access control lists say nothing; its extended headers are those of pax."""
    stream = (
        typed(b"V", "label", b"data")
        + typed(b"X", data=record("mtime", b"12.5"))
        + typed(b"A", data=b"user::rw-")
        + stream_of([member("a")], end=b"")
        + typed(b"D", "d/", b"Ya\0")
        + typed(b"V")
        + stream_of([member("b", size=1)])
    )
    for chunk in (0, 100, 512):
        found = scan(stream, chunk)
        assert [(m.kind, m.path, m.mtime, m.size) for m in found] == [
            (FILE, b"a", 12, 0),
            (DIRECTORY, b"d/", 0, 0),
            (FILE, b"b", 0, 1),
        ]


@pytest.mark.parametrize("kind", [b"x", b"X", b"A", b"V", b"D", b"7", b"\0"])
def test_a_native_archive_has_none_of_these(kind: bytes) -> None:
    """Stock tar makes something else of some of them than the table of contents says."""
    with pytest.raises(ArchiveUnsafe, match="tar type"):
        Scanner(types=tarstream.NATIVE_TYPES).feed(memoryview(typed(kind)))


# --- checksums ---


@pytest.mark.parametrize("signed", [False, True])
def test_a_header_is_known_by_its_checksum(signed: bool) -> None:
    header = typed(b"0", "caf\u00e9 \udcff", signed=signed)
    assert [m.path for m in scan(header + END_OF_ARCHIVE)] == ["caf\u00e9 \udcff".encode("utf-8", "surrogateescape")]
    assert tarstream.begins_tar(v7(header))
    for at in (0, 99, 148, 156, 511):
        damaged = header[:at] + bytes([header[at] ^ 1]) + header[at + 1 : BLOCK]
        assert tarstream.begins_tar(damaged)  # by its magic
        with pytest.raises(ArchiveCorrupt, match="checksum"):
            scan(damaged + END_OF_ARCHIVE)


@pytest.mark.parametrize("content", [b"x" * BLOCK, b"\xff" * BLOCK, bytes(148) + b"\xff" * 8 + bytes(356)])
def test_what_is_no_tar(content: bytes) -> None:
    assert not tarstream.begins_tar(content)
    with pytest.raises(ArchiveUnsupported, match="is no tar"):
        scan(content)


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_files_of_stock_tar(tmp_path: Path, form: str) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"data")
    subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", "--format", form, "-cf", tmp_path / "x.tar", "sparse"], check=True
    )
    with pytest.raises(ArchiveUnsafe, match="sparse"):
        scan((tmp_path / "x.tar").read_bytes())


def test_a_wrong_checksum_is_said_with_its_place() -> None:
    header = bytearray(member("name").tobuf(tarfile.GNU_FORMAT))
    header[0] ^= 1
    with pytest.raises(ArchiveCorrupt, match="at byte 512 "):
        scan(stream_of([member("first")], end=b"") + bytes(header) + END_OF_ARCHIVE)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (crafted(SIZE, b"00000000009\0"), "malformed"),
        (crafted(SIZE, b"-0000000001\0"), "malformed"),
        (crafted(SIZE, b"0_000000001\0"), "malformed"),
        (crafted(MODE, b"nonsense"), "malformed"),
        (crafted(SIZE, b"\xff" * 12), "impossible size"),  # -1 in base 256
        (crafted(SIZE, b"\x80" + b"\x7f" * 11), "impossible size"),
        (crafted(MTIME, b"\x80" + b"\x7f" * 11), "impossible mtime"),
        (crafted(MTIME, b"\xff" + b"\x00" * 11), "impossible mtime"),
        (crafted(SIZE, b"\xff" * 11 + b"\x00", member("name", b"L")), "extended"),  # would go back in the stream
        (crafted(SIZE, b"\xff" * 10 + b"\xfe\x00", member("name", b"x")), "extended"),  # would come back for ever
        (crafted(SIZE, b"10000000000\0", member("name", b"L")), "extended"),  # 1 GiB of a name
        (crafted(SIZE, b"10000000000\0", member("name", b"x")), "extended"),
    ],
)
def test_numbers_that_cannot_be(header: bytes, message: str) -> None:
    with pytest.raises(ArchiveCorrupt, match=message):
        scan(header + bytes(10 * BLOCK), 700)


def test_times_in_a_gnu_header_are_no_prefix_of_its_path() -> None:
    """GNU tar has access and change times where ustar has more of the path."""
    assert [m.path for m in scan(crafted(345, b"14000000000\0") + END_OF_ARCHIVE)] == [b"name"]


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_only_files_have_data_whatever_their_size_says(kind: bytes) -> None:
    stream = crafted(SIZE, b"00000001000\0", member("sized", kind, linkname="x")) + stream_of([member("next")])
    assert [m.path.rstrip(b"/") for m in scan(stream)] == [b"sized", b"next"]


def pax_header(records: bytes, typeflag: bytes = b"x") -> bytes:
    info = member("pax", typeflag, len(records))
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % BLOCK)


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b",  # no newline
        b"9 path=x\n\n",
        b"99 path=x\n",  # longer than the header
        b"0 path=x\n",
        b"-9 path=x\n",
        b" path=x\n",
        b"x path=x\n",
        b"8 pathx\n",
        record("path", b"a\0b"),
        record("linkpath", b"a\0"),
        record("size", b"x"),
        record("size", b"-1"),
        record("size", b"--1"),
        record("mtime", b"-"),
        record("mtime", b"1e9"),
        record("mtime", b"1.x"),
        record("mtime", b"1.5.5"),
        record("mtime", b".5"),
        record("mtime", b"+1"),
        record("size", b"3.0"),
        b"10.0 path=x\n",
        b"11  path=x\n",  # GNU tar takes it for a path, others for nothing
        b"11 \tpath=x\n",
        record("mtime", b"99999999999999999999"),
        record("size", b"99999999999999999999"),
        record("size", b"1" * 5000),
        record("GNU.sparse.name", b"elsewhere"),
        b"\xff",
    ],
)
def test_malformed_pax_records(records: bytes) -> None:
    with pytest.raises(UnpackenvError):
        scan(pax_header(records) + stream_of([member("name")]))


def test_pax_numbers_may_begin_with_zeros() -> None:
    zeros = b"0" * 5000
    mtime = record("mtime", b"-" + zeros + b"1.5")
    records = record("size", zeros + b"3") + b"0" * 30 + b"%d" % (len(mtime) + 30) + mtime[4:]
    found = scan(pax_header(records) + stream_of([member("name", size=3)]))
    assert [(m.size, m.mtime) for m in found] == [(3, -2)]


def test_pax_values_hold_any_bytes() -> None:
    """An extended attribute is binary, and says nothing to us."""
    capability = record("SCHILY.xattr.security.capability", b"\x01\0\n\0\0\0")
    assert [m.path for m in scan(pax_header(capability) + stream_of([member("name")]))] == [b"name"]


def test_global_pax_records_last_and_can_be_taken_back() -> None:
    stream = (
        pax_header(record("mtime", b"12") + record("mtime", b"34.5"), b"g")
        + stream_of([member("a"), member("b")], end=b"")
        + pax_header(record("mtime", b"") + record("path", b"c"))
        + stream_of([member("x", mtime=7), member("d", mtime=8)])
    )
    assert [(m.path, m.mtime) for m in scan(stream)] == [(b"a", 34), (b"b", 34), (b"c", 7), (b"d", 34)]
    assert fields(scan(stream))[0] == expected(stream)[0]


def test_extended_headers_may_be_empty() -> None:
    for typeflag in (b"x", b"g", b"L", b"K"):
        header = member("nothing", typeflag).tobuf(tarfile.USTAR_FORMAT)
        members = scan(header + stream_of([member("name", size=3)]), 100)
        assert members[0].position == 2 * BLOCK
        assert len(members) == 1


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 513, 1023, 1024, 1500, 2047, 2048, 2049])
def test_a_truncated_stream(cut: int) -> None:
    stream = stream_of([member("a", size=600), LONG[0]])
    with pytest.raises(ArchiveCorrupt, match="truncated"):
        scan(stream[:cut])


def test_a_block_of_zeros_ends_the_archive_as_it_does_for_stock_tar(tmp_path: Path) -> None:
    stream = stream_of([member("a")], end=bytes(BLOCK)) + stream_of([member("hidden")])
    path = tmp_path / "x.tar"
    path.write_bytes(stream)
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True).stdout.split()
    assert [m.path.decode() for m in scan(stream)] == listed == ["a"]


def test_what_follows_the_end_is_not_looked_at() -> None:
    for chunk in (0, 300, 512):
        assert len(scan(stream_of([member("a")]) + b"\xff" * 5000, chunk)) == 1


def test_an_old_directory_is_a_file_with_a_slash() -> None:
    header = bytearray(member("old/").tobuf(tarfile.USTAR_FORMAT))
    header[TYPE : TYPE + 1] = b"\0"
    checksummed(header)
    (found,) = scan(bytes(header) + END_OF_ARCHIVE)
    assert found.kind == DIRECTORY


def test_special_mode_bits_are_dropped_unless_asked_for() -> None:
    stream = stream_of([member("a", mode=0o6755)])
    assert scan(stream)[0].mode == 0o755
    assert Scanner(0o7777).feed(memoryview(stream))[0].mode == 0o6755


def test_our_headers_are_those_of_tarfile() -> None:
    for info in MEMBERS + LONG[:-1] + TIMES:
        link = info.linkname.encode("utf-8", "surrogateescape")
        path = info.name.encode("utf-8", "surrogateescape")
        header = tarstream.header(KINDS[info.type], path, info.mode, info.mtime, info.size, link)
        assert header == info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
