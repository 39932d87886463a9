"""Unpack a native archive into a tree, in parallel.

1. Directories are made, and every file that spans frames is created empty.
2. Each worker takes the number of a frame, reads it, checks its sha256, decodes it into its one
   buffer, and writes the files, or pieces of files, that lie in it; until no number is left.
3. Spanning files and directories get their modes and times, and links are made.

Workers are forked processes or threads that run the same loop. All but the caller begin during step 1,
and wait for its end only if a directory is not there yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from unpackenv.archive import interpreter
from unpackenv.archive.facts import first, is_environment
from unpackenv.archive.reader import Archive, open_archive, open_blob
from unpackenv.errors import UnpackenvError
from unpackenv.start.machine import limits, workers
from unpackenv.start.settings import Settings
from unpackenv.start.tree.writer import PARTIAL, TreeWriter, member_error
from unpackenv.start.unpack import preflight
from unpackenv.start.unpack.source import Observer, Source
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from unpackenv.archive.toc import Toc

    T = TypeVar("T")

# The facts of the archive that its stamp repeats.
_STAMPED = ("python", "native", *interpreter.NATIVE_FACTS, "import", "bin")


class NativeSource(Source):
    """An archive that `pack` made, open and checked, ready to be unpacked."""

    def __init__(self, path: str, settings: Settings) -> None:
        """Open the archive at `path`; raises `UnpackenvError` unless everything but its frames is sound."""
        self._settings = settings
        self.warnings = []
        if settings.blob:
            self.archive = open_blob(settings.blob, path, settings.digest)
        else:
            self.archive = open_archive(path, settings.digest)
        archive = self.archive
        self.key = settings.pin or archive.digest
        raw = max(archive.toc.frame_raw)
        self._memory_left = limits.memory_left()
        self._memory_each = raw + archive.codec.window(raw) + (1 + archive.blob.ahead) * max(archive.toc.frame_stored)
        self.workers, self.workers_why = limits.worker_count(
            settings.workers, settings.memory, self._memory_left, self._memory_each, len(archive.toc.frame_raw)
        )

    def worker_bounds(self) -> dict[str, int]:
        bounds = limits.worker_bounds(self._settings.memory, self._memory_left, self._memory_each)
        return {**bounds, "frames": len(self.archive.toc.frame_raw)}

    def check(self, directory: str, freed_first: tuple[int, int]) -> None:
        """Check interpreter, memory and file system."""
        if self._settings.force:
            return
        archive, toc = self.archive, self.archive.toc
        preflight.check_interpreter(archive.facts, archive.path, self._interpreter())
        if first(archive.facts, "native") == "yes":
            preflight.check_exec(directory)
        memory = limits.memory_needed(self.workers, self._memory_each)
        preflight.check_memory(memory, self._memory_left, archive.path)
        space = preflight.FreeSpace(directory, self._memory_left, freed_first)
        space.check(toc.unpacked_size, toc.member_count, memory, lambda: sum(map(preflight.on_disk, toc.file_size)))

    def _interpreter(self) -> dict[str, str] | None:
        """Return the facts of the interpreter that will import the tree, if that is not this one."""
        settings, archive = self._settings, self.archive
        if not settings.command:
            return settings.interpreter
        if is_environment(archive.facts):
            from unpackenv.start.python import treepython

            running, warning = treepython.interpreter_of(settings.command, archive, settings.target)
            self.warnings += filter(None, [warning])
            return running
        return settings.command.interpreter("")

    def unpack(self, writer: TreeWriter, processes: bool, observer: Observer) -> None:
        plan = _Plan(self.archive, writer, observer)
        prepare = plan.prepare
        try:
            if writer.replaces:  # workers must be forked with the paths that it finds
                prepare()
                prepare = _nothing
            started = workers.run(prepare, plan.work, len(self.archive.toc.frame_raw), self.workers, processes)
            if started < self.workers:
                self.workers, self.workers_why = started, limits.PROCESSES
            plan.finish()
        except OSError as error:
            raise member_error(error, os.fsdecode(error.filename2 or error.filename or "the target")) from error

    def stamp_facts(self) -> dict[str, list[str]]:
        facts, toc = self.archive.facts, self.archive.toc
        return {
            "digest": [self.archive.digest],
            **{key: facts[key] for key in _STAMPED if key in facts},
            "files": [str(len(toc.file_names))],
            "unpacked-size": [str(toc.unpacked_size)],
        }

    def close(self) -> None:
        if self._settings.blob:  # whoever opened it closes it
            self._settings.blob.end_reading()
        else:
            self.archive.close()


def unpack_frames(archive: Archive, writer: TreeWriter, frames: set[int], observer: Observer) -> None:
    """Unpack some frames of an archive into a tree that has its directories already, but no links.

    A file that spans frames must have all or none of them in `frames`. Raises `OSError` or `UnpackenvError`.
    """
    plan = _Plan(archive, writer, observer)
    plan.restrict(frames)
    plan.ahead = 0  # this process will fork
    turns = iter(range(len(plan.order)))
    plan.work(0, lambda: next(turns, -1), _nothing)
    plan.finish_spanning()


def _nothing() -> None:
    """Prepare nothing: all is prepared already."""


class _Plan:
    """Where the members of one archive go in one tree."""

    def __init__(self, archive: Archive, writer: TreeWriter, observer: Observer) -> None:
        self.archive = archive
        self.writer = writer
        self.observer = observer
        self.toc = archive.toc
        self.starts = self.toc.frame_starts()
        self.paths = self.toc.dir_paths()
        # Where a spanning file is while its pieces are written, by its row.
        self.spanning = {row: self._path(row) for row in self._spanning_rows()}
        self.ahead = archive.blob.ahead
        self.order = list(range(len(self.starts) - 1)) if self.ahead else self._frame_order()
        if writer.replaces:
            self.toc.check_unique()

    def _spanning_rows(self) -> list[int]:
        """Rows of files that do not end in the frame in which they begin."""
        positions = self.toc.file_position
        # Only the last file that begins in a frame can reach into the next one.
        lasts = {bisect_left(positions, start) - 1 for start in self.starts[1:]} - {-1}
        ends = {row: positions[row] + self.toc.file_size[row] for row in lasts}
        return sorted(
            row for row, end in ends.items() if end > self.starts[bisect_left(self.starts, positions[row] + 1)]
        )

    def _frame_order(self) -> list[int]:
        """Return the frames in the order in which they are taken: those of one large file far from each other.

        The kernel lets one process at a time write to a file: the others would wait.
        """
        groups: dict[int, list[int]] = {}
        for frame, start in enumerate(self.starts[:-1]):
            row = bisect_left(self.toc.file_position, start) - 1  # the file that reaches into it, if any does
            groups.setdefault(row if row in self.spanning else -1, []).append(frame)
        places = {frame: n / len(frames) for frames in groups.values() for n, frame in enumerate(frames)}
        return sorted(places, key=places.__getitem__)

    def restrict(self, frames: set[int]) -> None:
        """Unpack these frames only, whose directories are there."""
        self.order = [frame for frame in self.order if frame in frames]
        # The file that ends in a frame, or after it, began where its first piece is.
        self.spanning = {
            row: self.writer.begin_file(path, row)
            for row, path in self.spanning.items()
            if bisect_left(self.starts, self.toc.file_position[row] + 1) - 1 in frames
        }

    def prepare(self) -> None:
        """Make all directories, and the files that several workers will fill.

        Those files and what they are in come first: a worker that finds its file missing waits until all is made.
        """
        toc, writer = self.toc, self.writer
        parents = toc.dir_parent
        first: set[int] = set()
        for row in self.spanning:
            directory = toc.file_dir[row]
            while directory not in first and directory:
                first.add(directory)
                directory = parents[directory]
        for directory in sorted(first):
            self._make_directory(directory)
        for row in self.spanning:
            self.spanning[row] = writer.begin_file(self._path(row), row)
        for directory in range(1, len(parents)):
            if directory not in first:
                self._make_directory(directory)

    def _make_directory(self, row: int) -> None:
        toc, writer, paths = self.toc, self.writer, self.paths
        if writer.replaces:  # a parent that turned out to be a link is found where it points to
            path = paths[toc.dir_parent[row]] + toc.dir_names[row]
            paths[row] = writer.make_directory(path, toc.dir_mode[row]) + b"/"
        else:
            writer.make_directory(paths[row][:-1], toc.dir_mode[row])

    def _path(self, row: int) -> bytes:
        return self.paths[self.toc.file_dir[row]] + self.toc.file_names[row]

    def work(self, number: int, take: Callable[[], int], ready: Callable[[], None]) -> None:
        """Run worker `number`: unpack frames as long as `take` returns any."""
        self.observer.begin_worker(f"worker {number}")
        try:
            self._work(number, take, ready)
        finally:
            self.observer.end_worker()

    def _work(self, number: int, take: Callable[[], int], ready: Callable[[], None]) -> None:
        archive, toc, observer = self.archive, self.toc, self.observer
        decode = archive.decoder()
        # Both are reused: with new buffers for each frame, a decoder's dictionary would fragment the heap.
        buffer = memoryview(bytearray(max(toc.frame_raw)))
        stored_buffer = memoryview(bytearray(max(toc.frame_stored)))
        partial = PARTIAL + b"%d" % number
        for frame in self._frames(take):
            out = buffer[: toc.frame_raw[frame]]
            observer.begin_step(frame)
            try:
                stored = archive.read_stored(frame, stored_buffer)
                observer.end_step(archive.blob.step)
                archive.check_frame(frame, stored)
                observer.end_step("verify")
                decode(stored, out)
            except UnpackenvError as error:
                error.where = error.where or f"{archive.path}, frame {frame}"
                raise
            observer.end_step("decode")
            self._write_frame(self.starts[frame], out, partial, ready)
            observer.end_step("write")

    def _frames(self, take: Callable[[], int]) -> Iterator[int]:
        """Yield the frames of the turns that `take` returns; some are fetched ahead."""
        frames: deque[int] = deque()
        while True:
            if len(frames) <= self.ahead // 2:  # several at once: they may be neighbours
                while len(frames) <= self.ahead and (turn := take()) >= 0:
                    frames.append(self.order[turn])
                if self.ahead:
                    self.archive.expect(frames)
            if not frames:
                return
            yield frames.popleft()

    def _write_frame(self, start: int, out: memoryview, partial: bytes, ready: Callable[[], None]) -> None:
        toc, writer, spanning = self.toc, self.writer, self.spanning
        sizes, positions, directories = toc.file_size, toc.file_position, toc.file_dir
        names, modes, mtimes = toc.file_names, toc.file_mode, toc.file_mtime
        write_file = writer.write_file
        end = start + len(out)
        first, last = bisect_left(positions, start), bisect_left(positions, end)
        if first and first - 1 in spanning:
            self._write_piece(first - 1, start, out, ready)
        current, directory, row = -1, -1, first
        try:
            for row in range(first, last):
                if row in spanning:
                    self._write_piece(row, start, out, ready)
                    continue
                if directories[row] != current:
                    if directory >= 0:
                        os.close(directory)
                    directory = -1
                    current = directories[row]
                    directory = _when_made(writer.open_directory, ready, self.paths[current])
                at = positions[row] - start
                write_file(directory, names[row], modes[row], mtimes[row], out[at : at + sizes[row]], partial)
        except OSError as error:
            raise member_error(error, os.fsdecode(self._path(row))) from error
        finally:
            if directory >= 0:
                os.close(directory)

    def _write_piece(self, row: int, start: int, out: memoryview, ready: Callable[[], None]) -> None:
        position = self.toc.file_position[row]
        begin = max(position, start)
        end = min(position + self.toc.file_size[row], start + len(out))
        if begin < end:
            try:
                piece = out[begin - start : end - start]
                _when_made(self.writer.write_piece, ready, self.spanning[row], piece, begin - position)
            except OSError as error:
                raise member_error(error, os.fsdecode(self._path(row))) from error

    def finish(self) -> None:
        """Do what must wait for all data: spanning files, links, directories' times."""
        self.finish_spanning()
        finish_tree(self.toc, self.paths, self.writer)

    def finish_spanning(self) -> None:
        """Give spanning files their modes and times."""
        for row, at in self.spanning.items():
            self.writer.end_file(at, self._path(row), self.toc.file_mode[row], self.toc.file_mtime[row])


def finish_tree(toc: Toc, paths: list[bytes], writer: TreeWriter) -> None:
    """Make hard links and symlinks, and set times and modes of directories; `paths` are those of the directories."""
    for directory, name, row in zip(toc.hard_dir, toc.hard_names, toc.hard_file):
        writer.hard_link(paths[toc.file_dir[row]] + toc.file_names[row], paths[directory] + name)
    for directory, name, target, mtime in zip(toc.link_dir, toc.link_names, toc.link_targets, toc.link_mtime):
        writer.symlink(target, paths[directory] + name, mtime)
    for row in range(len(paths) - 1, 0, -1):
        writer.finish_directory(paths[row][:-1], toc.dir_mode[row], toc.dir_mtime[row], toc.dir_mode[row])


def _when_made(use: Callable[..., T], ready: Callable[[], None], *arguments: object) -> T:
    """Call `use`; if a directory is missing, wait until the caller has made all of them, and call it again.

    A directory may be there and still closed to its owner, because of the umask.
    """
    try:
        return use(*arguments)
    except (FileNotFoundError, PermissionError):
        ready()
        return use(*arguments)
