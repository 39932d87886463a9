"""zstd where zstandard is missing: CPython 3.14 and later decode it, with the same bounds and the same errors.

On older ones its module is tried as `backports.zstd` has it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from helpers import forms
from helpers.processes import result_of, run, wrapper
from helpers.support import describe
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive import codecs, foreign
from unpackenv.archive.codecs import zstd_extension, zstd_stdlib
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, UnpackenvError

MODULE = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
# What stands before a start: no zstandard, and CPython's own module.
HIDDEN = f"""
import sys, {MODULE}
sys.modules["zstandard"] = None
sys.modules["compression.zstd"] = sys.modules[{MODULE!r}]
"""
WITH_NEITHER = "import sys\nsys.modules['zstandard'] = sys.modules['compression.zstd'] = None\n"
MEMORY = 64 << 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: never write to it."""
    noise = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz\n", k=900_000))
    files = {"app.py": "WHOSE = 'packed'\n", "package/noise": noise, "package/zeros": "0" * 700_000}
    return write_tree(tmp_path_factory.mktemp("stdlib") / "site", files)


@pytest.fixture
def without_zstandard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CPython's module decode in this process."""

    def missing() -> None:
        raise ArchiveUnsupported("zstandard is missing")

    pytest.importorskip(MODULE)
    monkeypatch.setitem(sys.modules, "compression.zstd", sys.modules[MODULE])
    monkeypatch.setattr(zstd_extension, "load", missing)


def boot(archive: Path, target: Path, before: str = HIDDEN, **settings: object) -> list[object]:
    """Return outcome and fields of a start, or the name of its error and what it says."""
    pytest.importorskip(MODULE)
    given = "".join(f", {name}={value!r}" for name, value in settings.items())
    code = f"""{before}
import unpackenv
try:
    report = unpackenv.bootstrap({str(archive)!r}, {str(target)!r}{given})
    result = [report.outcome, report.fields()]
except unpackenv.UnpackenvError as error:
    result = [type(error).__name__, str(error)]
"""
    return result_of(code)  # type: ignore[no-any-return]


def tar_zst(archive: Path, site: Path, frames: int) -> Path:
    """Make a .tar.zst of so many frames, the last of which does not say how large it is where there is one only."""
    raw = subprocess.run(["tar", "-C", site, "-c", "."], capture_output=True, check=True).stdout
    step = -(-len(raw) // frames)
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=frames > 1)
    archive.write_bytes(b"".join(compressor.compress(raw[at : at + step]) for at in range(0, len(raw), step)))
    return archive


def unpacked(target: Path) -> dict[bytes, object]:
    return {path: what for path, what in describe(target).items() if not path.startswith(b".unpackenv.")}


# --- starts ---------------------------------------------------------------------------------------


def test_a_native_archive_starts(site: Path, tmp_path: Path) -> None:
    pack_tree(tmp_path / "archive", site)
    outcome, fields = boot(tmp_path / "archive", tmp_path / "tree", workers=2)
    assert outcome == "unpacked", fields
    assert unpacked(tmp_path / "tree") == describe(site)
    assert boot(tmp_path / "archive", tmp_path / "other", WITH_NEITHER)[0] == "ArchiveUnsupported"


@pytest.mark.parametrize("parallel", ["processes", "threads"])
@pytest.mark.parametrize("frames", [1, 5])
def test_an_archive_of_plain_tar_starts(site: Path, tmp_path: Path, frames: int, parallel: str) -> None:
    archive = tar_zst(tmp_path / "archive", site, frames)
    outcome, fields = boot(archive, tmp_path / "tree", workers=2, parallel=parallel)
    assert outcome == "unpacked", fields
    assert unpacked(tmp_path / "tree") == describe(site)
    assert isinstance(fields, dict)
    assert fields["workers"] == min(2, frames)
    outcome, said = boot(archive, tmp_path / "other", WITH_NEITHER)
    assert (outcome, "cannot import zstandard" in str(said)) == ("ArchiveUnsupported", True)


def test_a_damaged_archive_is_refused(site: Path, tmp_path: Path) -> None:
    pack_tree(tmp_path / "native", site)
    tar_zst(tmp_path / "tar", site, 5)
    for name in "native", "tar":
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 3] ^= 16
        (tmp_path / name).write_bytes(data)
        outcome, said = boot(tmp_path / name, tmp_path / "tree")
        assert (outcome, str(tmp_path / name) in str(said)) == ("ArchiveCorrupt", True), said
        assert not (tmp_path / "tree").exists()


def test_it_is_not_imported_where_zstandard_is(site: Path, tmp_path: Path) -> None:
    pack_tree(tmp_path / "archive", site)
    refuses = "import sys\nsys.modules['compression.zstd'] = sys.modules['compression'] = None\n"
    threads = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    code = f"import unpackenv; unpackenv.bootstrap({str(tmp_path / 'archive')!r}, {str(tmp_path / 'tree')!r})\n"
    loaded = result_of(refuses + threads + code + "result = list(sys.modules)")
    assert "unpackenv.archive.codecs.zstd" in loaded
    assert "unpackenv.archive.codecs.zstd_stdlib" not in loaded


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="it is CPython's own here")
def test_somebody_else_s_package_of_that_name_is_left_alone(site: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "theirs", {"compression/__init__.py": "raise SystemExit('imported')\n"})
    pack_tree(tmp_path / "archive", site)
    before = f"import sys\nsys.modules['zstandard'] = None\nsys.path.insert(0, {str(tmp_path / 'theirs')!r})\n"
    assert boot(tmp_path / "archive", tmp_path / "tree", before)[0] == "ArchiveUnsupported"


