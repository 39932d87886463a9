"""Adds the site directories that unpackenv unpacked, in child processes of an application.

This file lies on their PYTHONPATH, runs at interpreter start, and stands alone: the child may be
an interpreter that has no unpackenv. It chains to the `sitecustomize` that it hides.
"""

from __future__ import annotations

import os
import sys


def add_site_directories(directories: list[str]) -> None:
    """Add site directories to `sys.path` as `site` does, `.pth` files included.

    They go before the interpreter's own, so that what was packed wins over what the image has.
    """
    import site

    # While `site` runs, as for the hook, it does not know the prefix of a virtual environment yet.
    own = {*site.getsitepackages(), *site.getsitepackages([sys.prefix, sys.exec_prefix]), site.USER_SITE}
    for directory in directories:
        if directory not in sys.path:
            before = len(sys.path)
            site.addsitedir(directory)
            added = sys.path[before:]
            del sys.path[before:]
            at = next((index for index, path in enumerate(sys.path) if path in own), before)
            sys.path[at:at] = added


def _chain() -> None:
    """Import the `sitecustomize` that would have run without this one, if there is one."""
    this = sys.modules.pop(__name__)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    try:
        import sitecustomize  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != __name__:
            raise
        sys.modules[__name__] = this


if __name__ == "sitecustomize":
    _tag, *_directories = os.environ.get("UNPACKENV_SITE", "").split(os.pathsep)
    if _tag == sys.implementation.cache_tag:
        add_site_directories(_directories)
    _chain()
