"""Whether an interpreter will use the bytecode of a tree: it looks for a name, and checks the header.

Imported by cold starts, and if an interpreter looks for other bytecode than was packed.
"""

from __future__ import annotations

import _frozen_importlib_external as _importlib
import sys

from unpackenv.archive import pyc
from unpackenv.archive.facts import first
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from unpackenv.archive.trailer import Identity
    from unpackenv.start.report import Report
    from unpackenv.start.settings import Settings

_COMPILED = ("unchecked-hash", "checked-hash", "timestamp")  # modes in which `pack` compiles all modules
_SAMPLE = 64  # modules with bytecode
_LARGEST_SEARCH = 1000  # modules


def warnings(settings: Settings, report: Report, identity: Identity | None) -> list[str]:
    """Return a warning if the interpreter that imports the tree will compile its modules."""
    optimize, prefix = 0, ""
    if settings.command:
        optimize, prefix = settings.command.flags()
    elif not settings.interpreter:
        optimize, prefix = sys.flags.optimize, sys.pycache_prefix or ""
    mode = first(identity.facts, "bytecode") if identity else ""
    tag = (settings.interpreter or {}).get("python", sys.implementation.cache_tag) or report.python
    why, _ = unused(mode, report.import_paths, tag, optimize, prefix)
    return [f"{why}: modules are compiled when they are imported"] if why else []


def unused(mode: str, import_paths: list[str], tag: str, optimize: int, prefix: str) -> tuple[str, str]:
    """Return why an interpreter will not use packed bytecode, and what to do about it; "" if it will.

    `mode` is how bytecode was packed, "" where that is not known. `import_paths` are those of a tree, none if it is
    not there yet. `tag` is the interpreter's cache tag, `optimize` its level of optimization, `prefix` where it keeps
    bytecode ("": next to the source).
    """
    if mode == "none":
        return "no bytecode was packed", "Pack without --bytecode none"
    if mode in _COMPILED and not optimize and not prefix:
        return "", ""
    if import_paths or mode not in _COMPILED:
        packed, used = look(import_paths, tag, optimize, prefix)
        if used * 2 >= packed:
            return "", ""
    if prefix:
        return "the packed bytecode is not looked for (PYTHONPYCACHEPREFIX)", "Unset PYTHONPYCACHEPREFIX"
    if optimize:
        return "the packed bytecode is not for -O (PYTHONOPTIMIZE)", "Start Python without -O and PYTHONOPTIMIZE"
    hint = "Pack it with --bytecode unchecked-hash"
    return "the packed bytecode does not fit the times of its sources", hint


def look(import_paths: list[str], tag: str, optimize: int, prefix: str) -> tuple[int, int]:
    """Return how many modules of a sample have bytecode for the Python of `tag`, and how many have what it will use."""
    packed = used = 0
    name_end = f".{tag}.opt-{optimize}.pyc" if optimize else f".{tag}.pyc"
    magic = _importlib.MAGIC_NUMBER if tag == sys.implementation.cache_tag else b""
    for source, names in _modules(import_paths):
        directory, name = os.path.split(source)
        stem = name[:-3]
        if not names.isdisjoint(stem + end for end in (f".{tag}.pyc", f".{tag}.opt-1.pyc", f".{tag}.opt-2.pyc")):
            packed += 1
            path = os.path.join(directory, "__pycache__", stem + name_end)
            used += not prefix and stem + name_end in names and _fits(path, source, magic)
            if packed >= _SAMPLE:
                break
    return packed, used


def _modules(directories: list[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield sources, each with the names in the `__pycache__` next to it; only as many as a sample needs."""
    count = 0
    directories = directories[:]
    for directory in directories:  # grows meanwhile
        names: set[str] = set()
        listing: list[tuple[str, bool]] = []
        try:
            with os.scandir(directory) as entries:
                listing = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            names.update(os.listdir(os.path.join(directory, "__pycache__")))
        except OSError:
            pass
        for name, is_directory in listing:
            if is_directory and name != "__pycache__":
                directories.append(os.path.join(directory, name))
            elif name.endswith(".py"):
                count += 1
                yield os.path.join(directory, name), names
        if count > _LARGEST_SEARCH:
            return


def _fits(path: str, source: str, magic: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = os.read(fd, pyc.HEADER_SIZE)
        finally:
            os.close(fd)
        status = os.stat(source)
    except OSError:
        return False
    return not pyc.stale(header, status.st_mtime, status.st_size, magic)
