"""Starts with hostile archives: an `UnpackenvError`, soon, in little memory, with nothing left or changed anywhere."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import resource
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Union

import pytest
import zstandard

from helpers.crafted import (
    DATA,
    Crafted,
    add_directory,
    add_file,
    add_hard_link,
    add_symlink,
    extended,
    member,
    record,
    tar,
)
from helpers.processes import python
from helpers.support import CODECS, Tally, describe
from rig.environment import PATIENCE
from rig.sites import write_tree
from unpackenv.archive import codecs
from unpackenv.archive.codecs import xz_format
from unpackenv.archive.toc import COUNTS, FRAME_LIMIT
from unpackenv.start import stamp
from unpackenv.start.tree.removal import remove_tree

Archive = Union[bytes, Path]
Cases = dict[str, tuple[Archive, tuple[str, ...]]]
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"
MEMORY = 256 << 20
SOON = 300  # times what `measure` takes of a CPU, which is about 0.03 s where many of these take 2
HOLE = 1 << 33
CORRUPT, UNSAFE, UNSUPPORTED = "ArchiveCorrupt", "ArchiveUnsafe", "ArchiveUnsupported"
ACCIDENTS = ("unexpected ", "ran out of memory", "was killed", "ended with status")
REFUSED = (CORRUPT, UNSAFE, UNSUPPORTED)
HOSTILE = "starts of hostile archives"

# `ru_maxrss` of a process counts the program that it was before an exec, too: here, the one that runs the tests.
STARTS = """
import hashlib, json, os, pathlib, resource, sys, time
import unpackenv
def measure():
    begun = time.process_time()
    for _ in range(10):
        hashlib.sha256(bytes(1 << 20)), sum(range(100_000))
    return time.process_time() - begun
result = []
yardstick = measure()
for archive, target, settings in json.load(sys.stdin):
    begun = sum(os.times()[:4])
    try:
        said = ["unpacked", unpackenv.bootstrap(archive, target, log="off", **settings).target]
    except BaseException as error:
        said = [type(error).__name__, str(error)]
    cpu = sum(os.times()[:4]) - begun
    own = int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    result.append([*said, cpu, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) << 10])
yardstick = max(yardstick, measure())
print(json.dumps([[*said, cpu / yardstick, peak] for *said, cpu, peak in result]))
"""


@pytest.fixture(autouse=True)
def shallow(tmp_path: Path) -> Iterator[None]:
    """Leave no trees that are deeper than pytest can remove."""
    yield
    for tree in tmp_path.glob("*/trees/tree"):
        remove_tree(str(tree))


def limit() -> None:
    """What is out of bounds anyway: the machine that runs the tests must not suffer from it."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (int(PATIENCE), int(PATIENCE)))


def problems(folder: Path, cases: Cases, *, threaded: bool = False, **settings: object) -> list[str]:
    """Start every archive, each with a target of its own, in one process; return what is not as it should be.

    Each has to come to one of the outcomes expected of it, soon and in little memory, and around its target
    everything has to be as it was.
    """
    jobs, targets = [], []
    for number, (archive, _) in enumerate(cases.values()):
        place = folder / str(number)
        write_tree(place, {"outside/precious": "untouched", "trees/decoy/app.py": "mine"})
        if isinstance(archive, bytes):
            (place / "archive").write_bytes(archive)
            archive = place / "archive"
        target = place / "trees" / "tree"
        if settings.get("in_place"):
            target.mkdir()
        targets.append(target)
        jobs.append([str(archive), str(target), settings])
    before = [surroundings(target) for target in targets]
    done = python((THREADED if threaded else "") + STARTS, stdin=json.dumps(jobs), before=limit)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = []
    highest = 0
    for (name, (_, expected)), target, state, (outcome, said, cpu, peak) in zip(
        cases.items(), targets, before, json.loads(done.stdout)
    ):
        sound = {
            f"came to {outcome}: {said[:1500]}": outcome in expected and not any(word in said for word in ACCIDENTS),
            f"took {cpu:.0f} times the CPU of the yardstick": cpu < SOON,
            f"took {peak >> 20} MiB": peak < MEMORY or peak == highest,
            "changed something outside": surroundings(target) == state,
            **(left(target, said, in_place=bool(settings.get("in_place"))) if outcome != "unpacked" else {}),
        }
        highest = max(peak, highest)
        found += [f"{name}: {what}" for what, is_sound in sound.items() if not is_sound]
    return found


