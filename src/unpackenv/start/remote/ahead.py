"""Fetch what a worker will read next, on threads of its process, while it decodes and writes what it has."""

from __future__ import annotations

import _thread as threads
import sys

from unpackenv.unpatched import is_built_in, new_instance, os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue

    from unpackenv.archive.blob import Place

THREADS = 2
"""Connections for each worker."""
DEPTH = 4
"""How many frames are fetched ahead, for each worker."""
_MERGED = 4 << 20
"""About how many bytes one request is for, at most; neighbouring frames are fetched together."""

if not is_built_in(threads.start_new_thread):  # the application's own wait for an event loop
    if sys.version_info >= (3, 10):
        threads = new_instance("_thread")
    else:  # there, a new instance would put the interpreter's functions back into the application's
        DEPTH = 0


class Piece:
    """A part of an archive that is wanted in a buffer, and whether it is there: `ready` is locked until then."""

    __slots__ = ("buffer", "error", "place", "ready")

    def __init__(self, place: Place, buffer: memoryview | None = None) -> None:
        self.place = place
        self.buffer = memoryview(bytearray(place.size)) if buffer is None else buffer
        self.ready = new_lock()
        self.ready.acquire()
        self.error: BaseException | None = None

    @property
    def name(self) -> str:
        """The sha256 that its bytes must have, in hex."""
        return self.place.digest.hex()

    @property
    def end(self) -> int:
        """Where it ends in the archive."""
        return self.place.offset + self.place.size

    def finish(self, error: BaseException | None = None) -> None:
        """Note that it is there, or why it will not be."""
        if self.ready.locked():
            self.error = error
            self.ready.release()


def new_lock() -> threads.LockType:
    """Return a lock for threads of the interpreter's own."""
    return threads.allocate_lock()


def reader() -> tuple[int, int]:
    """Return the numbers of this process and this thread."""
    return os.getpid(), threads.get_ident()


class Ahead:
    """Pieces that are fetched ahead by `fetch`, which gets neighbours together and calls `finish` for each."""

    def __init__(self, fetch: Callable[[list[Piece]], None]) -> None:
        from _queue import SimpleQueue as Queue

        self._fetch = fetch
        self._wanted: SimpleQueue[list[Piece] | None] = Queue()
        self._pieces: dict[int, Piece] = {}
        self._threads = 0

    def expect(self, places: list[Place]) -> None:
        """Fetch these in the background, and forget what was expected before."""
        before = self._pieces
        self._pieces = {place.offset: before.get(place.offset) or Piece(place) for place in places}
        for run in runs([piece for offset, piece in self._pieces.items() if offset not in before]):
            self._start_thread()
            if not self._threads:  # then each is fetched when it is read
                self._pieces = {}
                return
            self._wanted.put(run)

    def _start_thread(self) -> None:
        """Start another thread, unless there are enough, or the system refuses it."""
        if self._threads < THREADS:
            try:
                threads.start_new_thread(self._run, ())
                self._threads += 1
            except RuntimeError:
                pass

    def take(self, offset: int) -> memoryview | None:
        """Return what was expected at an offset, when it is there; None if it was not expected."""
        piece = self._pieces.pop(offset, None)
        if piece is None:
            return None
        piece.ready.acquire()
        if piece.error:
            raise piece.error
        return piece.buffer

    def stop(self) -> None:
        """Have the threads end."""
        for _ in range(self._threads):
            self._wanted.put(None)

    def _run(self) -> None:
        while run := self._wanted.get():
            try:
                self._fetch(run)
            except BaseException as error:
                for piece in run:
                    piece.finish(error)


def runs(pieces: list[Piece]) -> list[list[Piece]]:
    """Return the pieces, neighbours together that one request is for."""
    found: list[list[Piece]] = []
    for piece in pieces:
        last = found[-1] if found else []
        if last and last[-1].end == piece.place.offset and piece.end - last[0].place.offset <= _MERGED:
            last.append(piece)
        else:
            found.append([piece])
    return found
