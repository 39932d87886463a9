"""Put the files that a start needs first at the beginning of an archive, and then the small ones.

    lists -> the paths in each -> the files that they stand for -> merged by rank -> a new order of the members

Only regular files move, and they come before all directories. GNU tar sets mode and time of a directory at the first
member that is not below it. If directories came first, the rest of their files would later change these times, or find
the directory read-only. As it is, tar makes the directories that the first files need, and sets mode and time of each
after its own member.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from unpackenv.errors import PackError
from unpackenv.pack.entries import Entry
from unpackenv.pack.links import OUT, leads_to

SMALL = 4096
"""The most bytes of a small file: to write one takes a start no longer than to make its name only."""
_NAMED = 3


@dataclass(frozen=True)
class Order:
    """The members of a tree in the order of the archive."""

    entries: tuple[Entry, ...]
    count: int
    """How many of them come first; all of these are regular files."""
    small: int
    """How many small files come then."""
    warnings: tuple[str, ...]
    """Sentences about listed paths that are not packed."""


def read(file: str) -> list[str]:
    """Return the paths that a file lists, one a line, without blank lines and lines that begin with `#`.

    Raises `PackError` if the file cannot be read, or if a path is absolute or has a `..`.
    """
    try:
        with open(file, "rb") as lines:
            paths = [os.fsdecode(line.rstrip(b"\r\n")) for line in lines]
    except OSError as error:
        raise PackError(f"cannot be read ({error.strerror})", where=file) from error
    listed = {number: path for number, path in enumerate(paths, 1) if path.strip() and not path.startswith("#")}
    for number, path in listed.items():
        if path.startswith("/") or ".." in path.split("/"):
            raise PackError(
                f"line {number} is {path!r}, which is absolute or has a `..`",
                where=file,
                hint="List paths relative to the folder that is packed",
                line=number,
            )
    return list(listed.values())


def order(entries: tuple[Entry, ...], lists: Sequence[Sequence[str]], *, with_small: bool = False) -> Order:
    """Return the members with those first that `lists` of paths name, each list in its order.

    A directory stands for the files in it, in the order of `entries`; a link stands for the file that it leads to.
    Several lists are merged by rank: the first file of each, then the second of each, and so on. A file in several
    lists counts at its best rank. Then come the other small files, if any file comes first, or `with_small`. The rest
    stays in its order.
    """
    by_path = {entry.path: entry for entry in entries}
    ranked: list[dict[str, None]] = []
    missing: dict[str, None] = {}
    for paths in lists:
        files: dict[str, None] = {}
        for path in paths:
            found = _files(path, by_path)
            if found is None:
                missing[path] = None
            else:
                files.update(dict.fromkeys(found))
        ranked.append(files)
    merged = dict.fromkeys(path for rank in zip_longest(*ranked) for path in rank if path is not None)
    first = [by_path[path] for path in merged]
    with_small = with_small or bool(first)
    small = [entry for entry in entries if with_small and _is_small(entry) and entry.path not in merged]
    ahead = {*merged, *(entry.path for entry in small)}
    rest = [entry for entry in entries if entry.path not in ahead]
    return Order((*first, *small, *rest), len(first), len(small), tuple(_warnings(list(missing))))


def _is_small(entry: Entry) -> bool:
    return entry.kind == "file" and entry.size <= SMALL


def _files(path: str, by_path: Mapping[str, Entry]) -> list[str] | None:
    """Return the regular files that a path stands for; `None` if it leads to nothing that is packed."""
    # A path is followed like the text of a link at the root: through links, and whatever its spelling.
    place = leads_to(Entry("", "symlink", 0, 0, link=path), by_path)
    if place is None or place == OUT:
        return None
    if place and by_path[place].kind != "dir":
        return _regular([by_path[place]])
    below = f"{place}/" if place else ""
    return _regular(entry for entry in by_path.values() if entry.path.startswith(below))


def _regular(entries: Iterable[Entry]) -> list[str]:
    return [entry.link or entry.path for entry in entries if entry.kind in ("file", "hardlink")]


def _warnings(missing: Sequence[str]) -> Iterator[str]:
    if missing:
        paths = "1 path that is" if len(missing) == 1 else f"{len(missing):,} paths that are"
        more = ", …" * (len(missing) > _NAMED)
        yield f"--first lists {paths} not packed ({', '.join(missing[:_NAMED])}{more})"
