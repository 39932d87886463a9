"""Verifying: an archive against itself, and a tree against its archive.

A start trusts the TOC alone; stock tar trusts the headers in the tar stream alone. What
`verify_archive` passes, both unpack to the same tree. Neither function is on the start path.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from unpackenv.archive import container, facts, tarstream, trailer, xz, zstd
from unpackenv.archive.pooled import in_order
from unpackenv.archive.reader import Archive, open_archive
from unpackenv.archive.tarstream import DIRECTORY, END_OF_ARCHIVE, FILE, HARD_LINK, SYMLINK, Member, Scanner, shown
from unpackenv.archive.toc import RESERVED, Toc
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported, TreeMismatch

# Frames that are decoded, or wait to be looked at, at one time.
_WINDOW = 3
_READ = 1 << 20
_ALL_MODE_BITS = 0o7777
_BLOCK_HEADER = 32  # bytes of an xz block's header that hold its sizes, and more

_PYC_HEADER = 16
_HASH_BASED, _CHECK_SOURCE = 1, 2


class Checked(NamedTuple):
    """What `verify_archive` found sound; sizes are in bytes."""

    digest: str
    frames: int
    members: int
    files: int
    unpacked_size: int


class Difference(NamedTuple):
    """One way in which a tree is not what its archive says.

    `kind` is "missing", "altered", "extra" or "bytecode" (Python would recompile it); `path` is
    relative to the root; `detail` is text.
    """

    kind: str
    path: str
    detail: str


# --- an archive against itself -----------------------------------------------------------------


def verify_archive(path: str, digest: str = "", on_progress: Callable[[int], None] = lambda done: None) -> Checked:
    """Check every byte of the native archive at `path`, and that TOC, tar headers and facts agree.

    With `digest` (hex) it must be that archive. `on_progress` gets the bytes of the tar
    stream that are done. Raises what `open_archive` raises, for the first difference that is found.
    """
    with open_archive(path, digest) as archive:
        try:
            archive.toc.check_unique()
            _check_facts(archive)
            _check_stream(archive, on_progress)
            _check_container(archive)
        except (ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported) as error:
            error.where = error.where or path
            raise
        toc = archive.toc
        return Checked(archive.digest, len(toc.frame_raw), toc.member_count, len(toc.file_names), toc.unpacked_size)


def _check_facts(archive: Archive) -> None:
    toc = archive.toc
    counted = {
        "codec": archive.codec,
        "frames": len(toc.frame_raw),
        "files": len(toc.file_names),
        "members": toc.member_count,
        "unpacked-size": toc.unpacked_size,
    }
    for key, value in counted.items():
        said = facts.first(archive.facts, key)
        if said != str(value):
            raise ArchiveCorrupt(f"its facts say {key}={said}, its table of contents {value}")


def _check_stream(archive: Archive, on_progress: Callable[[int], None]) -> None:
    """Compare the tar stream, header by header, with the TOC."""
    mark = tarstream.mark()
    scanner = Scanner(_ALL_MODE_BITS)
    listed = _Listed(archive.toc)
    tail = b""
    done = 0
    head = b""
    for raw in _decoded(archive):
        head += raw[: len(mark) - len(head)]
        for member in scanner.feed(memoryview(raw)):
            listed.compare(member)
        tail = (tail + raw[-len(END_OF_ARCHIVE) :])[-len(END_OF_ARCHIVE) :]
        done += len(raw)
        on_progress(done)
    listed.close()
    if head != mark:
        raise ArchiveCorrupt("its tar stream does not begin with the mark of unpackenv")
    if tail != END_OF_ARCHIVE or scanner.end != archive.toc.raw_size - len(END_OF_ARCHIVE):
        raise ArchiveCorrupt("its tar stream does not end in two blocks of zeros and nothing else")


def _check_container(archive: Archive) -> None:
    """Check what stock tools would go by: where each frame says that it ends, and what the xz index says."""
    toc = archive.toc
    identity = trailer.identify_open(archive.fd, archive.path)
    footer = identity.footer
    assert footer is not None  # open_archive has read it
    if archive.codec == trailer.ZSTD:
        walked = [frame.stored_size for frame in zstd.read_frames(archive.fd, identity.size)]
        sound = walked == list(toc.frame_stored)
    else:
        offsets = accumulate(toc.frame_stored, initial=len(container.prefix(archive.codec)))
        headers = (os.pread(archive.fd, _BLOCK_HEADER, offset) for _, offset in zip(toc.frame_stored, offsets))
        unpadded = [xz.unpadded_size(header) for header in headers]
        index = xz.index_and_footer(list(zip(unpadded, toc.frame_raw)))
        sound = os.pread(archive.fd, len(index), footer.columns_offset - len(index)) == index
    if not sound:
        raise ArchiveCorrupt("its frames end elsewhere than its table of contents says")


class _Listed:
    """The members that a TOC lists, crossed off as the tar stream brings them.

    Rows of one kind stand in the stream's order, so one cursor a kind is all that is needed.
    """

    def __init__(self, toc: Toc) -> None:
        self._rows = {
            DIRECTORY: _listed_directories(toc),
            FILE: _listed_files(toc),
            SYMLINK: _listed_symlinks(toc),
            HARD_LINK: _listed_hard_links(toc),
        }
        self._hard_file = toc.hard_file
        self._seen = dict.fromkeys(self._rows, 0)

    def compare(self, member: Member) -> None:
        """Raise `ArchiveCorrupt` unless `member` is the next one of its kind in the TOC."""
        if member.kind == DIRECTORY and member.path.endswith(b"/"):
            member.path = member.path[:-1]
        expected = next(self._rows[member.kind], None)
        if expected is None:
            raise _differs(member.path, f"its tar stream has a {member.kind} that its table of contents does not list")
        for field, value in expected.items():
            found = getattr(member, field)
            if found != value:
                path = expected["path"]
                raise _differs(
                    path if isinstance(path, bytes) else member.path,
                    f"its table of contents says {field} {_text(value)}, its tar header {_text(found)}",
                )
        if member.kind == HARD_LINK and self._hard_file[self._seen[HARD_LINK]] >= self._seen[FILE]:
            raise _differs(member.path, "a hard link comes before the file that it names")
        self._seen[member.kind] += 1

    def close(self) -> None:
        """Raise `ArchiveCorrupt` if the TOC lists members that did not come."""
        for kind, rows in self._rows.items():
            for expected in rows:
                path = expected["path"]
                assert isinstance(path, bytes)
                raise _differs(path, f"its table of contents lists a {kind} that its tar stream does not have")


_Fields = dict[str, "bytes | int"]


def _listed_directories(toc: Toc) -> Iterator[_Fields]:
    for path, mode, mtime in list(zip(toc.dir_paths(), toc.dir_mode, toc.dir_mtime))[1:]:
        yield {"path": path[:-1], "mode": mode, "mtime": mtime}


def _listed_files(toc: Toc) -> Iterator[_Fields]:
    of = toc.dir_paths()
    columns = zip(toc.file_dir, toc.file_names, toc.file_mode, toc.file_mtime, toc.file_size, toc.file_position)
    for directory, name, mode, mtime, size, position in columns:
        yield {"path": of[directory] + name, "mode": mode, "mtime": mtime, "size": size, "position": position}


def _listed_symlinks(toc: Toc) -> Iterator[_Fields]:
    of = toc.dir_paths()
    for directory, name, mtime, target in zip(toc.link_dir, toc.link_names, toc.link_mtime, toc.link_targets):
        yield {"path": of[directory] + name, "mtime": mtime, "link": target}


def _listed_hard_links(toc: Toc) -> Iterator[_Fields]:
    of = toc.dir_paths()
    for directory, name, row in zip(toc.hard_dir, toc.hard_names, toc.hard_file):
        yield {
            "path": of[directory] + name,
            "link": of[toc.file_dir[row]] + toc.file_names[row],
            # Some readers give a link's mode and mtime to the inode that it shares.
            "mode": toc.file_mode[row],
            "mtime": toc.file_mtime[row],
        }


def _differs(path: bytes, what: str) -> ArchiveCorrupt:
    return ArchiveCorrupt(f"{shown(path)}: {what}", member=shown(path))


def _text(value: bytes | int) -> str:
    return repr(shown(value)) if isinstance(value, bytes) else str(value)


def _decoded(archive: Archive) -> Iterator[bytearray]:
    """Yield every frame, checked and decoded, in order; threads work ahead by a few frames."""
    local = threading.local()

    def decode(number: int) -> bytearray:
        if not hasattr(local, "decode"):
            local.decode = archive.decoder()
        stored = archive.read_frame(number)
        raw = bytearray(archive.toc.frame_raw[number])
        try:
            local.decode(stored, memoryview(raw))
        except ArchiveCorrupt as error:
            raise ArchiveCorrupt(f"frame {number}: {error.what}") from error
        return raw

    yield from in_order(decode, range(len(archive.toc.frame_raw)), min(_WINDOW, os.cpu_count() or 1), _WINDOW)


# --- a tree against its archive ----------------------------------------------------------------


def compare_tree(
    archive: Archive,
    root: str,
    cache_tag: str = "",
    *,
    extra: bool = True,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Difference]:
    """Return every difference between the tree at `root` and `archive`, ordered by path.

    Compared are types, permission bits, sizes, contents, mtimes of files, symlinks' targets and
    which names are hard links of one file. `cache_tag` names the interpreter whose bytecode is
    looked at, by default the one that was packed for. `extra=False` leaves out what the archive
    does not have, for a tree that was unpacked into a directory with other things. No symlink is
    followed. `on_progress` gets the bytes of the tar stream that are done. Raises `TreeMismatch` if `root` is not a
    directory, and what reading frames raises.
    """
    if not os.path.isdir(root):
        raise TreeMismatch("is not a directory", where=root)
    comparison = _Comparison(archive.toc, os.fsencode(root))
    comparison.compare_entries()
    comparison.compare_contents(archive, on_progress)
    comparison.check_bytecode(cache_tag or facts.first(archive.facts, "python"))
    differences = [one for one in comparison.differences if extra or one.kind != "extra"]
    return sorted(differences, key=lambda one: (one.path, one.kind))


class _Comparison:
    """One walk over a tree, and the differences found so far; paths are bytes, relative to the root."""

    def __init__(self, toc: Toc, root: bytes) -> None:
        self.toc = toc
        self.root = root
        self.differences: list[Difference] = []
        self.found = dict(_walk(root))
        self._directories = toc.dir_paths()

    def differs(self, kind: str, path: bytes, detail: str) -> None:
        """Note a difference."""
        self.differences.append(Difference(kind, os.fsdecode(path), detail))

    def compare_entries(self) -> None:
        """Compare all that `lstat` and `readlink` tell."""
        listed = set()
        for kind, path, row in self.toc.paths():
            listed.add(path)
            status = self.found.get(path)
            if status is None:
                self.differs("missing", path, f"a {kind}")
            elif _kind(status) != (FILE if kind == HARD_LINK else kind):
                self.differs("altered", path, f"is a {_kind(status)}, was packed as a {kind}")
            else:
                for detail in self._details(kind, path, row, status):
                    self.differs("altered", path, detail)
        for path in self.found.keys() - listed:
            self.differs("extra", path, f"a {_kind(self.found[path])}")

    def _details(self, kind: str, path: bytes, row: int, status: os.stat_result) -> Iterator[str]:
        toc = self.toc
        mode = stat.S_IMODE(status.st_mode)
        if kind == DIRECTORY and mode != toc.dir_mode[row]:
            yield f"mode is {mode:04o}, was packed as {toc.dir_mode[row]:04o}"
        if kind == FILE:
            if mode != toc.file_mode[row]:
                yield f"mode is {mode:04o}, was packed as {toc.file_mode[row]:04o}"
            if status.st_size != toc.file_size[row]:
                yield f"size is {status.st_size}, was packed as {toc.file_size[row]}"
            mtime = status.st_mtime_ns // 10**9
            if mtime != toc.file_mtime[row]:
                yield f"mtime is {mtime}, was packed as {toc.file_mtime[row]}"
        if kind == SYMLINK:
            target = os.readlink(os.path.join(self.root, path))
            if target != toc.link_targets[row]:
                yield f"points to {_text(target)}, was packed to point to {_text(toc.link_targets[row])}"
        if kind == HARD_LINK:
            file = self._file_path(toc.hard_file[row])
            other = self.found.get(file)
            if other is None or (other.st_dev, other.st_ino) != (status.st_dev, status.st_ino):
                yield f"is no hard link of {_text(file)}"

    def _file_path(self, row: int) -> bytes:
        return self._directories[self.toc.file_dir[row]] + self.toc.file_names[row]

    def compare_contents(self, archive: Archive, on_progress: Callable[[int], None]) -> None:
        """Compare the bytes of every file that is there with its size, frame by frame."""
        done: set[int] = set()  # rows of which nothing more is to be said
        for start, raw in zip(self.toc.frame_starts(), _decoded(archive)):
            for row, offset, piece in _pieces(self.toc, start, memoryview(raw)):
                if row not in done:
                    detail = self._content_detail(row, offset, piece)
                    if detail:
                        self.differs("altered", self._file_path(row), detail)
                        done.add(row)
            on_progress(start + len(raw))

    def _content_detail(self, row: int, offset: int, piece: memoryview) -> str:
        path = self._file_path(row)
        status = self.found.get(path)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != self.toc.file_size[row]:
            return ""
        try:
            at = _first_difference(os.path.join(self.root, path), offset, piece)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return "" if at < 0 else f"content differs from byte {at} on"

    def check_bytecode(self, cache_tag: str) -> None:
        """Find what the interpreter of `cache_tag` would compile anew (PEP 552)."""
        if not cache_tag:
            return
        for path, status in self.found.items():
            source = _source_of(path, os.fsencode(cache_tag)) if stat.S_ISREG(status.st_mode) else b""
            source_status = self.found.get(source)
            if source_status is None or not stat.S_ISREG(source_status.st_mode):
                continue
            try:
                detail = self._stale(path, source, source_status, cache_tag)
            except OSError as error:
                detail = f"cannot be read ({error.strerror})"
            if detail:
                self.differs("bytecode", path, detail)

    def _stale(self, path: bytes, source: bytes, status: os.stat_result, cache_tag: str) -> str:
        header = _head(os.path.join(self.root, path), _PYC_HEADER)
        if len(header) < _PYC_HEADER:
            return "is cut off"
        magic, flags = header[:4], int.from_bytes(header[4:8], "little")
        ours = magic == importlib.util.MAGIC_NUMBER
        if cache_tag == sys.implementation.cache_tag and not ours:
            return "was compiled by another version of the interpreter"
        if flags & ~(_HASH_BASED | _CHECK_SOURCE) or flags == _CHECK_SOURCE:
            return f"has the unknown flags {flags:#x}"
        if not flags & _HASH_BASED:
            fields = (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
            recorded = (int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little"))
            return "" if recorded == fields else "does not fit its source's mtime and size"
        # Which hash it is depends on the interpreter: that of another one cannot be computed here.
        if flags & _CHECK_SOURCE and ours:
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
                if not directory and entry.name.startswith(RESERVED):
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
            found = os.pread(fd, min(len(expected), _READ), offset)
            if not found or found != expected[: len(found)]:
                same = (n for n, (a, b) in enumerate(zip(found, expected)) if a != b)
                return offset + next(same, len(found))
            expected = expected[len(found) :]
            offset += len(found)
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
