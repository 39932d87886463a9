"""What is in a tree: packages by size, kinds of files, and needless files. Nothing is ever removed."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate

from unpackenv.archive.pooled import in_order
from unpackenv.archive.toc import Toc
from unpackenv.pack import checks, distributions, scan
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.source import PackSource
from unpackenv.pack.temporary import Commands, Directory

_ELF = b"\x7fELF"
_SMALLEST_PROGRAM = _SMALLEST_DUPLICATE = 4096
_CODE = {".py": "Python sources", ".pyc": "bytecode", ".pyi": "type stubs"}
_NATIVE, _METADATA, _DATA = "shared objects and programs", "metadata of packages", "data"

_TRY_IT = "a few packages import theirs (django.test): try the application afterwards"
NEEDLESS = (
    ("tests", scan.TESTS, _TRY_IT),
    (
        "headers, sources of extension modules",
        ("*.h", "*.hh", "*.hpp", "*.hxx", "*.cuh", "*.pxd", "*.pxi", "*.pyx", "*.c", "*.cc", "*.cpp", "*.f90"),
        "a package that compiles at run time needs them (numba, torch.compile)",
    ),
    ("static libraries, object files", ("*.a", "*.la", "*.lib", "*.o"), ""),
    ("debug symbols in files of their own", ("*.debug", "*.dSYM", "*.pdb"), ""),
    ("type stubs", ("*.pyi",), "lazy_loader reads them at run time (scikit-image, librosa)"),
    ("source maps", ("*.css.map", "*.js.map"), ""),
    (
        "installers",
        (
            "pip", "pip-*.dist-info", "setuptools", "setuptools-*.dist-info", "wheel", "wheel-*.dist-info",
            "pkg_resources", "_distutils_hack", "distutils-precedence.pth",
        ),
        "older packages import pkg_resources, which is of setuptools",
    ),
)  # fmt: skip
"""The name of a group of files, the globs for `pack --exclude` that leave it out, and when to keep it."""


@dataclass(frozen=True)
class Package:
    """A distribution; `stored` is its share of the archive in bytes."""

    name: str
    files: int
    size: int
    stored: float


@dataclass(frozen=True)
class Kind:
    """A kind of files; `endings` are the suffixes of data files with their bytes, largest first."""

    name: str
    files: int
    size: int
    endings: dict[str, int]


@dataclass(frozen=True)
class Needless:
    """Files that are not needed at run time as a rule.

    `exclude` are the globs that leave them out (none for symbols), `hint` says when they are needed, or how to remove
    them.
    """

    name: str
    files: int
    size: int
    exclude: list[str]
    hint: str


@dataclass(frozen=True)
class Duplicate:
    """Files with the same content, `size` bytes each."""

    size: int
    paths: list[str]

    @property
    def wasted(self) -> int:
        """Bytes of all but one of them."""
        return self.size * (len(self.paths) - 1)


# --- packages ----------------------------------------------------------------------------------


def packages(source: PackSource, tree: Tree, toc: Toc, factor: float) -> list[Package]:
    """Return the distributions, largest first.

    A distribution gets a share of every frame that it is in, in proportion to its bytes there. `factor` corrects the
    sizes of frames.
    """
    owner = distributions.owners(source)
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for entry in tree.entries:
        if entry.kind == "file":
            sizes[owner(entry.path)] += entry.size
            counts[owner(entry.path)] += 1
    stored = _stored(toc, owner)
    unsorted = (Package(name, counts[name], sizes[name], stored[name] * factor) for name in sizes)
    return sorted(unsorted, key=lambda package: (-package.size, package.name))


def _stored(toc: Toc, owner: Callable[[str], str]) -> Counter[str]:
    shares: list[Counter[str]] = [Counter() for _ in toc.frame_raw]
    directories = toc.dir_paths()
    ends = list(accumulate(toc.frame_raw))
    frame = 0
    for directory, name, position, size in zip(toc.file_dir, toc.file_names, toc.file_position, toc.file_size):
        package = owner(os.fsdecode(directories[directory] + name))
        while size:
            while ends[frame] <= position:
                frame += 1
            here = min(size, ends[frame] - position)
            shares[frame][package] += here
            position += here
            size -= here
    stored: Counter[str] = Counter()
    for share, bytes_stored in zip(shares, toc.frame_stored):
        whole = sum(share.values())
        for package, size in share.items():
            stored[package] += bytes_stored * size / whole  # type: ignore[assignment]
    return stored


# --- kinds of files ----------------------------------------------------------------------------


def kinds(source: PackSource, tree: Tree) -> list[Kind]:
    """Return the kinds of files, largest first."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    endings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in _files(tree):
        kind = _kind(source, entry)
        sizes[kind] += entry.size
        counts[kind] += 1
        if kind == _DATA:
            endings[kind][os.path.splitext(entry.path)[1].lower() or "no ending"] += entry.size
    unsorted = (Kind(kind, counts[kind], sizes[kind], dict(endings[kind].most_common())) for kind in sizes)
    return sorted(unsorted, key=lambda kind: (-kind.size, kind.name))


