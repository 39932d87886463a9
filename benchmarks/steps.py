"""Take the steps of a cold start one by one, in one thread: `python steps.py ARCHIVE DIRECTORY` prints their seconds.

It runs in the interpreter of a workload; wall time is that of the processor here, since all is in the page cache.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

from unpackenv.archive.reader import Archive, open_archive
from unpackenv.archive.toc import Toc


def main(path: str, directory: str) -> None:
    gc.disable()
    with open_archive(path):  # imports what it needs
        pass
    begin = time.perf_counter()
    archive = open_archive(path)
    opened = time.perf_counter() - begin
    with archive:
        columns = archive.toc.encode()
        begin = time.perf_counter()
        toc = Toc.decode(columns)
        parsed = time.perf_counter() - begin
        found = {"open": opened, "parse": parsed, "files": len(toc.file_names), "members": toc.member_count}
        print(json.dumps({**found, **_frames(archive), **_directories(archive, directory)}))


def _frames(archive: Archive) -> dict[str, float]:
    """Read, check and decode all frames; buffers are as a worker has them, and used once before."""
    toc, decode = archive.toc, archive.decoder()
    buffer = memoryview(bytearray(max(toc.frame_raw)))
    stored = memoryview(bytearray(max(toc.frame_stored)))
    checked = decoded = 0.0
    decode(archive.read_frame(0, stored), buffer[: toc.frame_raw[0]])
    for number, size in enumerate(toc.frame_raw):
        begin = time.perf_counter()
        frame = archive.read_frame(number, stored)
        middle = time.perf_counter()
        decode(frame, buffer[:size])
        checked += middle - begin
        decoded += time.perf_counter() - middle
    return {"hash": checked, "decode": decoded, "frames": len(toc.frame_raw)}


def _directories(archive: Archive, directory: str) -> dict[str, float]:
    """Make all directories, and set their times as at the end of an unpack."""
    begin = time.perf_counter()
    fd = os.open(directory, os.O_RDONLY)
    paths = [path.rstrip(b"/") for path in archive.toc.dir_paths()[1:]]
    for path in paths:
        os.mkdir(path, dir_fd=fd)
    for path in reversed(paths):
        os.utime(path, (0, 0), dir_fd=fd)
    os.close(fd)
    return {"directories": time.perf_counter() - begin}


if __name__ == "__main__":
    main(*sys.argv[1:])
