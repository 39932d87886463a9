"""All frames of an archive, one after the other, to read the whole tar stream."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from unpackenv.archive.pooled import in_order
from unpackenv.archive.reader import Archive
from unpackenv.errors import ArchiveCorrupt

# Frames that are being decoded, or wait for the caller, at one time.
_WINDOW = 3


def decoded(archive: Archive) -> Iterator[bytearray]:
    """Yield every frame, checked and decoded, in order; threads work ahead by a few frames."""
    local = threading.local()

    def decode(number: int) -> bytearray:
        if not hasattr(local, "decode"):
            local.decode = archive.decoder()
        stored = archive.read_frame(number)
        raw = bytearray(archive.toc.frame_raw[number])
        try:
            local.decode(stored, memoryview(raw))
        except ArchiveCorrupt as error:
            raise ArchiveCorrupt(f"frame {number}: {error.what}") from error
        return raw

    yield from in_order(decode, range(len(archive.toc.frame_raw)), min(_WINDOW, os.cpu_count() or 1), _WINDOW)