def test_what_the_doctor_says(site: Path, tmp_path: Path) -> None:
    pytest.importorskip(MODULE)
    pack_tree(tmp_path / "archive", site)
    write_tree(tmp_path / "hidden", {"usercustomize.py": "", "sitecustomize.py": HIDDEN})
    env = environment(PYTHONPATH=f"{tmp_path / 'hidden'}:{environment()['PYTHONPATH']}")
    done = run(wrapper("doctor", "--archive", tmp_path / "archive", "--target", tmp_path / "tree"), env)
    (line,) = [line for line in done.stdout.splitlines() if " zstandard " in line]
    assert line.split()[:3] == ["ok", "zstandard", "missing:"]
    assert f"{MODULE} decodes" in line


# --- the same bounds and errors -------------------------------------------------------------------


def window(log: int) -> bytes:
    """Return a frame that asks for a window of 2^log bytes, and does not say how large it is."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(b"data" * 100) + compressor.flush()


@pytest.mark.usefixtures("without_zstandard")
def test_a_window_is_bounded() -> None:
    decode = codecs.get("zstd").decoder()
    out = bytearray(400)
    decode(window(27), memoryview(out))
    assert out == b"data" * 100
    with pytest.raises(ArchiveCorrupt, match="memory"):
        decode(window(28), memoryview(out))
    with pytest.raises(ArchiveCorrupt, match="memory"):
        list(zstd_stdlib.decode_frame([window(21)], 1 << 20))
    assert b"".join(zstd_stdlib.decode_frame([window(21)], (1 << 20) + 1)) == out


@pytest.mark.usefixtures("without_zstandard")
def test_a_frame_has_to_end_where_it_is_said_to() -> None:
    raw = b"data" * 100_000
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(raw)
    decode, out = codecs.get("zstd").decoder(), bytearray(len(raw))
    for stored in (frame[:-1], frame[:-4], frame + b"x", frame + frame, frame + zstandard.compress(b"")):
        with pytest.raises(ArchiveCorrupt, match="end"):
            decode(stored, memoryview(out))
    for pieces in ([frame, b"x"], [frame[:9], frame[9:], frame]):
        with pytest.raises(ArchiveCorrupt, match="ends earlier"):
            list(zstd_stdlib.decode_frame(pieces, 1 << 27))
    decode(frame, memoryview(out))
    assert out == raw


def test_a_bomb_is_not_decoded_to_its_end() -> None:
    pytest.importorskip(MODULE)
    code = f"""{HIDDEN}
import resource
from unpackenv.archive import codecs
from unpackenv.errors import ArchiveCorrupt
block = (1 << 20 | 2).to_bytes(3, "little") + b"0"
bomb = b"\\x28\\xb5\\x2f\\xfd\\x00\\x38" + block * 8000 + bytes((block[0] | 1,)) + block[1:]  # a GiB, window of 128 KiB
decode, out = codecs.get("zstd").decoder(), memoryview(bytearray(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(bomb, out)
    result = "decoded"
except ArchiveCorrupt:
    result = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
"""
    assert result_of(code) < 8 << 10, "KiB"


def test_memory_is_estimated_with_a_window(without_zstandard: None) -> None:
    assert codecs.get("zstd").window(16 << 20) >= 16 << 20


def answer(path: Path) -> str:
    """Return the sha256 of the tar stream of a file, or the reason why there is none."""
    digest = sha256()
    try:
        fd = foreign.open_file(str(path))
        with open(fd, "rb"):
            pieces = foreign.open_pieces(fd, str(path), MEMORY)
            buffer = memoryview(bytearray(pieces.largest))
            for fill in pieces.fills(0, 1):
                digest.update(buffer[: fill(buffer)])
    except UnpackenvError as error:
        return error.reason
    return digest.hexdigest()


@pytest.mark.parametrize("form", [form for form in forms.FORMS if form.startswith("zstd")])
def test_damage_has_the_same_answer(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Where zstandard refuses a damaged file, so does CPython's module; what both take, is the same."""
    data, path = forms.FORMS[form](), tmp_path / "archive"
    choose = random.Random(4)
    damaged = [data[:size] for size in range(0, len(data), 11)]
    for _ in range(400):
        changed = bytearray(data)
        changed[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        damaged.append(bytes(changed))
    expected = []
    for content in (data, *damaged):
        path.write_bytes(content)
        expected.append(answer(path))
    assert len(expected[0]) == 64
    request.getfixturevalue("without_zstandard")
    for content, as_expected in zip((data, *damaged), expected):
        path.write_bytes(content)
        found = answer(path)
        if found != as_expected:
            assert found == "archive-corrupt", "it may be stricter, and nothing else"
            assert len(as_expected) == 64
    path.write_bytes(data)
    assert answer(path) == expected[0]