def check(folder: Path, cases: Cases, **options: Any) -> None:
    found = problems(folder, cases, **options)
    if found:
        pytest.fail("\n".join(found))


def left(target: Path, said: str, *, in_place: bool) -> dict[str, bool]:
    """Return what has to hold after a start that failed."""
    beside = set(os.listdir(target.parent)) - {"decoy", ".tree.unpackenv.lock"}
    return {
        "left a stamp": not (target / stamp.NAME).exists(),
        f"left {sorted(beside)}": beside == ({"tree"} if in_place else set()),
        f"says too much: {len(said)} characters": len(said) < 5000,
    }


def surroundings(target: Path) -> dict[bytes, tuple[object, ...]]:
    """Return the state of everything beside a target and its archive; the parent's own times change with the target."""
    folder = target.parent.parent
    found = {}
    for beside in folder / "outside", target.parent / "decoy":
        found.update({os.fsencode(beside) + b"/" + path: state for path, state in describe(beside).items()})
        status = beside.stat()
        found[os.fsencode(beside)] = (status.st_mode, status.st_mtime_ns, status.st_nlink)
    precious = (folder / "outside" / "precious").stat()
    found[b"precious"] = (precious.st_nlink, precious.st_mode, precious.st_mtime_ns)
    found[b"names"] = tuple(sorted(set(os.listdir(folder)) - {"archive"}))
    return found


# --- native archives that lie --------------------------------------------------------------------

Lie = Callable[[Crafted], object]


def put(column: str, row: int, value: object) -> Lie:
    return lambda crafted: getattr(crafted.toc, column).__setitem__(row, value)


def fact(key: str, *values: str) -> Lie:
    return lambda crafted: (crafted.counted if key in crafted.counted else crafted.facts).update({key: list(values)})


def stored_size(size: int) -> Lie:
    def lie(crafted: Crafted) -> None:
        encode = codecs.get(crafted.codec).encoder(1, 1 << 16)
        crafted.stored = [encode(raw) for raw in crafted.raw]
        crafted.toc.frame_stored.extend([len(crafted.stored[0]), size])

    return lie


def announce(*sizes: int) -> Lie:
    return lambda crafted: setattr(crafted, "announced", list(sizes))


def counts(*numbers: int) -> Lie:
    return lambda crafted: setattr(crafted, "columns", COUNTS.pack(*numbers) + crafted.toc.encode()[COUNTS.size :])


def hole_in_a_frame(crafted: Crafted) -> None:
    crafted.holes = (HOLE, 0)
    stored_size(HOLE + len(codecs.get(crafted.codec).encoder(1, 1 << 16)(crafted.raw[1])))(crafted)


def no_frames(crafted: Crafted) -> None:
    del crafted.raw[:]
    del crafted.toc.file_dir[:], crafted.toc.file_mode[:], crafted.toc.file_mtime[:], crafted.toc.file_names[:]
    del crafted.toc.file_size[:], crafted.toc.file_position[:]
    del crafted.toc.hard_dir[:], crafted.toc.hard_file[:], crafted.toc.hard_names[:]


def frame_bomb(crafted: Crafted) -> None:
    """It decodes to 100 MB, and was announced with a few bytes."""
    encode = codecs.get(crafted.codec).encoder(1, 1 << 16)
    sizes = [len(raw) for raw in crafted.raw]
    crafted.stored = [encode(bytes(100 << 20)), encode(crafted.raw[1])]
    crafted.announced = sizes


def empty_bombs(crafted: Crafted) -> None:
    """Frames that hold no member: 10 GB to be decoded and thrown away, in frames as large as they may be."""
    encode = codecs.get(crafted.codec).encoder(1, 1 << 16)
    frames = [encode(raw) for raw in crafted.raw]
    bomb = encode(bytes(FRAME_LIMIT))
    crafted.stored = [*frames, *[bomb] * 80]
    crafted.announced = [*map(len, crafted.raw), *[FRAME_LIMIT] * 80]


