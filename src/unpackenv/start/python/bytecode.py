"""Whether an interpreter uses the bytecode of a tree, which it looks for by name and believes by its header.

Imported by cold starts, and where an interpreter looks for other bytecode than what was packed.
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

_COMPILED = ("unchecked-hash", "checked-hash", "timestamp")  # by `pack`, all of it
_ENOUGH = 64
_AT_MOST = 1000


def warnings(settings: Settings, done: Report, identity: Identity | None) -> list[str]:
    """Return what the line of a start has to say: that the interpreter which imports the tree compiles its modules."""
    optimize, prefix = 0, ""
    if settings.command:
        optimize, prefix = settings.command.flags()
    elif not settings.interpreter:
        optimize, prefix = sys.flags.optimize, sys.pycache_prefix or ""
    mode = first(identity.facts, "bytecode") if identity else ""
    tag = (settings.interpreter or {}).get("python", sys.implementation.cache_tag) or done.python
    why, _ = unused(mode, done.import_paths, tag, optimize, prefix)
    return [f"{why}: modules are compiled when they are imported"] if why else []


def unused(mode: str, import_paths: list[str], tag: str, optimize: int, prefix: str) -> tuple[str, str]:
    """Return why an interpreter compiles modules that were packed, and what to do about it; "" if it does not.

    `mode` is how bytecode was packed, "" where that is not known. `import_paths` are those of a tree, none if it is
    not there yet. `tag` is the interpreter's cache tag, `optimize` its level of optimization, `prefix` where it keeps
    bytecode ("": beside the source).
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
    """Return how many of some modules have bytecode for the Python of `tag`, and how many have what it would use."""
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
            if packed >= _ENOUGH:
                break
    return packed, used


def _modules(directories: list[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield sources, each with the names of all bytecode beside it; no more than it takes to know how it is."""
    count = 0
    directories = directories[:]
    for directory in directories:  # grows as they are found
        names: set[str] = set()
        found: list[tuple[str, bool]] = []
        try:
            with os.scandir(directory) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            names.update(os.listdir(os.path.join(directory, "__pycache__")))
        except OSError:
            pass
        for name, is_directory in found:
            if is_directory and name != "__pycache__":
                directories.append(os.path.join(directory, name))
            elif name.endswith(".py"):
                count += 1
                yield os.path.join(directory, name), names
        if count > _AT_MOST:
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
