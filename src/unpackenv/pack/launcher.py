"""`unpackenv launcher`: write an executable that looks like a Python and brings its packages.

It is a script that starts a Python with itself, and after that a zip file, which this Python reads (as with PEP 441):
the runtime (see `runtime`), as bytecode, and `__main__.py`, with the settings of its starts. Nothing in it is
compressed, since each start reads it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from unpackenv.archive import codecs
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, PackError, SettingError
from unpackenv.pack import runtime

# `sh` also takes long paths, and says what is missing. The interpreter reads neither the environment nor site-packages
# before it is replaced.
_SHELL = """\
#!/bin/sh
python={python}
if [ -z "$python" ] || ! [ -x "$python" ] || [ "$python" -ef "$0" ]; then
    echo "unpackenv: error: $0: there is no Python here at "{name}", which this launcher becomes" >&2
    exit {code}
fi
exec "$python" -IS "$0" "$@"
"""
_MAIN = """\
import _imp, sys
if _imp.extension_suffixes()[0] != {suffix!r}:
    sys.stderr.write("unpackenv: error: " + sys.argv[0] + ": this launcher is for {tag} ({suffix}), and "
        + sys.executable + " is " + str(sys.implementation.cache_tag) + " (" + _imp.extension_suffixes()[0]
        + "). Write one with the Python that will run it: PYTHON -m unpackenv launcher\\n")
    sys.exit({code})
from os.path import abspath, dirname, realpath
sys.path[0] = abspath(sys.path[0])
from unpackenv.start import launcher
launcher.run({settings!r}, sys.argv[1:], (dirname(sys.path[0]), dirname(realpath(sys.path[0]))))
"""
_ANSWER_SECONDS = 10
_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time of a zip file: the same launcher is to have the same bytes."""


@dataclass(frozen=True)
class Launcher:
    """A launcher that was written: its path, its size in bytes, and the interpreter that it becomes."""

    path: str
    size: int
    python: str


def write(output: str, settings: dict[str, object], python: str = "", codec: str = codecs.DEFAULT) -> Launcher:
    """Write a launcher for `python`: a path, or a name that is looked for on PATH; by default the one that runs this.

    It appears whole or not at all, in place of what was there. Raises `PackError`, `SettingError` or `NoSpace`.
    """
    _check_version(python)
    path = os.path.abspath(output)
    if not os.path.isdir(os.path.dirname(path)):
        raise PackError("is no directory, so the launcher cannot be made in it", where=os.path.dirname(path))
    if os.path.lexists(path) and not os.path.isfile(path):
        raise PackError("is no regular file, but the launcher will be one", where=path)
    if os.path.basename(path) == python:
        hint = "Name the Python by its path, or the launcher otherwise"
        raise SettingError("would find the launcher itself on PATH", where=python, hint=hint)
    beginning = _shell(python or sys.executable)
    suffix, tag = EXTENSION_SUFFIXES[0], sys.implementation.cache_tag
    main = _MAIN.format(suffix=suffix, tag=tag, code=EXIT_BOOTSTRAP_FAILED, settings=settings)
    with tempfile.TemporaryDirectory(prefix="unpackenv-") as folder:
        root = Path(folder, "runtime")
        runtime.write(str(root), codec, for_launcher=True)
        partial = f"{path}.{os.getpid()}.partial"
        try:
            with open(partial, "xb") as file:
                file.write(beginning)
                with zipfile.ZipFile(file, "w") as archive:
                    for name, data in sorted(_members(root)):
                        archive.writestr(zipfile.ZipInfo(name, _TIME), data)
                    archive.writestr(zipfile.ZipInfo("__main__.py", _TIME), main)
            os.chmod(partial, 0o755)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    return Launcher(path, os.path.getsize(path), python or sys.executable)


def _shell(python: str) -> bytes:
    """Return the beginning of a launcher."""
    name = shlex.quote(os.path.abspath(python) if "/" in python else python)
    found = name if "/" in python else f"$(command -v {name})"
    return os.fsencode(_SHELL.format(python=found, name=name, code=EXIT_BOOTSTRAP_FAILED))


def _check_version(python: str) -> None:
    """Raise `SettingError` if an interpreter that is here is of another version; the bytecode is for this one."""
    path = shutil.which(python)
    if not path:
        return
    call = [path, "-IS", "-c", "import _imp; print(_imp.extension_suffixes()[0])"]
    try:
        found = subprocess.run(call, check=False, capture_output=True, text=True, timeout=_ANSWER_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    if found.strip() != EXTENSION_SUFFIXES[0]:
        raise SettingError(
            f"is not the same Python as this, {sys.implementation.cache_tag}"
            + (f": it loads *{found.strip()}" if found else ""),
            where=python,
            hint="Run this command with the Python that the launcher will become",
        )


def _members(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a runtime: bytecode beside the sources that other interpreters read, or in their place."""
    for path in root.rglob("*"):
        if path.parent.name == "__pycache__":
            yield str(path.parent.parent.relative_to(root) / f"{path.name.partition('.')[0]}.pyc"), path.read_bytes()
        elif path.is_file() and path != root / "unpackenv/__init__.py":  # its bytecode is enough
            yield str(path.relative_to(root)), path.read_bytes()
