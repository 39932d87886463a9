"""Unpack a foreign archive: its members are known only as it is decoded.

Workers decode the pieces of the tar stream ahead (`decode_ahead`). The caller takes them in order, finds
the tar headers in each, and makes the directories and files that lie in it; a file that does not
end in a piece is written piece by piece. Links, modes and times of directories come last, as for
native archives. One writer is enough: decoding dominates.
"""

from __future__ import annotations

import re
from hashlib import sha256

from unpackenv.archive import RESERVED, foreign, trailer
from unpackenv.archive.blob import FileBlob
from unpackenv.archive.tarstream import DIRECTORY, FILE, HARD_LINK, SYMLINK, Member, Scanner, shown
from unpackenv.archive.toc import MEMBER_LIMIT, PATH_LIMIT, PATHS_LIMIT, USUAL_PATH
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported, DigestMismatch, UnpackenvError
from unpackenv.start.machine import limits
from unpackenv.start.settings import Settings
from unpackenv.start.tree.writer import PARTIAL, TreeWriter, member_error
from unpackenv.start.unpack import decode_ahead, preflight
from unpackenv.start.unpack.source import Observer, Source
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.codecs.base import Pieces

_SITE_DIRECTORY = re.compile(rb"(?:.*/)?(?:site|dist)-packages\Z")
_SHARED_OBJECT = re.compile(rb".*\.so(?:\.\d+)*\Z", re.DOTALL)
_DIRECTORY_MODE = 0o755
_NO_OPTION_P = "Make the archive without tar's option -P"
# Memory for 30,000 members, whose number is not known beforehand: here, and as inodes that the kernel has not written.
_MEMBERS = 16 << 20
# How often directories may be repeated, besides once each after their contents.
_REPEATED_LIMIT = 1 << 16
# Bytes that may follow the end of a tar stream: tar pads its last record, whose size is an option.
_PADDING_LIMIT = 1 << 26


class ForeignSource(Source):
    """An archive that plain tar made, opened, ready to be unpacked."""

    def __init__(self, path: str, settings: Settings) -> None:
        """Open the archive at `path`; raises `UnpackenvError`."""
        self._path = path
        self.warnings = []
        self._digest = settings.digest.lower()
        self._fd = os.dup(settings.blob.fd) if isinstance(settings.blob, FileBlob) else foreign.open_file(path)
        self._memory_left = limits.memory_left()
        try:
            self.key = trailer.identify_open(self._fd, path).key
            if settings.is_remote:
                self.key = settings.pin or settings.digest.lower()
            if settings.digest:
                _check_digest(self._fd, path, settings.digest)
            self._pieces = self._open_pieces(settings.memory)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, UnpackenvError):
                error.where = error.where or path
            raise
        each = self._pieces.memory_each(self._pieces.most_workers)
        self.workers, self.workers_why = limits.worker_count(
            settings.workers, settings.memory, self._memory_left - _MEMBERS, each, self._pieces.most_workers
        )
        self._settings = settings
        self._space: preflight.FreeSpace | None = None
        self._unpacker: _Unpacker | None = None

    def _open_pieces(self, budget: int) -> Pieces:
        """Return whole blocks where one worker has the memory for them, else a stream."""
        pieces = foreign.open_pieces(self._fd, self._path, budget)
        if self._memory_needed(pieces, 1) > self._memory_left:
            return foreign.open_pieces(self._fd, self._path, budget, serial=True)
        return pieces

    @staticmethod
    def _memory_needed(pieces: Pieces, workers: int) -> int:
        return limits.memory_needed(workers, pieces.memory_each(workers)) + _MEMBERS

    def worker_bounds(self) -> dict[str, int]:
        each = self._pieces.memory_each(self._pieces.most_workers)
        bounds = limits.worker_bounds(self._settings.memory, self._memory_left - _MEMBERS, each)
        return {**bounds, "frames": self._pieces.most_workers}

    def check(self, directory: str, freed_first: tuple[int, int]) -> None:
        """Check the memory. The space is checked while unpacking, header by header."""
        if not self._settings.force:
            memory = self._memory_needed(self._pieces, self.workers)
            preflight.check_memory(memory, self._memory_left, self._path)
            self._space = preflight.FreeSpace(directory, self._memory_left, freed_first)
            self._space.check(os.fstat(self._fd).st_size, 0, memory)

    def unpack(self, writer: TreeWriter, processes: bool, observer: Observer) -> None:
        self._unpacker = unpacker = _Unpacker(writer, self._space)
        decoders = decode_ahead.start(self._pieces, self.workers, processes, observer)
        if len(decoders) < self.workers:
            self.workers, self.workers_why = max(1, len(decoders)), limits.PROCESSES
        pieces = decode_ahead.decoded(self._pieces, decoders, observer)
        try:
            for number, piece in enumerate(pieces):
                observer.begin_step(number)
                unpacker.take(piece)
                observer.end_step("write")
            unpacker.finish()
        except OSError as error:
            raise member_error(error, os.fsdecode(error.filename) if error.filename else "the target") from error
        except UnpackenvError as error:
            member = error.facts.get("member")
            error.where = error.where or (f"{self._path}, {member}" if member else self._path)
            raise
        finally:
            pieces.close()

    def stamp_facts(self) -> dict[str, list[str]]:
        assert self._unpacker is not None
        sites = [os.fsdecode(path) for path in self._unpacker.directories if _SITE_DIRECTORY.match(path)]
        return {
            **({"digest": [self._digest]} if self._digest else {}),
            "import": sites or [""],
            "files": [str(self._unpacker.files)],
            "unpacked-size": [str(self._unpacker.size)],
        }

    def close(self) -> None:
        os.close(self._fd)


