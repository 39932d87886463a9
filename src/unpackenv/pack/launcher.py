"""`unpackenv launcher`: write an executable that looks like a Python and brings its packages.

It is a zip file after a `#!` line, as PEP 441 has it: the runtime (see `runtime`), as bytecode, and `__main__.py`, with
the settings of its starts. Nothing in it is compressed, since each start reads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unpackenv.archive import codecs
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, PackError, SettingError
from unpackenv.pack import runtime

_MAIN = """\
import sys
if sys.implementation.cache_tag != {tag!r}:
    sys.stderr.write("unpackenv: error: " + sys.argv[0] + ": this launcher is for {tag}, and " + sys.executable
        + " is " + str(sys.implementation.cache_tag) + ". Write one with the Python that will run it: "
        "unpackenv launcher --python PYTHON\\n")
    sys.exit({code})
from os.path import abspath, dirname
sys.path[0] = abspath(sys.path[0])
from unpackenv.start import launcher
launcher.run({settings!r}, sys.argv[1:], dirname(sys.path[0]))
"""
_LONGEST = 127
"""Bytes of a `#!` line that every kernel takes (execve(2))."""
_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time of a zip file: the same launcher is to have the same bytes."""


@dataclass(frozen=True)
class Launcher:
    """A launcher that was written: its path, its size in bytes, and the interpreter that its `#!` line names."""

    path: str
    size: int
    python: str


def write(output: str, settings: dict[str, object], python: str = "", codec: str = codecs.DEFAULT) -> Launcher:
    """Write a launcher for `python`: a path, or a name that is looked for on PATH; by default the one that runs this.

    It appears whole or not at all, in place of what was there. Raises `PackError`, `SettingError` or `NoSpace`.
    """
    line = _first_line(python or sys.executable)
    _check_version(python)
    path = os.path.abspath(output)
    if not os.path.isdir(os.path.dirname(path)):
        raise PackError("is no directory, so the launcher cannot be made in it", where=os.path.dirname(path))
    if os.path.lexists(path) and not os.path.isfile(path):
        raise PackError("is no regular file, but the launcher will be one", where=path)
    main = _MAIN.format(tag=sys.implementation.cache_tag, code=EXIT_BOOTSTRAP_FAILED, settings=settings)
    with tempfile.TemporaryDirectory(prefix="unpackenv-") as folder:
        root = Path(folder, "runtime")
        runtime.write(str(root), codec, for_launcher=True)
        partial = f"{path}.{os.getpid()}.partial"
        try:
            with open(partial, "xb") as file:
                file.write(line)
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


def _first_line(python: str) -> bytes:
    """Return the `#!` line: the interpreter reads neither the environment nor site-packages before it is replaced."""
    if "/" in python:
        line = os.fsencode(f"#!{os.path.abspath(python)} -IS\n")
    else:
        line = os.fsencode(f"#!/usr/bin/env -S {python} -IS\n")
    if len(line) > _LONGEST or any(blank in python for blank in " \t\n"):
        raise SettingError(
            "cannot be written into a #! line: it is too long, or has a space",
            where=python,
            hint="Name an interpreter that is on PATH there, such as --python python3.13",
        )
    return line


def _check_version(python: str) -> None:
    """Raise `SettingError` if an interpreter that is here is of another version; the bytecode is for this one."""
    if not os.access(python, os.X_OK):
        return
    code = "import sys; print(getattr(getattr(sys, 'implementation', sys), 'cache_tag', sys.version))"
    found = subprocess.run([python, "-IS", "-c", code], check=False, capture_output=True, text=True).stdout.strip()
    if found != sys.implementation.cache_tag:
        raise SettingError(
            f"is {found or 'no Python'}, and this is {sys.implementation.cache_tag}",
            where=python,
            hint="Run this command with the Python that the launcher will become",
        )


def _members(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a runtime: bytecode beside the sources that other interpreters read, or in their place."""
    for path in root.rglob("*"):
        if path.parent.name == "__pycache__":
            yield str(path.parent.parent.relative_to(root) / f"{path.name.partition('.')[0]}.pyc"), path.read_bytes()
        elif path.is_file() and path != root / "unpackenv/__init__.py":  # `__main__` guards against other interpreters
            yield str(path.relative_to(root)), path.read_bytes()
