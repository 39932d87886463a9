"""Compare a tree with the archive that it came from, file by file; not on the start path."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unpackenv.archive import RESERVED, facts, pyc
from unpackenv.archive.frames import decoded
from unpackenv.archive.reader import Archive
from unpackenv.archive.tarstream import DIRECTORY, FILE, HARD_LINK, SYMLINK, shown
from unpackenv.archive.toc import Toc
from unpackenv.errors import TreeMismatch

_READ = 1 << 20

Rewrite = Callable[[bytes, bytes], bytes]


class Difference(NamedTuple):
    """One difference between a tree and its archive.

    `kind` is "missing", "altered", "extra" or "bytecode" (Python would recompile it); `path` is
    relative to the root; `detail` is text.
    """

    kind: str
    path: str
    detail: str


def compare_tree(
    archive: Archive,
    root: str,
    cache_tag: str = "",
    *,
    extra: bool = True,
    rewritten: Rewrite = lambda path, content: content,
    on_progress: Callable[[int], None] = lambda size: None,
) -> list[Difference]:
    """Return every difference between the tree at `root` and `archive`, ordered by path.

    Compared are types, permission bits, sizes, contents, mtimes of files, symlinks' targets and
    which names are hard links of one file. `cache_tag` names the interpreter whose bytecode is
    checked, by default the one that the archive is for. `extra=False` leaves out files that the archive
    does not have, for a tree that was unpacked into a directory with other files. `rewritten` gets path
    and content of a packed file, and returns the content that a start gave it. No symlink is followed.
    `on_progress` gets the bytes of the tar stream compared so far. Raises `TreeMismatch` if `root` is not
    a directory, and the errors of reading frames.
    """
    if not os.path.isdir(root):
        raise TreeMismatch("is not a directory", where=root)
    comparison = _Comparison(archive.toc, os.fsencode(root))
    comparison.compare_contents(archive, rewritten, on_progress)
    comparison.compare_entries()
    comparison.check_bytecode(cache_tag or facts.first(archive.facts, "python"))
    differences = [each for each in comparison.differences if extra or each.kind != "extra"]
    return sorted(differences, key=lambda each: (each.path, each.kind))


class _Comparison:
    """One walk over a tree, and the differences found so far; paths are bytes, relative to the root."""

    def __init__(self, toc: Toc, root: bytes) -> None:
        self.toc = toc
        self.root = root
        self.differences: list[Difference] = []
        self.statuses = dict(_walk(root))
        self.sizes = toc.file_size[:]  # as they should be in the tree
        self._directories = toc.dir_paths()

    def differs(self, kind: str, path: bytes, detail: str) -> None:
        """Note a difference."""
        self.differences.append(Difference(kind, os.fsdecode(path), detail))

    def compare_entries(self) -> None:
        """Compare everything that `lstat` and `readlink` return."""
        listed = set()
        for kind, path, row in self.toc.paths():
            listed.add(path)
            status = self.statuses.get(path)
            if status is None:
                self.differs("missing", path, f"a {kind}")
            elif _kind(status) != (FILE if kind == HARD_LINK else kind):
                self.differs("altered", path, f"is a {_kind(status)}, was packed as a {kind}")
            else:
                for detail in self._details(kind, path, row, status):
                    self.differs("altered", path, detail)
        for path in self.statuses.keys() - listed:
            self.differs("extra", path, f"a {_kind(self.statuses[path])}")

    def _details(self, kind: str, path: bytes, row: int, status: os.stat_result) -> Iterator[str]:
        toc = self.toc
        mode = stat.S_IMODE(status.st_mode)
        if kind == DIRECTORY and mode != toc.dir_mode[row]:
            yield f"mode is {mode:04o}, was packed as {toc.dir_mode[row]:04o}"
        if kind == FILE:
            if mode != toc.file_mode[row]:
                yield f"mode is {mode:04o}, was packed as {toc.file_mode[row]:04o}"
            if status.st_size != self.sizes[row]:
                yield f"size is {status.st_size}, was packed as {self.sizes[row]}"
            mtime = status.st_mtime_ns // 10**9
            if mtime != toc.file_mtime[row]:
                yield f"mtime is {mtime}, was packed as {toc.file_mtime[row]}"
        if kind == SYMLINK:
            target = os.readlink(os.path.join(self.root, path))
            if target != toc.link_targets[row]:
                yield f"points to {_quoted(target)}, was packed to point to {_quoted(toc.link_targets[row])}"
        if kind == HARD_LINK:
            file = self._file_path(toc.hard_file[row])
            other = self.statuses.get(file)
            if other is None or (other.st_dev, other.st_ino) != (status.st_dev, status.st_ino):
                yield f"is no hard link of {_quoted(file)}"

    def _file_path(self, row: int) -> bytes:
        return self._directories[self.toc.file_dir[row]] + self.toc.file_names[row]

    def compare_contents(self, archive: Archive, rewritten: Rewrite, on_progress: Callable[[int], None]) -> None:
        """Compare the bytes of every file that is there with its size, frame by frame."""
        altered: set[int] = set()  # rows with a difference
        for start, raw in zip(self.toc.frame_starts(), decoded(archive)):
            for row, offset, piece in _pieces(self.toc, start, memoryview(raw)):
                if len(piece) == self.sizes[row]:  # all of it
                    piece = memoryview(rewritten(self._file_path(row), piece.tobytes()))
                    self.sizes[row] = len(piece)
                if row not in altered:
                    detail = self._content_detail(row, offset, piece)
                    if detail:
                        self.differs("altered", self._file_path(row), detail)
                        altered.add(row)
            on_progress(start + len(raw))

    def _content_detail(self, row: int, offset: int, piece: memoryview) -> str:
        path = self._file_path(row)
        status = self.statuses.get(path)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != self.sizes[row]:
            return ""
        try:
            at = _first_difference(os.path.join(self.root, path), offset, piece)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return "" if at < 0 else f"content differs from byte {at} on"

    def check_bytecode(self, cache_tag: str) -> None:
        """Find bytecode that the interpreter of `cache_tag` would compile again (PEP 552)."""
        if not cache_tag:
            return
        for path, status in self.statuses.items():
            source = _source_of(path, os.fsencode(cache_tag)) if stat.S_ISREG(status.st_mode) else b""
            source_status = self.statuses.get(source)
            if source_status is None or not stat.S_ISREG(source_status.st_mode):
                continue
            try:
                detail = self._stale(path, source, source_status, cache_tag)
            except OSError as error:
                detail = f"cannot be read ({error.strerror})"
            if detail:
                self.differs("bytecode", path, detail)

    def _stale(self, path: bytes, source: bytes, status: os.stat_result, cache_tag: str) -> str:
        header = _head(os.path.join(self.root, path), pyc.HEADER_SIZE)
        magic = importlib.util.MAGIC_NUMBER
        own = magic if cache_tag == sys.implementation.cache_tag else b""
        detail = pyc.stale(header, status.st_mtime, status.st_size, own)
        if detail:
            return detail
        # The hash depends on the interpreter: only the hash of this one can be computed here.
        if pyc.flags(header) & pyc.CHECK_SOURCE and header[:4] == magic:
            content = _head(os.path.join(self.root, source), status.st_size)
            return "" if importlib.util.source_hash(content) == header[8:16] else "does not fit its source's content"
        return ""


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield path and `lstat` of everything below `root` that is not unpackenv's own."""
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                if not directory and entry.name.startswith(RESERVED.encode()):
                    continue
                path = directory + entry.name
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + b"/")


