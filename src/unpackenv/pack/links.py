"""What becomes of the symlinks of a tree that is packed: it will lie elsewhere, and what is outside will not be there.

A link to a place in the tree stays, made relative. One that leads out is followed (what it leads to is packed in its
place, as `tar -h` does), kept or refused. The interpreter of a virtual environment is outside on purpose, and is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from unpackenv.errors import PackError, SettingError
from unpackenv.pack.entries import Entry
from unpackenv.pack.source import Source

MODES = ("follow", "keep", "refuse")
"""What may be done with links that lead out of the tree."""

OUT = "/"
"""What `leads_to` returns for a link that leads out of the tree."""

_INTERPRETER = re.compile(r"python[\d.]*t?")
_MOST_HOPS = 40  # from link to link, as for the kernel
_LEAVE_OUT_OR_KEEP = "Leave it out with --exclude, or pack it as it is with --links keep"


class Place(NamedTuple):
    """A directory that is packed, whose own path has no links: on the disk, and in the tree."""

    real: str
    path: str


class Links:
    """The links of one tree, and what became of those that lead out of it: "a -> /b"."""

    def __init__(self, source: Source, mode: str) -> None:
        if mode not in MODES:
            raise SettingError(f"{mode!r} is none of {', '.join(MODES)}", where="--links")
        self._source = source
        self._mode = mode
        self.followed: list[str] = []
        self.kept: list[str] = []

    def packed_as(self, path: str, places: Sequence[Place]) -> str:
        """Return what the link at `path` in the tree says in the archive; "" if what it leads to is packed instead.

        `places` are the tree and, if a link that was followed led here, the directory behind it, inmost last.
        Raises `PackError` or `OSError`.
        """
        on_disk = os.path.join(self._source.root, path)
        link = os.readlink(on_disk)
        inside = _inside(path, link, places, on_disk)
        if inside == link or (inside and self._mode != "keep"):
            return inside
        if self._is_interpreter(path):
            return link
        if self._mode == "refuse":
            raise PackError(
                f"is a link that leads out of the tree (to {link})",
                where=on_disk,
                hint="--links follow packs what it leads to, --links keep the link, and --exclude leaves it out",
            )
        if self._mode == "keep":
            self.kept.append(f"{path} -> {link}")
            return link
        if not os.path.exists(on_disk):
            raise PackError(f"is a link to {link}, where nothing is", where=on_disk, hint=_LEAVE_OUT_OR_KEEP)
        real = os.path.realpath(on_disk)
        if any(_below(place.real, real) is not None for place in places):
            raise PackError(f"is a link to a directory that it is in ({link})", where=on_disk, hint=_LEAVE_OUT_OR_KEEP)
        self.followed.append(f"{path} -> {link}")
        return ""

    def _is_interpreter(self, path: str) -> bool:
        directory, name = os.path.split(path)
        return directory == self._source.bin != "" and bool(_INTERPRETER.fullmatch(name))


def _inside(path: str, link: str, places: Sequence[Place], on_disk: str) -> str:
    """Return what a link has to say to lead to the same place in the tree wherever that lies; "" if it leads out."""
    inmost = places[-1]
    below = os.path.relpath(os.path.dirname(path) or ".", inmost.path or ".")
    if not os.path.isabs(link) and not _climbs(os.path.join(below, link)):
        return link
    named = os.path.normpath(os.path.join(inmost.real, below, link))
    for target in named, os.path.realpath(on_disk):
        for place in reversed(places):
            rest = _below(target, place.real)
            if rest is not None and os.path.lexists(target):
                return os.path.relpath(os.path.join(place.path, rest), os.path.dirname(path) or ".")
    return ""


def _climbs(path: str) -> bool:
    return os.path.normpath(path).split("/")[0] == ".."


def _below(path: str, directory: str) -> str | None:
    """Return what leads from a directory to a path in it, "." for itself; None if it is not in it."""
    rest = os.path.relpath(path, directory)
    return None if _climbs(rest) else rest


def leads_to(entry: Entry, by_path: Mapping[str, Entry]) -> str | None:
    """Return the path of the member that a link leads to, by way of others; `OUT` for one outside, None for none.

    That of what is no link is its own.
    """
    if entry.kind != "symlink":
        return entry.path
    at = os.path.dirname(entry.path)
    link = entry.link
    todo: list[str] = []
    for _ in range(_MOST_HOPS):
        if link.startswith("/"):
            return OUT
        todo += reversed(link.split("/"))
        found = None
        while todo and not (found and found.kind == "symlink"):
            name = todo.pop()
            if name == ".." and not at:
                return OUT
            at = os.path.normpath(os.path.join("/", at, name)).strip("/")
            found = by_path.get(at)
            if at and not found:
                return None
        if not (found and found.kind == "symlink"):
            return at
        at, link = os.path.dirname(at), found.link
    return None


def warnings(links: Links, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what is to be known of the links of a tree whose members are `entries`."""
    followed, kept = sorted(links.followed), sorted(links.kept)
    if followed:
        what = "it leads to is packed in its" if len(followed) == 1 else "they lead to is packed in their"
        keep = f"--links keep packs the link{'s' * (len(followed) > 1)}"
        yield f"{_counted(followed)} out of the tree, and what {what} place ({_first(followed)}). {keep}"
    if kept:
        one, many = ("names", "is packed as it is"), ("name", "are packed as they are")
        names, packed = one if len(kept) == 1 else many
        yield (
            f"{_counted(kept)} out of the tree, or {names} a place in it by an absolute path, and {packed} "
            f"({_first(kept)}). {'It holds' if len(kept) == 1 else 'They hold'} only where that is found"
        )
    by_path = {entry.path: entry for entry in entries}
    lost = [
        f"{entry.path} -> {entry.link}"
        for entry in entries
        if entry.kind == "symlink" and leads_to(entry, by_path) is None
    ]
    if lost:
        yield f"{_counted(lost)} to nothing that is packed ({_first(lost)})"


def _counted(links: Sequence[str]) -> str:
    return "1 link leads" if len(links) == 1 else f"{len(links):,} links lead"


def _first(links: Sequence[str]) -> str:
    return links[0] if len(links) == 1 else f"the first: {links[0]}"
