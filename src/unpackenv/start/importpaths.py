"""Making the tree importable in child processes, and its scripts callable.

Children get a `sitecustomize` on PYTHONPATH (`shim/`), which adds the same site directories with
the same precedence as in this process. PYTHONPATH alone would run no `.pth` file and would come
before the standard library. Where `unpackenv hook` is installed none of it is needed.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

SITE_VARIABLE = "UNPACKENV_SITE"
_SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")


def for_children(directories: list[str], python: str, environ: MutableMapping[str, str]) -> None:
    """Set the environment so that child processes of the Python `python` (cache tag) import from `directories`."""
    environ[SITE_VARIABLE] = os.pathsep.join((python or sys.implementation.cache_tag or "", *directories))
    path = environ.get("PYTHONPATH", "")
    if _SHIM not in path.split(os.pathsep):
        environ["PYTHONPATH"] = _SHIM + os.pathsep + path if path else _SHIM


def add_scripts(directory: str, environ: MutableMapping[str, str]) -> None:
    """Put a directory of scripts first on PATH."""
    path = environ.get("PATH", os.defpath)
    if directory not in path.split(os.pathsep):
        environ["PATH"] = directory + os.pathsep + path
