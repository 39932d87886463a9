"""Unpacking a foreign archive: what is in it is learnt while it is decoded.

Each worker takes the next piece of the tar stream and decodes it. Then, in the order of the
stream, one at a time, it looks for tar headers in its piece, makes directories and creates files
that do not end in it; and then writes the files that lie in it, beside the other workers. Links,
modes and times of directories come last, as for native archives. Workers are threads: decoding,
which dominates, runs without the GIL, and the order is theirs to keep.
"""

from __future__ import annotations

import os
import re
import threading
from hashlib import sha256

from unpackenv.archive import foreign
from unpackenv.archive.tarstream import DIRECTORY, FILE, HARD_LINK, SYMLINK, Member, Scanner, shown
from unpackenv.archive.toc import RESERVED
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, DigestMismatch, UnpackenvError
from unpackenv.start import limits, preflight
from unpackenv.start.settings import Settings
from unpackenv.start.tree import PARTIAL, Tree, translated

_SITE_DIRECTORY = re.compile(rb"(?:.*/)?(?:site|dist)-packages\Z")
_DIRECTORY_MODE = 0o755


class ForeignSource:
    """An archive that plain tar made, opened, ready to be unpacked."""

    def __init__(self, path: str, settings: Settings) -> None:
        """Open the archive at `path`; raises `UnpackenvError`."""
        self._path = path
        self._digest = settings.digest.lower()
        self._fd = foreign.open_file(path)
        try:
            if settings.digest:
                _check_digest(self._fd, path, settings.digest)
            self._pieces = foreign.open_pieces(self._fd, path, settings.memory)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, UnpackenvError):
                error.where = error.where or path
            raise
        count = limits.worker_count(settings.workers, settings.memory, self._pieces.memory_each)
        # One stream: a second thread writes while the first decodes.
        self.workers = count if self._pieces.parallel else 2
        self._job: _Job | None = None

    def check(self, directory: str) -> None:
        """A foreign archive says nothing of its contents: only what it has at least can be checked."""
        preflight.check_room(directory, os.fstat(self._fd).st_size, 0)

    def unpack(self, tree: Tree, processes: bool) -> None:
        """Unpack everything into `tree`; raises `UnpackenvError`."""
        self._job = _Job(tree, self._pieces)
        try:
            self._job.run(self.workers)
        except OSError as error:
            raise translated(error, os.fsdecode(error.filename) if error.filename else "the target") from error
        except UnpackenvError as error:
            error.where = error.where or self._path
            raise

    def stamp_facts(self) -> dict[str, list[str]]:
        """Return what a warm start has to know of the tree."""
        assert self._job is not None
        sites = [os.fsdecode(path) for path in self._job.directories if _SITE_DIRECTORY.match(path)]
        return {
            **({"digest": [self._digest]} if self._digest else {}),
            "import": sites or [""],
            "files": [str(self._job.files)],
            "unpacked-size": [str(self._job.size)],
        }

    def __enter__(self) -> ForeignSource:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _check_digest(fd: int, path: str, digest: str) -> None:
    """The digest of a foreign archive is the sha256 of the file."""
    found = sha256()
    offset = 0
    while data := os.pread(fd, 1 << 20, offset):
        found.update(data)
        offset += len(data)
    if found.hexdigest() != digest.lower():
        raise DigestMismatch(f"its sha256 is {found.hexdigest()}, and {digest} was asked for", where=path)


class _Write:
    """Bytes of a piece that belong to one file; `spanning` if other pieces have others of it."""

    __slots__ = ("at", "data", "directory", "member", "name", "offset", "spanning")

    def __init__(self, member: Member, directory: bytes, name: bytes) -> None:
        self.member = member
        self.directory = directory
        self.name = name
        self.data = memoryview(b"")
        self.spanning = False
        self.at = b""
        self.offset = 0


