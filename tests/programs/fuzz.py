"""Coverage-guided fuzzing of every parser that reads an archive: `make fuzz ARGS="[TARGET …]"`.

Each target runs in its own process for `--seconds`. An `UnpackenvError` is a right answer. Any other exception is a
finding, and so are more than 512 MiB, or 10 seconds for one input. The working directory keeps the input of a finding:
`make fuzz ARGS="TARGET --input FILE"` runs it again. Minimised, it becomes a test.

A fuzzer does not guess checksums. So the first byte of most inputs says whether the target corrects them.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Callable

MEMORY_MIB = 512
SECONDS_EACH = 10
LARGEST_INPUT = 1 << 16
BUDGET = 1 << 24  # for what is decoded
_MODULES = ("facts", "toc", "trailer", "tarstream", "codecs.xz", "codecs.zstd", "codecs.zstd_format", "foreign")


class File:
    """Bytes as an open file that no disk has."""

    def __init__(self, data: bytes) -> None:
        self.fd = os.memfd_create("fuzz")
        os.write(self.fd, data)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


# --- targets: one input, one call -----------------------------------------------------------------


def fuzz_facts(data: bytes) -> None:
    """What was read is what would be written."""
    from unpackenv.archive import facts

    found = facts.decode(data)
    assert facts.decode(facts.encode(found)) == found


def fuzz_toc(data: bytes) -> None:
    """What passes the checks is one tree, and nothing in it leaves the target."""
    from unpackenv.archive.toc import Toc

    toc = Toc.decode(data)
    toc.frame_starts()
    for _, path, _ in toc.paths():
        assert not {b"", b".", b".."} & set(path.split(b"/")), path
    toc.check_unique()
    assert toc.encode() == data


def fuzz_trailer(data: bytes) -> None:
    """Footer and facts, as every start reads them."""
    from unpackenv.archive import trailer

    mode, data = data[:1], data[1:]
    if mode > b"\x7f" and len(data) >= trailer.FOOTER_SIZE:
        footer = data[-trailer.FOOTER_SIZE : -12]
        data = data[:-12] + struct.pack("<I", zlib.crc32(footer)) + trailer.MAGIC
    with File(data) as fd:
        found = trailer.identify_open(fd, "fuzz")
    assert found.size == len(data)
    assert not any("\0" in value for values in found.facts.values() for value in values)


def fuzz_xz(data: bytes) -> None:
    """Streams, index and block list, and the blocks that they list: what is sound here is sound for liblzma."""
    import lzma

    from unpackenv.archive.codecs import xz_format
    from unpackenv.errors import ArchiveCorrupt

    mode, data = data[:1], data[1:]
    if mode > b"\x7f":  # what stands between header and footer: two bytes with the size of the index, blocks, the index
        size = int.from_bytes(data[:2], "little") % 1024
        blocks, index = data[2 : -size or None], data[-size:] if size else b""
        index += bytes(-len(index) % 4)
        index += struct.pack("<I", zlib.crc32(index))
        tail = struct.pack("<I", len(index) // 4 - 1) + b"\x00\x01"
        closing = index + struct.pack("<I", zlib.crc32(tail)) + tail + xz_format.FOOTER_MAGIC
        data = xz_format.stream_header() + blocks + closing
        try:
            assert xz_format.index_and_footer(xz_format.parse_index_and_footer(closing)) == closing
        except ArchiveCorrupt:
            pass
    found = b""
    with File(data) as fd:
        for block in xz_format.read_blocks(fd, len(data)):
            assert 0 < block.offset < block.offset + block.stored_size <= len(data)
            if len(found) + block.raw_size > BUDGET:
                return
            stored = data[block.offset : block.offset + block.stored_size]
            found += b"".join(xz_format.decode_block(block, [stored], BUDGET))
    if data.startswith(xz_format.MAGIC):  # else it is nothing but padding
        first = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=BUDGET)
        assert found.startswith(first.decompress(data))
        assert first.eof


def fuzz_gzip(data: bytes) -> None:
    """Members, decoded as `gzip` decodes them."""
    import gzip

    from unpackenv.archive import foreign

    with File(data) as fd:
        found = b""
        for piece in foreign._gzip(fd):
            found += piece
            if len(found) > BUDGET:
                return
    assert found == gzip.decompress(data)


def fuzz_zstd(data: bytes) -> None:
    """The walk from frame to frame, and the decoding of what it finds."""
    from unpackenv.archive import foreign
    from unpackenv.archive.codecs import zstd_format

    with File(data) as fd:
        frames = zstd_format.read_frames(fd, len(data))
        assert all(frame.offset + frame.stored_size <= len(data) for frame in frames)
        pieces = foreign.open_pieces(fd, "fuzz", BUDGET)
        buffer = memoryview(bytearray(pieces.largest))
        total = 0
        for fill in pieces.fills(0, 1):
            total += fill(buffer)
            if total > BUDGET:  # a bomb is for who counts what it decodes to
                break


def fuzz_tar(data: bytes) -> None:
    """Headers, in chunks of any size: the members are the same as in one chunk."""
    from unpackenv.archive.tarstream import BLOCK, Scanner
    from unpackenv.errors import UnpackenvError

    mode, chunks, stream = data[:1], data[1:9], bytearray(data[9:])
    if mode > b"\x7f":
        for at in range(0, len(stream) - BLOCK + 1, BLOCK):
            if any(stream[at : at + BLOCK]) and stream[at + 156 : at + 157] in b"01234567xgXADLKSVM\0":
                stream[at + 148 : at + 156] = b" " * 8
                stream[at + 148 : at + 156] = b"%06o\0 " % sum(stream[at : at + BLOCK])

    def scan(steps: Iterator[int]) -> list[tuple[object, ...]]:
        scanner, members, view = Scanner(), [], memoryview(stream)
        try:
            while view:
                step = next(steps)
                members += scanner.feed(view[:step])
                view = view[step:]
            scanner.close()
        except UnpackenvError as error:
            return [*described(members), (type(error).__name__,)]
        return described(members)

    def described(members: list[object]) -> list[tuple[object, ...]]:
        return [tuple(getattr(member, name) for name in type(member).__slots__) for member in members]

    sizes = [1 + 7 * size for size in chunks] or [1]
    in_chunks = scan(sizes[number % len(sizes)] for number in range(len(stream)))
    whole = scan(iter([len(stream)]))
    # Members before an error are those of the chunks before it.
    assert in_chunks == whole or (in_chunks[-1] == whole[-1] and len(whole[-1]) == 1), (in_chunks, whole)


# --- seeds ----------------------------------------------------------------------------------------


def seeds_facts() -> Iterator[bytes]:
    yield b"codec=zstd\nimport=\nimport=lib\\\\x\\n\ntarget=/a=b\n"
    yield b"key\\=\\\\n\n"


def seeds_toc() -> Iterator[bytes]:
    from helpers.crafted import Crafted

    yield Crafted().toc.encode()
    made = Crafted().toc
    made.frame_stored.extend([100, 200])
    made.frame_raw.extend([2000, 9000])
    made.frame_sha256 = bytes(64)
    yield made.encode()


def seeds_trailer() -> Iterator[bytes]:
    for archive in _archives():
        yield b"\xff" + archive
        yield b"\0" + archive


def seeds_xz() -> Iterator[bytes]:
    import lzma

    from unpackenv.archive.codecs import xz_format

    stream = xz_format.stored(b"payload")
    yield b"\0" + stream
    yield b"\0" + stream + bytes(8) + lzma.compress(b"text" * 100)
    blocks = [xz_format.encode_block(b"data" * size, 1, 1 << 12) for size in (1, 300)]
    index = b"\x00\x02" + b"".join(
        xz_format._varint(xz_format.unpadded_size(block)) + xz_format._varint(4 * size)
        for block, size in zip(blocks, (1, 300))
    )
    yield b"\xff" + struct.pack("<H", len(index)) + b"".join(blocks) + index
    for size in 0, 1:  # of nothing at all, and a check that an index counts as a block of nothing
        data, more = (xz_format.encode_block(b"", 1, 1 << 12), b"") if not size else (blocks[0], b"\x04\x00")
        record = xz_format._varint(xz_format.unpadded_size(data) - 4 * size) + xz_format._varint(4 * size)
        index = bytes((0, 1 + size)) + record + more
        yield b"\xff" + struct.pack("<H", len(index)) + data + index
    yield from _forms("xz")


def seeds_gzip() -> Iterator[bytes]:
    yield from (seed[1:] for seed in _forms("gzip"))


def seeds_zstd() -> Iterator[bytes]:
    import zstandard

    for options in {}, {"write_checksum": True}, {"write_content_size": False}:
        frame = zstandard.ZstdCompressor(level=1, **options).compress(b"text" * 300)
        yield frame
        yield b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + frame + frame
        yield frame + zstandard.ZstdCompressor(level=1, **options).compress(b"") + frame
    yield zstandard.compress(b"x" * 131072).replace(b"\0\0\2\0", bytes(4), 1)  # one bit, and it says that it is empty
    yield b"\x28\xb5\x2f\xfd\x00\x38" + b"\x02\x00\x10a" * 3 + b"\x03\x00\x10a"
    yield from (seed[1:] for seed in _forms("zstd"))


def seeds_tar() -> Iterator[bytes]:
    import tarfile

    from helpers.crafted import extended, member, record, tar
    from helpers.forms import FORMS

    files = member("a", data=b"data" * 200) + member("d/", tarfile.DIRTYPE) + member("s", tarfile.SYMTYPE, "d")
    yield b"\xff\x01\x05\x20\x49\x50\x00\xff\x80" + tar(files, member("n" * 300), member("h", tarfile.LNKTYPE, "a"))
    pax = extended(b"x", record("path", b"long") + record("size", b"4") + record("mtime", b"-1.5"))
    times = extended(b"g", record("mtime", b"7"))
    yield b"\xff\x00\x00\x00\x49\x49\x49\x49\xff" + tar(times, pax, member("b", data=b"1234"))
    yield b"\x00" * 9 + tar(files, member("old", mtime=-(1 << 40), uid=1 << 40))
    yield from (b"\xff" + b"\x49" * 8 + make() for form, make in FORMS.items() if form.startswith("tar"))


def _forms(codec: str) -> Iterator[bytes]:
    """Yield archives of every form in which a codec's come, behind a byte that says to take them as they are."""
    from helpers.forms import FORMS

    yield from (b"\0" + make() for form, make in FORMS.items() if form.startswith(codec))


