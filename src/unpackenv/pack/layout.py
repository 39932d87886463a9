"""Whether what was named looks like installed packages: said before time is spent on packing it.

check                  refuses what no start could import as it is meant
warnings  -> [text]    what may be a mistake, and what to do about it
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from unpackenv.errors import PackError
from unpackenv.pack.entries import Tree
from unpackenv.pack.source import Source, names_in

_METADATA = (".dist-info", ".egg-info")
_MODULES = (".py", ".pyc", ".so", ".pth")
_SITES = ("site-packages", "dist-packages")
_LAYER = "python"  # where a layer of a cloud function has its packages
_OF_A_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


def check(source: Source, tree: Tree) -> None:
    """Raise `PackError` for a tree that holds nothing, or whose packages are where no import looks."""
    if not any(entry.kind != "dir" for entry in tree.entries):
        besides = ", or nothing that is not left out" if names_in(source.root) else ""
        raise PackError(
            f"holds nothing{besides}", where=source.root, hint="Name the folder that holds the installed packages"
        )
    if source.kind == "site-packages":
        what, hint = _misplaced(source.root, _Members(tree))
        if what:
            raise PackError(what, where=source.root, hint=hint)


def warnings(source: Source, tree: Tree) -> list[str]:
    """Return what may be a mistake, a sentence or two each."""
    members = _Members(tree)
    if not any(map(members.has_importable, source.import_paths)):
        places = " or ".join(os.path.join(source.root, path).rstrip("/") for path in source.import_paths)
        return [f"there is nothing to import in {places}: no module and no package."]
    found = []
    top = members.names("")
    if source.kind == "site-packages" and not members.has_metadata(""):
        if "__init__.py" in top:
            found.append(
                f"{source.root} is a package itself (__init__.py). "
                "To import it by its name, pack the folder that it is in."
            )
        marks = [name for name in _OF_A_PROJECT if name in top]
        if marks:
            found.append(
                f"{source.root} is the source of a project ({marks[0]}), and what it needs is not in it. "
                "Install it (pip install --target DIR .) and pack DIR."
            )
    return found


class _Members:
    """What is in each directory of a tree."""

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
        """Whether modules, or packages with an `__init__.py`, are right in a directory."""
        if any(name.endswith(_MODULES) for name in self.names(directory)):
            return True
        return any(self.has(posixpath.join(directory, name, "__init__.py")) for name in self.names(directory))

    def has_importable(self, directory: str) -> bool:
        """Whether there are modules in a directory, or anywhere below it in what can be a namespace package."""
        if self.has_modules(directory):
            return True
        return any(
            posixpath.basename(path).isidentifier() and self.has_importable(path)
            for path in self.directories(directory)
        )

    def site_below(self) -> str:
        """Return the directory, not the root, that packages are installed in, the nearest one; "" if there is none."""
        for path in sorted(self._names, key=lambda path: (path.count("/"), path)):
            named_so = posixpath.basename(path) in _SITES or path == _LAYER
            if path and (self.has_metadata(path) or (named_so and self.has_importable(path))):
                return path
        return ""


def _misplaced(root: str, members: _Members) -> tuple[str, str]:
    """Return what is wrong with a flat tree, and what to do; "" twice if nothing is."""
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
    own = f"{name.lower()}_"
    beside = (each.lower().replace("-", "_") for each in names_in(parent) if each.endswith(_METADATA))
    return os.path.basename(parent) in _SITES or any(each.startswith(own) for each in beside)
