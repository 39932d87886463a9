"""Recognise a tree of packages, and the interpreter that will run it.

recognise -> PackSource   a tree to pack: where its packages are, and which interpreter they are for
as_is     -> PackSource   a tree to look at, whatever interpreter it is for
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unpackenv.archive import interpreter as facts_of_interpreter
from unpackenv.archive.facts import ENVIRONMENTS, OWN_PYTHON, VENV
from unpackenv.errors import PackError
from unpackenv.pack.temporary import process_limit

_OLDEST = (3, 9)
_PYTHON_LIB = re.compile(r"python\d+(?:\.(\d+)t?)?")
_OTHER_PYTHON = "Name the interpreter that will run it with --python PATH"


@dataclass(frozen=True)
class Interpreter:
    """What an interpreter reports about itself."""

    path: str
    implementation: str
    """"cpython"."""
    version: str
    """Major and minor number: "3.9"."""
    cache_tag: str
    """The tag in the names of its bytecode files: "cpython-39"."""
    soabi: str
    """The tag in the names of its extension modules: "cpython-39-x86_64-linux-gnu"."""
    extension_suffixes: tuple[str, ...]
    """Every ending of an extension module that it imports."""
    magic: str
    """The number that its bytecode files begin with, in hex."""
    system: str
    """"linux"."""
    machine: str
    """"x86_64"."""
    libc: str
    """"glibc 2.36", "musl", or "" for another one."""


@dataclass(frozen=True)
class PackSource:
    """A tree that can be packed."""

    root: str
    """Its absolute path."""
    kind: str
    """"site-packages" for a flat tree, "prefix" for one with `lib/pythonX.Y`, "venv", or "python" for a prefix with an
    interpreter of its own."""
    import_paths: tuple[str, ...]
    """The directories that belong on `sys.path`, relative to the root; "" is the root itself."""
    bin: str
    """The directory of scripts, relative to the root, or ""."""
    target: str
    """Where it has to be unpacked for its scripts to work, or "" if any place will do."""
    interpreter: Interpreter
    """The interpreter that will run it."""
    home: str = ""
    """Where the interpreter is whose copy a virtual environment has; "" if it has none."""


def recognise(path: str, python: str | None = None) -> PackSource:
    """Return what the directory `path` holds and which interpreter will run it.

    The interpreter is `python` if given, else an environment's own, else the one that runs this.
    Raises `PackError` if there is no such directory or interpreter, or if the tree is for another Python.
    """
    root = os.path.abspath(path)
    _check_root(root)
    venv = venv_settings(root)
    install_root, libs = _site_directories(root)
    kind = _kind(root, venv is not None, bool(libs))
    interpreter = _ask(_interpreter_path(root, python, kind in ENVIRONMENTS))
    _check_venv(root, venv or {}, interpreter)
    return PackSource(
        root=root,
        kind=kind,
        import_paths=_fitting(root, libs, interpreter),
        bin=_scripts(root, install_root),
        target=root if kind in ENVIRONMENTS else "",
        interpreter=interpreter,
        home=(venv or {}).get("home", "") if _is_inside(root, "bin/python") else "",
    )


def as_is(path: str, import_paths: Sequence[str] | None = None) -> PackSource:
    """Return what the directory `path` holds; it may be for another Python than this one.

    `import_paths` are relative to it, if they are known. Raises `PackError` if there is no such directory.
    """
    root = os.path.abspath(path)
    _check_root(root)
    install_root, libs = _site_directories(root)
    return PackSource(
        root=root,
        kind=_kind(root, venv_settings(root) is not None, bool(libs)),
        import_paths=tuple([path for _, path in libs] or [""] if import_paths is None else import_paths),
        bin=_scripts(root, install_root),
        target="",
        interpreter=_ask(sys.executable),
    )


def _kind(root: str, is_venv: bool, has_libs: bool) -> str:
    if is_venv:
        return VENV
    if has_libs and _is_inside(root, "bin/python3") and list(_standard_libraries(root)):
        return OWN_PYTHON
    return "prefix" if has_libs else "site-packages"


def _is_inside(root: str, path: str) -> bool:
    """Whether a program is in the tree itself, not only a link to it."""
    real = os.path.realpath(os.path.join(root, path))
    return real.startswith(os.path.realpath(root) + os.sep) and os.access(real, os.X_OK)


def _standard_libraries(root: str) -> Iterator[str]:
    for name in names_in(os.path.join(root, "lib")):
        if _PYTHON_LIB.fullmatch(name) and os.path.exists(os.path.join(root, "lib", name, "os.py")):
            yield name


def _check_root(root: str) -> None:
    if not os.path.exists(root):
        raise PackError("does not exist", where=root, hint="Name the folder that holds the installed packages")
    if not os.path.isdir(root):
        raise PackError("is not a directory", where=root, hint="Name a folder; unpack a tar archive first (tar -xf)")


def venv_settings(root: str) -> dict[str, str] | None:
    """Return the settings in pyvenv.cfg; `None` without that file, which every virtual environment has."""
    try:
        with open(os.path.join(root, "pyvenv.cfg"), encoding="utf-8", errors="surrogateescape") as file:
            pairs = [line.partition("=") for line in file]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(error) from error
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _interpreter_path(root: str, python: str | None, is_environment: bool) -> str:
    own = [os.path.join(root, "bin", name) for name in ("python", "python3") if is_environment]
    runs = [path for path in own if os.access(path, os.X_OK)]
    if python:
        path = os.path.abspath(python) if os.sep in python else shutil.which(python)
    elif runs:
        path = runs[0]
    else:
        path = sys.executable
    if not path:
        raise PackError("no such interpreter on PATH", where=python or "", hint=_OTHER_PYTHON)
    return path


_QUESTIONS = """
import importlib.machinery, importlib.util, json, runpy, sys
facts = runpy.run_path(sys.argv[1])["describe"]()
print(json.dumps({
    "cache_tag": facts.pop("python"),
    **facts,
    "implementation": sys.implementation.name,
    "version": "%d.%d" % sys.version_info[:2],
    "extension_suffixes": importlib.machinery.EXTENSION_SUFFIXES,
    "magic": importlib.util.MAGIC_NUMBER.hex(),
}))
"""


def _ask(path: str) -> Interpreter:
    """Run the interpreter, isolated and without `site`, and return what it says about itself."""
    try:
        command = [path, "-I", "-S", "-c", _QUESTIONS, os.path.abspath(facts_of_interpreter.__file__)]
        with process_limit():
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        answers = json.loads(run.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise PackError(f"does not run as a Python 3 interpreter ({error})", where=path, hint=_OTHER_PYTHON) from error
    answers["extension_suffixes"] = tuple(answers["extension_suffixes"])
    interpreter = Interpreter(path=path, **answers)
    if tuple(map(int, interpreter.version.split("."))) < _OLDEST:
        raise PackError(
            f"is Python {interpreter.version}, but unpacking needs 3.9 or later", where=path, hint=_OTHER_PYTHON
        )
    return interpreter


def _site_directories(root: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the install root within the tree, and pairs of Python version and import path.

    A flat tree has none. A version is "3.9", or "" where the directory does not say (`lib/python3`).
    """
    for install_root in _install_roots(root):
        libs = list(_libs(root, install_root))
        if libs:
            return install_root, libs
    return "", []