def _archives() -> Iterator[bytes]:
    from helpers.crafted import Crafted

    with tempfile.TemporaryDirectory() as folder:
        for codec in "zstd", "xz":
            yield Crafted(codec).write(Path(folder) / codec).read_bytes()


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "facts": (fuzz_facts, seeds_facts),
    "gzip": (fuzz_gzip, seeds_gzip),
    "tar": (fuzz_tar, seeds_tar),
    "toc": (fuzz_toc, seeds_toc),
    "trailer": (fuzz_trailer, seeds_trailer),
    "xz": (fuzz_xz, seeds_xz),
    "zstd": (fuzz_zstd, seeds_zstd),
}


# --- running --------------------------------------------------------------------------------------


def tried(target: str, data: bytes) -> None:
    """Run one input: an error of unpackenv is an answer."""
    from unpackenv.errors import UnpackenvError

    try:
        TARGETS[target][0](data)
    except UnpackenvError:
        pass


def fuzz(target: str, seconds: int, corpus: str) -> None:
    """Fuzz one target in this process, which ends with that."""
    import atheris

    with atheris.instrument_imports(include=["unpackenv.archive"]):
        for name in _MODULES:
            __import__(f"unpackenv.archive.{name}")
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_EACH}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={LARGEST_INPUT}",
        f"-artifact_prefix=find-{target}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], lambda data: tried(target, data))
    atheris.Fuzz()


def run(target: str, seconds: int) -> bool:
    """Fuzz one target in another process, from its seeds; print the count of inputs, and return whether all is well."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(TARGETS[target][1]()):
            tried(target, seed)
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, "-m", "programs.fuzz", target, "--seconds", str(seconds), "--corpus", corpus]
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        kept = len(os.listdir(corpus))
    count = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    print(f"{target:8} {int(count[1]) if count else 0:>9,} inputs, {kept} of them new ways", flush=True)
    if done.returncode:
        print(done.stdout[-4000:], flush=True)
    return done.returncode == 0 and bool(count)


def main() -> int:
    """Fuzz the targets that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=40, help="for each target; default: %(default)s")
    parser.add_argument("--input", type=Path, help="run this one input again and nothing else")
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.input:
        tried(targets[0], options.input.read_bytes())
        return 0
    if options.corpus:
        fuzz(targets[0], options.seconds, options.corpus)
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(f"no atheris in {sys.executable}: `make fuzz` installs it, for CPython 3.9 to 3.13")
        return 1
    with ThreadPool(len(os.sched_getaffinity(0))) as pool:
        outcomes = pool.map(lambda target: run(target, options.seconds), targets, chunksize=1)
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
