"""The table of contents (TOC): what is in an archive and where its bytes are.

It is stored as columns, not as a list of records, so that tens of thousands of members load in
milliseconds. Directories are a tree: each names its parent by number, and the parent comes first.
An absolute path, or one that leaves the target, cannot be expressed.

    counts         frames, directories, files, symlinks, hard links, bytes of names: 6 x u64
    frames         stored size u64 | raw size u64 | sha256 of the stored bytes, 32 bytes
    directories    parent u32 | mode u16 | mtime i64               (row 0 is the target; its mode and mtime are 0)
    files          directory u32 | mode u16 | mtime i64 | size u64 | position u64
    symlinks       directory u32 | mtime i64
    hard links     directory u32 | file u32
    names          of directories but the first, files, symlinks, hard links; each ends in NUL
    targets        of symlinks; each ends in NUL

Each column is stored whole, little-endian, one after the other. Frames follow each other without
a gap, so their offsets are sums. A position is that of a file's first byte in the tar stream, to
which the frames decode one after the other. docs/format.md has the byte tables.
"""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import accumulate
from operator import lt

from unpackenv.archive import RESERVED
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

COUNTS = struct.Struct("<6Q")
SHA256_SIZE = 32
PERMISSIONS = 0o777
_RESERVED = RESERVED.encode()
FRAME_LIMIT = 1 << 27
"""The most bytes that a frame may decode to: a reader needs memory for them."""
MEMBER_LIMIT = 1 << 20
"""The most members that an archive may have: a start needs memory for them."""
PATH_LIMIT = 4096
"""The most bytes that Linux takes as a path (PATH_MAX)."""
USUAL_PATH = 256
PATHS_LIMIT = 1 << 23
"""The most bytes that the paths of an archive may have together, of each those beyond `USUAL_PATH`."""
END_OF_ARCHIVE_SIZE = 1024
"""Bytes of zeros that close the tar stream."""
# The stored form of each table: its columns as (attribute, array type code).
FRAMES = (("frame_stored", "Q"), ("frame_raw", "Q"))
DIRECTORIES = (("dir_parent", "I"), ("dir_mode", "H"), ("dir_mtime", "q"))
FILES = (("file_dir", "I"), ("file_mode", "H"), ("file_mtime", "q"), ("file_size", "Q"), ("file_position", "Q"))
SYMLINKS = (("link_dir", "I"), ("link_mtime", "q"))
HARD_LINKS = (("hard_dir", "I"), ("hard_file", "I"))


