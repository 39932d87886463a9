"""Decide how symlinks are packed: the tree will be at another place, without the files around it.

A link to a place in the tree becomes relative. One that leads out of it is followed (its target is packed in its place,
as by `tar -h`), kept or refused. A virtual environment's link to its interpreter leads out on purpose, and is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from unpackenv.errors import PackError, SettingError
from unpackenv.pack.entries import Entry
from unpackenv.pack.source import PackSource

MODES = ("follow", "keep", "refuse")
"""What may be done with links that lead out of the tree."""

OUT = "/"
"""What `leads_to` returns for a link that leads out of the tree."""

_INTERPRETER = re.compile(r"python[\d.]*t?")
_MOST_HOPS = 40  # from link to link, as many as the kernel allows
_LEAVE_OUT_OR_KEEP = "Leave it out with --exclude, or pack it as it is with --links keep"


class PackedDirectory(NamedTuple):
    """A packed directory: its real path on the disk, and its path in the tree."""

    real: str
    path: str


class Links:
    """The links of one tree; `followed` and `kept` are those that lead out of it, as "a -> /b"."""

    def __init__(self, source: PackSource, mode: str) -> None:
        if mode not in MODES:
            raise SettingError(f"{mode!r} is none of {', '.join(MODES)}", where="--links")
        self._source = source
        self._mode = mode
        self.followed: list[str] = []
        self.kept: list[str] = []

    def packed_as(self, path: str, places: Sequence[PackedDirectory]) -> str:
        """Return the text of the link at `path` in the archive; "" if its target is packed instead.

        `places` are the root of the tree and the directories above `path` to which followed links lead, innermost last.
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
            raise PackError(f"is a link to {link}, which does not exist", where=on_disk, hint=_LEAVE_OUT_OR_KEEP)
        real = os.path.realpath(on_disk)
        if any(_below(place.real, real) is not None for place in places):
            raise PackError(f"is a link to a directory that it is in ({link})", where=on_disk, hint=_LEAVE_OUT_OR_KEEP)
        self.followed.append(f"{path} -> {link}")
        return ""

    def _is_interpreter(self, path: str) -> bool:
        directory, name = os.path.split(path)
        return directory == self._source.bin != "" and bool(_INTERPRETER.fullmatch(name))


def _inside(path: str, link: str, places: Sequence[PackedDirectory], on_disk: str) -> str:
    """Return a text for a link that leads to the same member wherever the tree is; "" if the link leads out."""
    innermost = places[-1]
    below = os.path.relpath(os.path.dirname(path) or ".", innermost.path or ".")
    if not os.path.isabs(link) and not _climbs(os.path.join(below, link)):
        return link
    as_written = os.path.normpath(os.path.join(innermost.real, below, link))
    for target in as_written, os.path.realpath(on_disk):
        for place in reversed(places):
            rest = _below(target, place.real)
            if rest is not None and os.path.lexists(target):
                return os.path.relpath(os.path.join(place.path, rest), os.path.dirname(path) or ".")
    return ""


def _climbs(path: str) -> bool:
    return os.path.normpath(path).split("/")[0] == ".."


def _below(path: str, directory: str) -> str | None:
    """Return a path relative to a directory, "." for the directory itself; None if the path is not in it."""
    rest = os.path.relpath(path, directory)
    return None if _climbs(rest) else rest


def leads_to(entry: Entry, by_path: Mapping[str, Entry]) -> str | None:
    """Return the path of the member that an entry leads to: its own, or, of a link, the end of the chain of links.

    `OUT` is a place outside the tree, None one where the tree has no member.
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
        member = None
        while todo and not (member and member.kind == "symlink"):
            name = todo.pop()
            if name == ".." and not at:
                return OUT
            at = os.path.normpath(os.path.join("/", at, name)).strip("/")
            member = by_path.get(at)
            if at and not member:
                return None
        if not (member and member.kind == "symlink"):
            return at
        at, link = os.path.dirname(at), member.link
    return None


def warnings(links: Links, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a sentence each on links that were followed, that were kept, and that lead to no member."""
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
            f"({_first(kept)}). {'It works' if len(kept) == 1 else 'They work'} only where that place exists"
        )
    by_path = {entry.path: entry for entry in entries}
    broken = [
        f"{entry.path} -> {entry.link}"
        for entry in entries
        if entry.kind == "symlink" and leads_to(entry, by_path) is None
    ]
    if broken:
        yield f"{_counted(broken)} to nothing that is packed ({_first(broken)})"


def _counted(links: Sequence[str]) -> str:
    return "1 link leads" if len(links) == 1 else f"{len(links):,} links lead"


def _first(links: Sequence[str]) -> str:
    return links[0] if len(links) == 1 else f"the first: {links[0]}"
