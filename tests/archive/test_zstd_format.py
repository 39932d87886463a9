"""The .zst format: the walk from frame to frame, against stock zstd."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import zstandard

from unpackenv.archive.codecs import zstd_format
from unpackenv.errors import ArchiveCorrupt

TEXT = b"".join(b"line %d\n" % (number * number) for number in range(40_000))
NOISE = random.Random(1).randbytes(300_000)
ZEROS = bytes(500_000)
CONTENTS = {"text": TEXT, "noise": NOISE, "zeros": ZEROS, "mixed": TEXT + ZEROS + NOISE, "byte": b"x", "empty": b""}


def stock(*arguments: str, given: bytes) -> bytes:
    """Compress with stock zstd; a size it can know only from a file."""
    run = subprocess.run(["zstd", "-q", "-c", *arguments], input=given, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def frames_of(path: Path) -> list[zstd_format.Frame]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return zstd_format.read_frames(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def decoded(path: Path) -> list[bytes]:
    """Decode each frame alone: it must end where the walk says, and have the size that it says."""
    data = path.read_bytes()
    out = []
    for frame in frames_of(path):
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        out.append(decompressor.decompress(data[frame.offset : frame.offset + frame.stored_size]))
        assert decompressor.eof
        assert not decompressor.unused_data
        assert frame.raw_size in (None, len(out[-1]))
    return out


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
@pytest.mark.parametrize(
    "options",
    [
        ["-1"],
        ["-19"],
        ["-3", "--no-check"],
        ["-3", "--check"],
        ["-3", "--long=24"],
        ["--fast=5"],
        ["-3", "-T2", "-B64K"],
    ],
    ids=" ".join,
)
def test_frames_that_stock_zstd_wrote(tmp_path: Path, content: bytes, options: list[str]) -> None:
    source, path = tmp_path / "raw", tmp_path / "raw.zst"
    source.write_bytes(content)
    for size_known in (True, False):
        given = [str(source)] if size_known else []
        path.write_bytes(stock(*options, *given, given=content))
        assert decoded(path) == [content]
        if content:
            assert frames_of(path)[0].raw_size == (len(content) if size_known else None)


def test_concatenated_and_skippable_frames(tmp_path: Path) -> None:
    path = tmp_path / "many.zst"
    parts = [TEXT[:1000], b"", NOISE, ZEROS, TEXT]
    skippable = [struct.pack("<II", 0x184D2A50 + n, n * 7) + bytes(n * 7) for n in (0, 1, 15)]
    stored = [stock("-3", f"--{check}check", given=part) for part, check in zip(parts, ["", "no-"] * 3)]
    path.write_bytes(b"".join([*skippable, *stored[:2], *skippable, *stored[2:], *skippable]))
    assert decoded(path) == parts
    whole = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
    assert whole == b"".join(parts)


@pytest.mark.skipif(not shutil.which("pzstd"), reason="no pzstd here")
def test_an_archive_of_pzstd(tmp_path: Path) -> None:
    source, path = tmp_path / "raw", tmp_path / "raw.zst"
    source.write_bytes(CONTENTS["mixed"] * 20)
    subprocess.run(["pzstd", "-q", "-1", "-p", "4", source, "-o", path], check=True)
    frames = decoded(path)
    assert b"".join(frames) == source.read_bytes()
    assert len(frames) > 1


@pytest.mark.parametrize("window_log", range(10, 28))
def test_the_window_is_the_header_s(tmp_path: Path, window_log: int) -> None:
    path = tmp_path / "window.zst"
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(TEXT) + compressor.flush())
    (frame,) = frames_of(path)
    assert frame.window == zstandard.get_frame_parameters(path.read_bytes()).window_size == 1 << window_log


def test_a_single_segment_has_its_content_as_window(tmp_path: Path) -> None:
    path = tmp_path / "single.zst"
    for size in (1, 255, 256, 65_791, 65_792, 400_000):
        path.write_bytes(zstandard.ZstdCompressor(level=1).compress(TEXT[:size]))
        (frame,) = frames_of(path)
        assert (frame.raw_size, frame.window) == (size, size)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "cut.zst"
    parts = [stock("-3", "--check", given=TEXT[:300]), struct.pack("<II", 0x184D2A5E, 5) + b"12345"]
    whole = b"".join([*parts, stock("-3", "--no-check", given=NOISE[:50])])
    boundaries = {0, len(parts[0]), len(parts[0]) + len(parts[1])}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size in boundaries:
            frames_of(path)
        else:
            with pytest.raises(ArchiveCorrupt):
                frames_of(path)


@pytest.mark.parametrize("junk", [b"\0", b"\x28\xb5\x2f", b"not a frame", bytes(40)])
def test_what_is_no_frame_is_refused(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.zst"
    path.write_bytes(stock("-3", given=TEXT) + junk)
    with pytest.raises(ArchiveCorrupt, match="byte"):
        frames_of(path)
