"""Check that a tree looks like installed packages, before time is spent on packing it.

check                  refuses a tree whose packages no start could import
warnings  -> [text]    possible mistakes, and what to do about them
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from unpackenv.errors import PackError
from unpackenv.pack.entries import Tree
from unpackenv.pack.source import PackSource, names_in

_METADATA = (".dist-info", ".egg-info")
_MODULES = (".py", ".pyc", ".so", ".pth")
_SITES = ("site-packages", "dist-packages")
_LAYER = "python"  # the packages of a cloud function's layer
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


def check(source: PackSource, tree: Tree) -> None:
    """Raise `PackError` for a tree without files, or whose packages are where no import looks."""
    if not any(entry.kind != "dir" for entry in tree.entries):
        excluded = ", or all of them are excluded" if names_in(source.root) else ""
        raise PackError(
            f"holds no files{excluded}", where=source.root, hint="Name the folder that holds the installed packages"
        )
    if source.kind == "site-packages":
        problem, hint = _misplaced(source.root, _Members(tree))
        if problem:
            raise PackError(problem, where=source.root, hint=hint)


def warnings(source: PackSource, tree: Tree) -> list[str]:
    """Return possible mistakes, a sentence or two each."""
    members = _Members(tree)
    if not any(map(members.has_importable, source.import_paths)):
        places = " or ".join(os.path.join(source.root, path).rstrip("/") for path in source.import_paths)
        return [f"there is nothing to import in {places}: no module and no package."]
    texts = []
    top = members.names("")
    if source.kind == "site-packages" and not members.has_metadata(""):
        if "__init__.py" in top:
            texts.append(
                f"{source.root} is a package itself (__init__.py). "
                "To import it by its name, pack the folder that it is in."
            )
        project_files = [name for name in _PROJECT_FILES if name in top]
        if project_files:
            texts.append(
                f"{source.root} is the source of a project ({project_files[0]}), without the packages that it needs. "
                "Install it (pip install --target DIR .) and pack DIR."
            )
    return texts


class _Members:
    """The members of a tree, by directory."""

    def __init__(self, tree: Tree) -> None:
        self._kinds = {entry.path: entry.kind for entry in tree.entries}
        self._names: dict[str, list[str]] = {}
        for path in self._kinds:
            directory, name = posixpath.split(path)
            self._names.setdefault(directory, []).append(name)

    def names(self, directory: str) -> list[str]:
        return self._names.get(directory, [])

    def directories(self, directory: str = "") -> Iterator[str]:
        """Yield the paths of the directories in a directory."""
        paths = (posixpath.join(directory, name) for name in self.names(directory))
        return (path for path in paths if self._kinds[path] == "dir")

    def has(self, path: str) -> bool:
        return path in self._kinds

    def has_metadata(self, directory: str) -> bool:
        return any(name.endswith(_METADATA) for name in self.names(directory))

    def has_modules(self, directory: str) -> bool:
        """Whether modules, or packages with an `__init__.py`, are directly in a directory."""
        if any(name.endswith(_MODULES) for name in self.names(directory)):
            return True
        return any(self.has(posixpath.join(directory, name, "__init__.py")) for name in self.names(directory))

    def has_importable(self, directory: str) -> bool:
        """Whether there are modules in a directory, or below it in what can be namespace packages."""
        if self.has_modules(directory):
            return True
        return any(
            posixpath.basename(path).isidentifier() and self.has_importable(path)
            for path in self.directories(directory)
        )

    def site_below(self) -> str:
        """Return the nearest directory below the root with installed packages; "" if there is none."""
        for path in sorted(self._names, key=lambda path: (path.count("/"), path)):
            has_site_name = posixpath.basename(path) in _SITES or path == _LAYER
            if path and (self.has_metadata(path) or (has_site_name and self.has_importable(path))):
                return path
        return ""


def _misplaced(root: str, members: _Members) -> tuple[str, str]:
    """Return what is wrong with a flat tree, and what to do about it; "" twice for a good one."""
    for path in members.directories():
        if members.has(f"{path}/pyvenv.cfg"):
            return (
                f"holds a virtual environment ({path}), whose packages cannot be imported from there",
                f"Pack {os.path.join(root, path)}, or leave it out with --exclude {path}",
            )
    if members.has_metadata(""):
        return "", ""
    if members.has_modules(""):
        if members.has("__init__.py") and _lies_among_packages(root):
            return "is one package, and could not be imported by its name", f"Pack {os.path.dirname(root)}"
        return "", ""
    wheels = [name for name in members.names("") if name.endswith(".whl")]
    if wheels:
        return (
            f"holds wheels (such as {wheels[0]}), not what is installed from them",
            f"Install them (pip install --no-index --find-links {root} --target DIR NAME) and pack DIR",
        )
    site = members.site_below()
    if site:
        return f"has its packages in {site}, where no import looks", f"Pack {os.path.join(root, site)}"
    return "", ""


def _lies_among_packages(root: str) -> bool:
    parent, name = os.path.split(root)
    prefix = f"{name.lower()}_"
    metadata = (each.lower().replace("-", "_") for each in names_in(parent) if each.endswith(_METADATA))
    return os.path.basename(parent) in _SITES or any(each.startswith(prefix) for each in metadata)