class _Job:
    """One foreign archive on its way into one tree."""

    def __init__(self, tree: Tree, pieces: foreign.Pieces) -> None:
        self.files = 0
        self.size = 0
        self.directories: dict[bytes, bytes] = {b"": b""}  # path in the archive: path in the tree
        self._tree = tree
        self._pieces = pieces
        self._scanner = Scanner()
        self._position = 0  # in the stream, of the next piece to be scanned
        self._kinds: dict[bytes, str] = {}
        self._finish: list[Member] = []  # directories and links
        self._open: _Write | None = None  # the file that reaches beyond what has been scanned
        self._ended: list[tuple[_Write, bytes]] = []  # spanning files, for mode, time and name
        self._take = threading.Lock()
        self._turn = threading.Condition()
        self._turns = 0
        self._problems: list[BaseException] = []

    def run(self, workers: int) -> None:
        """Decode and write with `workers` threads, this one among them."""
        numbered = enumerate(self._pieces.pieces)
        mates = [
            threading.Thread(target=self._worker, args=(number, numbered), name=f"unpackenv-{number}")
            for number in range(1, workers)
        ]
        for mate in mates:
            mate.start()
        self._worker(0, numbered)
        for mate in mates:
            mate.join()
        if self._problems:
            raise self._problems[0]
        self._scanner.close()
        self._finish_tree()

    def _worker(self, number: int, numbered: enumerate[foreign.Chunk]) -> None:
        try:
            while not self._problems:
                with self._take:  # where pieces are not parallel, this decodes
                    turn, decode = next(numbered, (-1, None))
                if decode is None:
                    return
                piece = decode()
                for write in self._in_turn(turn, piece):
                    self._write(write, PARTIAL + b"%d" % number)
        except BaseException as problem:
            with self._turn:
                self._problems.append(problem)
                self._turn.notify_all()

    def _in_turn(self, turn: int, piece: memoryview) -> list[_Write]:
        with self._turn:
            self._turn.wait_for(lambda: self._turns == turn or self._problems)
            if self._problems:
                return []
        writes = self._scan(piece)
        with self._turn:
            self._turns += 1
            self._turn.notify_all()
        return writes

    # --- one at a time, in the order of the stream ---

    def _scan(self, piece: memoryview) -> list[_Write]:
        """Return what is to be written of a piece; directories and spanning files are made here."""
        begin, end = self._position, self._position + len(piece)
        self._position = end
        writes = []
        if self._open:
            writes.append(self._part(self._open, piece, begin, end))
        for member in self._scanner.feed(piece):
            member.path = _normal(member.path)
            self._register(member)
            if member.kind != FILE:
                continue
            directory, _, name = member.path.rpartition(b"/")
            write = _Write(member, self._directory(directory), name)
            write.spanning = member.position + member.size > end
            if write.spanning:
                path = _joined(write.directory, name)
                write.at = self._tree.begin_file(path, len(self._ended))
                self._ended.append((write, path))
                self._open = write
            writes.append(self._part(write, piece, begin, end))
        return writes

    def _part(self, of: _Write, piece: memoryview, begin: int, end: int) -> _Write:
        member = of.member
        first = max(member.position, begin)
        last = min(member.position + member.size, end)
        part = _Write(member, of.directory, of.name)
        part.spanning, part.at = of.spanning, of.at
        if first < last:
            part.data = piece[first - begin : last - begin]
            part.offset = first - member.position
        if self._open is of and member.position + member.size <= end:
            self._open = None
        return part

    def _register(self, member: Member) -> None:
        path = member.path
        if not path:  # "./": the target itself
            if member.kind != DIRECTORY:
                raise ArchiveUnsafe("a member without a name is no directory")
            return
        if self._kinds.get(path, DIRECTORY) != DIRECTORY or (path in self._kinds and member.kind != DIRECTORY):
            raise ArchiveUnsafe("two of its members have one path", member=shown(path))
        if member.kind == DIRECTORY:
            self._directory(path)
        elif member.kind == FILE:
            self.files += 1
            self.size += member.size
        self._kinds[path] = member.kind
        if member.kind != FILE:
            self._finish.append(member)

    def _directory(self, path: bytes) -> bytes:
        """Return where a directory is in the tree; it and those above it are made if need be."""
        found = self.directories.get(path)
        if found is None:
            if self._kinds.get(path, DIRECTORY) != DIRECTORY:
                raise ArchiveUnsafe("a member would be written through a link or a file", member=shown(path))
            above, _, name = path.rpartition(b"/")
            found = self._tree.make_directory(_joined(self._directory(above), name), _DIRECTORY_MODE)
            self._kinds.setdefault(path, DIRECTORY)
            self.directories[path] = found
        return found

    # --- beside each other ---

    def _write(self, write: _Write, partial: bytes) -> None:
        member = write.member
        try:
            if write.spanning:
                self._tree.write_piece(write.at, write.data, write.offset)
                return
            directory = self._tree.open_directory(write.directory)
            try:
                self._tree.write_file(directory, write.name, member.mode, member.mtime, write.data, partial)
            finally:
                os.close(directory)
        except OSError as error:
            raise translated(error, os.fsdecode(member.path)) from error

    # --- after all data ---

    def _finish_tree(self) -> None:
        tree = self._tree
        for write, path in self._ended:
            tree.end_file(write.at, path, write.member.mode, write.member.mtime)
        for member in self._finish:
            directory, _, name = member.path.rpartition(b"/")
            if member.kind == HARD_LINK:
                tree.hard_link(self._linked(member), _joined(self._directory(directory), name))
            elif member.kind == SYMLINK:
                if not member.link:
                    raise ArchiveCorrupt("a symlink points to nothing", member=shown(member.path))
                tree.symlink(member.link, _joined(self._directory(directory), name), member.mtime)
        directories = {member.path: member for member in self._finish if member.kind == DIRECTORY and member.path}
        for path in sorted(directories, reverse=True):  # what is below a directory before itself
            member = directories[path]
            tree.finish_directory(self.directories[path], member.mode, member.mtime, _DIRECTORY_MODE)

    def _linked(self, member: Member) -> bytes:
        path = _normal(member.link)
        if self._kinds.get(path) not in (FILE, HARD_LINK):
            raise ArchiveUnsafe("a hard link is to something that is no file of the archive", member=shown(member.path))
        directory, _, name = path.rpartition(b"/")
        return _joined(self.directories[directory], name)


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _normal(path: bytes) -> bytes:
    """Return a member's path without `./` and doubled slashes; raises `ArchiveUnsafe` if it leaves the target."""
    if path.startswith(b"/"):
        raise ArchiveUnsafe(
            "a member has an absolute name", hint="Make the archive without tar's option -P", member=shown(path)
        )
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ArchiveUnsafe("a member's name leads out of the target through `..`", member=shown(path))
    if parts and parts[0].startswith(RESERVED):
        raise ArchiveUnsafe("a member has a name that unpackenv keeps for itself", member=shown(path))
    return b"/".join(parts)
