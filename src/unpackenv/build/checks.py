"""Whether what is packed will work where it is unpacked: for which interpreter and C library, and what will be missing.

check_extensions              refuses extension modules for other interpreters
needed_libc -> text           what a start has to compare with its own
warnings    -> [text]         what will not work, and what to do about it
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from unpackenv.build.scan import Tree
from unpackenv.build.source import Source, mismatch, names_in, unreadable, venv_settings

# The names of the versions of glibc's symbols, of which a shared object lists those that it needs.
_GLIBC_VERSION = re.compile(rb"\0GLIBC_(\d+\.\d+(?:\.\d+)?)(?=\0)")
_SHARED_OBJECT = re.compile(r".+\.so(?:\.\d+)*")
_EXTENSION_TAG = re.compile(r"\.((?:cpython|pypy|graalpy)[^./]*)\.so$")
_QUOTED_PATH = re.compile(r"""(?<=['"])/[^'"]+""")


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
            raise mismatch(os.path.join(source.root, module), " and ".join(sorted(built_for)), interpreter)


def warnings(source: Source, tree: Tree) -> list[str]:
    """Return what will not work where the tree is unpacked, and what to do about it, a sentence or two each."""
    found = []
    venv = venv_settings(source.root) or {}
    if venv.get("include-system-site-packages", "").lower() == "true":
        found.append(
            "pyvenv.cfg includes the system's site-packages, which are not packed. "
            "Make the environment without --system-site-packages."
        )
    packed = {entry.path for entry in tree.entries}
    for import_path in source.import_paths:
        directory = os.path.join(source.root, import_path)
        for name in names_in(directory):
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
        raise unreadable(error) from error
