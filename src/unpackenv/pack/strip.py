"""Leave the debug symbols of shared objects and programs out: `strip --strip-debug`, where that is safe.

A stripped copy is packed if the kernel would map the same bytes to the same addresses as of the original, and can map
them: tools that edit shared objects after the linker (auditwheel, patchelf) leave some that strip breaks. Such a file
is packed as it is.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import NamedTuple

from unpackenv.archive.pooled import in_order
from unpackenv.errors import PackError
from unpackenv.pack.bytecode import Bytecode, Data
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.source import PackSource
from unpackenv.pack.temporary import Commands

_ELF = b"\x7fELF"
_SMALLEST = _WORTH = 4096
_SOURCES = (".py", ".pyc", ".pyi")
_LOADED = 1  # PT_LOAD, see elf(5)
# By class: the layout of a file's header from its type on, where its program headers' offset is, and theirs.
_HEADERS = {1: ("HHIIIIIHHHHHH", "IIIIIIII"), 2: ("HHIQQQIHHHHHH", "IIQQQQQQ")}


class _Segment(NamedTuple):
    """A part of a file that is mapped; `content` is the hash of its bytes."""

    address: int
    memory: int
    flags: int
    content: bytes


@dataclass
class Stripped:
    """How many files were stripped, their bytes before and after, and those packed as they are, by the reason."""

    count: int = 0
    before: int = 0
    after: int = 0
    kept: dict[str, list[str]] = field(default_factory=dict)


def find(tree: Tree, source: PackSource) -> list[Entry]:
    """Return the shared objects and programs of a tree; raises `PackError` without a program `strip`."""
    if not shutil.which("strip"):
        raise PackError("there is no program strip here", where="--strip", hint="Install binutils")
    return list(_native(tree.entries, source))


def strip(
    native: Sequence[Entry],
    compiled: Bytecode,
    source: PackSource,
    staging: str,
    workers: int,
    on_progress: Callable[[int], None],
) -> tuple[Bytecode, Stripped]:
    """Return a tree with the files `native` stripped into the directory `staging`, and what was done."""
    overlay, sizes, stripped = dict(compiled.overlay), {}, Stripped()
    with Commands() as commands:

        def strip_one(number: int) -> str:
            original = os.path.join(source.root, native[number].path)
            return _strip(original, os.path.join(staging, f"stripped-{number}"), commands)

        results = in_order(strip_one, range(len(native)), workers, 2 * workers, lambda: None)
        for number, (entry, problem) in enumerate(zip(native, results)):
            copy = os.path.join(staging, f"stripped-{number}")
            if problem:
                stripped.kept.setdefault(problem, []).append(entry.path)
            elif os.path.getsize(copy) <= entry.size - _WORTH:
                overlay[entry.path] = Data(copy, 0)
                sizes[entry.path] = os.path.getsize(copy)
                stripped.count += 1
                stripped.before += entry.size
                stripped.after += sizes[entry.path]
            on_progress(number + 1)
    entries = (entry._replace(size=sizes.get(entry.path, entry.size)) for entry in compiled.tree.entries)
    return replace(compiled, tree=replace(compiled.tree, entries=tuple(entries)), overlay=overlay), stripped


def _native(entries: tuple[Entry, ...], source: PackSource) -> Iterator[Entry]:
    """Yield the files in ELF format."""
    for entry in entries:
        if entry.kind == "file" and entry.size >= _SMALLEST and not entry.path.endswith(_SOURCES):
            with open(os.path.join(source.root, entry.path), "rb") as file:
                if file.read(len(_ELF)) == _ELF:
                    yield entry


def _strip(original: str, copy: str, commands: Commands) -> str:
    """Strip a file into `copy`; return why it is to be packed as it is, or ""."""
    done = commands.run(["strip", "--strip-debug", "-o", copy, original])
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["strip fails"])[-1].rpartition(": ")[2]
    try:
        return "" if _segments(original) == _segments(copy) else "strip changes what is loaded of it"
    except (ValueError, struct.error):
        return "it cannot be checked"


def _segments(path: str) -> list[_Segment]:
    """Return what is mapped of an ELF file; raises `ValueError` if that cannot be mapped, or `struct.error`.

    The source of the format is elf(5).
    """
    with open(path, "rb") as file:
        data = memoryview(file.read())
    order = {1: "<", 2: ">"}[data[5]] if data[5] in (1, 2) else ""
    if not order or data[4] not in _HEADERS:
        raise ValueError("an unknown kind of ELF")
    header, entry = (order + fields for fields in _HEADERS[data[4]])
    _, _, _, _, table, _, _, _, size, count, *_ = struct.unpack_from(header, data, 16)
    found = []
    for number in range(count):
        fields = struct.unpack_from(entry, data, table + number * size)
        if data[4] == 1:
            kind, offset, address, _, stored, memory, flags, align = fields
        else:
            kind, flags, offset, address, _, stored, memory, align = fields
        if kind == _LOADED:
            if (offset - address) % max(align, 1) or offset + stored > len(data):
                raise ValueError("a part that cannot be mapped")
            # The header names the sections, which strip changes and nothing maps for.
            start = max(offset, struct.calcsize(header) + 16)
            found.append(_Segment(address, memory, flags, sha256(data[start : offset + stored]).digest()))
    return found
