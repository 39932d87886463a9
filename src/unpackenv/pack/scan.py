"""Find the members of a tree to pack, in an order that depends on names only.

The tree is only read. Paths of members are relative to the tree's root, with `/` between names
and surrogate escapes for bytes that the file system encoding lacks.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence, Set

from unpackenv.archive import RESERVED
from unpackenv.errors import PackError, SettingError
from unpackenv.pack import links as symlinks
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.links import Links, PackedDirectory
from unpackenv.pack.source import PackSource, unreadable

TESTS = ("tests", "test")
"""Globs for what tests are in, as a rule."""


def scan(
    source: PackSource,
    exclude: Sequence[str] = (),
    output: str = "",
    links: str = symlinks.MODES[0],
    on_progress: Callable[[int], None] = lambda size: None,
) -> Tree:
    """Return the members of the tree, without `output` and without those that a glob in `exclude` matches.

    A glob matches as in `fnmatch`: a member's name, its path, or its path below an import path. A directory that
    matches is dropped with its content. Files that unpackenv itself keeps at the root of a tree are never members.
    `links` is one of `links.MODES`; `on_progress` gets the bytes of the files found so far. Raises `PackError` for
    sockets, FIFOs and devices, and for a file or directory that cannot be read.
    """
    latest = _latest_mtime()
    is_excluded = _Excludes(exclude, source.import_paths)
    tree_links = Links(source, links)
    members: list[tuple[Entry, _Inode]] = []
    size = 0
    try:
        root = os.stat(source.root)
        top: tuple[PackedDirectory, ...] = (PackedDirectory(os.path.realpath(source.root), ""),)
        directories = [("", top)]
        while directories:
            directory, places = directories.pop()
            with os.scandir(os.path.join(source.root, directory)) as items:
                for item in items:
                    path = os.path.join(directory, item.name)
                    if path.startswith(RESERVED) or item.path == output or is_excluded(path):
                        continue
                    link = tree_links.packed_as(path, places) if item.is_symlink() else ""
                    entry, inode = _entry(path, item, link, latest)
                    members.append((entry, inode))
                    size += entry.size
                    if entry.kind == "dir":
                        followed = (PackedDirectory(os.path.realpath(item.path), path),) if item.is_symlink() else ()
                        directories.append((path, places + followed))
            on_progress(size)
    except OSError as error:
        raise unreadable(error) from error
    members.sort(key=lambda pair: _position(pair[0]))
    _, mtime = _mode_and_mtime(root, latest)
    entries = tuple(_with_hard_links(members))
    return Tree(entries, mtime, tuple(is_excluded.unused), tuple(symlinks.warnings(tree_links, entries)))


def left_out(source: PackSource, tree: Tree, globs: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Return the members that `scan` would leave out with these globs, and the globs that match a member."""
    is_excluded = _Excludes(globs, source.import_paths)
    excluded: list[Entry] = []
    directories: set[str] = set()
    for entry in tree.entries:
        if entry.path.rpartition("/")[0] in directories or is_excluded(entry.path):
            excluded.append(entry)
            if entry.kind == "dir":
                directories.add(entry.path)
    return excluded, [glob for glob in globs if glob not in is_excluded.unused]


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries in the order of packing: each directory, then its files, then its subdirectories.

    Names are ordered by their bytes. So the files of a directory are neighbours, and the order depends on paths alone.
    """
    return tuple(sorted(entries, key=_position))


def without(entries: Iterable[Entry], dropped: Set[str]) -> list[Entry]:
    """Return the entries not in `dropped`; the next hard link of a dropped file becomes the file."""
    sizes: dict[str, int] = {}
    heirs: dict[str, str] = {}
    kept = []
    for entry in entries:
        if entry.path in dropped:
            sizes[entry.path] = entry.size
        elif entry.link in dropped and entry.kind == "hardlink":
            heir = heirs.setdefault(entry.link, entry.path)
            if heir == entry.path:
                kept.append(entry._replace(kind="file", size=sizes[entry.link], link=""))
            else:
                kept.append(entry._replace(link=heir))
        else:
            kept.append(entry)
    return kept


_Inode = tuple[int, int]
_KINDS = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}


class _Excludes:
    """Tells whether a path is excluded, if no directory above it is."""

    def __init__(self, globs: Sequence[str], import_paths: Sequence[str]) -> None:
        self._globs = [(glob, re.compile(fnmatch.translate(glob.rstrip("/"))).match) for glob in globs]
        self._prefixes = [f"{path}/" for path in import_paths if path]
        self.unused = list(dict.fromkeys(globs))

    def __call__(self, path: str) -> bool:
        hits = {glob for glob, matches in self._globs if any(map(matches, self._spellings(path)))}
        if hits:
            self.unused = [glob for glob in self.unused if glob not in hits]
        return bool(hits)

    def _spellings(self, path: str) -> Iterator[str]:
        yield path
        yield path.rpartition("/")[2]
        for prefix in self._prefixes:
            if path.startswith(prefix):
                yield path[len(prefix) :]


def _entry(path: str, item: os.DirEntry[str], link: str, latest: int | None) -> tuple[Entry, _Inode]:
    """Return the member at `path`: a symlink with the text `link`, or, without one, what a symlink there leads to."""
    status = item.stat(follow_symlinks=not link)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise PackError("is a socket, FIFO or device", where=item.path, hint="Leave it out with --exclude")
    if kind == "file" and not os.access(item.path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), item.path)
    size = status.st_size if kind == "file" else 0
    return Entry(path, kind, *_mode_and_mtime(status, latest), size, link), (status.st_dev, status.st_ino)


def _with_hard_links(members: Iterable[tuple[Entry, _Inode]]) -> Iterator[Entry]:
    """Yield the entries; a further name of the same file becomes a hard link to the first."""
    first_names: dict[_Inode, str] = {}
    for entry, inode in members:
        first_name = first_names.setdefault(inode, entry.path) if entry.kind == "file" else entry.path
        yield entry if first_name == entry.path else entry._replace(kind="hardlink", size=0, link=first_name)


def _mode_and_mtime(status: os.stat_result, latest: int | None) -> tuple[int, int]:
    mtime = status.st_mtime_ns // 1_000_000_000
    return status.st_mode & 0o777, mtime if latest is None else min(mtime, latest)


def _latest_mtime() -> int | None:
    setting = os.environ.get("SOURCE_DATE_EPOCH")
    if not setting:
        return None
    if not setting.isdecimal():
        raise SettingError(f"{setting!r} is not a number of seconds since 1970", where="SOURCE_DATE_EPOCH")
    return int(setting)


def _position(entry: Entry) -> list[tuple[bool, bytes]]:
    *directories, name = os.fsencode(entry.path).split(b"/")
    return [*((True, directory) for directory in directories), (entry.kind == "dir", name)]
