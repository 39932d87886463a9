"""Which files of a tree an application opens, and in which order: it runs once, below strace."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cache import execute

# With -y, a call that returns a descriptor shows its path: `openat(AT_FDCWD</tmp>, "a.py", O_RDONLY) = 3</tmp/a.py>`.
_STRACE = ["strace", "-f", "-y", "-qq", "-s", "4096", "-e", "trace=open,openat,execve", "-e", "signal=none"]
_LINE = re.compile(r"(\d+) +(.*)")
_OPENED = re.compile(r"= \d+<(/.*)>$")
_EXECUTED = re.compile(r'execve\("((?:[^"\\]|\\.)*)"')
_CURRENT = re.compile(r"AT_FDCWD<(/[^>]*)>")


def opened(command: Sequence[object], env: Mapping[str, str], tree: Path) -> list[str]:
    """Run a command, and return the files of `tree` that it and its children opened or executed, each once, in order.

    Paths are those below `tree`. Raises `Unavailable`.
    """
    with tempfile.NamedTemporaryFile(mode="r", errors="surrogateescape", prefix="unpackenv-bench-") as file:
        execute([*_STRACE, "-o", file.name, "--", *command], env)
        root = os.path.realpath(tree)
        paths = (os.path.relpath(path, root) for path in _paths(file) if path.startswith(root + os.sep))
        return [path for path in dict.fromkeys(paths) if os.path.isfile(os.path.join(root, path))]


def _paths(lines: Iterable[str]) -> Iterable[str]:
    """Yield the paths that were opened, or that somebody tried to execute."""
    relative: dict[str, str] = {}  # what a process executes, until its directory is known
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        process, call = found.groups()
        executed = _EXECUTED.match(call)
        if executed:
            relative[process] = executed[1]
        current = _CURRENT.search(call)
        if process in relative and (current or os.path.isabs(relative[process])):
            yield os.path.realpath(os.path.join(current[1] if current else "/", relative.pop(process)))
        path = _OPENED.search(call)
        if path:
            yield path[1]
