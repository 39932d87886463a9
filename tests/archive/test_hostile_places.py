"""Archives that are cut off, or have a bit flipped, anywhere: an `UnpackenvError`, or the very same members."""

from __future__ import annotations

import gzip
import lzma
import os
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from helpers.crafted import extended, member, tar
from helpers.support import CODECS, CUT, FLIPPED, Tally, file_input
from rig.sites import pack
from unpackenv.archive import foreign, trailer
from unpackenv.archive.codecs import xz_format, zstd_format
from unpackenv.archive.reader import open_archive
from unpackenv.archive.tarstream import Scanner
from unpackenv.errors import ArchiveCorrupt, UnpackenvError

PLACES = 100  # in every form; ten forms make a thousand
MEMORY = 16 << 20

Found = tuple[list[tuple[object, ...]], str]


def raw_stream() -> bytes:
    """A tar of files of many sizes, some of which compress, with long names."""
    noise = random.Random(4).randbytes
    members = []
    for number, size in enumerate((0, 1, 511, 512, 513, 3000, 20_000, 40_000)):
        members.append(extended(b"L", b"n" * (90 + 30 * number) + b"\0"))
        members.append(member(f"file {number}", data=(noise(size // 2) + bytes(size))[:size], mtime=number))
    return tar(*members)


RAW = raw_stream()
PIECES = [RAW[at : at + 10_000] for at in range(0, len(RAW), 10_000)]


def blocks(pieces: list[bytes]) -> bytes:
    encoded = [xz_format.encode_block(piece, 1, 1 << 16) for piece in pieces]
    sizes = [(xz_format.unpadded_size(block), len(piece)) for block, piece in zip(encoded, pieces)]
    return xz_format.stream_header() + b"".join(encoded) + xz_format.index_and_footer(sizes)


def frames(pieces: list[bytes], **options: bool) -> bytes:
    return b"".join(zstandard.ZstdCompressor(level=1, **options).compress(piece) for piece in pieces)


FORMS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: RAW,
    "gzip": lambda: gzip.compress(RAW, 1),
    "xz of one block": lambda: lzma.compress(RAW, preset=1),
    "xz of many blocks": lambda: blocks(PIECES),
    "xz of two streams": lambda: blocks(PIECES[:3]) + bytes(8) + blocks(PIECES[3:]),
    "zstd of one frame": lambda: frames([RAW], write_checksum=True),
    "zstd of many frames": lambda: frames(PIECES, write_checksum=True),
    "zstd without checksums": lambda: frames(PIECES),
}
UNCHECKED = ("plain", "zstd without checksums")  # nobody can tell what was flipped in the data of these


def boundaries(path: Path) -> list[int]:
    """Return where blocks or frames begin and end."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        head = os.pread(fd, 6, 0)
        parts: list[xz_format.Block] | list[zstd_format.Frame] = []
        if head == xz_format.MAGIC:
            parts = xz_format.read_blocks(fd, size)
        elif head[:4] == zstd_format.MAGIC:
            parts = zstd_format.read_frames(fd, size)
        return sorted({part.offset for part in parts} | {part.offset + part.stored_size for part in parts} - {size})
    finally:
        os.close(fd)


def read_foreign(path: Path) -> Found:
    """Decode and scan as a start does, with one worker; return the members, and the sha256 of the tar stream."""
    fd = os.open(path, os.O_RDONLY)
    try:
        pieces = foreign.open_pieces(fd, str(path), MEMORY)
        scanner, stream, found = Scanner(), sha256(), []
        buffer = memoryview(bytearray(pieces.largest))
        position = 0
        for fill in pieces.fills(0, 1):
            size = fill(buffer)
            if not size:
                break
            found += scanner.feed(buffer[:size])
            if scanner.is_marked:
                raise ArchiveCorrupt("it is a native one")
            stream.update(buffer[: max(0, min(size, scanner.end - position)) if scanner.ended else size])
            position += size
        scanner.close()
        return [(m.kind, m.path, m.size, m.mtime, m.position) for m in found], stream.hexdigest()
    finally:
        os.close(fd)


def read_native(path: Path) -> Found:
    """Open, read and decode as a start does; return the files, and the sha256 of the tar stream."""
    with open_archive(str(path)) as archive:
        decode, stream = archive.decoder(), sha256()
        for number, size in enumerate(archive.toc.frame_raw):
            out = bytearray(size)
            decode(archive.read_frame(number), memoryview(out))
            stream.update(out)
        files = [(name, size) for name, size in zip(archive.toc.file_names, archive.toc.file_size)]
        return [*files], stream.hexdigest()


def read_or_refuse(read: Callable[[Path], Found], path: Path) -> Found | None:
    try:
        return read(path)
    except UnpackenvError:
        return None


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An archive of many frames a codec. Shared: never write to it."""
    folder = tmp_path_factory.mktemp("native")
    noise = random.Random(5).randbytes
    members = [file_input(folder, b"file %d" % size, noise(size)) for size in (0, 1, 700, 9000, 30_000, 60_000)]
    paths = {codec: folder / codec for codec in CODECS}
    for codec, path in paths.items():
        pack(path, members, codec, frame_size=8192)
    return paths


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_archive_that_is_cut_off(tmp_path: Path, form: str, tally: Tally) -> None:
    data = FORMS[form]()
    path = tmp_path / "cut"
    path.write_bytes(data)
    sound = read_foreign(path)
    places = boundaries(path)
    assert len(places) == {"xz of many blocks": len(PIECES) + 1, "plain": 0, "gzip": 0}.get(form, len(places))
    chosen = random.Random(form).sample(range(len(data)), PLACES)
    tally(CUT, len({*places, *chosen}))
    accepted = []
    for size in sorted({*places, *chosen}, reverse=True):
        os.truncate(path, size)
        found = read_or_refuse(read_foreign, path)
        if found is not None:
            accepted.append(size)
            assert found == sound
    # What follows the end of a tar stream is all that may be missing, and only where nothing counts what there is.
    assert not accepted or form == "plain"
    assert all(size >= len(RAW) - 512 for size in accepted)


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_archive_with_a_flipped_bit(tmp_path: Path, form: str, tally: Tally) -> None:
    data = FORMS[form]()
    path = tmp_path / "flipped"
    path.write_bytes(data)
    sound = read_foreign(path)
    chosen = random.Random(form + "flips")
    tally(FLIPPED, PLACES)
    missed = []
    for at in chosen.sample(range(len(data)), PLACES):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes((data[at] ^ 1 << chosen.randrange(8),)))
        found = read_or_refuse(read_foreign, path)
        if found not in (None, sound):
            missed.append(at)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(data[at : at + 1])
    assert not missed or form in UNCHECKED
    assert read_foreign(path) == sound


@pytest.mark.parametrize("codec", CODECS)
def test_a_native_archive_that_is_cut_off(native: dict[str, Path], tmp_path: Path, codec: str, tally: Tally) -> None:
    data = native[codec].read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(data)
    identity = trailer.identify(str(path))
    with open_archive(str(path)) as archive:
        places = [12 if codec == "xz" else 0]
        for size in archive.toc.frame_stored:
            places.append(places[-1] + size)
    assert identity.footer is not None
    footer = identity.footer
    places += [footer.columns_offset, footer.columns_offset + footer.columns_size, footer.facts_offset]
    chosen = random.Random(codec).sample(range(len(data)), PLACES)
    assert read_native(path)
    tally(CUT, len({*places, *chosen}))
    accepted = []
    for size in sorted({*places, *chosen}, reverse=True):
        os.truncate(path, size)
        # Nor is it, without its end, an archive of plain tar.
        if any(read_or_refuse(read, path) is not None for read in (read_native, read_foreign)):
            accepted.append(size)
    assert not accepted


@pytest.mark.parametrize("codec", CODECS)
def test_a_native_archive_with_a_flipped_bit(native: dict[str, Path], tmp_path: Path, codec: str, tally: Tally) -> None:
    data = native[codec].read_bytes()
    path = tmp_path / "flipped"
    chosen = random.Random(codec + "flips")
    tally(FLIPPED, PLACES)
    accepted = []
    for at in chosen.sample(range(len(data)), PLACES):
        path.write_bytes(data[:at] + bytes((data[at] ^ 1 << chosen.randrange(8),)) + data[at + 1 :])
        if read_or_refuse(read_native, path) is not None:
            accepted.append(at)
    assert not accepted
