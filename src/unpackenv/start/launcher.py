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
from unpackenv.start.settings import TABLE, Log, is_off
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any, NoReturn

    __loader__: Any

_PYTHON = "python"


class PythonOfTree(Command):
    """The Python of the tree, with its options and what follows them; the one that runs this, if the tree has none.

    It is never looked for on PATH, where the launcher itself may be.
    """

    is_on_path = False

    def __init__(self, arguments: list[str]) -> None:
        super().__init__([_PYTHON, *arguments])

    def interpreter(self, scripts: str) -> dict[str, str] | None:
        return super().interpreter(scripts) if os.access(_in(scripts), os.X_OK) else None

    def words_in(self, scripts: str) -> list[str]:
        return [_in(scripts) if os.path.lexists(_in(scripts)) else sys.executable, *self.words[1:]]


def _in(scripts: str) -> str:
    """Return the path of the Python among the scripts of a tree; "" if it has none."""
    return os.path.join(scripts, _PYTHON) if scripts else ""


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
            # It stays open: a later file with the same number would be taken for this one.
            path = f"/proc/self/fd/{_memory_file(name, data)}"
            return spec_from_file_location(name, path, loader=ExtensionFileLoader(name, path))
        return None


def _memory_file(name: str, data: bytes) -> int:
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
    except OSError as error:
        raise ImportError(f"this system has no room for it in memory: {error}") from error
    return fd


def run(settings: dict[str, object], arguments: list[str], directories: Sequence[str] = ()) -> NoReturn:
    """Bootstrap with `settings`, and become the interpreter; on failure exit with 125.

    An archive with a relative path is in the first of `directories` that has it; all other paths are in the first.
    """
    sys.path_hooks.insert(0, ZippedExtensions)
    settings = {**settings, **dict(_beside(settings, directories))}
    try:
        archive = _found(str(settings.get("archive", "")), directories)
        if archive:
            _forget_outer(archive, settings)
            settings = {**settings, "archive": archive}
        entrypoint.become(PythonOfTree(arguments), {} if is_off() else settings)
    except UnpackenvError as error:
        entrypoint.fail(error, bootstrap.begin(Log(settings)))


def _found(archive: str, directories: Sequence[str]) -> str:
    if not _is_relative(archive) or "://" in archive:
        return archive
    paths = [os.path.join(directory, archive) for directory in directories]
    return next(filter(os.path.exists, paths), paths[0] if paths else archive)


def _beside(settings: Mapping[str, object], directories: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each relative path but that of the archive, as one beside the launcher: it starts in any directory."""
    for setting in TABLE:
        value = str(settings.get(setting.name, ""))
        if setting.is_path and setting.name != "archive" and _is_relative(value):
            yield setting.name, os.path.join(directories[0], value)


def _is_relative(path: str) -> bool:
    return path[:1] not in ("", "/", "~", "$")


def _forget_outer(archive: str, settings: Mapping[str, object]) -> None:
    """Forget what the environment says of another archive, whose start this one is a descendant of."""
    if os.environ.get("UNPACKENV_ARCHIVE", archive) != archive:
        for name in ("target", "digest"):
            if name not in settings:
                os.environ.pop(f"UNPACKENV_{name.upper()}", None)
