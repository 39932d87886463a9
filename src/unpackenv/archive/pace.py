"""How far frames are that are being encoded: at a high level one takes seconds, and says nothing until it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from unpackenv.archive.codecs.base import Codec

_NEVER_DONE = 0.95  # of a frame that takes longer than the others did


class Pace:
    """The bytes that several threads have encoded; of a frame under way so many as its time makes likely."""

    def __init__(self, codec: Codec, level: int) -> None:
        # Before anything is known: on the machine of docs/performance.md.
        self._guess = codec.seconds_per_byte(level)
        self._seconds = 0.0  # that frames took, and
        self._bytes = 0  # how large those were
        self._running: dict[int, tuple[float, int]] = {}
        self._begun = 0
        self._most = 0
        self._lock = threading.Lock()

    @contextmanager
    def frame(self, size: int) -> Iterator[None]:
        """Encode a frame of `size` bytes while this is entered."""
        began = time.monotonic()
        with self._lock:
            number = self._begun = self._begun + 1
            self._running[number] = began, size
        yield
        with self._lock:
            del self._running[number]
            self._seconds += time.monotonic() - began
            self._bytes += size

    def done(self) -> int:
        """Return the bytes that are done by now; never fewer than it returned before."""
        now = time.monotonic()
        with self._lock:
            seconds_a_byte = self._seconds / self._bytes if self._bytes else self._guess
            likely = ((int((now - began) / seconds_a_byte), size) for began, size in self._running.values())
            done = self._bytes + sum(min(bytes_, int(size * _NEVER_DONE)) for bytes_, size in likely)
            self._most = max(self._most, done)
            return self._most