class Toc:
    """The members of an archive, as columns; row 0 of the directories is the target itself,
    whose mode and mtime an archive leaves alone.

    Names are bytes, as the file system has them. Sizes and positions are in bytes, modes are
    permission bits, mtimes are whole seconds since 1970.
    """

    def __init__(self) -> None:
        self.frame_stored = array("Q")
        self.frame_raw = array("Q")
        self.frame_sha256 = b""
        self.dir_parent = array("I")
        self.dir_mode = array("H")
        self.dir_mtime = array("q")
        self.dir_names: list[bytes] = []
        self.file_dir = array("I")
        self.file_mode = array("H")
        self.file_mtime = array("q")
        self.file_size = array("Q")
        self.file_position = array("Q")
        self.file_names: list[bytes] = []
        self.link_dir = array("I")
        self.link_mtime = array("q")
        self.link_names: list[bytes] = []
        self.link_targets: list[bytes] = []
        self.hard_dir = array("I")
        self.hard_file = array("I")
        self.hard_names: list[bytes] = []

    def encode(self) -> bytes:
        """Return the columns as they are stored, before compression."""
        names = _joined(self.dir_names[1:] + self.file_names + self.link_names + self.hard_names)
        counts = (len(self.frame_raw), len(self.dir_mode), len(self.file_mode), len(self.link_dir), len(self.hard_dir))
        return b"".join(
            (
                COUNTS.pack(*counts, len(names)),
                self._stored(FRAMES),
                self.frame_sha256,
                self._stored(DIRECTORIES),
                self._stored(FILES),
                self._stored(SYMLINKS),
                self._stored(HARD_LINKS),
                names,
                _joined(self.link_targets),
            )
        )

    def _stored(self, table: tuple[tuple[str, str], ...]) -> bytes:
        return b"".join(_little_endian(getattr(self, name)[:]).tobytes() for name, _ in table)

    @classmethod
    def decode(cls, raw: bytes) -> Toc:
        """Return the columns stored in `raw`, checked.

        Raises `ArchiveCorrupt`, `ArchiveUnsupported` for too many members, or `ArchiveUnsafe` for a
        name that no directory entry may have.
        It does not check that paths are unique: a start sees that when it creates them (`O_EXCL`).
        """
        if len(raw) < COUNTS.size:
            raise _corrupt("it is shorter than its counts")
        frames, directories, files, symlinks, hard_links, names_size = COUNTS.unpack_from(raw)
        if directories + files + symlinks + hard_links > MEMBER_LIMIT:
            raise ArchiveUnsupported(f"it has more than {MEMBER_LIMIT} members")
        toc = cls()
        at = toc._load(raw, COUNTS.size, FRAMES, frames)
        toc.frame_sha256 = raw[at : at + frames * SHA256_SIZE]
        at += frames * SHA256_SIZE
        at = toc._load(raw, at, DIRECTORIES, directories)
        at = toc._load(raw, at, FILES, files)
        at = toc._load(raw, at, SYMLINKS, symlinks)
        at = toc._load(raw, at, HARD_LINKS, hard_links)
        if at + names_size > len(raw):
            raise _corrupt("it is shorter than its counts say")
        names = _split(raw[at : at + names_size], max(directories, 1) - 1 + files + symlinks + hard_links)
        toc.link_targets = _split(raw[at + names_size :], symlinks)
        toc.dir_names = [b"", *names[: directories - 1]]
        end = directories - 1 + files
        toc.file_names = names[directories - 1 : end]
        toc.link_names = names[end : end + symlinks]
        toc.hard_names = names[end + symlinks :]
        _check_names(raw[at : at + names_size], names)
        toc._check_columns()
        if _RESERVED in raw[at : at + names_size]:
            toc._check_reserved()
        return toc

    def _load(self, raw: bytes, at: int, table: tuple[tuple[str, str], ...], count: int) -> int:
        for name, _ in table:
            column = getattr(self, name)
            end = at + count * column.itemsize
            if end > len(raw):
                raise _corrupt("it is shorter than its counts say")
            column.frombytes(raw[at:end])
            _little_endian(column)
            at = end
        return at

    def _check_reserved(self) -> None:
        for _, path, _ in self.paths():
            if path.startswith(_RESERVED):
                raise ArchiveUnsafe(
                    f"a member is named {_shown(path)!r}, a name that is reserved for unpackenv", member=_shown(path)
                )

    def _check_columns(self) -> None:
        directories = len(self.dir_parent)
        if not directories or self.dir_parent[0] or not all(map(lt, self.dir_parent[1:], range(1, directories))):
            raise _corrupt("a directory comes before its parent")
        if max(self.frame_raw, default=0) > FRAME_LIMIT:
            raise _corrupt(f"a frame decodes to more than {FRAME_LIMIT >> 20} MiB")
        for column in (self.file_dir, self.link_dir, self.hard_dir):
            if not _all_below(column, directories):
                raise _corrupt("a member is in a directory that it does not list")
        if not _all_below(self.hard_file, len(self.file_size)):
            raise _corrupt("a hard link is to a file that it does not list")
        if not (_all_below(self.dir_mode, PERMISSIONS + 1) and _all_below(self.file_mode, PERMISSIONS + 1)):
            raise _corrupt("a mode has more than permission bits")
        if not self._files_in_order():
            raise _corrupt("files overlap, or reach beyond the end of the tar stream")
        if not all(self.link_targets):
            raise _corrupt("a symlink points to nothing")

    def _files_in_order(self) -> bool:
        """Whether each file ends where the next one begins, or before, and the last one before the stream ends."""
        count = len(self.file_size)
        end = self.raw_size - END_OF_ARCHIVE_SIZE
        if not count or end < 0:
            return not count
        positions, sizes = _lanes(self.file_position), _lanes(self.file_size)
        if (positions | sizes) & _each(3 << 62, 8, count):  # a sum would run over into the next lane
            return False
        limits = positions >> 64 | end << 64 * (count - 1)
        return _all_at_most(positions + sizes, limits, 8, count)

    @property
    def raw_size(self) -> int:
        """Size in bytes of the tar stream to which the frames decode."""
        return sum(self.frame_raw)

    @property
    def unpacked_size(self) -> int:
        """Bytes of all files together; hard links count once."""
        return sum(self.file_size)

    @property
    def member_count(self) -> int:
        """Number of members, and so of names in its tree, without the root."""
        return len(self.dir_mode) - 1 + len(self.file_size) + len(self.link_names) + len(self.hard_names)

    def frame_starts(self) -> list[int]:
        """Return where each frame begins in the tar stream, and last where the stream ends."""
        return [0, *accumulate(self.frame_raw)]

    def dir_paths(self) -> list[bytes]:
        """Return the path of every directory relative to the target, each but the root's ending in "/".

        Raises `ArchiveUnsupported` where they are too long: a small tree of numbers can stand for terabytes of paths.
        """
        paths = [b""]
        append = paths.append
        left = PATHS_LIMIT
        for parent, name in zip(self.dir_parent[1:], self.dir_names[1:]):
            path = paths[parent] + name + b"/"
            left -= max(0, len(path) - USUAL_PATH)
            if left < 0 or len(path) > PATH_LIMIT:
                raise ArchiveUnsupported("it has directories whose paths are too long", member=_shown(path))
            append(path)
        return paths

    def paths(self) -> Iterable[tuple[str, bytes, int]]:
        """Yield kind, path and row of every member but the root, directories first."""
        of = self.dir_paths()
        for row in range(1, len(of)):
            yield "directory", of[row][:-1], row
        for kind, parents, names in (
            ("file", self.file_dir, self.file_names),
            ("symlink", self.link_dir, self.link_names),
            ("hard link", self.hard_dir, self.hard_names),
        ):
            for row, (parent, name) in enumerate(zip(parents, names)):
                yield kind, of[parent] + name, row

    def check_unique(self) -> None:
        """Raise `ArchiveUnsafe` if two members share one path; for callers that cannot rely on `O_EXCL`."""
        seen = set()
        for _, path, _ in self.paths():
            if path in seen:
                raise ArchiveUnsafe("two members of its table of contents have one path", member=_shown(path))
            seen.add(path)


