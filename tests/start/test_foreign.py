"""Archives that plain tar made: the same tree as tar's own, and the same safety, on every kind of target."""

from __future__ import annotations

import io
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from helpers import crafted, forms
from helpers.processes import result_of, run
from helpers.starts import end_of
from helpers.support import describe, file_input, make_tree
from rig.sites import TAG, pack, write_tree
from unpackenv.archive.codecs import xz_format
from unpackenv.archive.tarstream import DIRECTORY
from unpackenv.archive.writer import Input
from unpackenv.start import stamp

Members = list[tuple[str, str, str]]


def tree_of(target: Path) -> dict[bytes, tuple[object, ...]]:
    return {path: state for path, state in describe(target).items() if not path.startswith(b".unpackenv.")}


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with every kind of member, and files larger than a block. Shared: never write to it."""
    root = make_tree(tmp_path_factory.mktemp("tree"))
    for number in range(3):
        (root / f"big-{number}").write_bytes(random.Random(number).randbytes(900_000) * 2)
    closed = root / "package" / "closed"
    closed.mkdir()
    (closed / "file").write_text("in a read-only directory")
    (closed / "file").chmod(0o444)
    closed.chmod(0o555)
    return root


def tar(archive: Path, tree: Path, *options: str, env: dict[str, str] | None = None) -> Path:
    """Make an archive of the tree with stock tar."""
    names = ["."] if "--dot" in options else sorted(os.listdir(tree))
    words = [
        "tar",
        "-C",
        str(tree),
        "-cf",
        str(archive),
        *(option for option in options if option != "--dot"),
        "--",
        *names,
    ]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert (done.returncode, done.stderr) == (0, "")
    return archive


def concatenated(archive: Path, tree: Path) -> Path:
    """A .tar.zst of several frames, some of which do not say how large they are, and a skippable one."""
    raw = tar(archive.with_suffix(".raw"), tree).read_bytes()
    pieces = [raw[at : at + 700_001] for at in range(0, len(raw), 700_001)]
    frames = [
        zstandard.ZstdCompressor(write_checksum=bool(number % 2)).compress(piece) for number, piece in enumerate(pieces)
    ]
    archive.write_bytes(b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip".join(frames))
    return archive


def without_sizes(archive: Path, tree: Path) -> Path:
    """A .tar.zst of two frames that do not say how large they are."""
    raw = tar(archive.with_suffix(".raw"), tree).read_bytes()
    frames = []
    for piece in raw[:1_000_003], raw[1_000_003:]:
        compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
        frames.append(compressor.compress(piece) + compressor.flush())
    archive.write_bytes(b"".join(frames))
    return archive


def two_streams(archive: Path, tree: Path) -> Path:
    """A .tar.xz of two streams with padding between them, as `cat` makes."""
    raw = tar(archive.with_suffix(".raw"), tree).read_bytes()
    archive.write_bytes(lzma.compress(raw[:1_000_003]) + bytes(8) + lzma.compress(raw[1_000_003:]))
    return archive


BLOCKS = {"XZ_OPT": "-T2 --block-size=500KiB -1"}
MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "xz of many blocks": lambda archive, tree: tar(archive, tree, "-J", env=BLOCKS),
    "xz of one block": lambda archive, tree: tar(archive, tree, "-J", env={"XZ_OPT": "-T1 -1"}),
    "xz of blocks without sizes": lambda archive, tree: tar(
        archive, tree, "-J", env={"XZ_OPT": "-T1 -1 --block-size=500KiB"}
    ),
    "xz of two streams": two_streams,
    "xz with crc32": lambda archive, tree: tar(
        archive, tree, "-J", env={"XZ_OPT": "-T2 -1 --check=crc32 --block-size=1MiB"}
    ),
    "zstd": lambda archive, tree: tar(archive, tree, "--zstd"),
    "zstd of many frames": concatenated,
    "zstd of frames without sizes": without_sizes,
    "gzip": lambda archive, tree: tar(archive, tree, "-z"),
    "plain": tar,
    "dot": lambda archive, tree: tar(archive, tree, "-J", "--dot", env=BLOCKS),
    "pax": lambda archive, tree: tar(archive, tree, "--format=posix", "-J", env=BLOCKS),
    "old GNU": lambda archive, tree: tar(archive, tree, "--format=oldgnu"),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_the_tree_is_that_of_tar(tree: Path, tmp_path: Path, target: Path, maker: str) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    outcome, _, report, _ = end_of(archive, target, workers=2)
    assert outcome == "unpacked", report
    assert tree_of(target) == describe(tree)
    assert end_of(archive, target)[0] == "reused"
    expected = {b"file": 0}
    inodes = {path.stat().st_ino for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
    assert report["files"] == len(inodes) > len(expected)  # type: ignore[index]


@pytest.mark.parametrize("maker", ["xz of many blocks", "xz of one block", "zstd of many frames", "zstd", "plain"])
def test_in_a_process_that_has_threads(tree: Path, tmp_path: Path, target: Path, maker: str) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    code = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    outcome, _, report, _ = end_of(archive, target, before=code, workers=3)
    assert outcome == "unpacked", report
    assert tree_of(target) == describe(tree)


@pytest.mark.parametrize("maker", ["xz of many blocks", "xz of one block", "zstd of many frames", "plain"])
@pytest.mark.parametrize(
    "before", ["", "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"]
)
def test_no_descriptor_is_left(tree: Path, tmp_path: Path, target: Path, maker: str, before: str) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    code = f"""{before}
import os, unpackenv
def count():
    return len(os.listdir("/proc/self/fd"))
