"""A fresh file system for every sample.

ext4 does not reuse inodes freed in the last minutes and searches past them: unpack, delete and unpack
again on one file system, and the kernel's time grows tenfold. So a sample never follows another on
the same file system, and nothing is deleted: the whole file system goes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

_IMAGE_SIZE = 6 << 30  # sparse
_UNMOUNT_TRIES = 50


@dataclass(frozen=True)
class FileSystem:
    """A way to get an empty directory: what it is, what is wrong with it, and how to make one in a work directory."""

    name: str
    what: str
    caveat: str
    make: Callable[[Path], AbstractContextManager[Path]]

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        """Yield an empty directory on a new file system, which is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="unpackenv-bench-") as work, self.make(Path(work)) as root:
            directory = root / "target"
            directory.mkdir()
            yield directory


def choose(name: str) -> FileSystem:
    """Return the file system `name`, or for "auto" the best one that this user may make here."""
    candidates = [kind for kind in KINDS if name in ("auto", kind.name)]
    for kind in candidates:
        try:
            with kind.fresh():
                return kind
        except (OSError, subprocess.CalledProcessError) as error:
            problem = error
    raise SystemExit(f"bench: cannot make a file system ({', '.join(kind.name for kind in candidates)}): {problem}")


@contextlib.contextmanager
def _ext4(work: Path) -> Iterator[Path]:
    image = work / "image"
    with open(image, "wb") as file:
        file.truncate(_IMAGE_SIZE)
    # Lazily, and the kernel told not to catch up: nothing but the sample writes to it.
    _quietly("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", image)
    with _mounted(work, "-o", "loop,noinit_itable", image) as root:
        yield root


@contextlib.contextmanager
def _tmpfs(work: Path) -> Iterator[Path]:
    with _mounted(work, "-t", "tmpfs", "tmpfs") as root:
        yield root


@contextlib.contextmanager
def _directory(work: Path) -> Iterator[Path]:
    yield work


@contextlib.contextmanager
def _mounted(work: Path, *arguments: str | Path) -> Iterator[Path]:
    root = work / "mount"
    root.mkdir()
    _quietly("mount", *arguments, root)
    try:
        yield root
    finally:
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
)
