"""zstandard's C extension: where it is, and importing it without the package around it.

The package imports 15 ms of modules for what no start needs. A runtime that `unpackenv runtime` made has a copy of the
extension and no package.
"""

from __future__ import annotations

import sys

from unpackenv.errors import ArchiveUnsupported
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NAME = "zstandard.backend_c"
DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "backend")
"""Where a runtime has its copy."""


def load() -> ModuleType:
    """Return the module with zstandard's classes; raises `ArchiveUnsupported` where it is not installed.

    It is the extension alone if there is one that loads, else the package.
    """
    broken = ""
    if "zstandard" not in sys.modules:
        try:
            module = sys.modules.get(_NAME) or _load()
            if module:
                return module
        except ImportError as error:
            broken = str(error)
    try:
        import zstandard
    except ImportError as error:
        made_for = _runtime_made_for()
        why = broken or (f"this runtime is for {made_for}" if made_for else str(error))
        raise ArchiveUnsupported(
            f"it is compressed with zstd and this interpreter, {sys.implementation.cache_tag}, cannot import zstandard "
            f"({why})",
            hint="Install zstandard; write a runtime with the Python that starts it; or pack with --codec xz, "
            "which needs only the standard library",
        ) from error
    return zstandard


def find() -> ModuleSpec | None:
    """Find the extension in the runtime or in the installed package, if it is where it always was."""
    from importlib.machinery import ExtensionFileLoader, PathFinder

    package = PathFinder.find_spec("zstandard")
    places = [DIRECTORY, *((package and package.submodule_search_locations) or ())]
    spec = PathFinder.find_spec(_NAME, places)
    return spec if spec and isinstance(spec.loader, ExtensionFileLoader) else None


def _load() -> ModuleType | None:
    spec = find()
    if spec is None or spec.loader is None:
        return None
    module = spec.loader.create_module(spec)
    if module:
        spec.loader.exec_module(module)
    return module


def _runtime_made_for() -> str:
    """Return the interpreters for which a runtime has the extension, "" where this is no runtime."""
    try:
        names = os.listdir(DIRECTORY)
    except OSError:
        return ""
    return ", ".join(sorted(name.split(".")[1] for name in names if name.endswith(".so")))
