"""What is to be packed: the tree, the interpreter that will run it, and its members in order.

    recognise -> Source           where the packages are, and which interpreter they are for
    warnings  -> [text]           what will not work where the tree is unpacked
    scan      -> Tree             every member, in an order that depends on names only
    packages  -> {name: bytes}    what is large
    as_is     -> Source           a tree to be looked at, whatever interpreter it is for

The tree is only ever read. Paths of members are relative to the tree's root, with `/` between names
and surrogate escapes for bytes that the file system encoding lacks.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from unpackenv.archive import interpreter as facts_of_interpreter
from unpackenv.archive.toc import RESERVED
from unpackenv.errors import PackError, SettingError

_RESERVED = os.fsdecode(RESERVED)
_OLDEST = (3, 9)
_PYTHON_LIB = re.compile(r"python\d+(?:\.(\d+)t?)?")
# The names of the versions of glibc's symbols, of which a shared object lists those that it needs.
_GLIBC_VERSION = re.compile(rb"\0GLIBC_(\d+\.\d+(?:\.\d+)?)(?=\0)")
_SHARED_OBJECT = re.compile(r".+\.so(?:\.\d+)*")
_EXTENSION_TAG = re.compile(r"\.((?:cpython|pypy|graalpy)[^./]*)\.so$")
_DISTRIBUTION = re.compile(r"([^-]+)(?:-.*)?\.(?:dist-info|egg-info|data)")
_QUOTED_PATH = re.compile(r"""(?<=['"])/[^'"]+""")
_OTHER_PYTHON = "Name the interpreter that will run it with --python PATH"


@dataclass(frozen=True)
class Interpreter:
    """What an interpreter says about itself."""

    path: str
    implementation: str
    """"cpython"."""
    version: str
    """Major and minor number: "3.9"."""
    cache_tag: str
    """What its bytecode files are called after: "cpython-39"."""
    soabi: str
    """What its extension modules are called after: "cpython-39-x86_64-linux-gnu"."""
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
class Source:
    """A tree that can be packed."""

    root: str
    """Its absolute path."""
    kind: str
    """"site-packages" for a flat tree, "prefix" for one with `lib/pythonX.Y`, or "venv"."""
    import_paths: tuple[str, ...]
    """What belongs on `sys.path`, relative to the root; "" is the root itself."""
    bin: str
    """The directory of scripts, relative to the root, or ""."""
    target: str
    """Where it has to be unpacked for its scripts to work, or "" if any place will do."""
    interpreter: Interpreter
    """The one that will run it."""


class Entry(NamedTuple):
    """One member of a tree."""

    path: str
    kind: str
    """"dir", "file", "symlink" or "hardlink"."""
    mode: int
    """Permission bits, without setuid, setgid and sticky."""
    mtime: int
    """Whole seconds since 1970, no later than `SOURCE_DATE_EPOCH` where that is set."""
    size: int = 0
    """Bytes of a file; 0 for any other kind."""
    link: str = ""
    """What a symlink says, or the path of a hard link's first name."""


@dataclass(frozen=True)
class Tree:
    """The members of a source, as `in_order` has them; the root itself is not one of them.

    `unused` are the globs of what was to be excluded that nothing matched.
    """

    entries: tuple[Entry, ...]
    root_mtime: int
    unused: tuple[str, ...] = ()


# --- recognising -------------------------------------------------------------------------------


def recognise(path: str, python: str | None = None) -> Source:
    """Return what the directory `path` holds and which interpreter will run it.

    That is `python` if given, else a virtual environment's own, else the one that runs this.
    Raises `PackError` if there is no such directory or interpreter, or if the tree is for another Python.
    """
    root = os.path.abspath(path)
    if not os.path.isdir(root):
        raise PackError("is not a directory", where=root)
    venv = _venv_settings(root)
    is_venv = venv is not None
    interpreter = _ask(_interpreter_path(root, python, is_venv))
    _check_venv(root, venv or {}, interpreter)
    install_root, libs = _site_directories(root)
    return Source(
        root=root,
        kind="venv" if is_venv else "prefix" if libs else "site-packages",
        import_paths=_fitting(root, libs, interpreter),
        bin=_scripts(root, install_root),
        target=root if is_venv else "",
        interpreter=interpreter,
    )


def as_is(path: str, import_paths: Sequence[str] | None = None) -> Source:
    """Return what the directory `path` holds, to be looked at: it may be for another Python than this one.

    `import_paths` are those relative to it, where they are known. Raises `PackError` if there is no such directory.
    """
    root = os.path.abspath(path)
    if not os.path.isdir(root):
        raise PackError("is not a directory", where=root)
    install_root, libs = _site_directories(root)
    return Source(
        root=root,
        kind="venv" if _venv_settings(root) is not None else "prefix" if libs else "site-packages",
        import_paths=tuple([path for _, path in libs] or [""] if import_paths is None else import_paths),
        bin=_scripts(root, install_root),
        target="",
        interpreter=_ask(sys.executable),
    )


def _venv_settings(root: str) -> dict[str, str] | None:
    """Return what pyvenv.cfg says; `None` if there is none, and so no virtual environment."""
    try:
        with open(os.path.join(root, "pyvenv.cfg"), encoding="utf-8", errors="surrogateescape") as file:
            pairs = [line.partition("=") for line in file]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(error) from error
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _interpreter_path(root: str, python: str | None, is_venv: bool) -> str:
    own = os.path.join(root, "bin", "python")
    if python:
        found = os.path.abspath(python) if os.sep in python else shutil.which(python)
    elif is_venv and os.access(own, os.X_OK):
        found = own
    else:
        found = sys.executable
    if not found:
        raise PackError("no such interpreter on PATH", where=python or "", hint=_OTHER_PYTHON)
    return found


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
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        answers = json.loads(run.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise PackError(f"does not run as a Python 3 interpreter ({error})", where=path, hint=_OTHER_PYTHON) from error
    answers["extension_suffixes"] = tuple(answers["extension_suffixes"])
    interpreter = Interpreter(path=path, **answers)
    if tuple(map(int, interpreter.version.split("."))) < _OLDEST:
        raise PackError(
            f"is Python {interpreter.version}, and unpacking takes 3.9 or later", where=path, hint=_OTHER_PYTHON
        )
    return interpreter


def _site_directories(root: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the install root within the tree, and its import paths, each with the Python that it is for.

    A flat tree has none. A Python is "3.9", or "" where the directory does not say (`lib/python3`).
    """
    for install_root in _install_roots(root):
        libs = list(_libs(root, install_root))
        if libs:
            return install_root, libs
    return "", []


def _install_roots(root: str) -> Iterator[str]:
    """Yield where an install tree may begin: `pip install --root` repeats the interpreter's own prefix."""
    yield from ("", "usr/local", "usr", "local")
    inner, names = "", _names(root)
    while len(names) == 1 and not os.path.islink(os.path.join(root, inner, names[0])):
        inner = os.path.join(inner, names[0])
        yield inner
        names = _names(os.path.join(root, inner))


def _libs(root: str, install_root: str) -> Iterator[tuple[str, str]]:
    for lib in ("lib64", "lib"):
        lib = os.path.join(install_root, lib)
        if os.path.islink(os.path.join(root, lib)):
            continue  # the lib64 of a virtual environment
        for name in _names(os.path.join(root, lib)):
            for site in ("site-packages", "dist-packages"):
                path = os.path.join(lib, name, site)
                if _PYTHON_LIB.fullmatch(name) and os.path.isdir(os.path.join(root, path)):
                    yield _python_of_lib(name), path


def _names(directory: str) -> list[str]:
    """Return the names in a directory, sorted; none if it is no directory."""
    if not os.path.isdir(directory):
        return []
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise _unreadable(error) from error


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
        raise _mismatch(os.path.join(root, path).rstrip("/"), f"Python {version}", interpreter)
    return fitting


def _scripts(root: str, install_root: str) -> str:
    path = os.path.join(install_root, "bin")
    is_package = os.path.exists(os.path.join(root, path, "__init__.py"))
    return path if os.path.isdir(os.path.join(root, path)) and not is_package else ""


def _check_venv(root: str, venv: dict[str, str], interpreter: Interpreter) -> None:
    version = ".".join((venv.get("version") or venv.get("version_info", "")).split(".")[:2])
    if version not in ("", interpreter.version):
        raise _mismatch(os.path.join(root, "pyvenv.cfg"), f"Python {version}", interpreter)


def shared_objects(tree: Tree) -> list[str]:
    """Return the paths of all shared objects of the tree."""
    return [entry.path for entry in tree.entries if entry.kind != "dir" and is_shared_object(entry.path)]


def is_shared_object(path: str) -> bool:
    """Whether a path is named like a shared object."""
    return ".so" in path and _SHARED_OBJECT.fullmatch(os.path.basename(path)) is not None


def needed_libc(source: Source, tree: Tree) -> str:
    """Return the C library that the tree's shared objects need, with the oldest glibc that will do: "glibc 2.28"."""
    name = source.interpreter.libc.partition(" ")[0]
    if name != "glibc":
        return name
    versions = set()
    for path in (os.path.join(source.root, path) for path in shared_objects(tree)):
        if not os.path.isfile(path):  # a link to nothing
            continue
        with open(path, "rb") as file:
            versions.update(_GLIBC_VERSION.findall(file.read()))
    newest = max((tuple(map(int, version.split(b"."))) for version in versions), default=())
    return " ".join(filter(None, (name, ".".join(map(str, newest)))))


def check_extensions(source: Source, tree: Tree) -> None:
    """Raise `PackError` if an extension module of the tree comes for other interpreters only."""
    interpreter = source.interpreter
    tags: dict[str, list[str]] = {}
    for path in shared_objects(tree):
        match = _EXTENSION_TAG.search(path)
        if match:
            tags.setdefault(path[: match.start()], []).append(match[1])
    for module, built_for in sorted(tags.items()):
        if not any(f".{tag}.so" in interpreter.extension_suffixes for tag in built_for):
            raise _mismatch(os.path.join(source.root, module), " and ".join(sorted(built_for)), interpreter)


def _mismatch(where: str, built_for: str, interpreter: Interpreter) -> PackError:
    return PackError(
        f"is for {built_for}, but {interpreter.path} is Python {interpreter.version} ({interpreter.soabi})",
        where=where,
        hint=_OTHER_PYTHON,
        tree=built_for,
        interpreter=interpreter.version,
    )


# --- warning -----------------------------------------------------------------------------------


def warnings(source: Source, tree: Tree) -> list[str]:
    """Return what will not work where the tree is unpacked, and what to do about it, a sentence or two each."""
    found = []
    venv = _venv_settings(source.root) or {}
    if venv.get("include-system-site-packages", "").lower() == "true":
        found.append(
            "pyvenv.cfg includes the system's site-packages, which are not packed. "
            "Make the environment without --system-site-packages."
        )
    packed = {entry.path for entry in tree.entries}
    for import_path in source.import_paths:
        directory = os.path.join(source.root, import_path)
        for name in _names(directory):
            if os.path.join(import_path, name) in packed:
                found += _warnings_of(source, directory, name)
    return found


def _warnings_of(source: Source, directory: str, name: str) -> Iterator[str]:
    path = os.path.join(directory, name)
    if _is_editable(path):
        shown = os.path.relpath(path, source.root)
        yield f"{shown}: an editable install, whose code is not in the tree. Install it without -e."
    elif name.endswith(".pth") and os.path.isfile(path):
        for number, line in enumerate(_text(path).splitlines(), 1):
            complaint = _complaint_about(line.strip(), directory, source)
            if complaint:
                yield f"{os.path.relpath(path, source.root)}, line {number}: {complaint}"


def _is_editable(path: str) -> bool:
    name = os.path.basename(path)
    if name.endswith(".dist-info"):
        return bool(re.search(r'"editable"\s*:\s*true', _text(os.path.join(path, "direct_url.json"))))
    return name.endswith(".egg-link") or (name.startswith("__editable__") and name.endswith(".pth"))


def _complaint_about(line: str, directory: str, source: Source) -> str:
    """Return what is wrong with a line of a .pth file, or ""."""
    if not line or line.startswith("#"):
        return ""
    if line.startswith(("import ", "import\t")):
        outside = [path for path in _QUOTED_PATH.findall(line) if not _is_inside(path, source.root)]
        return f"names {outside[0]}, which is not packed. Make sure that it exists at run time." if outside else ""
    if not _is_inside(os.path.join(directory, line), source.root):
        return f"{line} is outside the tree and is not packed. Install what is there into the tree."
    if os.path.isabs(line) and not source.target:
        return f"{line} holds only while the tree is at {source.root}. Write it relative to the .pth file."
    return ""


def _is_inside(path: str, root: str) -> bool:
    path = os.path.normpath(path)
    return path == root or path.startswith(root.rstrip("/") + "/")


def _text(path: str) -> str:
    """Return a small text file; "" if there is none."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise _unreadable(error) from error


# --- scanning ----------------------------------------------------------------------------------


def scan(source: Source, exclude: Sequence[str] = (), output: str = "") -> Tree:
    """Return the members of the tree, without what one of the globs in `exclude` matches, and without `output`.

    A glob is matched, as `fnmatch` does it, against a member's name, its path, and its path below an
    import path; a directory that matches is dropped with all that is in it. What unpackenv itself
    keeps at the root of a tree is never a member. Raises `PackError` for sockets, FIFOs and devices,
    and for what cannot be read.
    """
    latest = _latest_mtime()
    is_excluded = _Excludes(exclude, source.import_paths)
    found: list[tuple[Entry, _Inode]] = []
    try:
        root = os.stat(source.root)
        directories = [""]
        while directories:
            directory = directories.pop()
            with os.scandir(os.path.join(source.root, directory)) as items:
                for item in items:
                    path = os.path.join(directory, item.name)
                    if path.startswith(_RESERVED) or item.path == output or is_excluded(path):
                        continue
                    found.append(_entry(path, item, latest))
                    if item.is_dir(follow_symlinks=False):
                        directories.append(path)
    except OSError as error:
        raise _unreadable(error) from error
    found.sort(key=lambda pair: _position(pair[0]))
    _, mtime = _mode_and_mtime(root, latest)
    return Tree(tuple(_with_hard_links(found)), mtime, tuple(is_excluded.unused))


def left_out(source: Source, tree: Tree, globs: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Return the members that `scan` would leave out with these globs, and those globs that something matches."""
    is_excluded = _Excludes(globs, source.import_paths)
    found: list[Entry] = []
    directories: set[str] = set()
    for entry in tree.entries:
        if entry.path.rpartition("/")[0] in directories or is_excluded(entry.path):
            found.append(entry)
            if entry.kind == "dir":
                directories.add(entry.path)
    return found, [glob for glob in globs if glob not in is_excluded.unused]


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries as they are packed: what is in a directory follows it, its files before its subdirectories.

    Names are ordered by their bytes. So the files of one directory are neighbours, and the order
    depends on nothing but paths.
    """
    return tuple(sorted(entries, key=_position))


def without(entries: Iterable[Entry], dropped: Set[str]) -> list[Entry]:
    """Return the entries whose path is not in `dropped`; the next name of a file that lost its first one takes over."""
    sizes: dict[str, int] = {}
    heirs: dict[str, str] = {}
    kept = []
    for entry in entries:
        if entry.path in dropped:
            sizes[entry.path] = entry.size
        elif entry.link in dropped and entry.kind == "hardlink":
            heir = heirs.setdefault(entry.link, entry.path)
            if heir == entry.path:
                kept.append(entry._replace(kind="file", size=sizes[entry.link], link=""))
            else:
                kept.append(entry._replace(link=heir))
        else:
            kept.append(entry)
    return kept


_Inode = tuple[int, int]
_KINDS = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}


class _Excludes:
    """Whether a path is excluded, given that the directories above it are not."""

    def __init__(self, globs: Sequence[str], import_paths: Sequence[str]) -> None:
        self._globs = [(glob, re.compile(fnmatch.translate(glob.rstrip("/"))).match) for glob in globs]
        self._prefixes = [f"{path}/" for path in import_paths if path]
        self.unused = list(dict.fromkeys(globs))

    def __call__(self, path: str) -> bool:
        hits = {glob for glob, matches in self._globs if any(map(matches, self._spellings(path)))}
        if hits:
            self.unused = [glob for glob in self.unused if glob not in hits]
        return bool(hits)

    def _spellings(self, path: str) -> Iterator[str]:
        yield path
        yield path.rpartition("/")[2]
        for prefix in self._prefixes:
            if path.startswith(prefix):
                yield path[len(prefix) :]


def _entry(path: str, item: os.DirEntry[str], latest: int | None) -> tuple[Entry, _Inode]:
    status = item.stat(follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise PackError("is a socket, FIFO or device", where=item.path, hint="Leave it out with --exclude")
    if kind == "file" and not os.access(item.path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), item.path)
    size = status.st_size if kind == "file" else 0
    link = os.readlink(item.path) if kind == "symlink" else ""
    return Entry(path, kind, *_mode_and_mtime(status, latest), size, link), (status.st_dev, status.st_ino)


def _with_hard_links(found: Iterable[tuple[Entry, _Inode]]) -> Iterator[Entry]:
    """Yield the entries; a file that has been there under another name becomes a hard link to that."""
    first_names: dict[_Inode, str] = {}
    for entry, inode in found:
        first_name = first_names.setdefault(inode, entry.path) if entry.kind == "file" else entry.path
        yield entry if first_name == entry.path else entry._replace(kind="hardlink", size=0, link=first_name)


def _mode_and_mtime(status: os.stat_result, latest: int | None) -> tuple[int, int]:
    mtime = status.st_mtime_ns // 1_000_000_000
    return status.st_mode & 0o777, mtime if latest is None else min(mtime, latest)


def _latest_mtime() -> int | None:
    setting = os.environ.get("SOURCE_DATE_EPOCH")
    if not setting:
        return None
    if not setting.isdecimal():
        raise SettingError(f"{setting!r} is not a number of seconds since 1970", where="SOURCE_DATE_EPOCH")
    return int(setting)


def _position(entry: Entry) -> list[tuple[bool, bytes]]:
    *directories, name = os.fsencode(entry.path).split(b"/")
    return [*((True, directory) for directory in directories), (entry.kind == "dir", name)]


def _unreadable(error: OSError) -> PackError:
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    return PackError(f"cannot be read ({error.strerror})", where=where)


# --- summing up --------------------------------------------------------------------------------


def packages(tree: Tree, source: Source) -> dict[str, int]:
    """Return the bytes of each top-level package, largest first.

    What is installed beside a package counts for it: `foo-1.0.dist-info`, `foo.libs`, `foo.py`.
    Names are compared, and given, in lower case with `_` for `-`.
    """
    sizes: Counter[str] = Counter()
    for entry in tree.entries:
        sizes[package_of(entry.path, source)] += entry.size
    return dict(sorted(((name, size) for name, size in sizes.items() if size), key=lambda item: (-item[1], item[0])))


def package_of(path: str, source: Source) -> str:
    """Return the name of the top-level package to which a path of the tree belongs, as `packages` has it."""
    for import_path in source.import_paths:
        path = path[len(import_path) + 1 :] if import_path and path.startswith(f"{import_path}/") else path
    top, _, rest = path.partition("/")
    if top == "__pycache__" and rest:
        top = rest
    distribution = _DISTRIBUTION.fullmatch(top)
    name = distribution[1] if distribution else top.split(".")[0] or top
    return name.lower().replace("-", "_")