start = count()
try:
    unpackenv.bootstrap({str(damaged)!r}, {str(target)!r}, workers=3)
except unpackenv.UnpackenvError:
    failed = count()
unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, workers=3)
result = [failed - start, count() - start]
"""
    assert result_of(code) == [0, 1]  # the stamp of a tree in use stays open


@pytest.mark.parametrize("maker", ["xz of many blocks", "zstd of many frames", "plain"])
@pytest.mark.parametrize("workers", [1, 3])
def test_in_place_over_another_tree(tree: Path, tmp_path: Path, target: Path, maker: str, workers: int) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    write_tree(target, {"mine": "stays", "old": "replaced", "package/__init__.py": "replaced", "big-1": "replaced"})
    assert end_of(archive, target, in_place=True, workers=workers)[0] == "unpacked"
    found = tree_of(target)
    del found[b"mine"]
    assert found == describe(tree)
    assert not [name for _, _, names in os.walk(target) for name in names if "partial" in name]


@pytest.mark.parametrize("maker", ["xz of many blocks", "zstd of many frames", "zstd of frames without sizes"])
def test_a_small_budget_means_one_stream(tree: Path, tmp_path: Path, target: Path, maker: str) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    outcome, _, report, _ = end_of(archive, target, memory="3M", log="off")
    assert outcome == "unpacked", report
    assert tree_of(target) == describe(tree)


@pytest.mark.parametrize("maker", ["xz of one block", "zstd"])
def test_a_budget_that_nothing_fits(tree: Path, tmp_path: Path, target: Path, maker: str) -> None:
    if maker == "zstd":
        archive = tar(tmp_path / "archive", tree, "-I", "zstd --long=24 -19")
    else:
        archive = tar(tmp_path / "archive", tree, "-J", env={"XZ_OPT": "-T1 -7"})
    outcome, said, *_ = end_of(archive, target, memory="100K")
    assert outcome == "MemoryBudgetExceeded", said
    assert "UNPACKENV_MEMORY" in str(said)
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


@pytest.mark.parametrize(
    "prefix", ["usr/local/lib/python3.9/site-packages", "./opt/app/lib/python3/dist-packages", "site-packages", "plain"]
)
def test_import_paths_of_a_plain_tar_are_found(tmp_path: Path, target: Path, prefix: str) -> None:
    tree = write_tree(tmp_path / "tree", {f"{prefix}/app.py": "", f"{prefix}/nested/site-packages-not/x.py": ""})
    tar(tmp_path / "archive", tree, *(["--dot"] if prefix.startswith(".") else []))
    _, _, report, _ = end_of(tmp_path / "archive", target)
    where = target if prefix == "plain" else target / prefix
    assert report["import_paths"] == [str(where)]  # type: ignore[index]
    code = f"import unpackenv; unpackenv.bootstrap({str(tmp_path / 'archive')!r}, {str(target)!r})\n"
    assert result_of(code + f"import {'plain.' if prefix == 'plain' else ''}app as a; result = a.__file__") == str(
        (target / "plain" if prefix == "plain" else where) / "app.py"
    )


def test_the_trick_as_it_was(site: Path, tmp_path: Path, target: Path) -> None:
    """`XZ_OPT="-T 0" tar Jcf packages.tar.xz /usr/…/site-packages/`, from the root directory."""
    root = tmp_path / "root"
    packages = root / "usr/local/lib/python3/site-packages"
    shutil.copytree(site, packages)
    subprocess.run(
        ["tar", "Jcf", tmp_path / "packages.tar.xz", "./usr/local/lib/python3/site-packages/"], cwd=root, check=True
    )
    outcome, _, report, _ = end_of(tmp_path / "packages.tar.xz", target)
    assert (outcome, report["import_paths"]) == ("unpacked", [f"{target}/usr/local/lib/python3/site-packages"])  # type: ignore[index]


# --- digest --------------------------------------------------------------------------------------


def test_digest_is_the_sha256_of_the_file(site: Path, tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "archive", site, "-J")
    digest = subprocess.run(["sha256sum", archive], capture_output=True, text=True, check=True).stdout.split()[0]
    wrong = end_of(archive, target, digest="0" * 64)
    assert wrong[0] == "DigestMismatch"
    assert digest in str(wrong[1])
    assert not target.exists()
    assert end_of(archive, target, digest=digest)[0] == "unpacked"
    assert end_of(archive, target, digest=digest.upper())[0] == "reused"
    assert end_of(archive, target)[0] == "reused"
    assert end_of(archive, target, digest="0" * 64)[0] == "DigestMismatch"


def test_a_tree_that_was_unpacked_unchecked_is_not_taken_for_a_checked_one(
    site: Path, tmp_path: Path, target: Path
) -> None:
    archive = tar(tmp_path / "archive", site, "-J")
    digest = subprocess.run(["sha256sum", archive], capture_output=True, text=True, check=True).stdout.split()[0]
    assert end_of(archive, target)[0] == "unpacked"
    assert end_of(archive, target, digest="0" * 64)[0] == "DigestMismatch"
    assert end_of(archive, target, digest=digest)[0] in ("unpacked", "reused")


def test_another_archive_at_the_same_path(site: Path, tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "archive", site, "-J")
    assert end_of(archive, target)[0] == "unpacked"
    (site / "app.py").write_text("VERSION = 2\n")
    tar(archive, site, "-J")
    assert end_of(archive, target)[0] == "unpacked"
    assert (target / "app.py").read_text() == "VERSION = 2\n"


# --- hostile -------------------------------------------------------------------------------------


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    return info, data


def write_members(archive: Path, members: list[tuple[tarfile.TarInfo, bytes]], codec: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    data = raw.getvalue()
    archive.write_bytes({"xz": lzma.compress, "zstd": zstandard.compress, "plain": bytes}[codec](data))


SYMLINK, HARD_LINK, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
GOOD = member("good", data=b"good")
HOSTILE = {
    "absolute": ([member("{outside}/evil", data=b"evil")], "ArchiveUnsafe"),
    "absolute directory": ([member("{outside}/evil", FOLDER)], "ArchiveUnsafe"),
    "dots": ([member("../evil", data=b"evil")], "ArchiveUnsafe"),
    "dots within": ([member("a/../../evil", data=b"evil")], "ArchiveUnsafe"),
    "dots at the end": ([member("a/..", FOLDER)], "ArchiveUnsafe"),
    "through a symlink": ([member("a", SYMLINK, "{outside}"), member("a/evil", data=b"evil")], "ArchiveUnsafe"),
    "through a symlink, late": ([member("a/x", data=b"x"), member("a", SYMLINK, "{outside}")], "ArchiveUnsafe"),
    "through a symlink by a directory": (
        [member("a", SYMLINK, "{outside}"), member("a", FOLDER), member("a/evil", data=b"e")], "ArchiveUnsafe",
    ),
    "over a symlink": ([member("a", SYMLINK, "{outside}/precious"), member("a", data=b"evil")], "ArchiveUnsafe"),
    "hard link outside": ([member("a", HARD_LINK, "{outside}/precious")], "ArchiveUnsafe"),
    "hard link by dots": ([member("a", HARD_LINK, "../precious")], "ArchiveUnsafe"),
    "hard link to a symlink": (
        [member("s", SYMLINK, "{outside}/precious"), member("a", HARD_LINK, "s")], "ArchiveUnsafe",
    ),
    "hard link to nothing": ([member("a", HARD_LINK, "nothing")], "ArchiveUnsafe"),
    "hard link to a directory": ([member("d", FOLDER), member("a", HARD_LINK, "d")], "ArchiveUnsafe"),
    "hard link through a symlink": (
        [member("s", SYMLINK, "{outside}"), member("a", HARD_LINK, "s/precious")], "ArchiveUnsafe",
    ),
    "character device": ([member("a", tarfile.CHRTYPE)], "ArchiveUnsafe"),
    "block device": ([member("a", tarfile.BLKTYPE)], "ArchiveUnsafe"),
    "FIFO": ([member("a", tarfile.FIFOTYPE)], "ArchiveUnsafe"),
    "duplicate": ([member("a", data=b"1"), member("a", data=b"2")], "ArchiveUnsafe"),
    "duplicate by another spelling": ([member("a/b", data=b"1"), member("./a//b", data=b"2")], "ArchiveUnsafe"),
    "file where a directory is": ([member("a/b", data=b"1"), member("a", data=b"2")], "ArchiveUnsafe"),
    "file as a directory": ([member("a", data=b"1"), member("a/b", data=b"2")], "ArchiveUnsafe"),
    "our own stamp": ([member(".unpackenv.stamp", data=b"stamp=1\nend=1\n")], "ArchiveUnsafe"),
    "the target itself as a link": ([member("./", SYMLINK, "{outside}")], "ArchiveUnsafe"),
    "empty link": ([member("a", SYMLINK, "")], "ArchiveCorrupt"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("in_place", [False, True])
def test_hostile_members_are_refused_and_nothing_is_left(
    tmp_path: Path, target: Path, what: str, in_place: bool
) -> None:
    outside = write_tree(tmp_path / "outside", {"precious": "untouched"})
    before = describe(outside)
    members, expected = HOSTILE[what]
    for info, _ in members:
        info.name = info.name.replace("{outside}", str(outside))
        info.linkname = info.linkname.replace("{outside}", str(outside))
    write_members(tmp_path / "archive", [GOOD, *members], "xz")
    if in_place:
        target.mkdir()
    names = set(os.listdir(target.parent))
    outcome, said, *_ = end_of(tmp_path / "archive", target, in_place=in_place)
    assert outcome == expected, said
    assert str(tmp_path / "archive") in str(said)
    assert describe(outside) == before
    assert (outside / "precious").stat().st_nlink == 1
    assert set(os.listdir(target.parent)) - names <= {".tree.unpackenv.lock"}
    assert not (target / stamp.NAME).exists()
    assert not (tmp_path / "trees" / "evil").exists()


def test_reserved_names_of_a_native_archive(tmp_path: Path, target: Path) -> None:
    for path, outcome in (b".unpackenv.stamp", "ArchiveUnsafe"), (b"nested/.unpackenv.stamp", "unpacked"):
        members = [Input(DIRECTORY, b"nested", 0o755, 0), file_input(tmp_path, path, b"stamp=1\nend=1\n")]
        pack(tmp_path / "archive", members, facts={"python": [TAG]})
        assert end_of(tmp_path / "archive", target)[0] == outcome


def test_special_bits_are_dropped(tmp_path: Path, target: Path) -> None:
    write_members(
        tmp_path / "archive", [member("a", data=b"x", mode=0o6755), member("d", tarfile.DIRTYPE, mode=0o3777)], "plain"
    )
    assert end_of(tmp_path / "archive", target)[0] == "unpacked"
    assert (target / "a").stat().st_mode & 0o7777 == 0o755
    assert (target / "d").stat().st_mode & 0o7777 == 0o777


# --- damaged -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "maker", ["xz of many blocks", "xz of one block", "zstd", "zstd of many frames", "gzip", "plain"]
)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_tar_cut_off_is_refused_and_nothing_is_left(
    tree: Path, tmp_path: Path, target: Path, maker: str, share: float
) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    size = archive.stat().st_size
    if maker == "plain" and share > 0.99:
        size = len(archive.read_bytes().rstrip(b"\0"))  # without the end-of-archive marker
    os.truncate(archive, int(size * share) // 512 * 512 + (100 if maker == "plain" else 0))
    outcome, said, *_ = end_of(archive, target)
    assert outcome == "ArchiveCorrupt", said
    assert str(archive) in str(said)
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


@pytest.mark.parametrize("maker", ["xz of many blocks", "xz of one block", "gzip"])
def test_damaged_in_the_middle(tree: Path, tmp_path: Path, target: Path, maker: str) -> None:
    archive = MAKERS[maker](tmp_path / "archive", tree)
    data = bytearray(archive.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 20):
        data[at] ^= 0x55
    archive.write_bytes(data)
    outcome, said, *_ = end_of(archive, target, workers=3)
    assert outcome == "ArchiveCorrupt", said
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04" + bytes(600), bytes(100)])
def test_what_is_no_archive(tmp_path: Path, target: Path, content: bytes) -> None:
    (tmp_path / "archive").write_bytes(content)
    outcome, said, *_ = end_of(tmp_path / "archive", target)
    assert outcome in ("ArchiveUnsupported", "ArchiveCorrupt"), said
    assert re.match(re.escape(str(tmp_path / "archive")), str(said))
    assert set(os.listdir(target.parent)) <= {".tree.unpackenv.lock"}


def test_xz_needs_no_zstandard(site: Path, tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "archive", site, "-J")
    without = "import sys; sys.modules['zstandard'] = sys.modules['compression.zstd'] = None"
    assert end_of(archive, target, before=without)[0] == "unpacked"
    (tmp_path / "second").mkdir()
    outcome, said, *_ = end_of(
        tar(tmp_path / "archive.zst", site, "--zstd"),
        tmp_path / "second/tree",
        before=without,
    )
    assert outcome == "ArchiveUnsupported"
    assert "zstandard" in str(said)


def test_through_the_wrapper(site: Path, tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "packages.tar.xz", site, "-J")
    done = run(
        [
            sys.executable,
            "-m",
            "unpackenv",
            "--archive",
            archive,
            "--target",
            target,
            "--",
            sys.executable,
            "-c",
            "import app; print(app.__file__)",
        ]
    )
    assert (done.returncode, done.stdout) == (0, f"{target}/app.py\n"), done.stderr


# --- what is recognised, and what helps where something is refused --------------------------------------------------

CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": lambda data: forms.gzipped([data]),
    ".tar.xz": lzma.compress,
    ".tar.zst": zstandard.compress,
}
FILE = crafted.member("a", data=b"data\n", mtime=7)
RECOGNISED = {
    "version 7": crafted.tar(forms.v7(crafted.member("d/", tarfile.DIRTYPE)), forms.v7(FILE)),
    "signed checksums": crafted.tar(forms.typed(b"0", "café", signed=True), FILE),
    "a volume label": crafted.tar(forms.typed(b"V", "label"), FILE),
    "a directory of --listed-incremental": crafted.tar(forms.typed(b"D", "d/", b"Ya\0\0"), FILE),
    "a Solaris extended header": crafted.tar(crafted.extended(b"X", crafted.record("mtime", b"1000000001.5")), FILE),
    "zeros before a number": crafted.tar(crafted.extended(b"x", b"33 size=000000000000000000000005\n"), FILE),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("what", RECOGNISED)
def test_a_tar_is_recognised_in_each_container_alike(tmp_path: Path, target: Path, what: str, container: str) -> None:
    archive = tmp_path / f"archive{container}"
    archive.write_bytes(CONTAINERS[container](RECOGNISED[what]))
    outcome, said, *_ = end_of(archive, target)
    assert outcome == "unpacked", said
    (tmp_path / "tar").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "tar"], check=True)
    assert tree_of(target) == describe(tmp_path / "tar")


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_no_tar_in_each_container(tmp_path: Path, target: Path, container: str) -> None:
    (tmp_path / "archive").write_bytes(CONTAINERS[container](b"no tar at all " * 100))
    outcome, said, *_ = end_of(tmp_path / "archive", target)
    assert (outcome, "heck the COPY" in str(said)) == ("ArchiveUnsupported", True), said


def lying(archive: Path, codec: str) -> Path:
    """Write an archive of which the second of three files has a frame, or a check, that is said to be nothing."""
    files = [crafted.member(name, data=random.Random(name).randbytes(131072 - 512)) for name in "abc"]
    raw = [*files[:2], crafted.tar(files[2])]
    if codec == "zstd":
        frames = [bytearray(forms.zstd([piece])) for piece in raw]
        frames[1][frames[1].index(b"\0\0\2\0", 4, 16) + 2] ^= 2
        archive.write_bytes(b"".join(frames))
    else:
        blocks = [xz_format.encode_block(piece, 0, 1 << 16) for piece in raw]
        records = [(xz_format.unpadded_size(block), len(piece)) for block, piece in zip(blocks, raw)]
        records[1:2] = [(records[1][0] - 4, records[1][1]), (4, 0)]
        blocks[1] = blocks[1][:-1] + bytes([blocks[1][-1] ^ 1])
        archive.write_bytes(xz_format.stream_header() + b"".join(blocks) + xz_format.index_and_footer(records))
    return archive


@pytest.mark.parametrize("codec", ["zstd", "xz"])
@pytest.mark.parametrize("memory", ["1M", "256M"])
def test_nothing_is_missing_in_silence(tmp_path: Path, target: Path, codec: str, memory: str) -> None:
    archive = lying(tmp_path / "archive", codec)
    assert subprocess.run([codec, "-dcq"], input=archive.read_bytes(), capture_output=True).returncode
    outcome, said, *_ = end_of(archive, target, memory=memory, workers=2)
    assert outcome == "ArchiveCorrupt", said


def made(archive: Path, *words: object, cwd: Path) -> Path:
    done = subprocess.run(["tar", *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return archive


HINTS: dict[str, tuple[list[str], str, list[str]]] = {
    "twice": (["s/f", "s/f"], "without tar's options -r and -u, and name each file once", ["s/f"]),
    "absolute": (["-P", "{cwd}/s/f"], "without tar's option -P", ["{cwd}/s/f"]),
    "dots": (["-P", "../sp/s/f"], "without tar's option -P", ["../sp/s/f"]),
    "reserved": (
        ["--exclude=l", "."], "with tar's option --exclude='.unpackenv.*'",
        ["--exclude=l", "--exclude=.unpackenv.*", "."],
    ),
    "hard link to a symlink": (["l"], "with tar's option --hard-dereference", ["--hard-dereference", "l"]),
    "sparse": (["--sparse", "h"], "without --sparse", ["h"]),
    "window": (
        ["-I", "zstd --long=28 --no-content-size", "s", "big"], "without zstd's option --long, or with --long=27",
        ["-I", "zstd --long=27", "s", "big"],
    ),
    "window, without": (
        ["-I", "zstd --long=28 --no-content-size", "s", "big"], "without zstd's option --long", ["--zstd", "s", "big"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HINTS)
def test_what_a_hint_says_helps(tmp_path: Path, target: Path, what: str) -> None:
    before, hint, after = HINTS[what]
    sp = write_tree(tmp_path / "sp", {"s/f": "x\n", ".unpackenv.stamp": "of a tree\n"})
    (sp / "l").mkdir()
    (sp / "l" / "a").symlink_to("s")
    os.link(sp / "l" / "a", sp / "l" / "b", follow_symlinks=False)
    for name in "h", "big":
        with open(sp / name, "wb") as file:
            file.truncate(1 << 20 if name == "h" else (1 << 27) + 1)
            file.seek(1 << 19)
            file.write(b"data")
    for words, outcome in (before, "refused"), (after, "unpacked"):
        archive = made(tmp_path / "archive", "-cf", tmp_path / "archive", *(w.format(cwd=sp) for w in words), cwd=sp)
        found, said, *_ = end_of(archive, target)
        assert (found == "unpacked") == (outcome == "unpacked"), said
        assert (hint in str(said)) == (outcome == "refused"), said


def test_the_memory_that_a_hint_names_is_enough(tree: Path, tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "archive", tree, "-I", "zstd --long=24 -19")
    _, said, *_ = end_of(archive, target, memory="100K")
    found = re.search(r"UNPACKENV_MEMORY to (\w+)", str(said))
    assert found, said
    assert end_of(archive, target, memory=found[1])[0] == "unpacked"


@pytest.mark.parametrize("size", [255, 256])
@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "hard link"])
def test_a_name_of_256_bytes_is_the_archive_s_fault(tmp_path: Path, target: Path, kind: str, size: int) -> None:
    name = "n" * size
    members = {
        "file": [member(name, data=b"x")],
        "directory": [member(name, FOLDER)],
        "symlink": [member(name, SYMLINK, "good")],
        "hard link": [member(name, HARD_LINK, "good")],
    }
    write_members(tmp_path / "archive", [GOOD, *members[kind]], "xz")
    outcome, said, *_ = end_of(tmp_path / "archive", target)
    assert outcome == ("unpacked" if size == 255 else "ArchiveUnsupported"), said
    assert size == 255 or ("names of 255 bytes" in str(said) and "UNPACKENV_TARGET" not in str(said))


@pytest.mark.parametrize("link", ["h", "later", "s", "d", "nothing"])
def test_a_hard_link_is_to_a_file_that_came_before_it(tmp_path: Path, target: Path, link: str) -> None:
    members = [GOOD, member("s", SYMLINK, "good"), member("d", FOLDER), member("h", HARD_LINK, link), member("later")]
    write_members(tmp_path / "archive", members, "plain")
    outcome, said, *_ = end_of(tmp_path / "archive", target)
    assert (outcome, f"{tmp_path}/archive, h: a hard link is to" in str(said)) == ("ArchiveUnsafe", True), said
