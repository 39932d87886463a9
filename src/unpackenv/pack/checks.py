"""Check that a tree can work where it is unpacked: its interpreter, its system, its C library, and missing files.

check_extensions              refuses extension modules for other interpreters
check_wheels                  refuses packages that were installed for another system
needed_libc -> text           the C library that a start compares with its own
warnings    -> [text]         what will not work, and what to do about it
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from unpackenv.errors import PackError
from unpackenv.pack.entries import Tree
from unpackenv.pack.source import Interpreter, PackSource, mismatch, names_in, unreadable, venv_settings

# A shared object lists the versions of glibc symbols that it needs.
_GLIBC_VERSION = re.compile(rb"\0GLIBC_(\d+\.\d+(?:\.\d+)?)(?=\0)")
_LONGEST_VERSION = 64
_SHARED_OBJECT = re.compile(r".+\.so(?:\.\d+)*")
_EXTENSION_TAG = re.compile(r"\.((?:cpython|pypy|graalpy)[^./]*)\.so$")
_PLATFORMS = re.compile(r"^Tag: *\S+-(\S+)\s*$", re.MULTILINE)
_LINUX = re.compile(r"(?:many|musl)?linux(?:_\d+_\d+|\d+)?_(.+)")
_ELSEWHERE = ("macosx", "win32", "win_", "ios", "android", "emscripten", "pyodide")
# A kernel for one machine of a family runs programs for the others.
_FAMILIES = (("x86_64", "i386", "i486", "i586", "i686"), ("aarch64", "arm64", "armv6l", "armv7l", "armv8l"))
_PIECE = 1 << 20
_QUOTED_PATH = re.compile(r"""(?<=['"])/[^'"]+""")


def shared_objects(tree: Tree) -> list[str]:
    """Return the paths of all shared objects of the tree."""
    return [entry.path for entry in tree.entries if entry.kind != "dir" and is_shared_object(entry.path)]


def is_shared_object(path: str) -> bool:
    """Whether a path is named like a shared object."""
    return ".so" in path and _SHARED_OBJECT.fullmatch(os.path.basename(path)) is not None


def needed_libc(source: PackSource, tree: Tree) -> str:
    """Return the C library that the tree's shared objects need, with the oldest glibc that will do: "glibc 2.28"."""
    name = source.interpreter.libc.partition(" ")[0]
    if name != "glibc":
        return name
    versions: set[bytes] = set()
    for path in (os.path.join(source.root, path) for path in shared_objects(tree)):
        if os.path.isfile(path):  # not a broken link
            versions.update(_glibc_versions(path))
    newest = max((tuple(map(int, version.split(b"."))) for version in versions), default=())
    return " ".join(filter(None, (name, ".".join(map(str, newest)))))


def _glibc_versions(path: str) -> Iterator[bytes]:
    """Yield the glibc versions that a shared object names; read in pieces, to handle a stop signal between them."""
    piece = b""
    with open(path, "rb") as file:
        while more := file.read(_PIECE):
            piece = piece[-_LONGEST_VERSION:] + more
            yield from _GLIBC_VERSION.findall(piece)


def check_extensions(source: PackSource, tree: Tree) -> None:
    """Raise `PackError` if an extension module of the tree was built for other interpreters only."""
    interpreter = source.interpreter
    tags: dict[str, list[str]] = {}
    for path in shared_objects(tree):
        match = _EXTENSION_TAG.search(path)
        if match:
            tags.setdefault(path[: match.start()], []).append(match[1])
    for module, built_for in sorted(tags.items()):
        if not any(f".{tag}.so" in interpreter.extension_suffixes for tag in built_for):
            raise mismatch(os.path.join(source.root, module), " and ".join(sorted(built_for)), interpreter)


def check_wheels(source: PackSource, tree: Tree) -> None:
    """Raise `PackError` if a package was installed from a wheel for another system or machine."""
    interpreter = source.interpreter
    wheels = [entry.path for entry in tree.entries if entry.path.endswith(".dist-info/WHEEL")]
    for path in wheels:
        tags = _PLATFORMS.findall(_text(os.path.join(source.root, path)))
        platforms = sorted({platform for tag in tags for platform in tag.split(".")})
        if platforms and not any(_runs_on(platform, interpreter) for platform in platforms):
            raise PackError(
                f"was installed for {' and '.join(platforms)}, but {interpreter.path} runs on "
                f"{interpreter.system} {interpreter.machine}",
                where=os.path.join(source.root, os.path.dirname(path)),
                hint="Install the packages on the system that will run them",
            )


def _runs_on(platform: str, interpreter: Interpreter) -> bool:
    linux = _LINUX.fullmatch(platform)
    if not linux or interpreter.system != "linux":
        return not platform.startswith(_ELSEWHERE)
    family = next((family for family in _FAMILIES if interpreter.machine in family), (interpreter.machine,))
    return linux[1] in family


def warnings(source: PackSource, tree: Tree) -> list[str]:
    """Return what will not work where the tree is unpacked, and what to do about it, a sentence or two each."""
    texts = list(_private(source, tree))
    venv = venv_settings(source.root) or {}
    if venv.get("include-system-site-packages", "").lower() == "true":
        texts.append(
            "pyvenv.cfg includes the system's site-packages, which are not packed. "
            "Make the environment without --system-site-packages."
        )
    packed = {entry.path for entry in tree.entries}
    for import_path in source.import_paths:
        directory = os.path.join(source.root, import_path)
        for name in names_in(directory):
            if os.path.join(import_path, name) in packed:
                texts += _warnings_of(source, directory, name)
    return texts


def _private(source: PackSource, tree: Tree) -> Iterator[str]:
    """Yield a warning if only the owner can read some members, as with umask 077."""
    private = [entry.path for entry in tree.entries if not entry.mode & (0o011 if entry.kind == "dir" else 0o044)]
    if private:
        count = "1 file or folder" if len(private) == 1 else f"{len(private):,} files and folders"
        yield (
            f"only the owner can read {count} (such as {private[0]}), so another user in the image could not import "
            f"them. If that is not on purpose: chmod -R go+rX {source.root}"
        )


def _warnings_of(source: PackSource, directory: str, name: str) -> Iterator[str]:
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


def _complaint_about(line: str, directory: str, source: PackSource) -> str:
    """Return what is wrong with a line of a .pth file, or ""."""
    if not line or line.startswith("#"):
        return ""
    if line.startswith(("import ", "import\t")):
        outside = [path for path in _QUOTED_PATH.findall(line) if not _is_inside(path, source.root)]
        return f"names {outside[0]}, which is not packed. Make sure that it exists at run time." if outside else ""
    if not _is_inside(os.path.join(directory, line), source.root):
        return f"{line} is outside the tree and is not packed. Install what is there into the tree."
    if os.path.isabs(line) and not source.target:
        return f"{line} works only while the tree is at {source.root}. Write it relative to the .pth file."
    return ""


def _is_inside(path: str, root: str) -> bool:
    path = os.path.normpath(path)
    return path == root or path.startswith(root.rstrip("/") + "/")


def _text(path: str) -> str:
    """Return the text of a small file; "" if there is no such file."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise unreadable(error) from error
