"""Which distribution each file of a tree belongs to: `PIL`, `pillow.libs` and `pillow-11.0.dist-info` are Pillow.

owners -> function       the distribution of a path
sizes  -> {name: bytes}  the size of each distribution
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.metadata import Distribution

from unpackenv.pack.entries import Tree
from unpackenv.pack.source import PackSource

_OF_PACKAGE = re.compile(r"([^-]+)(?:-.*)?\.(?:dist-info|egg-info|data)")


def sizes(source: PackSource, tree: Tree) -> dict[str, int]:
    """Return the bytes of each distribution, largest first."""
    owner = owners(source)
    totals: Counter[str] = Counter()
    for entry in tree.entries:
        totals[owner(entry.path)] += entry.size
    return dict(sorted(((name, size) for name, size in totals.items() if size), key=lambda item: (-item[1], item[0])))


def owners(source: PackSource) -> Callable[[str], str]:
    """Return a function from a path in the tree to its distribution.

    That is the distribution whose RECORD lists the path. If none does, as for bytecode that was made later, it is the
    one with most files of the same top-level name. If there is none, it is that name, in lower case with `_` for `-`.
    """
    listed: dict[str, str] = {}
    by_top: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for import_path in source.import_paths:
        for distribution in Distribution.discover(path=[os.path.join(source.root, import_path)]):
            name, files = _listed(distribution)
            for file in files:
                path = os.path.normpath(os.path.join(import_path, file))
                if path.startswith("../"):  # pip --target moves scripts, and leaves RECORD as it is
                    path = os.path.join(source.bin, os.path.basename(path))
                listed[path] = name
                by_top[_top(path, source)][name] += 1
            by_top[_comparable(name)][name] += 1
    top = {name: counts.most_common(1)[0][0] for name, counts in by_top.items()}

    def owner(path: str) -> str:
        name = _top(path, source)
        return listed.get(path) or top.get(name, name)

    return owner


def _listed(distribution: Distribution) -> tuple[str, list[str]]:
    """Return the name of a distribution, and the files that it lists, or the top-level names if it lists no files."""
    try:
        name = distribution.metadata.get("Name", "")
        record = distribution.read_text("RECORD")
        if record:  # `distribution.files` leaves out files that pip has moved
            files = [row[0] for row in csv.reader(record.splitlines()) if row]
        else:
            files = [*map(str, distribution.files or ()), *(distribution.read_text("top_level.txt") or "").split()]
    except (OSError, ValueError, csv.Error):  # a broken installation is packed all the same
        return "", []
    return name, files if name else []


def _top(path: str, source: PackSource) -> str:
    """Return the top-level name of a path; metadata and data directories have the name of their package."""
    for import_path in source.import_paths:
        path = path[len(import_path) + 1 :] if import_path and path.startswith(f"{import_path}/") else path
    top, _, rest = path.partition("/")
    if top == "__pycache__" and rest:
        top = rest
    of_package = _OF_PACKAGE.fullmatch(top)
    name = of_package[1] if of_package else top.split(".")[0] or top
    return _comparable(name)


def _comparable(name: str) -> str:
    return name.lower().replace("-", "_")