def _kind(source: PackSource, entry: Entry) -> str:
    if checks.is_shared_object(entry.path) or _is_program(source, entry):
        return _NATIVE
    code = _CODE.get(os.path.splitext(entry.path)[1])
    if code:
        return code
    return _METADATA if ".dist-info/" in entry.path or ".egg-info" in entry.path else _DATA


def _is_program(source: PackSource, entry: Entry) -> bool:
    if entry.size < _SMALLEST_PROGRAM or entry.path.endswith((".py", ".pyc", ".pyi")):
        return False
    with open(os.path.join(source.root, entry.path), "rb") as file:
        return file.read(len(_ELF)) == _ELF


def _files(tree: Tree) -> Iterator[Entry]:
    return (entry for entry in tree.entries if entry.kind == "file")


# --- needless files ----------------------------------------------------------------------------


def needless(source: PackSource, tree: Tree) -> list[Needless]:
    """Return the groups of files that are not needed at run time as a rule, largest first; a file may be in several."""
    groups = []
    for name, globs, hint in NEEDLESS:
        entries, used = scan.left_out(source, tree, globs)
        files = [entry for entry in entries if entry.kind == "file"]
        if files:
            groups.append(Needless(name, len(files), sum(entry.size for entry in files), used, hint))
    symbols = _symbols(source, tree)
    if symbols:
        groups.append(symbols)
    return sorted(groups, key=lambda group: -group.size)


def _symbols(source: PackSource, tree: Tree) -> Needless | None:
    """Return the symbols that stripping would remove from shared objects and programs: it strips a copy of each."""
    if not shutil.which("strip"):
        return None
    native = [entry for entry in _files(tree) if _kind(source, entry) == _NATIVE]
    with Directory() as temporary, Commands() as commands:
        scratch = temporary.make()

        def stripped(job: tuple[int, Entry]) -> int:
            number, entry = job
            copy = os.path.join(scratch, str(number))
            return _stripped(os.path.join(source.root, entry.path), entry.size, copy, commands)

        saved = [size for size in in_order(stripped, enumerate(native), _cpus(), 2 * _cpus()) if size > 0]
    hint = "strip --strip-unneeded removes them; it may break a library that auditwheel has changed"
    return Needless("symbols that only debuggers and linkers read", len(saved), sum(saved), [], hint) if saved else None


def _stripped(path: str, size: int, copy: str, commands: Commands) -> int:
    """Return by how many bytes strip makes a file smaller; 0 if it fails."""
    if commands.run(["strip", "--strip-unneeded", "-o", copy, path]).returncode:
        return 0
    saved = size - os.path.getsize(copy)
    os.unlink(copy)
    return saved


def duplicates(source: PackSource, tree: Tree) -> list[Duplicate]:
    """Return the files that are there more than once with the same content, except small ones and hard links."""
    by_size: defaultdict[int, list[str]] = defaultdict(list)
    for entry in _files(tree):
        if entry.size >= _SMALLEST_DUPLICATE:
            by_size[entry.size].append(entry.path)
    unsorted = []
    for size, paths in by_size.items():
        unsorted += [Duplicate(size, same) for same in _same(source.root, paths)] if len(paths) > 1 else []
    return sorted(unsorted, key=lambda duplicate: (-duplicate.wasted, duplicate.paths))


def _same(root: str, paths: Iterable[str]) -> Iterator[list[str]]:
    by_content: defaultdict[bytes, list[str]] = defaultdict(list)
    for path in paths:
        content = sha256()
        with open(os.path.join(root, path), "rb") as file:
            while piece := file.read(1 << 20):
                content.update(piece)
        by_content[content.digest()].append(path)
    return (same for same in by_content.values() if len(same) > 1)


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
