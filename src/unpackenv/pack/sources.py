"""Choose the modules that are packed as bytecode only: `pkg/mod.pyc`, which the import system finds by itself.

    the modules of a package -> what in it reads sources -> kept, with the reason; else left out

A package is what lies below one name in an import path. It keeps its sources if it is known to read them, or if a look
at its code finds that it does. The look is at syntax alone, so it may keep too much.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.source import PackSource, unreadable

MODES = ("all", "none")
KNOWN_READERS = {
    "IPython": "shows the sources of what it is asked about",
    "numba": "compares a function's source with its cache",
    "tensorflow": "translates functions from their sources (autograph)",
    "torch": "compiles functions from their sources (torch.jit.script, torch.compile)",
    "transformers": "reads its own sources for its documentation",
    "triton": "compiles kernels from their sources",
}
"""Packages that do not work without their sources, or lose what they are used for."""
KNOWN_OTHERS = {
    "numpy": "for builds, and for numpy.source(), which prints one",
    "scipy": "for its documentation only",
    "sklearn": "for builds only",
    "werkzeug": "its debugger only, which then shows no lines",
}
"""Packages that ask for sources somewhere, and work without them."""
_ASKS = ("findsource", "getcomments", "getsource", "getsourcefile", "getsourcelines")
_HINT = re.compile(rb"getsource|findsource|getcomments|jit|__file__|get_data")
_TESTS = {"test", "tests"}


@dataclass
class Chosen:
    """Which sources are left out, and which packages keep theirs."""

    left_out: set[str] = field(default_factory=set)
    """Their paths in the tree."""
    kept: dict[str, str] = field(default_factory=dict)
    """The packages that keep their sources, and why."""
    unused: list[str] = field(default_factory=list)
    """Names of packages to keep that are not there."""


def choose(tree: Tree, source: PackSource, keep: Sequence[str]) -> Chosen:
    """Choose the sources of a tree that are left out: those of all packages but `keep`, and such that read their own.

    Raises `PackError` if a source cannot be read.
    """
    chosen = Chosen()
    modules: dict[str, list[Entry]] = {}
    paths = {entry.path for entry in tree.entries}
    for entry in tree.entries:
        package = _package_of(entry, source)
        if package and f"{entry.path}c" not in paths:
            modules.setdefault(package, []).append(entry)
    wanted = {_normal(name): name for name in keep}
    for package, entries in modules.items():
        reason = "as asked" if wanted.pop(_normal(package), "") else _why_kept(package, entries, source)
        if reason:
            chosen.kept[package] = reason
        else:
            chosen.left_out.update(entry.path for entry in entries)
    chosen.unused = list(wanted.values())
    return chosen


def _normal(name: str) -> str:
    return name.lower().replace("-", "_")


def _package_of(entry: Entry, source: PackSource) -> str:
    """Return the package of a module that can be imported by its name; "" for all else."""
    if entry.kind != "file" or not entry.path.endswith(".py"):
        return ""
    for top in source.import_paths:
        path = entry.path[len(top) + 1 :] if top and entry.path.startswith(f"{top}/") else "" if top else entry.path
        names = path[: -len(".py")].split("/")
        if all(map(str.isidentifier, names)):
            return names[0]
    return ""


def _why_kept(package: str, entries: Sequence[Entry], source: PackSource) -> str:
    if package in KNOWN_READERS or package in KNOWN_OTHERS:
        return KNOWN_READERS.get(package, "")
    for entry in entries:
        if not _TESTS.isdisjoint(entry.path.split("/")):
            continue
        try:
            with open(os.path.join(source.root, entry.path), "rb") as file:
                text = file.read()
        except OSError as error:
            raise unreadable(error) from error
        if _HINT.search(text):
            for line, what in _readings(text):
                return f"{entry.path}, line {line}: {what}"
    return ""


def _readings(text: bytes) -> Iterator[tuple[int, str]]:
    """Yield where a module may read sources, and how."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # that of another Python
        yield 1, "cannot be looked at"
        return
    files = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "__file__"]
    for node in ast.walk(tree):
        if files and isinstance(node, ast.Constant) and node.value in (".py", "*.py"):
            yield node.lineno, "looks for sources beside it (__file__)"
        if isinstance(node, ast.Call):
            name = _name_of(node.func)
            if name in _ASKS:
                yield node.lineno, f"asks for sources ({name})"
            elif name in ("jit", "njit", "vectorize", "guvectorize") and _has_true(node, "cache"):
                yield node.lineno, "keeps compiled functions beside their sources (cache=True)"
            elif name in ("open", "get_data") and (_names_source(node) or (name == "open" and _is_own_file(node))):
                yield node.lineno, f"reads a source ({name})"
        if isinstance(node, ast.Attribute) and node.attr == "script" and _name_of(node.value) == "jit":
            yield node.lineno, "compiles functions from their sources (jit.script)"
        if isinstance(node, (ast.Call, ast.BinOp)) and _has_file(node) and _names_source(node):
            yield node.lineno, "looks for a source beside it (__file__)"


def _name_of(node: ast.expr) -> str:
    """Return the last name of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _has_true(call: ast.Call, name: str) -> bool:
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is True for word in call.keywords
    )


def _has_file(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "__file__" for each in ast.walk(node))


def _is_own_file(call: ast.Call) -> bool:
    """Whether a call begins with `__file__`."""
    return bool(call.args) and _name_of(call.args[0]) == "__file__"


def _names_source(node: ast.AST) -> bool:
    """Whether an expression has the name of a source in it."""
    constants = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return any(isinstance(value, str) and value.endswith(".py") for value in constants)
