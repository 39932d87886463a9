"""The contract of codecs: every one keeps it, and one more takes one file and one registration."""

from __future__ import annotations

import io
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.processes import run, wrapper
from helpers.support import file_input
from rig.environment import SOURCE, environment
from rig.sites import pack, write_tree
from unpackenv.archive import codecs, foreign, trailer
from unpackenv.archive.codecs import zstd_extension, zstd_stdlib
from unpackenv.archive.codecs.base import Codec
from unpackenv.archive.reader import open_archive
from unpackenv.archive.toc import FRAME_LIMIT
from unpackenv.archive.verify import verify_archive
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, SettingError, UnpackenvError

BY_STDLIB = "zstd by the standard library"
TEXT = b"".join(b"line %d\n" % (number * number) for number in range(20_000))
CONTENTS = {"text": TEXT, "noise": random.Random(1).randbytes(300_000), "zeros": bytes(700_000), "byte": b"x"}
MEMORY = 1 << 27

TOY = '''
"""A codec in one file: frames are zlib streams, between two marks of the container."""

import os
import zlib

from unpackenv.archive.codecs.base import READ, Codec, stream
from unpackenv.errors import ArchiveCorrupt

_WINDOW, _END = 1 << 15, b"end of toys"


class _Toy(Codec):
    name = "toy"
    levels = range(1, 10)
    level, fast_level, best_level = 6, 1, 9
    times_faster, fraction_larger = 3, 1 / 5
    frame_size, best_frame_size = 1 << 20, 1 << 24
    prefix = b"toys"

    def seconds_per_byte(self, level):
        return 1e-8 * level

    def encoder(self, level, frame_size):
        return lambda raw: zlib.compress(raw, level)

    def decoder(self):
        return _decode

    def window(self, raw_size):
        return _WINDOW + raw_size

    def encode_columns(self, raw):
        return zlib.compress(raw, 9)

    def before_columns(self, frames, columns_size, facts_size):
        return _END

    def frames_end_there(self, fd, size, frames, columns_offset):
        offset = len(self.prefix)
        for stored, raw in frames:
            _decode(os.pread(fd, stored, offset), memoryview(bytearray(raw)))
            offset += stored
        return offset + len(_END) == columns_offset

    def begins(self, head):
        return head.startswith(self.prefix)

    def pieces(self, fd, size, memory, serial):
        return stream(_chunks(fd, len(self.prefix)), _WINDOW)


CODEC = _Toy()


def _decode(stored, out):
    decoder = zlib.decompressobj()
    try:
        raw = decoder.decompress(stored, len(out) + 1)
    except zlib.error as error:
        raise ArchiveCorrupt(f"a toy does not decode ({error})") from error
    if len(raw) != len(out) or not decoder.eof or decoder.unused_data:
        raise ArchiveCorrupt("a toy has another size than announced")
    out[:] = raw


def _chunks(fd, offset):
    while (rest := os.pread(fd, 1 << 24, offset)) and not rest.startswith(_END):
        decoder = zlib.decompressobj()
        yield decoder.decompress(rest)
        offset += len(rest) - len(decoder.unused_data)
'''


def standard_library_zstd() -> object:
    """Return CPython's own module, or the one that backports it."""
    return zstd_stdlib.find() or pytest.importorskip("backports.zstd")


@pytest.fixture(params=[*codecs.names(), "toy", BY_STDLIB])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Codec]:
    """Every codec, one that this test registers, and zstd as it decodes where zstandard is missing."""
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        if name == "toy":
            folder = write_tree(tmp_path_factory.mktemp("toy"), {"toy.py": TOY})
            patch.setattr(codecs, "__path__", [*codecs.__path__, str(folder)])
            patch.setitem(trailer.CODECS, 250, ("toy", (".toy", ".tt"), 0))
        yield codecs.get("zstd" if name == BY_STDLIB else name)
        sys.modules.pop("unpackenv.archive.codecs.toy", None)