def _check_digest(fd: int, path: str, digest: str) -> None:
    """Raise `DigestMismatch` unless the sha256 of the file, which is the digest of a foreign archive, is `digest`."""
    computed = sha256()
    offset = 0
    while data := os.pread(fd, 1 << 20, offset):
        computed.update(data)
        offset += len(data)
    if computed.hexdigest() != digest.lower():
        hint = "Check the URL or the path, and the digest"
        raise DigestMismatch(f"its sha256 is {computed.hexdigest()}, but {digest} is required", where=path, hint=hint)


class _Unpacker:
    """Makes the tree of one foreign archive, piece by piece."""

    def __init__(self, writer: TreeWriter, space: preflight.FreeSpace | None) -> None:
        self.files = 0
        self.size = 0
        self.directories: dict[bytes, bytes] = {b"": b""}  # path in the archive: path in the tree
        self._writer = writer
        self._space = space
        self._scanner = Scanner()
        self._position = 0  # in the stream, of the next piece
        self._kinds: dict[bytes, str] = {}
        self._repeated = 0
        self._paths_left = PATHS_LIMIT
        self._finish: list[Member] = []  # directories and links
        self._spanning: list[tuple[Member, bytes, bytes]] = []  # files in pieces: where each is, and its path

    def take(self, piece: memoryview) -> None:
        """Make the members in the next piece of the stream."""
        begin, end = self._position, self._position + len(piece)
        self._position = end
        if self._scanner.ended and begin - self._scanner.end > _PADDING_LIMIT:
            raise ArchiveCorrupt(f"more than {_PADDING_LIMIT >> 20} MiB follow the end of its tar stream")
        if self._spanning:  # the last may reach into this piece
            self._write_piece(*self._spanning[-1][:2], piece, begin)
        current, directory = b"", -1
        path = b""
        try:
            members = self._scanner.feed(piece)
            if self._scanner.is_marked:
                raise ArchiveCorrupt("it was made by `unpackenv pack`, and its end is missing or damaged")
            for member in members:
                path = member.path = _normal(member.path)
                self._register(member)
                if member.kind != FILE:
                    continue
                above, _, name = path.rpartition(b"/")
                above = self._directory(above)
                if member.position + member.size > end:
                    path = _joined(above, name)
                    at = self._writer.begin_file(path, len(self._spanning))
                    self._spanning.append((member, at, path))
                    self._write_piece(member, at, piece, begin)
                    continue
                if directory < 0 or above != current:
                    if directory >= 0:
                        os.close(directory)
                    directory = -1
                    directory = self._writer.open_directory(above)
                    current = above
                first = member.position - begin
                data = piece[first : first + member.size]
                self._writer.write_file(directory, name, member.mode, member.mtime, data, PARTIAL + b"0")
        except OSError as error:
            raise member_error(error, os.fsdecode(path)) from error
        finally:
            if directory >= 0:
                os.close(directory)

    def _write_piece(self, member: Member, at: bytes, piece: memoryview, begin: int) -> None:
        first = max(member.position - begin, 0)
        last = min(member.position + member.size - begin, len(piece))
        if first < last:
            try:
                self._writer.write_piece(at, piece[first:last], begin + first - member.position)
            except OSError as error:
                raise member_error(error, os.fsdecode(member.path)) from error

    def _register(self, member: Member) -> None:
        path = member.path
        self._repeated += path in self.directories
        if self._repeated > len(self.directories) + _REPEATED_LIMIT:
            raise ArchiveUnsupported("it repeats the same directories too often", member=shown(path))
        self._count_path(path + member.link)
        if not path:  # "./": the target itself
            if member.kind != DIRECTORY:
                raise ArchiveUnsafe("a member without a name is no directory")
            return
        if self._kinds.get(path, DIRECTORY) != DIRECTORY or (path in self._kinds and member.kind != DIRECTORY):
            raise ArchiveUnsafe(
                "two of its members have one path",
                hint="Make the archive again, without tar's options -r and -u, and name each file once",
                member=shown(path),
            )
        if member.kind == DIRECTORY:
            self._directory(path)
        elif member.kind == FILE:
            self.files += 1
            self.size += member.size
        elif member.kind == HARD_LINK:
            self._check_linked(member)
        self._kinds[path] = member.kind
        if len(self._kinds) > MEMBER_LIMIT:
            raise ArchiveUnsupported(f"it has more than {MEMBER_LIMIT} members")
        if self._space:  # the sizes in its headers give a bomb away, before it fills the disk
            self._space.check(self.size, len(self._kinds))
            if self._space.noexec and _SHARED_OBJECT.match(path):
                preflight.check_exec(self._space.directory)
        if member.kind != FILE:
            self._finish.append(member)

    def _count_path(self, path: bytes) -> None:
        """Count the bytes of a path or link; all are kept until the end, and together they are bounded."""
        self._paths_left -= max(0, len(path) - USUAL_PATH)
        if self._paths_left < 0:
            raise ArchiveUnsupported("the paths of its members are too long together", member=shown(path))

    def _directory(self, path: bytes) -> bytes:
        """Return where a directory is in the tree; it and those above it are made if they are missing."""
        missing = []
        while path not in self.directories:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        place = self.directories[path]
        for path in reversed(missing):
            if self._kinds.get(path, DIRECTORY) != DIRECTORY:
                raise ArchiveUnsafe("a member would be written through a link or a file", member=shown(path))
            self._count_path(path)
            place = self._writer.make_directory(_joined(place, path.rpartition(b"/")[2]), _DIRECTORY_MODE)
            self._kinds.setdefault(path, DIRECTORY)
            self.directories[path] = place
        return place

    # --- after all data ---

    def finish(self) -> None:
        """Do what must wait for all data: modes and times of files in pieces and of directories, and links."""
        self._scanner.close()
        writer = self._writer
        for member, at, path in self._spanning:
            writer.end_file(at, path, member.mode, member.mtime)
        for member in self._finish:
            try:
                self._link(member)
            except OSError as error:
                raise member_error(error, os.fsdecode(member.path)) from error
        directories = {member.path: member for member in self._finish if member.kind == DIRECTORY and member.path}
        for path in sorted(directories, reverse=True):  # what is below a directory before itself
            member = directories[path]
            writer.finish_directory(self.directories[path], member.mode, member.mtime, _DIRECTORY_MODE)

    def _link(self, member: Member) -> None:
        directory, _, name = member.path.rpartition(b"/")
        if member.kind == HARD_LINK:
            self._writer.hard_link(self._place(_normal(member.link)), _joined(self._directory(directory), name))
        elif member.kind == SYMLINK:
            if not member.link:
                raise ArchiveCorrupt("a symlink points to nothing", member=shown(member.path))
            self._writer.symlink(member.link, _joined(self._directory(directory), name), member.mtime)

    def _check_linked(self, member: Member) -> None:
        kind = self._kinds.get(_normal(member.link))
        if kind not in (FILE, HARD_LINK):
            what = f"a {kind}" if kind else "nothing that comes before it"
            raise ArchiveUnsafe(
                f"a hard link is to {what}, and not to a file",
                hint="Make the archive with tar's option --hard-dereference",
                member=shown(member.path),
            )

    def _place(self, path: bytes) -> bytes:
        """Return where a file of the archive is in the tree."""
        directory, _, name = path.rpartition(b"/")
        return _joined(self.directories[directory], name)


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _normal(path: bytes) -> bytes:
    """Return a member's path without `./` and doubled slashes; raises `ArchiveUnsafe` if it leaves the target."""
    if len(path) > PATH_LIMIT:
        raise ArchiveUnsupported("a member's path is longer than Linux allows", member=shown(path))
    if b"/." not in path and b"//" not in path and path[:1] not in b"./" and path[-1:] != b"/":
        return path
    if path.startswith(b"/"):
        raise ArchiveUnsafe("a member has an absolute name", hint=_NO_OPTION_P, member=shown(path))
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ArchiveUnsafe(
            "a member's name leads out of the target through `..`", hint=_NO_OPTION_P, member=shown(path)
        )
    if parts and parts[0].startswith(RESERVED.encode()):
        raise ArchiveUnsafe(
            "a member has a name that is reserved for unpackenv",
            hint="Make the archive with tar's option --exclude='.unpackenv.*'",
            member=shown(path),
        )
    return b"/".join(parts)
