"""Go on with a tree that was left before all of its files were filled, as that of a container that is restarted.

Its journal says which files are whole. The others are leased again.
"""

from __future__ import annotations

import errno

from unpackenv.start import stamp
from unpackenv.start.fill import leases
from unpackenv.start.fill.board import FREE
from unpackenv.start.fill.names import NONE, Names, Refused
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unpackenv.start.fill.board import Board
    from unpackenv.start.fill.plan import Plan

_OPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_journal(tree: int, files: int) -> int:
    """Return a descriptor of the journal of a tree that was left; raises `Refused` if it is none for so many files."""
    try:
        fd = os.open(stamp.JOURNAL, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=tree)
    except OSError as error:
        raise Refused(f"its journal cannot be used ({error.strerror})") from error
    if os.fstat(fd).st_size != files:
        os.close(fd)
        raise Refused("its journal is not of this archive")
    return fd


class LeftNames(Names):
    """Opens what is not filled in a tree that was left."""

    def make_files(self, rows: Iterable[int], content: Callable[[int], memoryview] | None = None) -> None:
        """Lease files again, but those that are whole, or that somebody has removed; raises `Refused`."""
        try:
            self._make_files(rows)
        except OSError as error:
            raise Refused(f"what was filled cannot be used ({error.strerror})") from error

    def _make_files(self, rows: Iterable[int]) -> None:
        files = self._board.files
        current, directory = NONE, NONE
        try:
            for row in rows:
                if files[row]:
                    files[row] = FREE  # a program that is written may not have been: nobody has it open any more
                    continue
                if self._toc.file_dir[row] != current:
                    if directory != NONE:
                        os.close(directory)
                        directory = NONE
                    current = self._toc.file_dir[row]
                    directory = self._open_directory(current)
                self._lease(row, directory)
        finally:
            if directory != NONE:
                os.close(directory)

    def _open_directory(self, row: int) -> int:
        """Open a directory of the tree; through no link, which somebody may have put there meanwhile."""
        if row == 0:
            return os.dup(self._writer.root_fd)
        above = self._open_directory(self._toc.dir_parent[row])
        try:
            return os.open(self._toc.dir_names[row], _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)

    def _lease(self, row: int, directory: int) -> None:
        try:
            fd = os.open(self._toc.file_names[row], _OPEN, dir_fd=directory)
        except FileNotFoundError:
            self._board.files[row] = FREE
            return
        self._restore(row, fd)
        leases.hold(fd)
        self.fds[row] = fd

    def _restore(self, row: int, fd: int) -> None:
        """Bring an open file to the state of one that is not filled: somebody may have been killed who wrote to it."""
        status, size, mtime = os.fstat(fd), self._toc.file_size[row], self._toc.file_mtime[row]
        if (status.st_size, status.st_mtime_ns) == (size, mtime * 1_000_000_000):
            return
        if status.st_nlink > 1:  # its other names may be those of another file
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        for length in (0, size):
            os.ftruncate(fd, length)
        os.utime(fd, (mtime, mtime))


def is_usable(plan: Plan, board: Board) -> bool:
    """Whether all is there that this start does not fill. Notes on the board which frames are filled."""
    for frame, rows in enumerate(plan.rows):
        is_filled = all(board.files[row] == FREE for row in (*rows, *plan.pieces(frame)))
        board.frames[frame] = is_filled
        if frame in plan.before and not is_filled:
            return False
    return True
