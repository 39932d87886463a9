"""The launcher: an executable that looks like a Python, bootstraps, and becomes that Python.

`unpackenv launcher` writes one, with this package in it and the settings of its starts; `python -m unpackenv.python`
takes them from the environment. It becomes the Python of the tree, if the archive is of an environment that has one;
otherwise the interpreter that runs it.
"""

from __future__ import annotations

import sys

from unpackenv.archive.codecs import zstd_extension
from unpackenv.errors import UnpackenvError
from unpackenv.start import bootstrap, entrypoint
from unpackenv.start.command import Command
from unpackenv.start.settings import Log, is_off
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, NoReturn

    __loader__: Any

_PYTHON = "python"


class PythonOfTree(Command):
    """The Python of the tree, or else the one that runs this, with its options and what follows them."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__([_PYTHON, *arguments])

    def interpreter(self, scripts: str) -> dict[str, str] | None:
        return super().interpreter(scripts) if _has_python(scripts) else None

    def words_in(self, scripts: str) -> list[str]:
        program = os.path.join(scripts, _PYTHON) if _has_python(scripts) else sys.executable
        return [program, *self.words[1:]]


class ZippedExtensions:
    """Finds C extensions in a directory of a launcher, which is a zip file: the dynamic loader reads them from memory.

    It is a path entry finder (https://docs.python.org/3/reference/import.html#path-entry-finders).
    """

    def __init__(self, path: str) -> None:
        if path != zstd_extension.DIRECTORY or not hasattr(__loader__, "archive"):
            raise ImportError(path)
        self._directory = path

    def find_spec(self, name: str, target: object = None) -> ModuleSpec | None:
        """Return the spec of an extension, if it is there."""
        from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
        from importlib.util import spec_from_file_location

        for suffix in EXTENSION_SUFFIXES:
            try:
                data = __loader__.get_data(os.path.join(self._directory, name.rpartition(".")[2] + suffix))
            except OSError:
                continue
            fd = os.memfd_create(name, os.MFD_CLOEXEC)
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            path = f"/proc/self/fd/{fd}"  # stays open: the dynamic loader takes the same path for the same library
            return spec_from_file_location(name, path, loader=ExtensionFileLoader(name, path))
        return None


def _has_python(scripts: str) -> bool:
    return bool(scripts) and os.path.lexists(os.path.join(scripts, _PYTHON))


def run(settings: dict[str, object], arguments: list[str], beside: str = "") -> NoReturn:
    """Bootstrap with `settings`, and become the interpreter; on failure exit with 125.

    An archive with a relative path is in the directory `beside`.
    """
    sys.path_hooks.insert(0, ZippedExtensions)
    try:
        archive = str(settings.get("archive", ""))
        if beside and archive and "://" not in archive and archive[0] not in "/~$":
            settings = {**settings, "archive": os.path.join(beside, archive)}
        entrypoint.become(PythonOfTree(arguments), {} if is_off() else settings)
    except UnpackenvError as error:
        entrypoint.fail(error, bootstrap.begin(Log({})))
