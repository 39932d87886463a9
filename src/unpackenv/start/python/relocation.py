"""Rewrite the scripts of a virtual environment: they name its Python by an absolute path, which is wrong elsewhere.

Imported by cold starts of such an environment, and to compare its tree with the archive.
"""

from __future__ import annotations

import re
import stat

from unpackenv.archive.facts import first, is_environment
from unpackenv.start import stamp
from unpackenv.start.tree.writer import PARTIAL, TreeWriter
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Facts = dict[str, list[str]]

STAMPED = "scripts"
"""The fact of a stamp for the directory that the scripts of a tree are written for."""

LARGEST = 1 << 20
"""The largest file that is taken for a script, in bytes."""
_KERNEL = 127  # the most bytes of a `#!` line that every kernel takes
_SIMPLE = re.compile(rb"#!(?P<python>/[^ \t\r\n]+)(?P<options>[ \t][^\n]*)?\n")
# As pip writes it if the path has a space or is long: a command for `sh`, and a string for Python.
_QUOTED = re.compile(
    rb"""#!/bin/sh\n'''exec' (?P<quote>["']?)(?P<python>/[^"'\n]+?)(?P=quote)(?P<options> -[^\n]*?)? """
    rb""""\$0" "\$@"\n' '''\n"""
)
_PLAIN = re.compile(rb"[\w./@%+=:,~\x80-\xff -]+")  # a path that needs no escape, neither in `sh` nor in Python


def made_at(facts: Facts) -> str:
    """Return the directory that the scripts of an archive name; "" if it holds no environment."""
    return (first(facts, "made-at") or first(facts, "target")) if is_environment(facts) else ""


def place_of_scripts(tree: str) -> str:
    """Return the directory that the scripts of a tree are written for, as its stamp says; "" if it does not."""
    stamped = stamp.read(tree)
    if not stamped:
        return ""
    os.close(stamped[1])
    return first(stamped[0], STAMPED)


def settle(writer: TreeWriter, target: str, facts: Facts, relocate: bool) -> tuple[Facts, list[str], int, int]:
    """Rewrite the scripts of a tree for its place if `relocate` is set; else warn of those that name another place.

    `writer` has written the tree of an archive with these `facts`; it will be at `target`. Returns facts for its stamp,
    warnings, and how many files and bytes this has added.
    """
    old, directory = made_at(facts), first(facts, "bin")
    if not old or not directory or os.path.realpath(old) == target:
        return {}, [], 0, 0
    new = target if relocate else old
    changed: list[tuple[int, int, int]] = []
    left = 0
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=writer.root_fd)
    try:
        times = os.fstat(fd)
        for name, status, content in _small_files(fd):
            wanted = rewritten(name, content, os.fsencode(old), os.fsencode(target))
            if wanted is None or not relocate:
                left += wanted != content and content.startswith(b"#!")
            elif wanted != content:
                _replace(writer, fd, name, status, wanted)
                changed.append((status.st_nlink, len(wanted), len(content)))
        if changed:
            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        os.close(fd)
    # A name that was a hard link is a file of its own now.
    size = sum(now if links > 1 else now - before for links, now, before in changed)
    return {STAMPED: [new]}, _warnings(left, directory, old, relocate), sum(links > 1 for links, _, _ in changed), size


def _warnings(left: int, directory: str, old: str, relocate: bool) -> list[str]:
    if not left:
        return []
    python = os.path.join(old, directory, "python")
    what = f"scripts in {directory} ({left}) run {python}, "
    if relocate:
        return [f"{what}as the path of the target cannot be written into them"]
    what += "which is not there" if not os.path.exists(python) else "and not this environment"
    return [f"{what}: use `python -m NAME`, unpack to {old} (--target), or rewrite them (--relocate)"]


def rewritten(name: bytes, content: bytes, old: bytes, new: bytes) -> bytes | None:
    """Return a file of `bin` with `new` in place of the directory `old`; None if `new` cannot be written into it.

    A `#!` line is written as pip writes it; in a script to be sourced the path is replaced where it needs no quotes.
    """
    if name.lower().startswith(b"activate"):
        if old not in content:
            return content
        whole = re.compile(rb"(?<![\w.-])" + re.escape(old) + rb"(?![\w.-])")
        return whole.sub(lambda _: new, content) if _PLAIN.fullmatch(new) and b" " not in new else content
    match = _QUOTED.match(content) or _SIMPLE.match(content)
    if not match or not match["python"].startswith(old + b"/"):
        return content
    python, options = new + match["python"][len(old) :], match["options"] or b""
    line = b"#!" + python + options + b"\n"
    if b" " in python or len(line) > _KERNEL:
        if b" " in python:
            python = b'"' + python + b'"'
        line = b"#!/bin/sh\n'''exec' " + python + options + b' "$0" "$@"\n' + b"' '''\n"
    return line + content[match.end() :] if _PLAIN.fullmatch(new) else None


def rewriter(facts: Facts, place: str) -> Callable[[bytes, bytes], bytes]:
    """Return a function that turns path and content of a packed file into its content in a tree for `place`."""
    old, new, directory = os.fsencode(made_at(facts)), os.fsencode(place), os.fsencode(first(facts, "bin"))

    def of_file(path: bytes, content: bytes) -> bytes:
        above, _, name = path.rpartition(b"/")
        if not old or new in (b"", old) or above != directory or len(content) > LARGEST:
            return content
        return rewritten(name, content, old, new) or content

    return of_file


def _small_files(fd: int) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Yield name, status and content of each file of a directory that may be a script."""
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST:
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd), "rb") as file:
                yield name, status, file.read()


def _replace(writer: TreeWriter, fd: int, name: bytes, status: os.stat_result, content: bytes) -> None:
    """Replace a file; its mode and mtime stay."""
    if not writer.replaces:
        os.unlink(name, dir_fd=fd)
    mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns // 10**9
    writer.write_file(fd, name, mode, mtime, memoryview(content), PARTIAL + b"0")
