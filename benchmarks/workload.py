"""What is measured: the renderer's packages as a tree and in every archive, made once and kept in build/bench."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import unpackenv
from renderer import install
from unpackenv.archive import trailer
from unpackenv.build import pack

CACHE = install.PROJECT / "build" / "bench"
SQUASHFS_OPTIONS = ("-comp", "zstd", "-Xcompression-level", "19", "-b", "1M")
_BYTECODE = pack.Options().bytecode
_BIG_FILE_MEGABYTES = 300


class Renderer:
    """The renderer's packages on CPython 3.9.

    `tree` is what our archive unpacks to, and what all other archives are made of: all hold the same
    files, with the same bytecode.
    """

    def __init__(self) -> None:
        self.python = _real_python()
        self.site = install.site(self.python)
        self.env = {
            "PYTHONPATH": os.pathsep.join([str(_installed(self.python)), str(install.runtime(self.python))]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @cached_property
    def zstd(self) -> Path:
        return self._packed(self.site, "renderer", trailer.ZSTD, _BYTECODE)

    @cached_property
    def xz(self) -> Path:
        return self._packed(self.site, "renderer", trailer.XZ, _BYTECODE)

    def framed(self, mebibytes: int) -> Path:
        """Return the default archive, but with frames of another size."""
        return self._packed(self.site, "renderer", trailer.ZSTD, _BYTECODE, mebibytes << 20)

    @cached_property
    def tree(self) -> Path:
        def make(place: Path) -> None:
            (place / "site-packages").mkdir(parents=True)
            _execute(["tar", "--zstd", "-xf", self.zstd, "-C", place / "site-packages"])

        return _once(f"tree-{_key(self.zstd.name)}", make) / "site-packages"

    @cached_property
    def tar(self) -> Path:
        return _tarred(self.tree, "tar", [])

    @cached_property
    def tar_xz(self) -> Path:
        return _tarred(self.tree, "tar.xz", ["-J"], {"XZ_OPT": "-T 0"})

    @cached_property
    def tar_zstd(self) -> Path:
        return _tarred(self.tree, "tar.zst", ["--zstd"], {"ZSTD_CLEVEL": "19"})

    @cached_property
    def squashfs(self) -> Path | None:
        if not (shutil.which("mksquashfs") and shutil.which("unsquashfs")):
            return None
        name = f"peer-{_key(self.tree.parent.name, *SQUASHFS_OPTIONS)}.squashfs"
        options = ["-noappend", "-quiet", "-no-progress", *SQUASHFS_OPTIONS]
        return _once(name, lambda place: _execute(["mksquashfs", self.tree, place, *options]))

    # --- one big file ----------------------------------------------------------------------------

    @cached_property
    def big_tree(self) -> Path:
        """A package that is one file of 300 MB."""
        return _once(f"big-{_BIG_FILE_MEGABYTES}", _make_big) / "site-packages"

    @cached_property
    def big_zstd(self) -> Path:
        return self._packed(self.big_tree, "big", trailer.ZSTD, "keep")

    @cached_property
    def big_xz(self) -> Path:
        return self._packed(self.big_tree, "big", trailer.XZ, "keep")

    @cached_property
    def big_tar_xz(self) -> Path:
        return _tarred(self.big_tree, "tar.xz", ["-J"], {"XZ_OPT": "-T 0"})

    def _packed(
        self, tree: Path, name: str, codec: str, bytecode: str, frame_size: int = pack.DEFAULT_FRAME_SIZE
    ) -> Path:
        """Pack with default settings; other defaults make another archive."""
        key = _key(str(tree), codec, bytecode, pack.DEFAULT_LEVEL[codec], frame_size, unpackenv.__version__)
        suffix = {trailer.ZSTD: "zst", trailer.XZ: "xz"}[codec]
        options = ["--codec", codec, "--bytecode", bytecode, "--frame-size", frame_size]
        command = [self.python, "-m", "unpackenv", "pack", tree, *options, "-o"]
        return _once(f"{name}-{key}.tar.{suffix}", lambda place: _execute([*command, place], self.env))


def forget() -> None:
    """Remove what was made, so that it is made anew."""
    shutil.rmtree(CACHE, ignore_errors=True)


def xz_block_size(archive: Path) -> int:
    """Return the unpacked size of the largest block."""
    listed = subprocess.run(
        ["xz", "--robot", "--list", "-v", archive], check=True, capture_output=True, text=True
    ).stdout
    return max(int(line.split("\t")[7]) for line in listed.splitlines() if line.startswith("block\t"))


def _real_python() -> str:
    """Return the interpreter itself: a launcher in its place, such as pyenv's, would be measured too."""
    python = install.find_python()
    if python is None:
        raise SystemExit("bench: no CPython 3.9 with pip here; UNPACKENV_PYTHON39 can name one")
    command = [python, "-c", "import sys; print(sys.executable)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _installed(python: str) -> Path:
    """Return a directory with unpackenv as an installer leaves it: of today, and with bytecode."""
    place = CACHE / "installed"
    shutil.rmtree(place, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(install.PROJECT / "src" / "unpackenv", place / "unpackenv", ignore=ignored)
    _execute([python, "-m", "compileall", "-q", place])
    return place


def _tarred(tree: Path, suffix: str, options: Sequence[str], env: Mapping[str, str] | None = None) -> Path:
    """Make what `tar` makes of a tree, named from its parent."""
    key = _key(str(tree), *options, *(env or {}).values())
    command = ["tar", "-C", tree.parent, *options, "-cf"]
    return _once(f"peer-{key}.{suffix}", lambda place: _execute([*command, place, tree.name], env))


def _make_big(place: Path) -> None:
    """Write what compresses as a binary does, about 1 : 8, and is the same each time."""
    import random

    (place / "site-packages" / "big").mkdir(parents=True)
    with open(place / "site-packages" / "big" / "weights.bin", "wb") as file:
        for seed in range(_BIG_FILE_MEGABYTES):
            noise = random.Random(seed).randbytes(125_000).hex().encode()
            file.write(noise * 4)


def _once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the file or directory `name` of the cache; a run that was killed while making it left nothing of it."""
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"bench: making {place}", file=sys.stderr, flush=True)
        partial = CACHE / f"partial-{name}"
        for leftover in CACHE.glob(f"{partial.name}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        make(partial)
        partial.rename(place)
    return place


def _execute(words: Sequence[object], env: Mapping[str, str] | None = None) -> None:
    command = [str(word) for word in words]
    done = subprocess.run(command, check=False, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _key(*options: object) -> str:
    return hashlib.sha256(repr(options).encode()).hexdigest()[:12]
