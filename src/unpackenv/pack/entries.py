"""The members of a tree that is packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Entry(NamedTuple):
    """One member of a tree."""

    path: str
    kind: str
    """"dir", "file", "symlink" or "hardlink"."""
    mode: int
    """Permission bits, without setuid, setgid and sticky."""
    mtime: int
    """Whole seconds since 1970, no later than `SOURCE_DATE_EPOCH` where that is set."""
    size: int = 0
    """Bytes of a file; 0 for any other kind."""
    link: str = ""
    """The text of a symlink, or the path of a hard link's first name."""


@dataclass(frozen=True)
class Tree:
    """The members of a source, in the order of `in_order`, without the root itself.

    `unused` are the exclude globs that nothing matches, `warnings` are sentences about links.
    """

    entries: tuple[Entry, ...]
    root_mtime: int
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
