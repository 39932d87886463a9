"""The command that packs a folder best: what each option of `pack` would save, tried one on top of the other.

Each step is packed with `--fast` and unpacked as a start does. The ratio of the archives at the usual and at the fast
level, which hardly changes, then gives the size at the usual one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from unpackenv.archive import codecs
from unpackenv.errors import SettingError
from unpackenv.pack import pack, scan
from unpackenv.pack.pack import Options, Packed
from unpackenv.report.analyze import measure
from unpackenv.report.analyze.measure import Measured
from unpackenv.report.analyze.subject import Subject

ROUNDS = 2
"""How often the archive of each step is unpacked; the fastest counts."""
OPTIONS = (("--sources", "none"), ("--exclude-tests",), ("--strip",))
"""What is tried, in this order: that which makes most starts faster comes first."""
_WORTH_SIZE, _WORTH_FILES = 0.005, 0.05  # of the archive and its files; less is not worth an option


@dataclass(frozen=True)
class Step:
    """An option of `pack` ("" for the first step: none), on top of those of the steps before that are worth it."""

    option: str
    files: int
    archive: float
    """Bytes of the archive, at the usual level."""
    start: float
    """Seconds of an unpack."""
    worth_it: bool
    remarks: list[str]
    """What the option leaves as it was, and why."""


@dataclass(frozen=True)
class Proposal:
    """The command to pack a folder, and the steps that led to it."""

    command: list[str]
    steps: list[Step]


def check(subject: Subject) -> None:
    """Raise `SettingError` if there is no folder that could be packed."""
    if subject.kind != "directory":
        raise SettingError("takes the folder that will be packed", where="--propose")


def propose(subject: Subject, measured: Measured, exclude: Sequence[str], follow: str, scratch: str) -> Proposal:
    """Try every option on the folder of `subject`; `scratch` is an empty directory. Raises `UnpackenvError`."""
    chosen: list[str] = []
    tried = _Trial(subject.path, exclude, follow, scratch)
    size, seconds, base = tried.step(chosen)
    files = _files(base)
    factor = measured.archive / size
    steps = [Step("", files, size * factor, seconds, worth_it=True, remarks=[])]
    for option in OPTIONS:
        if option == ("--strip",) and not shutil.which("strip"):
            continue
        smaller, sooner, packed = tried.step([*chosen, *option])
        worth_it = smaller < size * (1 - _WORTH_SIZE) or _files(packed) < files * (1 - _WORTH_FILES)
        remarks = _remarks(option[0], packed)
        steps.append(Step(" ".join(option), _files(packed), smaller * factor, sooner, worth_it, remarks))
        if worth_it:
            chosen += option
            size, files = smaller, _files(packed)
    return Proposal([*command(subject.path, exclude, follow), *chosen], steps)


def command(folder: str, exclude: Sequence[str], follow: str) -> list[str]:
    """Return the command that packs a folder, with the options that `analyze` was given."""
    output = f"site-packages.tar{codecs.get(codecs.DEFAULT).suffixes[0]}"
    given = [word for glob in exclude for word in ("--exclude", glob)]
    given += ["--links", follow] if follow != Options.links else []
    return ["unpackenv", "pack", folder, "-o", output, *given]


class _Trial:
    """Packs one folder with different options."""

    def __init__(self, folder: str, exclude: Sequence[str], follow: str, scratch: str) -> None:
        self._folder = folder
        self._exclude = list(exclude)
        self._follow = follow
        self._scratch = scratch
        self._count = 0

    def step(self, words: Sequence[str]) -> tuple[int, float, Packed]:
        """Pack and unpack with some options; return the bytes, the seconds, and what was packed."""
        self._count += 1
        place = os.path.join(self._scratch, str(self._count))
        os.mkdir(place)
        archive = os.path.join(place, f"archive.tar{codecs.get(codecs.DEFAULT).suffixes[0]}")
        options = Options(
            fast=True,
            exclude=[*self._exclude, *(scan.TESTS if "--exclude-tests" in words else ())],
            links=self._follow,
            strip="--strip" in words,
            sources="none" if "--sources" in words else "all",
            sbom=False,
        )
        packed = pack.pack(self._folder, archive, options, _ignore)
        runs = [
            measure.unpack(archive, os.path.join(place, f"unpacked-{number}")).milliseconds for number in range(ROUNDS)
        ]
        return packed.written.size, min(runs) / 1e3, packed


def _files(packed: Packed) -> int:
    return len(packed.written.toc.file_names)


def _ignore(warning: str) -> None:
    """Do nothing: `pack` says it when the folder is packed."""


def _remarks(option: str, packed: Packed) -> list[str]:
    """Return what an option has not changed."""
    if option == "--sources" and packed.sources:
        return [f"{package} keeps its sources, {reason}" for package, reason in packed.sources.kept.items()]
    if option == "--strip" and packed.stripped:
        return [
            f"{paths[0]} is kept, {reason}" if len(paths) == 1 else f"{len(paths)} files are kept, {reason}"
            for reason, paths in packed.stripped.kept.items()
        ]
    if option == "--exclude-tests":
        return ["a few packages import theirs: try the application afterwards"]
    return []


def scratch_needed(size: int) -> int:
    """Return the bytes on the disk that trying takes, for a tree of `size`."""
    return size * ROUNDS * (1 + len(OPTIONS))
