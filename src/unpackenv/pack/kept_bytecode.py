"""Check whether the interpreter will use bytecode that is packed as it is.

CPython compares the time and the size of a source with those in the header of its bytecode, unless the header asks for
another check (PEP 552). If they differ, every import compiles the source. Where `SOURCE_DATE_EPOCH` changes the time of
a source in the archive, the header gets the new time, too: the code is the same, and builds stay reproducible.
"""

from __future__ import annotations

import _imp
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.links import leads_to
from unpackenv.pack.source import PackSource, unreadable

HEADER = 16
_CACHED = re.compile(r"(?:(.+)/)?__pycache__/([^/]+?)\.([^./]+)(?:\.opt-\w+)?\.pyc")
_HASHED, _CHECKED = 1, 2  # flags


@dataclass
class Kept:
    """The bytecode in the caches of a tree that needs a new header or a warning, by path."""

    retimed: dict[str, bytes] = field(default_factory=dict)
    """The new header, with the time that the source has in the archive."""
    stale: list[str] = field(default_factory=list)
    """Bytecode of another version of its source."""
    for_others: list[str] = field(default_factory=list)
    """Bytecode of another Python, where there is none for the interpreter."""

    def warnings(self, source: PackSource) -> list[str]:
        """Return a sentence on stale bytecode and one on that of other Pythons, if there is any."""
        texts = []
        if self.stale:
            texts.append(
                f"{_counted(self.stale)} out of date, and every import compiles the source again. "
                "Without --bytecode keep it is compiled now."
            )
        if self.for_others:
            tag = source.interpreter.cache_tag
            texts.append(f"{_counted(self.for_others)} for another Python than {tag}, which will not use it.")
        return texts


def examine(tree: Tree, source: PackSource) -> Kept:
    """Compare the bytecode in the caches of a tree with its sources; raises `PackError` for what cannot be read."""
    kept = Kept()
    by_path = {entry.path: entry for entry in tree.entries}
    tag = source.interpreter.cache_tag
    try:
        for entry in tree.entries:
            cached = _CACHED.fullmatch(entry.path)
            if cached and entry.kind in ("file", "hardlink"):
                directory, name, its_tag = cached.groups()
                module = by_path.get(os.path.join(directory or "", f"{name}.py"))
                if module and its_tag == tag:
                    _compare(entry.path, module, by_path, source, kept)
                elif module and os.path.join(directory or "", "__pycache__", f"{name}.{tag}.pyc") not in by_path:
                    kept.for_others.append(entry.path)
    except OSError as error:
        raise unreadable(error) from error
    return kept


def _compare(path: str, module: Entry, by_path: Mapping[str, Entry], source: PackSource, kept: Kept) -> None:
    with open(os.path.join(source.root, path), "rb") as file:
        header = file.read(HEADER)
    if len(header) < HEADER or header[:4].hex() != source.interpreter.magic:
        kept.for_others.append(path)
        return
    flags, time, size = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12))
    original = os.path.join(source.root, module.path)
    if flags & _HASHED:
        if flags & _CHECKED and header[8:] != _source_hash(header[:4], original):
            kept.stale.append(path)
        return
    now = os.stat(original)
    packed = by_path.get(leads_to(module, by_path) or "", module)
    times = [seconds & 0xFFFFFFFF for seconds in (now.st_mtime_ns // 1_000_000_000, packed.mtime)]
    if size != now.st_size & 0xFFFFFFFF or time not in times:
        kept.stale.append(path)
    elif time != times[1]:
        kept.retimed[path] = header[:8] + times[1].to_bytes(4, "little") + header[12:]


def _source_hash(magic: bytes, path: str) -> bytes:
    with open(path, "rb") as file:
        return _imp.source_hash(int.from_bytes(magic, "little"), file.read())


def unusable_modules(tree: Tree, source: PackSource) -> list[str]:
    """Warn about modules without a source that another Python compiled: the interpreter refuses them."""
    paths = {entry.path for entry in tree.entries}
    unusable = []
    for entry in tree.entries:
        in_cache = os.path.basename(os.path.dirname(entry.path)) == "__pycache__"
        if entry.path.endswith(".pyc") and entry.kind == "file" and not in_cache and entry.path[:-1] not in paths:
            with open(os.path.join(source.root, entry.path), "rb") as file:
                if file.read(4).hex() != source.interpreter.magic:
                    unusable.append(entry.path)
    tag = source.interpreter.cache_tag
    return (
        [f"{_counted(unusable)} for another Python than {tag}, which cannot import it without its source."]
        if unusable
        else []
    )


def _counted(paths: list[str]) -> str:
    return f"the bytecode {paths[0]} is" if len(paths) == 1 else f"bytecode of {len(paths):,} files ({paths[0]}, …) is"
