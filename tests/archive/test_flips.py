"""Damage of every kind is found, at every place of an archive."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.forms import FORMS
from helpers.support import AFTER_FOOTER, CODECS, Tally, describe, file_input
from rig.sites import pack
from unpackenv.archive import codecs, foreign, trailer
from unpackenv.archive.reader import open_archive
from unpackenv.archive.tarstream import BLOCK, DIRECTORY, SYMLINK, Scanner, begins_tar
from unpackenv.archive.verify import verify_archive
from unpackenv.archive.writer import Input
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, MemoryBudgetExceeded, UnpackenvError
from unpackenv.start.settings import Settings
from unpackenv.start.tree.writer import TreeWriter
from unpackenv.start.unpack.foreign import ForeignSource
from unpackenv.start.unpack.source import Observer

REGIONS = ("prefix", "frames", "container gap", "columns", "facts and their container", "footer", "tail")


@pytest.fixture(scope="module", params=CODECS)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive of several frames; tests put back what they change."""
    folder = tmp_path_factory.mktemp("flips")
    members = [
        Input(DIRECTORY, b"d", 0o755, 1),
        file_input(folder, b"d/file", b"content"),
        file_input(folder, b"d/large", bytes(range(256)) * 6),
        Input(SYMLINK, b"link", 0o777, 2, link=b"d/file"),
    ]
    path = folder / "small.tar"
    pack(path, members, request.param, frame_size=1500, level=3)
    assert verify_archive(str(path)).frames >= 3
    return path


def regions(archive: Path) -> dict[str, range]:
    identity = trailer.identify(str(archive))
    footer = identity.footer
    assert footer is not None
    first = len(codecs.get(footer.codec).prefix)
    index = footer.columns_offset - 8 if footer.codec == "zstd" else _index_start(archive, footer)
    end_of_columns = footer.columns_offset + footer.columns_size
    footer_start = identity.size - trailer.FOOTER_SIZE - AFTER_FOOTER[footer.codec]
    footer_end = footer_start + trailer.FOOTER_SIZE
    bounds = [0, first, index, footer.columns_offset, end_of_columns, footer_start, footer_end, identity.size]
    return {name: range(*pair) for name, pair in zip(REGIONS, zip(bounds, bounds[1:]))}


def _index_start(archive: Path, footer: trailer.Footer) -> int:
    data = archive.read_bytes()
    backward = int.from_bytes(data[footer.columns_offset - 8 : footer.columns_offset - 4], "little")
    return footer.columns_offset - 12 - 4 * (backward + 1)


@contextmanager
def changed(archive: Path, at: int, byte: int) -> Iterator[None]:
    fd = os.open(archive, os.O_RDWR)
    (before,) = os.pread(fd, 1, at)
    os.pwrite(fd, bytes([byte ^ before]), at)
    try:
        yield
    finally:
        os.pwrite(fd, bytes([before]), at)
        os.close(fd)


@pytest.mark.parametrize("region", REGIONS)
def test_one_bit_anywhere(archive: Path, region: str) -> None:
    places = regions(archive)[region]
    if not places:
        pytest.skip("this codec has none")
    missed = []
    for at in places:
        with changed(archive, at, 1 << at % 8):
            try:
                verify_archive(str(archive))
                missed.append(at)
            except UnpackenvError as error:
                missed += [at] if error.where != str(archive) else []
    assert not missed
    verify_archive(str(archive))


def test_opening_finds_everything_but_damaged_frames(archive: Path) -> None:
    frames = regions(archive)["frames"]
    missed = []
    for at in set(range(archive.stat().st_size)) - set(frames):
        with changed(archive, at, 1 << at % 8):
            try:
                open_archive(str(archive)).close()
                missed.append(at)
            except UnpackenvError:
                pass
    assert not missed


def test_a_warm_start_s_look_at_the_footer_finds_its_damage(archive: Path) -> None:
    """Without the magic it looks like a foreign archive, which no start unpacks; every other byte is under the CRC."""
    sound = trailer.identify(str(archive))
    footer = regions(archive)["footer"]
    for at in footer:
        with changed(archive, at, 1 << at % 8):
            if at < footer.stop - len(trailer.MAGIC):
                with pytest.raises((ArchiveCorrupt, ArchiveUnsupported)):
                    trailer.identify(str(archive))
            else:
                assert trailer.identify(str(archive)).key != sound.key


def test_regions_cover_the_archive(archive: Path) -> None:
    covered = [at for places in regions(archive).values() for at in places]
    assert covered == list(range(archive.stat().st_size))


