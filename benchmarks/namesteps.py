"""Take the steps of names first one by one: `python namesteps.py ARCHIVE DIRECTORY PROCESSES` prints their seconds.

It runs in the interpreter of a workload. The calls are those of `unpackenv.start.fill.names` and
`unpackenv.start.fill.plan`, with a timer between them. Each process makes the names of its share, those of a start with
that many workers, if descriptors are not limited. If one may not hold so many files, it closes those that it had first,
which is not measured; `shards` is how many processes a start would have instead.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

from unpackenv.archive.facts import first
from unpackenv.archive.reader import open_archive
from unpackenv.start.fill import leases
from unpackenv.start.fill.names import _CREATE
from unpackenv.start.fill.names_first import raise_descriptor_limit
from unpackenv.start.fill.plan import Plan
from unpackenv.start.tree import writer

now = time.perf_counter
_AMPLE = 1 << 30
STEPS = ("make directories", "open directories", "create", "size", "times", "lease", "python")


def main(path: str, directory: str, processes: str) -> None:
    gc.disable()
    leases.block_signals()
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with open_archive(path) as archive:
        begin = now()
        descriptors = raise_descriptor_limit()
        limited = now() - begin
        begin = now()
        scripts = first(archive.facts, "bin") if first(archive.facts, "kind") == "venv" else ""
        plan = Plan(archive, int(processes), descriptors, scripts)
        planned, shards = now() - begin, plan.shards
        if shards > int(processes):
            plan = Plan(archive, int(processes), _AMPLE, scripts)
        begin = now()
        shares = _shares(plan, root, descriptors)
        wall = now() - begin - max(share["closing"] for share in shares)
    os.close(root)
    slowest = max(shares, key=lambda share: share["all"])
    whole = {"descriptor limit": limited, "descriptors": descriptors, "shards": shards, "plan": planned, "wall": wall}
    print(json.dumps({**slowest, **whole, "all files": sum(share["files"] for share in shares)}))


def _shares(plan: Plan, root: int, descriptors: int) -> list[dict[str, float]]:
    """Make all names, each share in a process; return the seconds of each."""
    rows = [plan.names_of(shard) for shard in range(plan.shards)]
    rows[0] += plan.spanning
    rows[0].sort(key=plan.toc.file_dir.__getitem__)
    readers = []
    for share in rows[1:]:
        reader, answer = os.pipe()
        if os.fork() == 0:
            os.write(answer, json.dumps(_make(plan, share, root, descriptors)).encode())
            os._exit(0)
        os.close(answer)
        readers.append(reader)
    found = [_make(plan, rows[0], root, descriptors)]
    for reader in readers:
        with open(reader, "rb") as file:
            found.append(json.loads(file.read()))
        os.wait()
    return found


def _make(plan: Plan, rows: list[int], root: int, descriptors: int) -> dict[str, float]:
    """Make the names of some files, and the directories in which they are; as many stay open as may be."""
    toc, paths = plan.toc, plan.toc.dir_paths()
    made = bytearray(len(paths))
    made[0] = 1
    took = dict.fromkeys(STEPS, 0.0)
    counts = {"files": len(rows), "leases": 0, "directories": 0, "opened": 0}
    current = directory = -1
    held: list[int] = []
    closing = 0.0
    started = now()
    for row in rows:
        if len(held) == descriptors:
            begin = now()
            for fd in held[: descriptors // 2]:
                os.close(fd)
            del held[: descriptors // 2]
            closing += now() - begin
        begin = now()
        if toc.file_dir[row] != current:
            current = toc.file_dir[row]
            counts["directories"] += _make_directory(plan, paths, made, current, root)
            counts["opened"] += 1
            had = now()
            if directory >= 0:
                os.close(directory)
            directory = os.open(paths[current] or b".", writer._DIRECTORY, dir_fd=root)
        else:
            had = begin
        opened = now()
        fd = os.open(toc.file_names[row], _CREATE, toc.file_mode[row], dir_fd=directory)
        created = sized = now()
        if toc.file_size[row]:
            os.ftruncate(fd, toc.file_size[row])
            sized = now()
        os.utime(fd, (toc.file_mtime[row],) * 2)
        timed = now()
        if toc.file_size[row]:
            leases.hold(fd)
            counts["leases"] += 1
        leased = now()
        if toc.file_size[row]:
            held.append(fd)
        else:
            os.close(fd)
        for name, seconds in (
            ("make directories", had - begin),
            ("open directories", opened - had),
            ("create", created - opened),
            ("size", sized - created),
            ("times", timed - sized),
            ("lease", leased - timed),
        ):
            took[name] += seconds
    if directory >= 0:
        os.close(directory)
    whole = now() - started - closing
    took["python"] = whole - sum(took.values())
    return {**counts, **took, "all": whole, "closing": closing}


def _make_directory(plan: Plan, paths: list[bytes], made: bytearray, row: int, root: int) -> int:
    """Make a directory and those above it; return how many this process has made."""
    if made[row]:
        return 0
    made[row] = 1
    count = _make_directory(plan, paths, made, plan.toc.dir_parent[row], root)
    try:
        os.mkdir(paths[row][:-1], plan.toc.dir_mode[row] | 0o700, dir_fd=root)
    except FileExistsError:
        return count
    return count + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
