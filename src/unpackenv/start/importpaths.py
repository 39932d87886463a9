"""Make the tree importable, here and in child processes, and put its scripts on PATH.

Children get a `sitecustomize` on PYTHONPATH (`shim/`). It adds the same site directories, with the same precedence as
in this process. If a launcher puts another `sitecustomize` before it, the `usercustomize` next to it does that; until
then the site directories themselves serve, which PYTHONPATH names last. With `unpackenv hook` none of this is needed.
"""

from __future__ import annotations

import sys

from unpackenv.start.shim import unpackenv_site
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

HOOK = "unpackenv.pth"
"""The name of the file that `unpackenv hook` writes into a site directory."""
_SHIM = os.path.dirname(os.path.abspath(unpackenv_site.__file__))


def for_this_process(directories: list[str], *, new: bool) -> None:
    """Add site directories to this process; if they are `new`, forget failed imports from before they existed."""
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None:  # there was no such directory
            del sys.path_importer_cache[path]
        elif new and hasattr(finder, "invalidate_caches"):  # of every path: links may lead to a new one
            finder.invalidate_caches()
    before = set(sys.path)
    unpackenv_site.add_site_directories(directories)
    working_set = getattr(sys.modules.get("pkg_resources"), "working_set", None)
    if working_set is not None:
        for path in sys.path:
            if path not in before:
                _register(working_set, path)


def _register(working_set: Any, path: str) -> None:
    """Register the distributions of a directory with pkg_resources, which was imported before."""
    working_set.add_entry(path)
    for distribution in sys.modules["pkg_resources"].find_distributions(path, True):
        working_set.add(distribution, path, False, replace=True)


def for_children(directories: list[str], plain: list[str], python: str, environ: MutableMapping[str, str]) -> list[str]:
    """Set the environment: children that run the Python `python` (cache tag) will import from `directories`.

    `plain` are those of them that PYTHONPATH may name. Returns a warning if children will not import from them.
    """
    tag = python or sys.implementation.cache_tag or ""
    environ[unpackenv_site.VARIABLE] = unpackenv_site.joined(tag, directories, environ)
    if os.pathsep in _SHIM:
        return [f"PYTHONPATH cannot name {_SHIM}: children will not find the tree; use `unpackenv hook`"]
    inherited = environ.get("PYTHONPATH", "")
    path = inherited.split(os.pathsep) if inherited else []
    first = [] if _SHIM in path else [_SHIM]
    last = [directory for directory in plain if os.pathsep not in directory and directory not in path]
    environ["PYTHONPATH"] = os.pathsep.join([*first, *path, *last])
    return []


def add_scripts(directory: str, environ: MutableMapping[str, str]) -> list[str]:
    """Put a directory of scripts first on PATH. Returns a warning if PATH cannot name it."""
    if os.pathsep in directory:
        return [f"PATH cannot name {directory}: its scripts can only be run by their paths"]
    path = environ.get("PATH", os.defpath)
    if directory not in path.split(os.pathsep):
        environ["PATH"] = directory + os.pathsep + path
    return []