def test_an_archive_cut_off_anywhere_is_refused(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(data)
    for size in reversed(range(len(data))):
        os.truncate(path, size)
        with pytest.raises(UnpackenvError):
            verify_archive(str(path))


@pytest.mark.parametrize("more", [b"\0", bytes(4), bytes(512), b"x" * 25, b"x" * 84])
def test_something_before_or_behind(archive: Path, tmp_path: Path, more: bytes) -> None:
    data = archive.read_bytes()
    path = tmp_path / "more"
    for whole in (data + more, more + data):
        path.write_bytes(whole)
        with pytest.raises(UnpackenvError):
            verify_archive(str(path))


def test_a_whole_archive_behind_another(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice"
    path.write_bytes(archive.read_bytes() * 2)
    with pytest.raises(UnpackenvError):
        verify_archive(str(path))


# --- archives of plain tar: the tree is that of stock tar, or there is none ------------------------------------------

TOOLS = {"tar": [], "gzip": ["-z"], "xz": ["-J"], "zstd": ["--zstd"]}  # also where a magic number is damaged
MEMORY = 1 << 22
BUFFER = memoryview(bytearray(foreign.CHUNK))


def stream_of(archive: Path, serial: bool) -> bytes:
    """Return the tar stream of an archive, decoded as one stream or piece by piece; b"" if it is refused."""
    found = b""
    scanner = Scanner()
    fd = os.open(archive, os.O_RDONLY)
    try:
        pieces = foreign.open_pieces(fd, str(archive), MEMORY, serial=serial)
        for fill in pieces.fills(0, 1):
            piece = BUFFER[: fill(BUFFER[: pieces.largest])]
            scanner.feed(piece)
            found += piece
        scanner.close()
    except UnpackenvError:
        return b""
    finally:
        os.close(fd)
    return found


def tree_of_ours(archive: Path, folder: str, memory: int) -> object:
    """Return the tree that a start makes of an archive, or that there is none."""
    os.mkdir(folder)
    root = os.open(folder, os.O_RDONLY)
    try:
        with ForeignSource(str(archive), Settings({"workers": 2, "memory": memory}, {})) as source:
            source.unpack(TreeWriter(root, os.umask(0o022), folder), processes=False, observer=Observer())
    except MemoryBudgetExceeded:
        return "over the budget"
    except UnpackenvError:
        return "refused"
    finally:
        os.close(root)
    return describe(Path(folder))


def tree_of_tar(archive: Path, folder: str) -> object:
    """Return the tree that stock tar makes, but for the bits of modes that are dropped on purpose."""
    os.mkdir(folder)
    how = TOOLS[archive.name.rpartition(".")[2]]
    if subprocess.run(["tar", *how, "-xpf", archive, "-C", folder], stderr=subprocess.DEVNULL).returncode:
        return "refused"
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            if (status := os.lstat(path)).st_mode & 0o7000 and not os.path.islink(path):
                os.chmod(path, status.st_mode & 0o777)
    return describe(Path(folder))


def places_in(data: bytes) -> list[int]:
    """Return where damage can be found: of a plain tar in its headers, of which no other bytes know anything."""
    if not begins_tar(data[:BLOCK]):
        return list(range(len(data)))
    members = (scanner := Scanner()).feed(memoryview(data))
    of_files = {at // BLOCK for member in members for at in range(member.position, member.position + member.size)}
    headers = {at // BLOCK for at in range(0, scanner.end + 1, BLOCK) if begins_tar(data[at : at + BLOCK])}
    return [
        at for at in range(scanner.end + BLOCK) if at // BLOCK in headers or (data[at] and at // BLOCK not in of_files)
    ]


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory for many small trees that no disk needs to see."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("form", FORMS)
def test_every_bit_of_a_foreign_archive(in_memory: Path, form: str, tally: Tally) -> None:
    archive = in_memory / f"archive.{form.split()[0].rstrip(',')}"
    archive.write_bytes(FORMS[form]())
    tried = unpacked = 0
    wrong = []
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        sound = tree_of_tar(archive, f"{folder}/sound")
        assert sound == tree_of_ours(archive, f"{folder}/ours", MEMORY) != "refused"
    for at in places_in(archive.read_bytes()):
        for bit in range(8):
            with changed(archive, at, 1 << bit):
                tried += 1
                whole, parts = stream_of(archive, serial=True), stream_of(archive, serial=False)
                if not whole and not parts:
                    continue
                with tempfile.TemporaryDirectory(dir=in_memory) as folder:
                    # With little memory it is one stream.
                    trees = [tree_of_ours(archive, f"{folder}/{memory}", memory) for memory in (1 << 20, 1 << 28)]
                    found = [tree for tree in trees if tree != "over the budget"]
                    wanted = tree_of_tar(archive, f"{folder}/tar")
                unpacked += found[0] != "refused"
                if whole != parts or found[0] != found[-1] or found[0] not in (wanted, "refused"):
                    wrong.append((at, bit))
    assert not wrong
    tally(f"flipped bits of {form}", tried)
    tally(f"flipped bits of {form}, to the tree of tar", unpacked)
