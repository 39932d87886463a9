"""Decoding ahead: workers decode the pieces of a tar stream, the caller gets them in order.

Worker w of n decodes the pieces w, w + n, w + 2n, … into buffers that it shares with the caller:

    caller → worker   n; then one byte a buffer that is free; closed when no more is needed
    worker → caller   the size of a piece, which may be 0, when it is decoded; closed after the last one

So each worker is ahead by at most its buffers: one if there are several workers, two if there is
one, which would otherwise wait while the caller writes.
"""

from __future__ import annotations

import mmap

from unpackenv.start.machine.workers import start as start_worker
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from unpackenv.archive.codecs.base import Fill, Pieces
    from unpackenv.errors import UnpackenvError
    from unpackenv.start.unpack.source import Observer

_NUMBER = 8


def start(pieces: Pieces, workers: int, processes: bool, observer: Observer) -> list[Decoder]:
    """Start the workers; if a limit on processes or files forbids more, fewer will do."""
    decoders: list[Decoder] = []
    try:
        for number in range(workers):
            decoders.append(Decoder(pieces, number, 1 if workers > 1 else 2, decoders, processes, observer))
    except (OSError, RuntimeError):  # what a pipe, a fork, or the start of a thread raises
        pass
    return decoders


def decoded(pieces: Pieces, decoders: list[Decoder], observer: Observer) -> Generator[memoryview, None, None]:
    """Yield the pieces in order, each to be used before the next is taken; raises what a worker raised.

    Without decoders the caller decodes.
    """
    if not decoders:
        yield from _decoded_here(pieces, observer)
        return
    try:
        for decoder in decoders:
            decoder.begin(len(decoders))
        number = 0
        while (piece := decoders[number % len(decoders)].take()) is not None:
            yield piece
            decoders[number % len(decoders)].give_back()
            number += 1
    except BaseException:
        for decoder in decoders:
            decoder.stop()
        raise
    finally:
        problems = [problem for decoder in decoders if (problem := decoder.close())]
    if problems:
        raise problems[0]


def _decoded_here(pieces: Pieces, observer: Observer) -> Generator[memoryview, None, None]:
    buffer = memoryview(mmap.mmap(-1, max(1, pieces.largest)))
    for number, fill in enumerate(pieces.fills(0, 1)):
        yield buffer[: _observed(fill, buffer, number, observer)]


def _observed(fill: Fill, buffer: memoryview, number: int, observer: Observer) -> int:
    """Decode piece `number` into a buffer, and return its size."""
    observer.begin_step(number)
    size = fill(buffer)
    observer.end_step("decode")
    return size


class Decoder:
    """One worker and the caller's ends of its pipes."""

    def __init__(
        self,
        pieces: Pieces,
        number: int,
        depth: int,
        others: list[Decoder],
        processes: bool,
        observer: Observer,
    ) -> None:
        self._buffers = [memoryview(mmap.mmap(-1, max(1, pieces.largest))) for _ in range(depth)]
        self._taken = 0
        self._given, self._give = os.pipe()
        self._ready, announce = os.pipe()

        def body() -> None:
            observer.begin_worker(f"decoder {number}")
            try:
                if processes:  # else this end would stay open when the caller has ended
                    for decoder in (self, *others):
                        os.close(decoder._give)
                step = int.from_bytes(os.read(self._given, _NUMBER), "little")
                for count, fill in enumerate(pieces.fills(number, step) if step else ()):
                    if not os.read(self._given, 1):
                        return
                    size = _observed(fill, self._buffers[count % depth], number + count * step, observer)
                    os.write(announce, size.to_bytes(_NUMBER, "little"))
            finally:
                observer.end_worker()
                os.close(announce)

        try:
            self._worker = start_worker(body, processes)
        except BaseException:
            for fd in (self._given, self._give, self._ready, announce):
                os.close(fd)
            raise
        if processes:
            os.close(announce)

    def begin(self, step: int) -> None:
        """Let it decode every `step`th piece."""
        os.write(self._give, step.to_bytes(_NUMBER, "little") + bytes(len(self._buffers)))

    def take(self) -> memoryview | None:
        """Return its next piece, or None after the last."""
        size = os.read(self._ready, _NUMBER)
        return self._buffers[self._taken % len(self._buffers)][: int.from_bytes(size, "little")] if size else None

    def give_back(self) -> None:
        """Let it overwrite the piece that was taken."""
        self._taken += 1
        os.write(self._give, b"\0")

    def stop(self) -> None:
        """End it as soon as that is possible."""
        self._worker.stop()

    def close(self) -> UnpackenvError | None:
        """Wait until it has ended and return its error, if any."""
        os.close(self._give)
        problem = self._worker.join()
        os.close(self._given)
        os.close(self._ready)
        return problem
