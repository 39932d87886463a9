"""Trees and archives for tests: made, packed, unpacked by stock tools, and described."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from unpackenv.archive import trailer
from unpackenv.archive.tarstream import DIRECTORY, FILE, SYMLINK
from unpackenv.archive.writer import Input

CODECS = ("zstd", "xz")
AFTER_FOOTER = {name: following for name, _, following in trailer.CODECS.values()}
CUT, FLIPPED = "archives cut off", "archives with a flipped bit"
# Adds to the counts that a run of the tests ends with: of what, and how many.
Tally = Callable[[str, int], None]
TAR_FLAG = {"zstd": "--zstd", "xz": "-J"}
MTIME = 1_600_000_000

# Names that tar's quoting, our columns, our facts or a terminal could trip over.
ODD_NAMES = (
    b"new\nline",
    b"back\\slash",
    b"caf\xc3\xa9",
    b"\xff\xfe not UTF-8",
    b" spaces ",
    b"-rf",
    b"...",
    b"quote'\"",
    b"\x01\x7f",
    b"L" * 255,
)


def make(root: Path, *paths: str, data: str = "") -> Path:
    """Make files, or directories where a path ends with a slash, below `root`; returns `root`."""
    for path in paths:
        place = root / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.write_text(data)
    return root


def make_tree(root: Path) -> Path:
    """Make a tree with every kind of member that an archive can hold, and return it."""
    package = root / "package"
    (package / "sub" / "empty").mkdir(parents=True)
    _write(package / "__init__.py", b"VALUE = 1\n")
    _write(package / "empty.py", b"")
    _write(package / "sub" / "text.txt", b"compressible " * 2000)
    _write(package / "sub" / "native.so", _noise(100_000), 0o755)
    _write(package / "sub" / "read-only", b"secret", 0o400)
    _write(root / "old", b"before 1970", mtime=-86_400)
    _write(root / "new", b"after 2106", mtime=1 << 33)
    odd = os.fsencode(root / "odd")
    os.mkdir(odd)
    for name in ODD_NAMES:
        _write(os.path.join(odd, name), name)
    deep = root
    for level in range(12):
        deep = deep / f"directory-{level:02d}-of-a-path-that-does-not-fit-a-tar-header"
    deep.mkdir(parents=True)
    _write(deep / "file", b"deep")
    os.link(package / "sub" / "text.txt", package / "text-again")
    os.link(package / "sub" / "text.txt", deep / "and-again")
    for name, target in (
        ("relative", "package/sub"),
        ("absolute", "/usr/bin/python3"),
        ("dangling", "nowhere"),
        ("outside", "../../../outside"),
        ("long", "x/" * 150 + "y"),
    ):
        (root / name).symlink_to(target)
        os.utime(root / name, (MTIME + 7, MTIME + 7), follow_symlinks=False)
    os.symlink(b"odd \xff\ntarget", os.path.join(odd, b"link \xff"))
    os.utime(os.path.join(odd, b"link \xff"), (MTIME, MTIME), follow_symlinks=False)
    for directory, _, _ in os.walk(os.fsencode(root), topdown=False):
        os.chmod(directory, 0o755)
        os.utime(directory, (MTIME + 3, MTIME + 3))
    os.chmod(package / "sub" / "empty", 0o700)
    return root


def _write(path: Path | bytes, content: bytes, mode: int = 0o644, mtime: int = MTIME) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, (mtime, mtime))


def _noise(size: int) -> bytes:
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def file_input(folder: Path, path: bytes, content: bytes, mode: int = 0o644, mtime: int = MTIME) -> Input:
    """Return a member that is a file with `content`, which is kept in `folder`."""
    source = folder / hashlib.sha256(path + b"\0" + content).hexdigest()
    source.write_bytes(content)
    return Input(FILE, path, mode, mtime, len(content), source=str(source))


def stock_unpack(archive: Path, codec: str, target: Path) -> Path:
    """Unpack with the tar of this machine, which must have nothing to complain of, and return the tree."""
    target.mkdir()
    command = ["tar", TAR_FLAG[codec], "--warning=no-timestamp", "-xpf", archive, "-C", target]
    run = subprocess.run(command, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    return target


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Return all that an archive keeps of a tree, by path."""
    top = os.fsencode(root)
    state: dict[bytes, tuple[object, ...]] = {}
    first_name: dict[int, bytes] = {}

    def scan(prefix: bytes) -> None:
        for entry in sorted(os.scandir(os.path.join(top, prefix)), key=lambda entry: entry.name):
            path = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns // 10**9
            if entry.is_symlink():
                state[path] = (SYMLINK, mtime, os.readlink(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                state[path] = (DIRECTORY, mode, mtime)
                scan(path + b"/")
            else:
                with open(entry.path, "rb") as file:
                    content = file.read()
                same_as = first_name.setdefault(status.st_ino, path)
                state[path] = (FILE, mode, mtime, hashlib.sha256(content).hexdigest(), same_as)

    scan(b"")
    return state


def fingerprint(tree: Path) -> str:
    """Return a hash of all that an archive keeps of a tree, so that trees in different containers can be compared."""
    members = {path: state for path, state in describe(tree).items() if not path.startswith(b".unpackenv.")}
    return hashlib.sha256(repr(sorted(members.items())).encode()).hexdigest()


def leftovers(target: Path) -> list[str]:
    """Return what is beside and anywhere in a target that is of unpackenv, but for locks and the stamp."""
    found = [name for name in os.listdir(target.parent) if ".unpackenv" in name]
    for directory, below, files in os.walk(target):
        names = [name for name in below + files if name.startswith(".unpackenv")]
        found += [os.path.relpath(os.path.join(directory, name), target) for name in names]
    return sorted(name for name in found if not name.endswith((".lock", ".stamp")))
