"""Compare two trees, without any of unpackenv's own code."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from unpackenv.archive import RESERVED


def differences(one: Path, other: Path) -> list[str]:
    """Return in what `other` differs from `one`, a line each: names, types, modes, times of files, links, and bytes.

    What unpackenv keeps in a tree does not count, nor what an application does that writes files and removes them:
    times of directories, and further empty directories.
    """
    found: list[str] = []
    _compare(one, other, "", found)
    return found


def _compare(one: Path, other: Path, below: str, found: list[str]) -> None:
    first, second = _entries(one / below), _entries(other / below)
    found += [f"{below}{name}: missing" for name in sorted(first.keys() - second.keys())]
    found += [
        f"{below}{name}: one more"
        for name in sorted(second.keys() - first.keys())
        if not stat.S_ISDIR(second[name].st_mode) or os.listdir(other / below / name)
    ]
    for name in sorted(first.keys() & second.keys()):
        path = below + name
        states = [_state(status) for status in (first[name], second[name])]
        if states[0] != states[1]:
            found.append(f"{path}: mode and time are {states[0]} and {states[1]}")
        elif stat.S_ISDIR(states[0][0]):
            _compare(one, other, f"{path}/", found)
        elif stat.S_ISLNK(states[0][0]):
            if os.readlink(one / path) != os.readlink(other / path):
                found.append(f"{path}: another link")
        elif (one / path).read_bytes() != (other / path).read_bytes():
            found.append(f"{path}: other bytes")


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_mode, 0 if stat.S_ISDIR(status.st_mode) else int(status.st_mtime)


def _entries(directory: Path) -> dict[str, os.stat_result]:
    with os.scandir(directory) as entries:
        return {
            entry.name: entry.stat(follow_symlinks=False) for entry in entries if not entry.name.startswith(RESERVED)
        }
