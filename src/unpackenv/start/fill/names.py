"""Make the names of a tree: every directory, and every file with its size, mode and mtime, under a lease.

What the state of a file does not need is not done: an empty file has no lease.
"""

from __future__ import annotations

import errno
import fcntl
from array import array

from unpackenv.start.fill import leases
from unpackenv.start.fill.board import FREE
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unpackenv.archive.toc import Toc
    from unpackenv.start.fill.board import Board
    from unpackenv.start.tree.writer import TreeWriter

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NONE = -1


class Refused(Exception):
    """Files cannot be filled behind the application, and why. The tree has to be begun anew."""


class Names:
    """Makes names in the new tree of `writer`; `fds` are the descriptors of the files that are to be filled, by row."""

    def __init__(self, toc: Toc, writer: TreeWriter, board: Board) -> None:
        self._toc = toc
        self._writer = writer
        self._board = board
        self.paths = toc.dir_paths()
        self._made = bytearray(len(self.paths))
        self._made[0] = 1
        self.fds = array("i", [NONE]) * len(toc.file_size)

    def make_directory(self, row: int) -> None:
        """Make a directory and those above it; another process may have made it."""
        if not self._made[row]:
            self.make_directory(self._toc.dir_parent[row])
            try:
                self._writer.make_directory(self.paths[row][:-1], self._toc.dir_mode[row])
            except FileExistsError:
                pass  # if it is no directory, the next step in it fails
            self._made[row] = 1

    def make_directories(self) -> None:
        """Make those directories that have no files."""
        for row in range(1, len(self._made)):
            self.make_directory(row)

    def make_files(self, rows: Iterable[int], content: Callable[[int], memoryview] | None = None) -> None:
        """Make files, in the order of their directories; raises `OSError`, with the path of the file.

        With their `content` they are whole; without, they are to be filled.
        """
        toc, fds, files = self._toc, self.fds, self._board.files
        directories, names, modes = toc.file_dir, toc.file_names, toc.file_mode
        sizes, mtimes = toc.file_size, toc.file_mtime
        create, cut, write, set_time, control = os.open, os.ftruncate, os.write, os.utime, fcntl.fcntl
        set_signal, signal, set_lease, write_lease = fcntl.F_SETSIG, leases.BREAK, fcntl.F_SETLEASE, fcntl.F_WRLCK
        current, directory, row = NONE, NONE, NONE
        try:
            for row in rows:
                if directories[row] != current:
                    if directory >= 0:
                        os.close(directory)
                        directory = NONE
                    current = directories[row]
                    self.make_directory(current)
                    directory = self._writer.open_directory(self.paths[current])
                fd = create(names[row], _CREATE, modes[row], dir_fd=directory)
                size, mtime = sizes[row], mtimes[row]
                if size and content is None:
                    cut(fd, size)
                    set_time(fd, (mtime, mtime))
                    control(fd, set_signal, signal)  # as `leases.hold` does, without 28,000 calls
                    control(fd, set_lease, write_lease)
                    fds[row] = fd
                else:
                    data = content(row) if content else b""
                    while data:
                        data = data[write(fd, data) :]
                    set_time(fd, (mtime, mtime))
                    os.close(fd)
                    files[row] = FREE
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                error.filename2 = error.filename2 or os.fsdecode(self.paths[current] + names[row])
            raise
        finally:
            if directory >= 0:
                os.close(directory)