def _install_roots(root: str) -> Iterator[str]:
    """Yield where an install tree may begin: `pip install --root` repeats the interpreter's own prefix."""
    yield from ("", "usr/local", "usr", "local")
    inner, names = "", names_in(root)
    while len(names) == 1 and not os.path.islink(os.path.join(root, inner, names[0])):
        inner = os.path.join(inner, names[0])
        yield inner
        names = names_in(os.path.join(root, inner))


def _libs(root: str, install_root: str) -> Iterator[tuple[str, str]]:
    for lib in ("lib64", "lib"):
        lib = os.path.join(install_root, lib)
        if os.path.islink(os.path.join(root, lib)):
            continue  # the lib64 of a virtual environment
        for name in names_in(os.path.join(root, lib)):
            for site in ("site-packages", "dist-packages"):
                path = os.path.join(lib, name, site)
                if _PYTHON_LIB.fullmatch(name) and os.path.isdir(os.path.join(root, path)):
                    yield _python_of_lib(name), path


def names_in(directory: str) -> list[str]:
    """Return the names in a directory, sorted; none if it is no directory."""
    if not os.path.isdir(directory):
        return []
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise unreadable(error) from error


def _python_of_lib(name: str) -> str:
    """Return the version in the name of a directory: "3.9" for `python3.9` and "" for `python3` or `lib`."""
    match = _PYTHON_LIB.fullmatch(name)
    return f"3.{match[1]}" if match and match[1] else ""


def _fitting(root: str, libs: list[tuple[str, str]], interpreter: Interpreter) -> tuple[str, ...]:
    """Return the import paths that the interpreter can use; raises `PackError` if all are for others."""
    if not libs:
        libs = [(_python_of_lib(os.path.basename(os.path.dirname(root))), "")]
    fitting = tuple(path for version, path in libs if version in (interpreter.version, ""))
    if not fitting:
        version, path = libs[0]
        raise mismatch(os.path.join(root, path).rstrip("/"), f"Python {version}", interpreter)
    return fitting


def _scripts(root: str, install_root: str) -> str:
    path = os.path.join(install_root, "bin")
    is_package = os.path.exists(os.path.join(root, path, "__init__.py"))
    return path if os.path.isdir(os.path.join(root, path)) and not is_package else ""


def _check_venv(root: str, venv: dict[str, str], interpreter: Interpreter) -> None:
    version = ".".join((venv.get("version") or venv.get("version_info", "")).split(".")[:2])
    if version not in ("", interpreter.version):
        raise mismatch(os.path.join(root, "pyvenv.cfg"), f"Python {version}", interpreter)


def mismatch(where: str, built_for: str, interpreter: Interpreter) -> PackError:
    """Return the error for a tree, or a part of it, that is for another Python."""
    return PackError(
        f"is for {built_for}, but {interpreter.path} is Python {interpreter.version} ({interpreter.soabi})",
        where=where,
        hint=_OTHER_PYTHON,
        tree=built_for,
        interpreter=interpreter.version,
    )


def unreadable(error: OSError) -> PackError:
    """Translate an OSError for a file or directory of the tree that cannot be read."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    return PackError(f"cannot be read ({error.strerror})", where=where)
