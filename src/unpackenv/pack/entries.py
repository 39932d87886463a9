"""What a tree that is packed consists of."""

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
    """What a symlink says, or the path of a hard link's first name."""


@dataclass(frozen=True)
class Tree:
    """The members of a source, as `in_order` has them; the root itself is not one of them.

    `unused` are the globs of what was to be excluded that nothing matched, `warnings` what is to be known of links.
    """

    entries: tuple[Entry, ...]
    root_mtime: int
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
