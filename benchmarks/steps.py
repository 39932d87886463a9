"""Take the steps of a cold start one by one, in one thread: `python steps.py ARCHIVE DIRECTORY` prints their seconds.

It runs in the interpreter of a workload. Everything is in the page cache, so wall time is CPU time. The calls are those
of `unpackenv.start.unpack.native` and `unpackenv.start.tree.writer`, with a timer between them.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from bisect import bisect_left

from unpackenv.archive.reader import Archive, open_archive
from unpackenv.archive.toc import Toc
from unpackenv.start.tree import writer

now = time.perf_counter


def main(path: str, directory: str) -> None:
    gc.disable()
    with open_archive(path):  # imports what it needs
        pass
    begin = now()
    archive = open_archive(path)
    opened = now() - begin
    with archive:
        columns = archive.toc.encode()
        begin = now()
        toc = Toc.decode(columns)
        parsed = now() - begin
        begin = now()
        toc.frame_starts()
        paths = [path.rstrip(b"/") for path in toc.dir_paths()]
        took = {"open": opened, "parse": parsed, "paths": now() - begin}
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        begin = now()
        for row in range(1, len(paths)):
            os.mkdir(paths[row], toc.dir_mode[row] | 0o700, dir_fd=root)
        took["make directories"] = now() - begin
        took.update(_frames(archive, root, paths))
        begin = now()
        for row in range(len(paths) - 1, 0, -1):
            os.utime(paths[row], (toc.dir_mtime[row],) * 2, dir_fd=root, follow_symlinks=False)
        took["end directories"] = now() - begin
        os.close(root)
    counts = {
        "files": len(toc.file_names),
        "members": toc.member_count,
        "directories": len(paths) - 1,
        "frames": len(toc.frame_raw),
        "stored": sum(toc.frame_stored),
        "unpacked": toc.unpacked_size,
    }
    print(json.dumps({**counts, **took}))


def _frames(archive: Archive, root: int, paths: list[bytes]) -> dict[str, float]:
    """Read, check and decode all frames, and write the files that begin in them, cut off where their frame ends."""
    toc, decode, starts = archive.toc, archive.decoder(), archive.toc.frame_starts()
    buffer = memoryview(bytearray(max(toc.frame_raw)))
    stored = memoryview(bytearray(max(toc.frame_stored)))
    took = dict.fromkeys(
        ("read", "hash", "decode", "open directories", "create", "write", "times", "close", "python"), 0.0
    )
    decode(archive.read_frame(0, stored), buffer[: toc.frame_raw[0]])  # buffers as a worker has them, used before
    for number, size in enumerate(toc.frame_raw):
        begin = now()
        frame = archive.read_frame(number, stored)
        read = now()
        hashlib.sha256(frame).digest()  # `read_frame` does that, too
        hashed = now()
        decode(frame, buffer[:size])
        decoded = now()
        took["read"] += (read - begin) - (hashed - read)
        took["hash"] += hashed - read
        took["decode"] += decoded - hashed
        inner = _write(toc, buffer[:size], starts[number], root, paths, took)
        took["python"] += (now() - decoded) - inner
    return took


def _write(toc: Toc, raw: memoryview, start: int, root: int, paths: list[bytes], took: dict[str, float]) -> float:
    """Write the files that begin in a frame, and return the seconds that all calls took."""
    directory = current = -1
    total = 0.0
    for row in range(bisect_left(toc.file_position, start), bisect_left(toc.file_position, start + len(raw))):
        data = raw[toc.file_position[row] - start :][: toc.file_size[row]]
        begin = now()
        if toc.file_dir[row] != current:
            if directory >= 0:
                os.close(directory)
            current = toc.file_dir[row]
            directory = os.open(paths[current] or b".", writer._DIRECTORY, dir_fd=root)
        opened = now()
        fd = os.open(toc.file_names[row], writer._CREATE, toc.file_mode[row], dir_fd=directory)
        created = now()
        if data:
            os.write(fd, data)
        written = now()
        os.utime(fd, (toc.file_mtime[row],) * 2)
        timed = now()
        os.close(fd)
        closed = now()
        for name, seconds in (
            ("open directories", opened - begin),
            ("create", created - opened),
            ("write", written - created),
            ("times", timed - written),
            ("close", closed - timed),
        ):
            took[name] += seconds
        total += closed - begin
    if directory >= 0:
        os.close(directory)
    return total


if __name__ == "__main__":
    main(*sys.argv[1:])
