"""Estimate how far encoding is: at a high level a frame takes seconds, and reports nothing before its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from unpackenv.archive.codecs.base import Codec

_MOST_OF_RUNNING = 0.95  # of a frame that takes longer than the others did


class Pace:
    """The bytes that several threads have encoded; those of a running frame are estimated from its time."""

    def __init__(self, codec: Codec, level: int) -> None:
        # Used until a frame has ended; measured on the machine of docs/performance.md.
        self._guess = codec.seconds_per_byte(level)
        self._seconds = 0.0  # that the frames took that have ended
        self._bytes = 0  # of these frames
        self._running: dict[int, tuple[float, int]] = {}
        self._begun = 0
        self._returned = 0
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
        """Return how many bytes are encoded by now; never fewer than before."""
        now = time.monotonic()
        with self._lock:
            seconds_a_byte = self._seconds / self._bytes if self._bytes else self._guess
            likely = ((int((now - began) / seconds_a_byte), size) for began, size in self._running.values())
            encoded = self._bytes + sum(min(bytes_, int(size * _MOST_OF_RUNNING)) for bytes_, size in likely)
            self._returned = max(self._returned, encoded)
            return self._returned
