"""The workloads: trees of packages, and unpackenv's archives of them, made once and kept in build/bench."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import measure
import trees
import unpackenv
from cache import CACHE, Unavailable, execute, key, once
from renderer import install
from unpackenv.archive import codecs

HERE = Path(__file__).resolve().parent
_SOURCE = install.PROJECT / "src" / "unpackenv"


@dataclass(frozen=True)
class Packed:
    """An archive that `unpackenv pack` made, and what that took: one sample, from when it was made."""

    path: Path
    seconds: float
    memory: int
    """The most that all its processes had at a time, in bytes (PSS)."""

    @property
    def size(self) -> int:
        return self.path.stat().st_size


class Workload:
    """A tree of packages, and what unpackenv makes of it.

    All archives, ours and the others', are made of `tree`: all hold the same files, with the same bytecode.
    """

    def __init__(self, name: str, what: str, python: str, make: Callable[[Path], object]) -> None:
        """`make` writes the packages into the directory that it is given, which exists."""
        self.name = name
        self.what = what
        self.python = python
        self._make = make

    @cached_property
    def env(self) -> dict[str, str]:
        """The environment in which `python` can import unpackenv."""
        return {
            "PYTHONPATH": os.pathsep.join([str(_installed(self.python)), str(install.runtime(self.python))]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @cached_property
    def tree(self) -> Path:
        def make(place: Path) -> None:
            (place / "site-packages").mkdir(parents=True)
            self._make(place / "site-packages")

        return once(f"tree-{self.name}-{key(unpackenv.__version__, self.what)}", make) / "site-packages"

    @property
    def zstd(self) -> Path:
        """The archive that `unpackenv pack` makes by default."""
        return self.packed().path

    @property
    def xz(self) -> Path:
        return self.packed("--codec", "xz", codec="xz").path

    def packed(self, *options: object, codec: str = codecs.DEFAULT) -> Packed:
        """Pack with some options; other options, or another unpackenv, make another archive."""
        name = f"{self.name}-{key(str(self.tree), options, _digest_of_source())}.tar{codecs.get(codec).suffixes[0]}"
        cost = CACHE / f"{name}.json"

        def make(place: Path) -> None:
            usage, peak = measure.watch(self.pack("unpackenv pack", lambda _: place, *options), CACHE)
            cost.write_text(json.dumps({"seconds": usage.wall, "memory": peak.pss}))

        return Packed(once(name, make), **json.loads(cost.read_text()))

    def pack(self, name: str, output: Callable[[Path], Path], *options: object) -> measure.Command:
        """Return the command that packs the tree; its bytecode is there."""
        words = [self.python, "-m", "unpackenv", "pack", self.tree, "--bytecode", "keep", *options, "-o"]
        return measure.Command(name, lambda at: [*words, output(at)], self.env, self.tree)


class Renderer(Workload):
    """The renderer's packages on CPython 3.9."""

    def __init__(self) -> None:
        python = interpreter("3.9")
        self.site = install.site(python)
        self.requirements = install.HERE / "requirements.txt"
        what = "the renderer: pandas, plotly, kaleido, flask and what they need"
        super().__init__("renderer", what, python, functools.partial(_with_our_bytecode, self, self.site))

    def wheels(self) -> Path:
        """Return a directory with its wheels."""
        return install.wheels(self.python)


def science() -> Workload:
    """Return the stack that science uses, on CPython 3.11."""
    python = interpreter("3.11")
    site = install.packages(python, "science", HERE / "science.txt")
    what = "science: numpy, scipy, scikit-learn, pyarrow, polars, matplotlib and what they need"
    made = Workload("science", what, python, lambda place: _with_our_bytecode(made, site, place))
    return made


def small_files() -> Workload:
    """Return a tree of 50,000 small files."""
    return Workload("small", "50,000 small files", interpreter("3.9"), trees.small_files)


def big_files() -> Workload:
    """Return a tree of three big files, which hold machine code of the science stack."""
    libraries = science().tree
    what = "3 files of 150 MB, machine code of the science stack's libraries"
    return Workload("big", what, interpreter("3.9"), lambda place: trees.big_files(place, libraries))


def one_file() -> Workload:
    """Return a package that is one file of 300 MB."""
    return Workload("one", "one file of 300 MB", interpreter("3.9"), trees.one_file)


def interpreter(version: str) -> str:
    """Return the interpreter itself: a launcher in its place, such as pyenv's, would be measured too."""
    python = install.find_python(version)
    if python is None:
        setting = f"UNPACKENV_PYTHON{version.replace('.', '')}"
        raise Unavailable(f"no CPython {version} with pip here; {setting} can name one")
    command = [python, "-c", "import sys; print(sys.executable)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _with_our_bytecode(workload: Workload, site: Path, place: Path) -> None:
    """Fill a directory with what a default `pack` of installed packages unpacks to; it is not compressed much."""
    archive = place.with_name("packed.tar.zst")
    command = [workload.python, "-m", "unpackenv", "pack", site, "--level", "1", "-o", archive]
    execute(command, workload.env)
    execute(["tar", "--zstd", "-xf", archive, "-C", place])
    archive.unlink()


def _installed(python: str) -> Path:
    """Return a directory with unpackenv as an installer leaves it: of today, and with bytecode."""
    place = CACHE / f"installed-{key(python)}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(_SOURCE, place / "unpackenv", ignore=shutil.ignore_patterns("__pycache__"))
    execute([python, "-m", "compileall", "-q", place])
    return place


@functools.cache
def _digest_of_source() -> str:
    """Return what tells archives of this unpackenv from those of another one."""
    paths = sorted(path for part in ("archive", "pack") for path in (_SOURCE / part).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def xz_block_size(archive: Path) -> int:
    """Return the unpacked size of the largest block."""
    listed = subprocess.run(
        ["xz", "--robot", "--list", "-v", archive], check=True, capture_output=True, text=True
    ).stdout
    return max(int(line.split("\t")[7]) for line in listed.splitlines() if line.startswith("block\t"))
