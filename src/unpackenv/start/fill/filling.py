"""Fill the files of a frame: decode it, write what belongs to each file, and give the file free."""

from __future__ import annotations

import mmap

from unpackenv.start.fill import leases
from unpackenv.start.fill.board import BEGINNING, END, FREE, WRITTEN
from unpackenv.start.fill.names import NONE
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from unpackenv.archive.reader import Archive
    from unpackenv.start.fill.board import Board
    from unpackenv.start.fill.plan import Plan
    from unpackenv.start.unpack.source import Observer


def memory(size: int) -> memoryview:
    """Return memory of its own for a buffer, in large pages where there are some: to be given one takes time."""
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            pages.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them
            pass
    return memoryview(pages)


class Filling:
    """What it takes to fill the files of one shard; `fds` are their descriptors by row.

    A file that may be executed is only written here: it is free when all its descriptors are closed.
    """

    def __init__(self, archive: Archive, plan: Plan, board: Board, fds: array[int], observer: Observer) -> None:
        self.archive = archive
        self.plan = plan
        self.board = board
        self.fds = fds
        self.decoded = -1
        """The frame that is decoded, or -1."""
        self._buffer = memoryview(b"")
        self._observer = observer

    def decode(self, frame: int) -> None:
        """Read, verify and decode a frame; `write` and `write_pieces` are for this one from now on.

        Raises `UnpackenvError` or `OSError`.
        """
        toc, observer = self.archive.toc, self._observer
        observer.begin_step(frame)
        if self.decoded == frame:
            return
        self.forget()
        out = memory(toc.frame_raw[frame])
        stored = self.archive.read_stored(frame, memory(toc.frame_stored[frame]))
        observer.end_step(self.archive.blob.step)
        self.archive.check_frame(frame, stored)
        observer.end_step("verify")
        self.archive.decoder()(stored, out)
        observer.end_step("decode")
        self._buffer, self.decoded = out, frame

    def forget(self) -> None:
        """Give up the memory of the decoded frame."""
        self._buffer, self.decoded = memoryview(b""), -1

    def content(self, row: int) -> memoryview:
        """Return the content of a file of the decoded frame."""
        at = self.plan.toc.file_position[row] - self.plan.starts[self.decoded]
        return self._buffer[at : at + self.plan.toc.file_size[row]]

    def write(self, row: int) -> None:
        """Write a file of the decoded frame, and give it free."""
        files = self.board.files
        if files[row] == FREE or self.fds[row] == NONE:
            return
        if files[row] != WRITTEN:
            self._write(row, self.content(row), 0)
            self._finish(row)
        if not self.plan.is_program(row):
            self.give_free(row)

    def write_pieces(self, only_wanted: bool = False) -> None:
        """Write the pieces of spanning files in the decoded frame; of all, or of those that somebody waits for."""
        start, toc, board, frame = self.plan.starts[self.decoded], self.plan.toc, self.board, self.decoded
        for row in self.plan.pieces(frame):
            piece = self._piece(row, frame)
            if not board.pieces[frame] & piece and (board.wanted[row] or not only_wanted):
                position = toc.file_position[row]
                begin = max(position, start)
                end = min(position + toc.file_size[row], start + len(self._buffer))
                self._write(row, self._buffer[begin - start : end - start], begin - position)
                board.pieces[frame] |= piece

    def _piece(self, row: int, frame: int) -> int:
        return BEGINNING if frame == self.plan.spanning[row].start else END

    def _write(self, row: int, data: memoryview, offset: int) -> None:
        fd = self.fds[row]
        while data:
            written = os.pwrite(fd, data, offset)
            data = data[written:]
            offset += written

    def _finish(self, row: int) -> None:
        mtime = self.plan.toc.file_mtime[row]
        os.utime(self.fds[row], (mtime, mtime))  # the write has changed it
        self.board.files[row] = WRITTEN

    def is_filled(self, frame: int) -> bool:
        """Whether all is written that lies in a frame, and free unless it is a program."""
        files, plan = self.board.files, self.plan
        return all(
            files[row] == FREE or (files[row] == WRITTEN and plan.is_program(row)) for row in plan.rows[frame]
        ) and all(self.board.pieces[frame] & self._piece(row, frame) for row in plan.pieces(frame))

    def end_frame(self, frame: int) -> None:
        """Mark a frame as filled if it is, give up its claim, and finish the spanning files that are whole by now."""
        self._observer.end_step("write")
        self._observer.end_worker()
        if self.is_filled(frame):
            self.board.frames[frame] = 1
            self.board.urgent[frame] = 0
        self.board.release(frame)
        for row in self.plan.pieces(frame):
            self.finish_spanning(row)

    def finish_spanning(self, row: int) -> None:
        """Finish a spanning file if all its pieces are written."""
        board, frames = self.board, self.plan.spanning[row]
        if self.fds[row] == NONE or board.files[row] == FREE:
            return
        if not all(board.pieces[frame] & self._piece(row, frame) for frame in frames):
            return
        if board.claim(board.spanning(frames.start)):
            if not board.files[row]:
                self._finish(row)
            if board.files[row] == WRITTEN and not self.plan.is_program(row):
                self.give_free(row)
            board.release(board.spanning(frames.start))

    def give_free(self, row: int) -> None:
        """Give a written file free; raises `TimeoutError` if somebody may have read it before."""
        fd = self.fds[row]
        self.check_in_time(row)
        leases.give_free(fd)
        self.board.files[row] = FREE
        self.close(row)

    def check_in_time(self, row: int) -> None:
        """Note who waits for a file that is about to be given free; raises `TimeoutError` if that is too late."""
        if leases.is_wanted(self.fds[row]):
            self.board.check_in_time()
            self.board.freed[row] = leases.now()

    def close(self, row: int) -> None:
        """Close the descriptor of a file in this process."""
        if self.fds[row] != NONE:
            os.close(self.fds[row])
            self.fds[row] = NONE