@pytest.fixture(autouse=True)
def decoder_is_chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """See that what decodes is what the test is for; zstandard goes on encoding."""
    name = request.node.callspec.params.get("codec") if hasattr(request.node, "callspec") else None

    def missing() -> None:
        raise ArchiveUnsupported("zstandard is missing")

    if name == BY_STDLIB:
        codec = codecs.get("zstd")
        encoder, columns = codec.encoder, codec.encode_columns
        load = zstd_extension.load

        def with_zstandard(call: object) -> object:
            def called(*arguments: object) -> object:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(zstd_extension, "load", load)
                    return call(*arguments)  # type: ignore[operator]

            return called

        monkeypatch.setattr(codec, "encoder", with_zstandard(encoder))
        monkeypatch.setattr(codec, "encode_columns", with_zstandard(columns))
        monkeypatch.setitem(sys.modules, "compression.zstd", standard_library_zstd())
        monkeypatch.setattr(zstd_extension, "load", missing)
    else:
        monkeypatch.setattr(zstd_stdlib, "find", lambda: pytest.fail("zstandard is here"))


def decoded(codec: Codec, frame: bytes, size: int) -> bytes:
    out = bytearray(size)
    codec.decoder()(frame, memoryview(out))
    return bytes(out)


# --- what every codec has to keep -----------------------------------------------------------------


def test_what_it_says_of_itself(codec: Codec) -> None:
    assert codecs.get(codec.name) is codec
    assert codec.name in codecs.names()
    assert {codec.level, codec.fast_level, codec.best_level} <= set(codec.levels)
    assert (1 << 12) <= codec.frame_size <= codec.best_frame_size <= FRAME_LIMIT
    assert codec.times_faster > 1
    assert 0 < codec.fraction_larger < 1
    assert 0 < codec.seconds_per_byte(codec.fast_level) <= codec.seconds_per_byte(codec.best_level) < 1e-3
    assert 0 <= codec.window(1 << 20) <= 2 << 20
    for suffix in codec.suffixes:
        assert codecs.of_file_name(f"x.tar{suffix}") == codec.name


def test_no_two_say_the_same() -> None:
    assert len(set(codecs.names())) == len(trailer.CODECS)
    suffixes = [suffix for _, several, _ in trailer.CODECS.values() for suffix in several]
    assert all(suffix.startswith(".") for suffix in suffixes)
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("raw", CONTENTS.values(), ids=CONTENTS.keys())
def test_frames_decode_to_what_was_encoded(codec: Codec, raw: bytes) -> None:
    for level in {codec.fast_level, codec.level}:
        encode = codec.encoder(level, 1 << 20)
        frame = encode(raw)
        assert encode(raw) == frame == codec.encoder(level, 1 << 20)(raw)
        decode = codec.decoder()
        for _ in "first", "again":
            out = bytearray(len(raw))
            decode(memoryview(frame), memoryview(out))
            assert out == raw


def test_frames_of_another_size_than_announced(codec: Codec) -> None:
    frame = codec.encoder(codec.fast_level, 1 << 20)(TEXT)
    for size in (0, 1, len(TEXT) - 1, len(TEXT) + 1, 2 * len(TEXT)):
        with pytest.raises(ArchiveCorrupt):
            decoded(codec, frame, size)
    decode = codec.decoder()
    with pytest.raises(ArchiveCorrupt):
        decode(frame, memoryview(bytearray(10)))
    out = bytearray(len(TEXT))
    decode(frame, memoryview(out))  # nothing is left of what was refused
    assert out == TEXT


def test_a_damaged_frame_is_refused_or_is_what_it_was(codec: Codec) -> None:
    """Cut off or changed, a frame is refused, or is what it was: the table of contents has the sha256 of each."""
    frame = codec.encoder(codec.fast_level, 1 << 20)(TEXT[:3000])
    choose = random.Random(2)
    for size in range(0, len(frame), 7):
        try:
            assert decoded(codec, frame[:size], 3000) == TEXT[:3000]
        except ArchiveCorrupt:
            pass
    for _ in range(200):
        changed = bytearray(frame)
        changed[choose.randrange(len(frame))] ^= 1 << choose.randrange(8)
        try:
            assert len(decoded(codec, bytes(changed), 3000)) == 3000
        except ArchiveCorrupt:
            pass


def test_columns_decode_to_what_was_encoded(codec: Codec) -> None:
    for raw in (b"x", TEXT):
        stored = codec.encode_columns(raw)
        assert codec.decode_columns(stored, len(raw)) == raw
        for size in (len(raw) - 1, len(raw) + 1):
            with pytest.raises(ArchiveCorrupt):
                codec.decode_columns(stored, size)


