"""Hostile archives, started: an error of ours, soon, in little memory, and nothing left or changed anywhere."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

import pytest

from crafted import DATA, Crafted, add_directory, add_file, add_hard_link, add_symlink
from processes import python, write_tree
from support import CODECS, describe
from unpackenv.archive import codecs
from unpackenv.archive.toc import COUNTS, FRAME_LIMIT
from unpackenv.start import stamp

Archive = Union[bytes, Path]
Cases = dict[str, tuple[Archive, tuple[str, ...]]]
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
MEMORY = 256 << 20
SECONDS = 10
HOLE = 1 << 33
CORRUPT, UNSAFE, UNSUPPORTED = "ArchiveCorrupt", "ArchiveUnsafe", "ArchiveUnsupported"
ACCIDENTS = ("unexpected ", "ran out of memory", "was killed", "ended with status")
REFUSED = (CORRUPT, UNSAFE, UNSUPPORTED)

STARTS = """
import json, resource, sys, time
import unpackenv
result = []
for archive, target, settings in json.load(sys.stdin):
    begun = time.monotonic()
    try:
        said = ["unpacked", unpackenv.bootstrap(archive, target, log="off", **settings).target]
    except BaseException as error:
        said = [type(error).__name__, str(error)]
    seconds = time.monotonic() - begun
    peaks = [resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result.append([*said, seconds, max(peaks)])
print(json.dumps(result))
"""


def limit() -> None:
    """What is out of bounds anyway: the machine that runs the tests must not suffer from it."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


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
    for (name, (_, expected)), target, state, (outcome, said, seconds, peak) in zip(
        cases.items(), targets, before, json.loads(done.stdout)
    ):
        sound = {
            f"came to {outcome}: {said[:1500]}": outcome in expected and not any(word in said for word in ACCIDENTS),
            f"took {seconds:.1f} s": seconds < SECONDS,
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
        encode = codecs.encoder(crafted.codec, 1, 1 << 16)
        crafted.stored = [encode(raw) for raw in crafted.raw]
        crafted.toc.frame_stored.extend([len(crafted.stored[0]), size])

    return lie


def announce(*sizes: int) -> Lie:
    return lambda crafted: setattr(crafted, "announced", list(sizes))


def counts(*numbers: int) -> Lie:
    return lambda crafted: setattr(crafted, "columns", COUNTS.pack(*numbers) + crafted.toc.encode()[COUNTS.size :])


def hole_in_a_frame(crafted: Crafted) -> None:
    crafted.holes = (HOLE, 0)
    stored_size(HOLE)(crafted)


def no_frames(crafted: Crafted) -> None:
    del crafted.raw[:]
    del crafted.toc.file_dir[:], crafted.toc.file_mode[:], crafted.toc.file_mtime[:], crafted.toc.file_names[:]
    del crafted.toc.file_size[:], crafted.toc.file_position[:]
    del crafted.toc.hard_dir[:], crafted.toc.hard_file[:], crafted.toc.hard_names[:]


def frame_bomb(crafted: Crafted) -> None:
    """It decodes to 100 MB, and was announced with a few bytes."""
    encode = codecs.encoder(crafted.codec, 1, 1 << 16)
    sizes = [len(raw) for raw in crafted.raw]
    crafted.stored = [encode(bytes(100 << 20)), encode(crafted.raw[1])]
    crafted.announced = sizes


def empty_bombs(crafted: Crafted) -> None:
    """Frames that hold no member: 10 GB to be decoded and thrown away, in frames as large as they may be."""
    encode = codecs.encoder(crafted.codec, 1, 1 << 16)
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
    "a name of 64 KiB": (put("file_names", 0, b"n" * (1 << 16)), ("UnpackFailed",)),
    "a directory's name of 64 KiB": (put("dir_names", 1, b"n" * (1 << 16)), ("UnpackFailed", UNSUPPORTED)),
    "a link's name of 64 KiB": (put("link_names", 0, b"n" * (1 << 16)), ("UnpackFailed",)),
    "a link's target of 64 KiB": (put("link_targets", 0, b"n" * (1 << 16)), ("UnpackFailed",)),
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
    lie(made)
    return made.write(path)


@pytest.mark.parametrize("threaded", [False, True], ids=["", "threaded"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_table_of_contents_that_lies(tmp_path: Path, codec: str, threaded: bool) -> None:
    cases: Cases = {
        name: (crafted(tmp_path / name.replace("/", " "), codec, lie), expected)
        for name, (lie, expected) in TOC_LIES.items()
    }
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