def deep(crafted: Crafted) -> None:
    for row in range(3, 40_000):
        add_directory(crafted.toc, row - 1, b"d")


def deepest(crafted: Crafted) -> None:
    """A path of 4,095 bytes, which is the longest, and something that ends the start when it is there."""
    for row in range(3, 3 + 2046):
        add_directory(crafted.toc, row - 1, b"d")
    add_symlink(crafted.toc, 1, b"s", b"elsewhere")


def long_name_above(crafted: Crafted) -> None:
    add_directory(crafted.toc, 0, b"d" * (1 << 20))
    for row in range(3_000):
        add_directory(crafted.toc, 3, b"%d" % row)


def long_paths(crafted: Crafted) -> None:
    """Each is one that Linux would take; all together they are gigabytes."""
    for row in range(2, 17):
        add_directory(crafted.toc, row, b"d" * 240)
    for number in range(40_000):
        add_directory(crafted.toc, 17, b"%d" % number)


def cycle(crafted: Crafted) -> None:
    crafted.toc.dir_parent[1], crafted.toc.dir_parent[2] = 2, 1


TOC_LIES: dict[str, tuple[Lie, tuple[str, ...]]] = {
    "files overlap": (put("file_position", 1, 513), (CORRUPT,)),
    "a file beyond the end": (put("file_position", 1, 1 << 40), (CORRUPT,)),
    "a position that wraps around": (put("file_position", 1, 2**64 - 1), (CORRUPT,)),
    "a negative size": (put("file_size", 1, 2**64 - 1), (CORRUPT,)),
    "a huge size": (put("file_size", 1, 1 << 50), (CORRUPT,)),
    "frames beyond the end": (stored_size(1 << 40), (CORRUPT,)),
    "a negative stored size": (stored_size(2**64 - 1), (CORRUPT,)),
    "a stored size of nothing": (stored_size(0), (CORRUPT,)),
    "a frame that is too large": (announce(FRAME_LIMIT + 1, 10_000), (CORRUPT,)),
    "a frame of a negative size": (announce(1039, 2**64 - 1), (CORRUPT,)),
    "a frame that is larger than announced": (announce(1038, 9040), (CORRUPT,)),
    "a frame that is smaller than announced": (announce(1040, 9039), (CORRUPT,)),
    "a frame that is a bomb": (frame_bomb, (CORRUPT,)),
    "a hole behind the frames": (lambda c: setattr(c, "holes", (HOLE, 0)), (CORRUPT,)),
    "a hole behind the columns": (lambda c: setattr(c, "holes", (0, HOLE)), (CORRUPT,)),
    "a hole in a frame": (hole_in_a_frame, (CORRUPT,)),
    "frames that hold nothing": (empty_bombs, (CORRUPT,)),
    "no frames": (no_frames, (CORRUPT,)),
    "two files with one path": (lambda c: add_file(c.toc, 1, b"g", 9000, 1), (UNSAFE,)),
    "two directories with one path": (lambda c: add_directory(c.toc, 0, b"d"), (UNSAFE,)),
    "two links with one path": (lambda c: add_symlink(c.toc, 1, b"s", b"elsewhere"), (UNSAFE,)),
    "a file where a directory is": (lambda c: add_file(c.toc, 0, b"d", 9000, 1), (UNSAFE,)),
    "a link where a directory is": (lambda c: add_symlink(c.toc, 0, b"d", b"{outside}"), (UNSAFE,)),
    "a hard link where a link is": (lambda c: add_hard_link(c.toc, 1, b"s", 0), (UNSAFE,)),
    "a file as a parent": (put("file_dir", 1, 3), (CORRUPT,)),
    "a directory as its own parent": (put("dir_parent", 2, 2), (CORRUPT,)),
    "directories in a circle": (cycle, (CORRUPT,)),
    "a hard link of a link": (put("hard_file", 0, 2), (CORRUPT,)),
    "ten million files": (counts(2, 3, 10_000_000, 1, 1, 20), (UNSUPPORTED,)),
    "2^64-1 directories": (counts(2, 2**64 - 1, 2, 1, 1, 20), (UNSUPPORTED,)),
    "2^64-1 frames": (counts(2**64 - 1, 3, 2, 1, 1, 20), (CORRUPT,)),
    "2^64-1 bytes of names": (counts(2, 3, 2, 1, 1, 2**64 - 1), (CORRUPT,)),
    "a name with NUL": (put("file_names", 0, b"a\0b"), (CORRUPT,)),
    "a name that goes up": (put("file_names", 0, b".."), (UNSAFE,)),
    "a name with a path": (put("file_names", 0, b"../../outside/evil"), (UNSAFE,)),
    "an absolute name": (put("dir_names", 1, b"/tmp"), (UNSAFE,)),
    "a name of 64 KiB": (put("file_names", 0, b"n" * (1 << 16)), (UNSUPPORTED,)),
    "a directory's name of 64 KiB": (put("dir_names", 1, b"n" * (1 << 16)), (UNSUPPORTED,)),
    "a link's name of 64 KiB": (put("link_names", 0, b"n" * (1 << 16)), (UNSUPPORTED,)),
    "a link's target of 64 KiB": (put("link_targets", 0, b"n" * (1 << 16)), (UNSUPPORTED,)),
    "directories that lie deep": (deep, (UNSUPPORTED,)),
    "directories that lie as deep as they may": (deepest, (UNSAFE,)),
    "many directories below a long name": (long_name_above, (UNSUPPORTED,)),
    "many directories with long paths": (long_paths, (UNSUPPORTED,)),
    "columns beyond the end": (lambda c: c.footer.update(columns_size=1 << 20), (CORRUPT,)),
    "columns in front of the file": (lambda c: c.footer.update(columns_offset=2**64 - 8), (CORRUPT,)),
    "columns in the frames": (lambda c: c.footer.update(columns_offset=0), (CORRUPT,)),
    "columns of 160 MB": (lambda c: c.footer.update(columns_raw=160 << 20), (CORRUPT,)),
    "columns that decode to more": (lambda c: c.footer.update(columns_raw=100), (CORRUPT,)),
    "columns that decode to less": (lambda c: c.footer.update(columns_raw=1 << 26), (CORRUPT,)),
    "facts beyond the end": (lambda c: c.footer.update(facts_offset=1 << 50), (CORRUPT,)),
    "facts elsewhere": (lambda c: c.footer.update(facts_offset=0), (CORRUPT,)),
    "something between frames and columns": (lambda c: setattr(c, "holes", (16, 0)), (CORRUPT,)),
    "a count that is no number": (fact("files", "many"), (CORRUPT, "unpacked")),
    "a size of 5,000 digits": (fact("unpacked-size", "9" * 5000), (CORRUPT, "unpacked")),
    "a target with NUL": (fact("target", "/tmp/a\0b"), (CORRUPT,)),
    "an import directory with NUL": (fact("import", "a\0b"), (CORRUPT,)),
    "scripts with NUL": (fact("bin", "a\0b"), (CORRUPT,)),
    "more import directories than a stamp holds": (fact("import", *["d"] * 7270), (UNSUPPORTED,)),
}  # fmt: skip


def crafted(path: Path, codec: str, lie: Lie) -> Path:
    made = Crafted(codec)
    if codec == "xz" and lie is not ODD_BUT_HARMLESS["nothing"]:  # the usual preset clears far more memory than it uses
        made.encode_columns = lambda raw: lzma.compress(raw, check=lzma.CHECK_CRC32, preset=0)
    lie(made)
    return made.write(path)


@pytest.mark.parametrize("threaded", [False, True], ids=["", "threaded"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_table_of_contents_that_lies(tmp_path: Path, codec: str, threaded: bool, tally: Tally) -> None:
    cases: Cases = {
        name: (crafted(tmp_path / name.replace("/", " "), codec, lie), expected)
        for name, (lie, expected) in TOC_LIES.items()
    }
    tally(HOSTILE, len(cases))
    check(tmp_path, cases, threaded=threaded, workers=2)


ODD_BUT_HARMLESS: dict[str, Lie] = {
    "nothing": lambda crafted: None,
    "links in a circle": lambda c: (add_symlink(c.toc, 0, b"a", b"b"), add_symlink(c.toc, 0, b"b", b"a")),
    "a link that leads out": put("link_targets", 0, b"../../../outside"),
    "a name with a newline": put("file_names", 0, b"new\nline"),
    "a name that is no text": put("file_names", 0, b"\xff\xfe\x01"),
    "the first second there is": put("file_mtime", 0, -(2**63)),
    "the last second there is": put("dir_mtime", 1, 2**63 - 1),
}


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_odd_but_harmless_is_unpacked(tmp_path: Path, codec: str) -> None:
    """It shows that the crafted archives are sound but for their lies."""
    cases: Cases = {
        name: (crafted(tmp_path / name, codec, lie), ("unpacked",)) for name, lie in ODD_BUT_HARMLESS.items()
    }
    check(tmp_path, cases)
    assert (tmp_path / "0/trees/tree/d/g").read_bytes() == DATA


# --- tars that attack -----------------------------------------------------------------------------

LINK, HARD_LINK, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
STEPS = "abcdefghijklmnop"
LONG = "d" * 247
Maker = Callable[[str], bytes]


def chain() -> list[bytes]:
    """Directories and short links to them, 4 KiB of path in 32 letters, so that who resolves the last gives up."""
    members, above = [], ""
    for step in STEPS:
        members += [member(f"{above}{LONG}", FOLDER), member(above + step, LINK, LONG)]
        above += LONG + "/"
    last = "/".join(STEPS)
    return [*members, member(f"{last}/{'l' * 254}", LINK, "../" * len(STEPS)), member("x/y", FOLDER)]


def short_chain(out: str) -> list[bytes]:
    """Without a member whose path leads through a link: the last one is made where it is."""
    members, above = [], ""
    for step in STEPS:
        members += [member(f"{above}{LONG}", FOLDER), member(above + step, LINK, LONG)]
        above += LONG + "/"
    return [*members, member("escape", LINK, "/".join(STEPS) + "/" + "../" * len(STEPS) + out)]


def pax(data: bytes, typeflag: bytes = b"x") -> bytes:
    return extended(typeflag, data)


ATTACKS: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "a chain of links beyond PATH_MAX (CVE-2025-4517)": (
        lambda out: tar(
            *chain(), member("escape", LINK, "/".join(STEPS) + "/" + "l" * 254 + "/../../outside"),
            member("flag", HARD_LINK, "escape/precious"), member("flag", data=b"evil"),
        ), (UNSAFE,),
    ),
    "written through the end of a chain of links": (
        lambda out: tar(*short_chain("../../outside"), member("escape/evil", data=b"evil")), (UNSAFE,),
    ),
    "hard link through the end of a chain of links": (
        lambda out: tar(*short_chain("../../outside"), member("flag", HARD_LINK, "escape/precious")), (UNSAFE,),
    ),
    "a link in a chain replaced by a file": (
        lambda out: tar(*short_chain("../../outside"), member("a", data=b"evil")), (UNSAFE,),
    ),
    "a link that is resolved before it leads out (CVE-2025-4138)": (
        lambda out: tar(member("a/b", FOLDER), member("s", LINK, "a/b"), member("s/../../../outside/evil", data=b"e")),
        (UNSAFE,),
    ),
    "a directory's mode through a link (CVE-2024-12718)": (
        lambda out: tar(member("s", LINK, out), member("s/.", FOLDER, mode=0o777, mtime=1)), (UNSAFE,),
    ),
    "the parent's mode": (lambda out: tar(member("a/../..", FOLDER, mode=0o777)), (UNSAFE,)),
    "hard link to a hard link to a link": (
        lambda out: tar(
            member("s", LINK, f"{out}/precious"), member("h", HARD_LINK, "s"), member("i", HARD_LINK, "h"),
        ), (UNSAFE,),
    ),
    "hard link to a link that comes later": (
        lambda out: tar(member("h", HARD_LINK, "s"), member("s", LINK, f"{out}/precious")), (UNSAFE,),
    ),
    "hard link to itself": (lambda out: tar(member("h", HARD_LINK, "h")), (UNSAFE,)),
    "hard links in a circle": (
        lambda out: tar(member("a", HARD_LINK, "b"), member("b", HARD_LINK, "a")), (UNSAFE,),
    ),
    "links in a circle, and through them": (
        lambda out: tar(member("a", LINK, "b"), member("b", LINK, "a"), member("a/evil", data=b"evil")), (UNSAFE,),
    ),
    "a link to itself, and through it": (
        lambda out: tar(member("a", LINK, "a"), member("a/evil", data=b"evil")), (UNSAFE,),
    ),
    "pax: a path that goes up": (
        lambda out: tar(pax(record("path", b"../outside/evil")) + member("good", data=b"evil")), (UNSAFE,),
    ),
    "pax: an absolute path": (
        lambda out: tar(pax(record("path", f"{out}/evil".encode())) + member("good", data=b"evil")), (UNSAFE,),
    ),
    "pax: an absolute hard link": (
        lambda out: tar(pax(record("linkpath", f"{out}/precious".encode())) + member("h", HARD_LINK, "good")),
        (UNSAFE,),
    ),
    "pax: one path for all": (
        lambda out: tar(pax(record("path", b"same"), b"g") + member("a", data=b"1") + member("b", data=b"2")),
        (UNSAFE,),
    ),
    "pax: a name with NUL": (
        lambda out: tar(pax(record("path", b"a\0b")) + member("good", data=b"evil")), (CORRUPT,),
    ),
    "pax: a huge size": (lambda out: tar(pax(record("size", b"9" * 18)) + member("a")), ("NoSpace",)),
    "pax: a negative size": (lambda out: tar(pax(record("size", b"-512")) + member("a")), (CORRUPT,)),
    "pax: a size that hides a member": (
        lambda out: tar(pax(record("size", b"1024")) + member("a") + member("../evil", data=b"evil")), ("unpacked",),
    ),
    "pax: a size of which the data is a header": (
        lambda out: tar(pax(record("size", b"0")) + member("a", data=member("../evil", data=b"evil"))), (UNSAFE,),
    ),
    "pax: a record that is longer than its header": (
        lambda out: tar(pax(b"9999 path=x\n") + member("a")), (CORRUPT,),
    ),
    "GNU: a long name that goes up": (
        lambda out: tar(extended(b"L", b"x/" * 80 + b"../" * 90 + b"evil\0") + member("good", data=b"evil")), (UNSAFE,),
    ),
    "GNU: a long name that is cut off": (lambda out: tar(extended(b"L", b"n" * 5000)[:4096]), (CORRUPT,)),
    "GNU: a long name of directories": (
        lambda out: tar(extended(b"L", b"a/" * 2000 + b"\0") + member("good")), ("unpacked",),
    ),
    "GNU: a long name that is too long": (
        lambda out: tar(extended(b"L", b"a/" * 500_000 + b"\0") + member("good")), (UNSUPPORTED,),
    ),
    "GNU: a name of 64 KiB": (
        lambda out: tar(extended(b"L", b"n" * (1 << 16) + b"\0") + member("good")), (UNSUPPORTED,),
    ),
    "GNU: a link target of 64 KiB": (
        lambda out: tar(extended(b"K", b"n" * (1 << 16) + b"\0") + member("good", LINK, "x")), (UNSUPPORTED,),
    ),
    "GNU: a hard link of a long path": (
        lambda out: tar(extended(b"K", b"a/" * 500_000 + b"\0") + member("good", HARD_LINK, "x")), (UNSUPPORTED,),
    ),
    "GNU: a name that belongs to nothing": (lambda out: tar(member("a") + extended(b"L", b"lost\0")), ("unpacked",)),
    "a directory with data": (lambda out: tar(member("x/", data=b"1")), (CORRUPT,)),
    "a name with a newline": (lambda out: tar(member("new\nline", data=b"1")), ("unpacked",)),
    "a size below zero": (lambda out: tar(with_size(b"\xff" * 12)), (CORRUPT,)),
    "a size of 2^62": (lambda out: tar(with_size(b"\x80\0\0\0\x40" + bytes(7))), ("NoSpace",)),
    "a size of 2^90": (lambda out: tar(with_size(b"\x80" + b"\x7f" * 11)), (CORRUPT,)),
}  # fmt: skip


def with_size(field: bytes) -> bytes:
    header = bytearray(member("sized"))
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("threaded", [False, True], ids=["", "threaded"])
@pytest.mark.parametrize("in_place", [False, True], ids=["", "in place"])
def test_a_tar_that_attacks(tmp_path: Path, threaded: bool, in_place: bool, tally: Tally) -> None:
    cases: Cases = {}
    for number, (name, (make, expected)) in enumerate(ATTACKS.items()):
        compress = (lzma.compress, zstandard.compress, gzipped, bytes)[number % 4]
        cases[name] = (compress(make(str(tmp_path / str(number) / "outside"))), expected)
    tally(HOSTILE, len(cases))
    check(tmp_path, cases, threaded=threaded, in_place=in_place)


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def test_a_link_of_an_archive_is_not_followed_by_the_next_one(tmp_path: Path) -> None:
    """In place a link to a directory of the target is followed, if it was there before: so the first archive may bring
    it, with a path on which whoever resolves it gives up where the kernel does not, and a link that leads out behind.
    """
    place = write_tree(tmp_path / "0", {"outside/x/precious": "untouched"})
    target = place / "trees" / "tree"
    target.mkdir(parents=True)
    room = 4096 - len(os.fsencode(target))  # so long that it is too long with the target before it only
    deep = "/".join(["d" * 200] * 30)[: room - 2].rstrip("/")
    first = [
        member(f"{deep}/", FOLDER),
        member(f"{deep}/s", LINK, str(place / "outside")),
        member("a", LINK, f"{deep}/s/x"),
    ]
    second = [member("a", FOLDER), member("a/evil", data=b"evil")]
    outcomes = []
    for name, members in ("first", first), ("second", second):
        (place / name).write_bytes(lzma.compress(tar(*members)))
        jobs = [[str(place / name), str(target), {"in_place": True}]]
        done = python(STARTS, stdin=json.dumps(jobs))
        outcomes.append(json.loads(done.stdout)[0][0])
    assert outcomes == ["unpacked", "TargetRefused"]
    assert os.listdir(place / "outside" / "x") == ["precious"]


# --- bombs ----------------------------------------------------------------------------------------


def rle(byte: int, size: int) -> bytes:
    """Return a zstd frame of `size` times one byte, 4 bytes for every 128 KiB."""
    blocks = -(-size // (1 << 17))
    block = (1 << 20 | 2).to_bytes(3, "little") + bytes((byte,))
    return b"\x28\xb5\x2f\xfd\x00\x38" + block * (blocks - 1) + bytes((block[0] | 1,)) + block[1:]


def zst(pieces: Iterable[bytes]) -> bytes:
    """Return a zstd frame of many pieces."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join([*map(compressor.compress, pieces), compressor.flush()])


def sparse(path: Path, begin: bytes, zeros: int) -> Path:
    """Write a file that ends in zeros and takes no room on the disk for them, and return its path."""
    path.write_bytes(begin)
    os.truncate(path, len(begin) + zeros)
    return path


def symlinks_with_long_targets() -> Iterator[bytes]:
    target = extended(b"K", b"t" * 1_000_000)
    for number in range(400):
        yield target + member(f"{number}", LINK, "x")


def global_headers() -> Iterator[bytes]:
    for number in range(400):
        yield extended(b"g", record(f"comment.{number}", b"c" * 1_000_000))


def headers_without_members() -> Iterator[bytes]:
    name = extended(b"L", b"n" * 1_000_000)
    for _ in range(10_000):
        yield name


def one_directory_again_and_again() -> Iterator[bytes]:
    members = member("d", FOLDER) * 1000
    for _ in range(1_100):
        yield members


def deep_directories() -> Iterator[bytes]:
    """Each member has 2,000 directories above it that no header names."""
    for number in range(1_000):
        yield extended(b"L", b"%d/" % number + b"a/" * 2000 + b"\0") + member("good")


def huge_file() -> Iterator[bytes]:
    info = tarfile.TarInfo("huge")
    info.size = 1 << 50
    yield info.tobuf(tarfile.GNU_FORMAT)


def window(log: int) -> bytes:
    """A frame that asks for a window of 2^log bytes, and does not say how large it is."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(tar(member("a", data=bytes(1000)))) + compressor.flush()


def dictionary(code: int) -> bytes:
    """An xz stream of one block that asks for an LZMA2 dictionary of this code (40: 4 GiB)."""
    raw = tar(member("a", data=bytes(1000)))
    block = bytearray(xz_format.encode_block(raw, 1, 1 << 16))
    size = (block[0] + 1) * 4
    at = block.index(b"\x21\x01", 2) + 2
    block[at] = code
    block[size - 4 : size] = struct.pack("<I", zlib.crc32(block[: size - 4]))
    return (
        xz_format.stream_header()
        + bytes(block)
        + xz_format.index_and_footer([(xz_format.unpadded_size(block), len(raw))])
    )


def index_of(blocks: int) -> bytes:
    """An xz stream whose index lists more blocks than the file could hold."""
    index = b"\x00" + xz_format._varint(blocks) + b"\x05\x01" * blocks
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", len(index) // 4 - 1) + b"\x00\x01"
    return xz_format.stream_header() + index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


SKIPPABLE = b"\x50\x2a\x4d\x18"
MEMBERS = tar(member("a", data=b"1"))
BOMBS: dict[str, tuple[Callable[[Path], Archive], tuple[str, ...]]] = {
    "a file that fits no disk": (lambda path: zst([*huge_file()]) + rle(0, 1 << 33), ("NoSpace",)),
    "zeros behind the end": (lambda path: zst([MEMBERS]) + rle(0, 1 << 37), (CORRUPT,)),
    "zeros before anything": (lambda path: rle(0, 1 << 37), (CORRUPT,)),
    "ones, and no headers": (lambda path: rle(1, 1 << 37), (UNSUPPORTED,)),
    "long targets of links": (lambda path: zst(symlinks_with_long_targets()), (UNSUPPORTED,)),
    "global headers": (lambda path: zst([*global_headers(), MEMBERS]), ("unpacked",)),
    "headers without members": (lambda path: zst(headers_without_members()), (CORRUPT,)),
    "one directory again and again": (lambda path: zst(one_directory_again_and_again()), (UNSUPPORTED,)),
    "directories above directories": (lambda path: zst(deep_directories()), (UNSUPPORTED, "NoSpace")),
    "a window of 2 GiB": (lambda path: window(31), ("MemoryBudgetExceeded",)),
    "a window of 512 MiB": (lambda path: window(29), ("MemoryBudgetExceeded",)),
    "a dictionary of 4 GiB": (lambda path: dictionary(40), ("MemoryBudgetExceeded",)),
    "a dictionary of 512 MiB": (lambda path: dictionary(34), ("MemoryBudgetExceeded",)),
    "an index of 10 million blocks": (lambda path: index_of(10_000_000), (UNSUPPORTED,)),
    "half a million streams": (lambda path: xz_format.stored(b"x") * 500_000, (UNSUPPORTED,)),
    "padding of an xz stream": (lambda path: sparse(path, xz_format.stream_header(), HOLE), (CORRUPT,)),
    "three million frames": (lambda path: zstandard.compress(b"") * 3_000_000, (UNSUPPORTED,)),
    "half a million skippable frames": (lambda path: (SKIPPABLE + bytes(4)) * 500_000, (UNSUPPORTED,)),
    "a skippable frame and nothing else": (
        lambda path: sparse(path, SKIPPABLE + b"\xff\xff\xff\x0f", (1 << 28) - 1),
        (CORRUPT,),
    ),
    "a hole in a plain tar": (lambda path: sparse(path, MEMBERS, 1 << 30), (CORRUPT,)),
    "a hole in a file of a plain tar": (lambda path: sparse(path, b"".join(huge_file()), HOLE), ("NoSpace",)),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_takes_little_time_and_memory(tmp_path: Path, what: str, tally: Tally) -> None:
    make, expected = BOMBS[what]
    bomb = make(tmp_path / "bomb")
    tally(HOSTILE, 1)
    check(tmp_path / "start", {what: (bomb, expected)}, threaded=list(BOMBS).index(what) % 2 == 1)