def test_the_container_of_an_archive(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    members = [file_input(tmp_path, b"a", TEXT), file_input(tmp_path, b"b", b"short")]
    pack(path, members, codec.name, frame_size=50_000, level=codec.fast_level)
    data = path.read_bytes()
    footer = trailer.identify(str(path)).footer
    assert footer is not None
    assert footer.codec == codec.name
    (after,) = [after for name, _, after in trailer.CODECS.values() if name == codec.name]
    assert data[: len(data) - after].endswith(footer.pack())
    assert footer.facts_offset == footer.columns_offset + footer.columns_size + codec.payload_offset
    assert data.startswith(codec.prefix)
    assert verify_archive(str(path)).frames > 3
    with open_archive(str(path)) as archive, path.open("rb") as file:
        frames = list(zip(archive.toc.frame_stored, archive.toc.frame_raw))
        for size in (frames[0][0] - 4, frames[0][0] + 4):
            lie = [(size, frames[0][1]), *frames[1:]]
            try:
                assert not codec.frames_end_there(file.fileno(), len(data), lie, footer.columns_offset)
            except ArchiveCorrupt:
                pass
    for at in (0, sum(stored for stored, _ in frames) + len(codec.prefix), len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UnpackenvError):
            verify_archive(str(path))


def stream_of(path: Path, workers: int, serial: bool) -> bytes:
    """Return the tar stream of an archive, in pieces that so many workers would decode."""
    with io.FileIO(path) as file:
        pieces = foreign.open_pieces(file.fileno(), str(path), MEMORY, serial=serial)
        assert pieces.most_workers >= 1
        assert pieces.memory_each(2) <= 2 * MEMORY
        buffer = memoryview(bytearray(pieces.largest))
        steps = min(workers, pieces.most_workers)
        found: dict[int, bytes] = {}
        for first in range(steps):
            for number, fill in enumerate(pieces.fills(first, steps)):
                found[first + number * steps] = bytes(buffer[: fill(buffer)])
        return b"".join(found[number] for number in sorted(found))


def test_the_tar_stream_of_a_file(codec: Codec, tmp_path: Path) -> None:
    """Each of our archives is such a file, whose stream other things may follow."""
    path = tmp_path / "archive"
    pack(path, [file_input(tmp_path, b"a", TEXT)], codec.name, frame_size=50_000, level=codec.fast_level)
    with open_archive(str(path)) as archive:
        assert codec.begins(path.read_bytes()[:512])
        raw = b"".join(
            decoded(codec, bytes(archive.read_frame(number)), size) for number, size in enumerate(archive.toc.frame_raw)
        )
    assert stream_of(path, 1, serial=False)[: len(raw)] == raw
    assert stream_of(path, 3, serial=False)[: len(raw)] == raw
    assert stream_of(path, 1, serial=True)[: len(raw)] == raw
    others = [other.name for other in codecs.every() if other.begins(path.read_bytes()[:512])]
    assert others == [codec.name]
    for head in (b"", b"plain text", bytes(512)):
        assert not codec.begins(head)


def test_the_header_of_zstd_s_own_skippable_frame() -> None:
    header = codecs.get("zstd").before_columns([(1, 2)], 0x01020304, 5)
    assert header == bytes.fromhex("5e2a4d18") + (0x01020304 + 5 + trailer.FOOTER_SIZE).to_bytes(4, "little")


# --- a codec is found by its name -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["lz4", "base", "", "zstd_format"])
def test_an_unknown_codec(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is no codec; known are zstd, xz"):
        codecs.get(name)
    with pytest.raises(SettingError, match="is no codec"):
        pack(tmp_path / "archive", [file_input(tmp_path, b"a", b"1")], name)
    assert not (tmp_path / "archive").exists()


def test_a_name_imports_its_own_module() -> None:
    code = "import sys; from unpackenv.archive import codecs; codecs.get({!r}); print(*sys.modules)"
    for name, others in ("zstd", ["xz", "xz_format"]), ("xz", ["zstd", "zstd_format", "zstd_extension"]):
        loaded = run([sys.executable, "-S", "-c", code.format(name)]).stdout.split()
        assert f"unpackenv.archive.codecs.{name}" in loaded
        assert not {"lzma", "zstandard", *(f"unpackenv.archive.codecs.{other}" for other in others)} & set(loaded)


# --- one file and one registration ----------------------------------------------------------------


@pytest.fixture(scope="module")
def with_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that has the toy codec. Shared: never write to it."""
    root = tmp_path_factory.mktemp("with-toy")
    shutil.copytree(Path(SOURCE, "unpackenv"), root / "unpackenv", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "unpackenv/archive/codecs/toy.py").write_text(TOY)
    registration = root / "unpackenv/archive/trailer.py"
    before = registration.read_text()
    registration.write_text(before.replace("CODECS = {\n", 'CODECS = {\n    250: ("toy", (".toy", ".tt"), 0),\n'))
    assert registration.read_text() != before
    return root


def test_a_codec_more(with_toy: Path, tmp_path: Path) -> None:
    env = environment(PYTHONPATH=with_toy)

    def done(*arguments: object) -> str:
        ran = run(wrapper(*arguments), env)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    site = write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n", "data": "data " * 100_000})
    archive, named = tmp_path / "x.tar.toy", tmp_path / "x.tt"
    assert "zstd 1 to 22, xz 0 to 9" in (usage := " ".join(done("pack", "--help").split()))
    assert "toy 1 to 9" in usage
    assert "toy 1, about 20% larger in 1/3 of the time" in usage
    done("pack", site, "-o", archive, "--codec", "toy", "--frame-size", "8K")
    done("pack", site, "-o", named, "--frame-size", "8K")
    assert archive.read_bytes() == named.read_bytes()
    assert archive.read_bytes().startswith(b"toys")
    assert "  codec toy\n  " in (shown := done("inspect", archive))
    assert "  level 6\n" in shown
    assert done("verify", archive) == f"{archive}: sound\n"
    assert run(wrapper("doctor", "--archive", archive, "--target", tmp_path / "tree"), env).returncode == 0
    app = [sys.executable, "-c", "import app; print(app.WHOSE, app.__file__)"]
    target = tmp_path / "tree"
    for _ in "cold", "warm":
        assert done("--archive", archive, "--target", target, "--", *app) == f"packed {target}/app.py\n"
    assert done("verify", archive, "--target", target).startswith(f"{target}: complete")
    code = f"import unpackenv; unpackenv.bootstrap(target={str(tmp_path / 'second')!r}); import app; print(app.WHOSE)\n"
    main = write_tree(tmp_path / "beside", {"main.py": code}) / "main.py"
    shutil.copy(archive, main.parent / "site-packages.tar.toy")
    assert run([sys.executable, main], env).stdout == "packed\n", "a well-known name"
    damaged = bytearray(archive.read_bytes())
    damaged[300] ^= 1
    archive.write_bytes(damaged)
    assert run(wrapper("verify", archive), env).returncode == 125


def test_plain_tar_in_a_codec_more(with_toy: Path, tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"app.py": "WHOSE = 'tar'\n"})
    code = "import sys, zlib; sys.stdout.buffer.write(b'toys' + zlib.compress(sys.stdin.buffer.read()))"
    made = run(["sh", "-c", f"tar -C {site} -c . | {sys.executable} -c {code!r} > {tmp_path}/plain.tar.toy"])
    assert made.returncode == 0, made.stderr
    named = ["--archive", tmp_path / "plain.tar.toy", "--target", tmp_path / "tree"]
    app = [sys.executable, "-c", "import app; print(app.WHOSE)"]
    done = run(wrapper(*named, "--", *app), environment(PYTHONPATH=with_toy))
    assert (done.returncode, done.stdout) == (0, "tar\n"), done.stderr


def test_a_runtime_for_a_codec_more(with_toy: Path, tmp_path: Path) -> None:
    env = environment(PYTHONPATH=with_toy)
    site = write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"})
    assert run(wrapper("pack", site, "-o", tmp_path / "x.toy"), env).returncode == 0
    at = tmp_path / "runtime"
    assert run(wrapper("runtime", "--codec", "toy", at), env).returncode == 0
    assert not list(at.rglob("*.so"))
    compiled = {path.name.partition(".")[0] for path in (at / "unpackenv/archive/codecs").rglob("*.pyc")}
    assert compiled == {"__init__", "base", "toy"}
    code = f"import unpackenv; unpackenv.bootstrap({str(tmp_path / 'x.toy')!r}, {str(tmp_path / 'tree')!r})\n"
    code += "import app; print(app.WHOSE)"
    done = run([sys.executable, "-S", "-s", "-c", code], {"PATH": os.defpath, "PYTHONPATH": str(at)})
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr
