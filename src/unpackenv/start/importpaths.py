"""Making the tree importable in child processes, and its scripts callable.

Children get a `sitecustomize` on PYTHONPATH (`shim/`), which adds the same site directories with
the same precedence as in this process. A launcher may put another `sitecustomize` before it: then its `usercustomize`
does that, and until then the site directories themselves, which PYTHONPATH names last. Where `unpackenv hook` is
installed none of it is needed.
"""

from __future__ import annotations

import sys

from unpackenv.start.shim import unpackenv_site
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

_SHIM = os.path.dirname(os.path.abspath(unpackenv_site.__file__))


def for_this_process(directories: list[str], *, new: bool) -> None:
    """Make what is in site directories importable here, `new` ones also where imports have looked for them in vain."""
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None:  # there was no such directory
            del sys.path_importer_cache[path]
        elif new and hasattr(finder, "invalidate_caches"):  # by any of its names, which may lead through links
            finder.invalidate_caches()
    before = set(sys.path)
    unpackenv_site.add_site_directories(directories)
    working_set = getattr(sys.modules.get("pkg_resources"), "working_set", None)
    if working_set is not None:
        for path in sys.path:
            if path not in before:
                _tell(working_set, path)


def _tell(working_set: Any, path: str) -> None:
    """Let pkg_resources, which has been imported before, know the distributions in a directory."""
    working_set.add_entry(path)
    for distribution in sys.modules["pkg_resources"].find_distributions(path, True):
        working_set.add(distribution, path, False, replace=True)


def for_children(directories: list[str], plain: list[str], python: str, environ: MutableMapping[str, str]) -> list[str]:
    """Set the environment so that child processes of the Python `python` (cache tag) import from `directories`.

    `plain` are those of them that PYTHONPATH may name. Returns why children will not import from them, if so.
    """
    environ[unpackenv_site.VARIABLE] = unpackenv_site.joined(python or sys.implementation.cache_tag or "", directories)
    if os.pathsep in _SHIM:
        return [f"PYTHONPATH cannot name {_SHIM}, so that children do not import from it; `unpackenv hook` makes them"]
    inherited = environ.get("PYTHONPATH", "")
    path = inherited.split(os.pathsep) if inherited else []
    first = [] if _SHIM in path else [_SHIM]
    last = [directory for directory in plain if os.pathsep not in directory and directory not in path]
    environ["PYTHONPATH"] = os.pathsep.join([*first, *path, *last])
    return []


def add_scripts(directory: str, environ: MutableMapping[str, str]) -> list[str]:
    """Put a directory of scripts first on PATH. Returns why that cannot be, if so."""
    if os.pathsep in directory:
        return [f"PATH cannot name {directory}, so that its scripts are found by their paths only"]
    path = environ.get("PATH", os.defpath)
    if directory not in path.split(os.pathsep):
        environ["PATH"] = directory + os.pathsep + path
    return []
