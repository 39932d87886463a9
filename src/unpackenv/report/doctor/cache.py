"""The cache for what is fetched: whether a start can use it, and how much of it is in use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

from unpackenv.report import amount, counted
from unpackenv.report.doctor.findings import NOTE, OK, WARNING, Finding
from unpackenv.start.remote import cache

_WITHOUT = "A start goes on without it"


def examine(directory: str, limit: int, size: int, *, is_needed: bool) -> Iterator[Finding]:
    """Yield the findings on a cache of at most `limit` bytes.

    The archive has `size` bytes, 0 if that is unknown. The cache `is_needed` if the server fails.
    """
    facts: dict[str, Any] = {"path": directory, "limit": limit}
    if not os.path.lexists(directory):
        yield _absent(directory, facts)
        return
    if not os.path.isdir(directory):
        yield Finding("cache", WARNING, f"{directory}: is no directory", _WITHOUT, facts=facts)
        return
    entries = list(cache.entries(directory))
    status = os.statvfs(directory)
    used, free = sum(entry.size for entry in entries), status.f_bavail * status.f_frsize
    facts = {**facts, "used": used, "files": len(entries), "free": free}
    text = f"{directory}: {amount(used)} of {amount(limit)} in {counted(len(entries), 'file')}, room for {amount(free)}"
    level, hint, refused = OK, "", _refused(directory)
    if refused:
        level, hint = WARNING, "A start reads what is there, and keeps nothing"
        text += f"; cannot be written ({refused})"
    elif size > min(limit, used + free):
        level, hint = WARNING, "Raise UNPACKENV_CACHE_SIZE, or make room: frames would be fetched again"
        text += f"; the archive has {amount(size)}"
    yield Finding("cache", level, text, hint, facts=facts)
    if entries and is_needed:
        text = "a start asks the server for nothing that is in the cache: it succeeds if all of the archive is there"
        yield Finding("cache", NOTE, text)


def _absent(directory: str, facts: dict[str, Any]) -> Finding:
    above = directory
    while above and not os.path.lexists(above):
        above = os.path.dirname(above)
    refused = _refused(above or os.curdir)
    if refused:
        text = f"{directory}: is not there, and cannot be made ({refused})"
        return Finding("cache", WARNING, text, _WITHOUT, facts=facts)
    return Finding("cache", NOTE, f"{directory}: is not there yet; the first start makes it", facts=facts)


def _refused(directory: str) -> str:
    """Return why nothing can be written to a directory, "" if something can; the attempt leaves nothing."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return error.strerror or str(error)
