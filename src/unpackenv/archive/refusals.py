"""Errors for a path that was named as an archive and is none. Imported only when one is refused.

It imports nothing of `archive`, since `trailer` imports it.
"""

from __future__ import annotations

import errno

from unpackenv.errors import ArchiveUnreadable, ArchiveUnsupported
from unpackenv.unpatched import os

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_OTHERS = {b"PK\x03\x04": "a zip file", b"BZh": "compressed with bzip2", b"7z\xbc\xaf": "a 7z file"}
_HINT = "Name the file that `unpackenv pack` or tar wrote; in an image, check the COPY"


def unreadable(error: OSError, path: str, suffixes: tuple[str, ...]) -> ArchiveUnreadable:
    """Translate an `OSError` for the archive at `path`.

    Names of archives end with one of the `suffixes`.
    """
    if error.errno == errno.EISDIR:
        return ArchiveUnreadable(
            "is a directory, and an archive is a file", where=path, hint=_archive_in(path, suffixes)
        )
    if error.errno == errno.ESPIPE:
        return ArchiveUnreadable("is a pipe, and an archive is read from its end: write it to a file", where=path)
    hint = "Check its permissions and the mount that holds it"
    return ArchiveUnreadable(f"cannot be read ({error.strerror})", where=path, hint=hint)


def no_archive(head: bytes, path: str, suffixes: tuple[str, ...]) -> ArchiveUnsupported:
    """Return the error for a file whose `head` is not that of an archive; archives have these `suffixes`."""
    what, hint = _description(head, suffixes), _HINT
    if head.startswith(_LFS_POINTER):
        what, hint = "is a pointer of Git LFS, and not the archive itself", "Fetch it with git lfs pull"
    return ArchiveUnsupported(what, where=path, hint=hint)


def _archive_in(directory: str, suffixes: tuple[str, ...]) -> str:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(suffixes))
    except OSError:
        names = []
    return f"Name the archive in it: {os.path.join(directory, names[0])}" if names else _HINT


def _description(head: bytes, suffixes: tuple[str, ...]) -> str:
    if not head:
        return "is empty"
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            return f"is {what}, and no archive that can be unpacked here"
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        text = "\0"
    if text.strip() and all(each.isprintable() or each.isspace() for each in text):
        return f"is a text file, and no archive; it begins with {text.strip().splitlines()[0][:40]!r}"
    return f"is neither an unpackenv archive nor a {', '.join(suffixes[:-1])} or {suffixes[-1]}"
