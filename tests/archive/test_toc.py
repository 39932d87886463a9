"""The table of contents: encoded, decoded, and checked by every rule of docs/format.md."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpackenv.archive import toc as toc_module
from unpackenv.archive.toc import END_OF_ARCHIVE_SIZE, FRAME_LIMIT, Toc
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported, UnpackenvError

COLUMNS = [name for name in vars(Toc()) if not name.startswith("_")]


def small() -> Toc:
    """Two frames, `d/`, `d/e/`, `f` and `d/g` with 600 bytes each, `d/s -> x`, hard link `d/e/h` of `f`."""
    toc = Toc()
    toc.frame_stored.extend([100, 200])
    toc.frame_raw.extend([2000, 2632])
    toc.frame_sha256 = b"1" * 32 + b"2" * 32
    toc.dir_parent.extend([0, 0, 1])
    toc.dir_mode.extend([0, 0o755, 0o700])
    toc.dir_mtime.extend([0, 1, -2])
    toc.dir_names = [b"", b"d", b"e"]
    toc.file_dir.extend([0, 1])
    toc.file_mode.extend([0o644, 0o755])
    toc.file_mtime.extend([3, -4])
    toc.file_size.extend([600, 600])
    toc.file_position.extend([1536, 3008])
    toc.file_names = [b"f", b"g"]
    toc.link_dir.append(1)
    toc.link_mtime.append(5)
    toc.link_names = [b"s"]
    toc.link_targets = [b"x"]
    toc.hard_dir.append(2)
    toc.hard_file.append(0)
    toc.hard_names = [b"h"]
    return toc


def columns(toc: Toc) -> dict[str, object]:
    return {name: getattr(toc, name) for name in COLUMNS}


def test_the_bytes_are_what_the_format_document_says() -> None:
    assert small().encode() == b"".join(
        [
            struct.pack("<6Q", 2, 3, 2, 1, 1, 14 - 2),
            struct.pack("<2Q", 100, 200) + struct.pack("<2Q", 2000, 2632),
            b"1" * 32 + b"2" * 32,
            struct.pack("<3I", 0, 0, 1) + struct.pack("<3H", 0, 0o755, 0o700) + struct.pack("<3q", 0, 1, -2),
            struct.pack("<2I", 0, 1) + struct.pack("<2H", 0o644, 0o755) + struct.pack("<2q", 3, -4),
            struct.pack("<2Q", 600, 600) + struct.pack("<2Q", 1536, 3008),
            struct.pack("<I", 1) + struct.pack("<q", 5),
            struct.pack("<I", 2) + struct.pack("<I", 0),
            b"d\0e\0f\0g\0s\0h\0",
            b"x\0",
        ]
    )


def test_what_was_encoded_is_decoded() -> None:
    toc = Toc.decode(small().encode())
    assert columns(toc) == columns(small())
    assert list(toc.paths()) == [
        ("directory", b"d", 1),
        ("directory", b"d/e", 2),
        ("file", b"f", 0),
        ("file", b"d/g", 1),
        ("symlink", b"d/s", 0),
        ("hard link", b"d/e/h", 0),
    ]
    assert (toc.raw_size, toc.unpacked_size, toc.member_count) == (4632, 1200, 6)
    assert toc.frame_starts() == [0, 2000, 4632]


def test_an_empty_toc() -> None:
    toc = Toc()
    toc.dir_parent.append(0)
    toc.dir_mode.append(0)
    toc.dir_mtime.append(0)
    toc.dir_names.append(b"")
    assert columns(Toc.decode(toc.encode())) == columns(toc)


NAMES = st.binary(min_size=1, max_size=6).map(lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"_") + b"n")
MTIMES = st.integers(-(2**63), 2**63 - 1)
MODES = st.integers(0, 0o777)


@st.composite
def tocs(draw: st.DrawFn) -> Toc:
    toc = Toc()
    toc.frame_raw.extend(draw(st.lists(st.integers(0, FRAME_LIMIT), min_size=1, max_size=4)))
    toc.frame_raw.append(1024)
    toc.frame_stored.extend(draw(st.integers(0, 2**64 - 1)) for _ in toc.frame_raw)
    toc.frame_sha256 = draw(st.binary(min_size=32, max_size=32)) * len(toc.frame_raw)
    for row in range(draw(st.integers(1, 6))):
        toc.dir_parent.append(draw(st.integers(0, max(0, row - 1))))
        toc.dir_mode.append(draw(MODES))
        toc.dir_mtime.append(draw(MTIMES))
        toc.dir_names.append(draw(NAMES) if row else b"")
    directories = st.integers(0, len(toc.dir_parent) - 1)
    cuts = sorted(draw(st.lists(st.integers(0, toc.raw_size - 1024), max_size=12)))
    for position, end in zip(cuts[::2], cuts[1::2]):
        toc.file_dir.append(draw(directories))
        toc.file_mode.append(draw(MODES))
        toc.file_mtime.append(draw(MTIMES))
        toc.file_position.append(position)
        toc.file_size.append(end - position)
        toc.file_names.append(draw(NAMES))
    for _ in range(draw(st.integers(0, 3))):
        toc.link_dir.append(draw(directories))
        toc.link_mtime.append(draw(MTIMES))
        toc.link_names.append(draw(NAMES))
        toc.link_targets.append(draw(NAMES) + draw(st.sampled_from([b"", b"/", b"/../x"])))
    for _ in range(draw(st.integers(0, 3)) if toc.file_names else 0):
        toc.hard_dir.append(draw(directories))
        toc.hard_file.append(draw(st.integers(0, len(toc.file_names) - 1)))
        toc.hard_names.append(draw(NAMES))
    return toc


@settings(max_examples=100)
@given(tocs())
def test_any_toc_is_decoded_as_it_was(toc: Toc) -> None:
    raw = toc.encode()
    again = Toc.decode(raw)
    assert columns(again) == columns(toc)
    assert again.encode() == raw
    assert len(list(again.paths())) == again.member_count


@settings(max_examples=200)
@given(tocs(), st.data())
def test_damage_raises_only_errors_of_ours(toc: Toc, data: st.DataObject) -> None:
    raw = bytearray(toc.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        Toc.decode(bytes(raw))
    except UnpackenvError:
        pass


def put(name: str, row: int, value: object) -> Callable[[Toc], None]:
    def change(toc: Toc) -> None:
        getattr(toc, name)[row] = value

    return change


CORRUPT: dict[str, tuple[Callable[[Toc], None], str]] = {
    "frame too large": (put("frame_raw", 0, FRAME_LIMIT + 1), "decodes to more than 128 MiB"),
    "root has a parent": (put("dir_parent", 0, 1), "before its parent"),
    "directory is its own parent": (put("dir_parent", 1, 1), "before its parent"),
    "parent comes later": (put("dir_parent", 1, 2), "before its parent"),
    "parent does not exist": (put("dir_parent", 2, 99), "before its parent"),
    "directory mode is set-user-id": (put("dir_mode", 1, 0o4755), "more than permission bits"),
    "root mode has a file type": (put("dir_mode", 0, 0o40755), "more than permission bits"),
    "file mode is set-group-id": (put("file_mode", 1, 0o2755), "more than permission bits"),
    "file in no directory": (put("file_dir", 1, 3), "in a directory that it does not list"),
    "symlink in no directory": (put("link_dir", 0, 3), "in a directory that it does not list"),
    "hard link in no directory": (put("hard_dir", 0, 3), "in a directory that it does not list"),
    "hard link of no file": (put("hard_file", 0, 2), "file that it does not list"),
    "files overlap": (put("file_size", 0, 3008 - 1536 + 1), "overlap"),
    "files in another order": (put("file_position", 0, 3500), "overlap"),
    "file beyond the stream": (put("file_size", 1, 601), "beyond the end"),
    "file that wraps around": (put("file_size", 1, 2**64 - 1), "beyond the end"),
    "empty file behind the last byte": (put("file_position", 1, 4632), "beyond the end"),
    "symlink to nothing": (put("link_targets", 0, b""), "points to nothing"),
    "name too many": (lambda toc: toc.file_names.append(b"more"), "more or fewer names"),
    "name too few": (lambda toc: toc.hard_names.clear(), "more or fewer names"),
    "target too many": (lambda toc: toc.link_targets.append(b"more"), "more or fewer names"),
    "column too short": (lambda toc: toc.file_mtime.pop() and None, ""),
    "column too long": (lambda toc: toc.file_mtime.append(0), ""),
    "sum missing": (lambda toc: setattr(toc, "frame_sha256", b"1" * 32), ""),
}


@pytest.mark.parametrize(("change", "message"), CORRUPT.values(), ids=CORRUPT.keys())
def test_a_toc_that_breaks_a_rule(change: Callable[[Toc], None], message: str) -> None:
    toc = small()
    change(toc)
    with pytest.raises(ArchiveCorrupt, match=f"table of contents is damaged: .*{message}"):
        Toc.decode(toc.encode())


@pytest.mark.parametrize("name", [b"", b".", b"..", b"/", b"a/b", b"/etc", b"../up", b"a/"])
@pytest.mark.parametrize("column", ["dir_names", "file_names", "link_names", "hard_names"])
def test_a_name_that_no_member_may_have(column: str, name: bytes) -> None:
    toc = small()
    getattr(toc, column)[-1] = name
    with pytest.raises(ArchiveUnsafe) as caught:
        Toc.decode(toc.encode())
    assert caught.value.facts["member"] == name.decode()


@pytest.mark.parametrize("name", [b"...", b"..a", b" ", b"\\", b"\n", b"\xff", b"a" * 300])
def test_an_odd_name_is_a_name(name: bytes) -> None:
    toc = small()
    toc.file_names[0] = name
    assert Toc.decode(toc.encode()).file_names[0] == name


def test_every_truncation_is_found() -> None:
    raw = small().encode()
    for size in range(len(raw)):
        with pytest.raises(ArchiveCorrupt):
            Toc.decode(raw[:size])


def test_what_follows_the_targets_is_found() -> None:
    for more in (b"x", b"\0", b"x\0"):
        with pytest.raises(ArchiveCorrupt):
            Toc.decode(small().encode() + more)


def test_names_that_are_shorter_than_their_count() -> None:
    """Without symlinks nothing follows the names, and their end could go unnoticed."""
    toc = small()
    for column in (toc.link_dir, toc.link_mtime, toc.link_names, toc.link_targets):
        del column[:]
    raw = bytearray(toc.encode())
    Toc.decode(bytes(raw))
    (size,) = struct.unpack_from("<Q", raw, 40)
    struct.pack_into("<Q", raw, 40, size + 1)
    with pytest.raises(ArchiveCorrupt, match="shorter than its counts"):
        Toc.decode(bytes(raw))


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("count", [0, 1, 4, 13, 1 << 20, 1 << 32, 2**64 - 1])
def test_counts_that_are_not_the_tables_(number: int, count: int) -> None:
    raw = bytearray(small().encode())
    if struct.unpack_from("<Q", raw, 8 * number)[0] == count:
        return
    struct.pack_into("<Q", raw, 8 * number, count)
    with pytest.raises((ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported)):
        Toc.decode(bytes(raw))


@pytest.mark.parametrize(
    ("column", "row", "name"), [("file_names", 0, b"d"), ("link_names", 0, b"e"), ("link_names", 0, b"g")]
)
def test_two_members_with_one_path(column: str, row: int, name: bytes) -> None:
    toc = small()
    toc.check_unique()
    getattr(toc, column)[row] = name
    with pytest.raises(ArchiveUnsafe, match="one path"):
        Toc.decode(toc.encode()).check_unique()


def test_a_machine_of_the_other_byte_order_reads_and_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = small()
    for name in COLUMNS:
        column = getattr(swapped, name)
        if isinstance(column, array):
            column.byteswap()
    raw = small().encode()
    monkeypatch.setattr("sys.byteorder", "little" if struct.pack("=H", 1) == b"\0\1" else "big")
    assert swapped.encode() == raw


# --- columns that are checked as one integer, against a loop over their rows -----------------------


@st.composite
def columns_and_limits(draw: st.DrawFn) -> tuple[array[int], int]:
    code, highest = draw(st.sampled_from([("H", 2**16 - 1), ("I", 2**32 - 1), ("Q", 2**64 - 1)]))
    limit = draw(st.integers(0, highest // 2))
    near = st.integers(max(0, limit - 2), limit + 2)
    below = st.integers(0, max(0, limit - 1))
    rows = draw(st.lists(below | st.one_of(below, near, st.integers(0, highest)), max_size=9))
    return array(code, rows), limit


@settings(max_examples=500)
@given(columns_and_limits())
def test_all_below_is_what_a_loop_says(case: tuple[array[int], int]) -> None:
    column, limit = case
    assert toc_module._all_below(column, limit) == all(value < limit for value in column)


def in_order(toc: Toc) -> bool:
    limits = [*toc.file_position[1:], toc.raw_size - END_OF_ARCHIVE_SIZE]
    ends = [position + size for position, size in zip(toc.file_position, toc.file_size)]
    return all(end <= limit for end, limit in zip(ends, limits))


@st.composite
def files(draw: st.DrawFn) -> Toc:
    """Frames and files that are in order, or nearly so, or reach beyond what 64 bits hold."""
    toc = Toc()
    toc.frame_raw.extend(draw(st.lists(st.integers(0, 2000), max_size=4)))
    position = 0
    for _ in range(draw(st.integers(0, 6))):
        toc.file_position.append(max(0, position + draw(st.sampled_from([0, 0, 0, 512, -1]))))
        toc.file_size.append(draw(st.integers(0, 400)))
        position = toc.file_position[-1] + toc.file_size[-1]
    if toc.file_size and draw(st.booleans()):
        toc.frame_raw.append(max(0, position + draw(st.integers(-1, 1)) + END_OF_ARCHIVE_SIZE - toc.raw_size))
    if toc.file_size and draw(st.integers(0, 3)) == 0:
        row = draw(st.integers(0, len(toc.file_size) - 1))
        draw(st.sampled_from([toc.file_size, toc.file_position]))[row] = draw(
            st.sampled_from([2**62 - 1, 2**62, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
        )
    return toc


@settings(max_examples=1000)
@given(files())
def test_files_are_in_order_where_a_loop_says_so(toc: Toc) -> None:
    assert toc._files_in_order() == in_order(toc)


@pytest.mark.parametrize("raw_size", [0, END_OF_ARCHIVE_SIZE - 1, END_OF_ARCHIVE_SIZE])
def test_an_empty_file_needs_a_whole_tar_stream(raw_size: int) -> None:
    toc = Toc()
    toc.frame_raw.append(raw_size)
    assert toc._files_in_order()
    toc.file_position.append(0)
    toc.file_size.append(0)
    assert toc._files_in_order() == (raw_size >= END_OF_ARCHIVE_SIZE)
