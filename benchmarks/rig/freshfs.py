"""A fresh file system for every sample.

ext4 does not reuse inodes freed in the last minutes and searches past them: unpack, delete and unpack
again on one file system, and the kernel's time grows tenfold. So no sample follows another on the same
file system. Nothing is deleted in it; the whole file system is thrown away.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

_IMAGE_SIZE = 6 << 30  # sparse
_UNMOUNT_TRIES = 50
_TARGET = "target"


@dataclass(frozen=True)
class FileSystem:
    """A way to get a directory without files: what it is, what is wrong with it, and how to make one.

    `make` mounts it in a work directory. Where `is_merged`, the directory is there already: it
    belongs to a lower layer, and has the directories of a tree in it.
    """

    name: str
    what: str
    caveat: str
    make: Callable[[Path, Path | None], AbstractContextManager[Path]]
    is_merged: bool = False

    @contextlib.contextmanager
    def fresh(self, tree: Path | None = None) -> Iterator[Path]:
        """Yield a directory on a new file system, which is gone afterwards; `tree` is what will be unpacked to it."""
        with tempfile.TemporaryDirectory(prefix="unpackenv-bench-") as work, self.make(Path(work), tree) as root:
            directory = root / _TARGET
            directory.mkdir(exist_ok=self.is_merged)
            yield directory

    def problem(self) -> str:
        """Return why this user cannot make one here, or nothing."""
        try:
            with self.fresh():
                return ""
        except subprocess.CalledProcessError as error:
            return error.stderr.decode(errors="replace").strip() or str(error)
        except OSError as error:
            return str(error)


def choose(name: str) -> FileSystem:
    """Return the file system `name`, or for "auto" the best one that this user may make here."""
    candidates = [kind for kind in KINDS if kind.name in (_AUTO if name == "auto" else [name])]
    problems = []
    for kind in candidates:
        problem = kind.problem()
        if not problem:
            return kind
        problems.append(f"{kind.name}: {problem}")
    raise SystemExit(f"bench: cannot make a file system ({'; '.join(problems)})")


def sized(kind: FileSystem, size: int) -> FileSystem:
    """Return the same file system with room for so many bytes, if it is an ext4."""
    return replace(kind, make=partial(_ext4, size=size)) if kind.make is _ext4 else kind


@contextlib.contextmanager
def _ext4(work: Path, _: Path | None, size: int = _IMAGE_SIZE) -> Iterator[Path]:
    image = _image(work, size)
    # Lazily, and the kernel told not to catch up: nothing but the sample writes to it.
    _quietly("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", image)
    with _mounted(work / "mount", "-o", "loop,noinit_itable", image) as root:
        yield root


@contextlib.contextmanager
def _xfs(work: Path, _: Path | None) -> Iterator[Path]:
    image = _image(work, _IMAGE_SIZE)
    _quietly("mkfs.xfs", "-q", "-f", image)
    with _mounted(work / "mount", "-o", "loop", image) as root:
        yield root


@contextlib.contextmanager
def _tmpfs(work: Path, _: Path | None) -> Iterator[Path]:
    with _mounted(work / "mount", "-t", "tmpfs", "tmpfs") as root:
        yield root


@contextlib.contextmanager
def _overlay(work: Path, _: Path | None) -> Iterator[Path]:
    """Mount what an engine gives to a container: a lower layer, and one to write to, on one ext4."""
    with _ext4(work, None) as disk, _layered(work, disk) as root:
        yield root


@contextlib.contextmanager
def _merged_overlay(work: Path, tree: Path | None) -> Iterator[Path]:
    """The same, with the directory to be filled, and those below it, in the lower layer."""
    with _ext4(work, None) as disk:
        for directory, _, _ in os.walk(tree) if tree else ():
            (disk / "lower" / _TARGET / os.path.relpath(directory, tree)).mkdir(parents=True)
        with _layered(work, disk) as root:
            yield root


@contextlib.contextmanager
def _layered(work: Path, disk: Path) -> Iterator[Path]:
    layers = {f"{name}dir": disk / name for name in ("lower", "upper", "work")}
    for layer in layers.values():
        layer.mkdir(exist_ok=True)
    options = ",".join(f"{name}={path}" for name, path in layers.items())
    with _mounted(work / "merged", "-t", "overlay", "-o", options, "overlay") as root:
        yield root


@contextlib.contextmanager
def _directory(work: Path, _: Path | None) -> Iterator[Path]:
    yield work


def _image(work: Path, size: int) -> Path:
    image = work / "image"
    with open(image, "wb") as file:
        file.truncate(size)
    return image


@contextlib.contextmanager
def _mounted(root: Path, *arguments: str | Path) -> Iterator[Path]:
    root.mkdir()
    try:
        _quietly("mount", *arguments, root)
        yield root
    finally:
        if root.is_mount():  # also when it was told to stop while mount ran
            _unmount(root)


def _unmount(root: Path) -> None:
    """A process that has just ended may hold the file system for a moment."""
    for _ in range(_UNMOUNT_TRIES):
        if subprocess.run(["umount", root], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    _quietly("umount", "--lazy", root)


def _quietly(*command: str | Path) -> None:
    """mkfs lives in sbin, which is not on everybody's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    subprocess.run(command, check=True, capture_output=True, env={"PATH": path})


KINDS = (
    FileSystem("ext4", "ext4 in a loop-mounted image, made anew for each sample", "", _ext4),
    FileSystem(
        "tmpfs",
        "tmpfs, mounted anew for each sample",
        "tmpfs (root can have ext4) creates files faster than a disk's file system: decoding weighs more here.",
        _tmpfs,
    ),
    FileSystem(
        "directory",
        "a new directory of the temporary directory for each sample",
        "Nothing is mounted (that takes root): samples share one file system, deleted files slow later ones down, "
        "and these times are not to be compared with others.",
        _directory,
    ),
    FileSystem("xfs", "xfs in a loop-mounted image, made anew for each sample", "", _xfs),
    FileSystem("overlayfs", "a new directory on overlayfs, both layers on a new ext4", "", _overlay),
    FileSystem(
        "overlayfs-merged",
        "overlayfs, a directory of the lower layer, with all directories of the tree and no files; both layers on a "
        "new ext4",
        "",
        _merged_overlay,
        is_merged=True,
    ),
)
_AUTO = ("ext4", "tmpfs", "directory")