def _kind(status: os.stat_result) -> str:
    kinds = {stat.S_IFDIR: DIRECTORY, stat.S_IFREG: FILE, stat.S_IFLNK: SYMLINK}
    return kinds.get(stat.S_IFMT(status.st_mode), "special file")


def _pieces(toc: Toc, start: int, raw: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the files of which the frame that begins at `start` has data: row, offset in the file, data."""
    end = start + len(raw)
    first = max(0, bisect_right(toc.file_position, start) - 1)
    for row in range(first, bisect_left(toc.file_position, end)):
        position = toc.file_position[row]
        begin = max(position, start)
        until = min(position + toc.file_size[row], end)
        if begin < until:
            yield row, begin - position, raw[begin - start : until - start]


def _first_difference(path: bytes, offset: int, expected: memoryview) -> int:
    """Return where the file at `path` first differs from `expected` at `offset`, or -1."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while expected:
            actual = os.pread(fd, min(len(expected), _READ), offset)
            if not actual or actual != expected[: len(actual)]:
                differing = (n for n, (a, b) in enumerate(zip(actual, expected)) if a != b)
                return offset + next(differing, len(actual))
            expected = expected[len(actual) :]
            offset += len(actual)
        return -1
    finally:
        os.close(fd)


def _source_of(path: bytes, cache_tag: bytes) -> bytes:
    """Return the source whose bytecode for `cache_tag` would be at `path`, or b"" (PEP 3147, PEP 488)."""
    directory, _, name = path.rpartition(b"/")
    parent, slash, last = directory.rpartition(b"/")
    parts = name.split(b".")
    if last != b"__pycache__" or parts.pop() != b"pyc":
        return b""
    if parts[-1].startswith(b"opt-"):
        parts.pop()
    if len(parts) < 2 or parts.pop() != cache_tag:
        return b""
    return parent + slash + b".".join(parts) + b".py"


def _head(path: bytes, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(size)


def _quoted(name: bytes) -> str:
    return repr(shown(name))