def _joined(names: list[bytes]) -> bytes:
    return b"".join(name + b"\0" for name in names)


def _split(text: bytes, count: int) -> list[bytes]:
    if text.count(b"\0") != count or text[-1:] not in (b"", b"\0"):
        raise _corrupt("it has more or fewer names than its counts say")
    return text.split(b"\0")[:-1]


def _check_names(text: bytes, names: list[bytes]) -> None:
    if b"/" in text or not {b"", b".", b".."}.isdisjoint(names):
        bad = next(name for name in names if b"/" in name or name in (b"", b".", b".."))
        raise ArchiveUnsafe(f"a member is named {_shown(bad)!r}, which no member may be", member=_shown(bad))


# --- a column as one integer, each row a lane of it: one operation on all rows ---------------------


def _lanes(column: array[int]) -> int:
    return int.from_bytes(_little_endian(column[:]).tobytes(), "little")


def _each(value: int, width: int, count: int) -> int:
    """Return `value` in each of `count` lanes of `width` bytes."""
    return int.from_bytes(value.to_bytes(width, "little") * count, "little")


def _all_at_most(values: int, limits: int, width: int, count: int) -> bool:
    """Whether each lane of `values` is at most that of `limits`; the highest bit of none may be set.

    That bit, set in the limit, is borrowed from where a value is larger.
    """
    high = _each(1 << 8 * width - 1, width, count)
    return ((limits | high) - values) & high == high


def _all_below(column: array[int], limit: int) -> bool:
    """Whether each row is less than `limit`, which is less than half of what the column can hold."""
    width, count = column.itemsize, len(column)
    values = _lanes(column)
    if values & _each(1 << 8 * width - 1, width, count):
        return False
    return not count or (limit > 0 and _all_at_most(values, _each(limit - 1, width, count), width, count))


def _little_endian(column: array[int]) -> array[int]:
    """Swap a column's bytes in place on machines that need it; return it."""
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")


def _corrupt(what: str) -> ArchiveCorrupt:
    return ArchiveCorrupt(f"its table of contents is damaged: {what}")
