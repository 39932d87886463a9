"""Which module imports which: the rooms of the project, and the modules that a start may load."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.processes import result_of
from rig.environment import SOURCE
from rig.sites import pack_tree, write_tree

PACKAGE = Path(SOURCE) / "unpackenv"
# The rooms, from the lowest: what is in one imports from its own and from those below, and nothing else.
ROOMS = {
    "errors": ("errors.py", "unpatched.py"),
    "archive": ("archive/**/*.py",),
    "machine": ("start/machine/*.py",),
    "what a start knows": (
        "start/__init__.py", "start/command.py", "start/importpaths.py", "start/locations.py",
        "start/process.py", "start/report.py", "start/settings.py", "start/shim/*.py", "start/stamp.py",
        "start/log/*.py",
    ),
    "tree": ("start/tree/*.py",),
    "python": ("start/python/*.py",),
    "remote": ("start/remote/*.py",),
    "unpack": ("start/unpack/*.py",),
    "fill": ("start/fill/*.py",),
    "published": ("start/published.py",),
    "cold": ("start/cold/*.py",),
    "doors": ("start/bootstrap.py", "start/entrypoint.py", "start/hook.py", "start/launcher.py"),
    "unpackenv": ("__init__.py",),
    "contrib": ("contrib/*.py",),
    "pack": ("pack/*.py",),
    "publish": ("publish/*.py",),
    "report": ("report/*.py",),
    "timings": ("report/timings/*.py",),
    "doctor": ("report/doctor/*.py",),
    "analyze": ("report/analyze/*.py",),
    "cli": ("cli/*.py",),
    "__main__": ("__main__.py", "python.py"),
}  # fmt: skip
# Rooms side by side: none of one knows another, or what a room has no business with.
APART = {
    "contrib": {name for name in ROOMS if name not in ("errors", "unpackenv")},
    "pack": {name for name in ROOMS if name not in ("errors", "archive", "unpackenv")},
    "publish": {name for name in ROOMS if name not in ("errors", "archive", "remote")},
    "timings": {name for name in ROOMS if name not in ("errors", "report")},
    "doctor": {"pack"},
    "__main__": {"archive"},
}
# Modules that stand alone: other interpreters run them, without unpackenv.
ALONE = ("archive/interpreter.py", "start/shim/unpackenv_site.py", "pack/compiler.py")
# A warm start imports none of these.
HEAVY = (
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "hashlib",
    "inspect", "json", "logging", "lzma", "multiprocessing", "pathlib", "psutil", "random", "re", "shutil", "signal",
    "socket", "subprocess", "tarfile", "tempfile", "threading", "traceback", "typing", "zstandard",
)  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield every module of unpackenv that a file imports, at any place: also in functions, and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "unpackenv")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            if node.module and node.module.split(".")[0] == "unpackenv":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    found = [name for name, globs in ROOMS.items() if any(path in PACKAGE.glob(glob) for glob in globs)]
    assert len(found) == 1, f"{path} is in {found or 'no room'}: say above where it belongs"
    return found[0]


def file_of(module: str) -> Path:
    """Return the file of a dotted name: of the module, or of the one that has the name in it."""
    parts = module.split(".")[1:]
    for end in (len(parts), len(parts) - 1):
        place = PACKAGE.joinpath(*parts[:end])
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.exists():
                return path
    raise AssertionError(f"there is no {module}")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path: Path) -> None:
    own = room_of(path)
    found = {room_of(file_of(name)) for name in imported(path)} - {own}
    below = list(ROOMS)[: list(ROOMS).index(own)]
    assert found <= set(below) - APART.get(own, set())


def test_there_is_no_circle() -> None:
    """Of modules that import each other, at the top, in functions, or for type checkers."""
    imports = {path: {file_of(name) for name in imported(path)} - {path} for path in modules()}
    while free := {path for path, others in imports.items() if not others} | set(imports) - set().union(
        *imports.values()
    ):
        imports = {path: others - free for path, others in imports.items() if path not in free}
    assert not imports


@pytest.mark.parametrize(
    "path", [path for path in modules() if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_a_room_says_what_lives_there(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_a_class_name_means_one_thing() -> None:
    nodes = [node for path in modules() for node in ast.walk(ast.parse(path.read_text()))]
    names = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    assert not {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize("name", ALONE)
def test_what_a_start_loads_first_imports_nothing_of_the_package(name: str) -> None:
    assert list(imported(PACKAGE / name)) == []


def test_every_room_is_seen() -> None:
    assert {room_of(path) for path in modules()} == set(ROOMS)
    assert "unpackenv.start.bootstrap.bootstrap" in set(imported(PACKAGE / "__init__.py"))
    seen = {room_of(file_of(name)) for path in (PACKAGE / "cli").glob("*.py") for name in imported(path)}
    assert {"pack", "report", "doctor", "doors"} <= seen


def loaded(code: str) -> set[str]:
    """Return the modules that `code` adds to those of a bare interpreter, whose `site` may have imported much."""
    result = result_of(f"import sys\nbefore = set(sys.modules)\n{code}\nresult = sorted(set(sys.modules) - before)")
    return set(result)


WARM = {
    "unpackenv", "unpackenv.archive", "unpackenv.archive.facts", "unpackenv.archive.interpreter",
    "unpackenv.archive.trailer", "unpackenv.errors", "unpackenv.start", "unpackenv.start.bootstrap",
    "unpackenv.start.importpaths", "unpackenv.start.locations", "unpackenv.start.process",
    "unpackenv.start.published", "unpackenv.start.report", "unpackenv.start.settings", "unpackenv.start.shim",
    "unpackenv.start.shim.unpackenv_site", "unpackenv.start.stamp", "unpackenv.unpatched",
}  # fmt: skip
WARM_STDLIB = {"__future__", "fcntl", "gc"}


def test_to_import_it_loads_two_modules(archive: Path, target: Path) -> None:
    assert loaded("import unpackenv") - {"__future__"} == {"unpackenv", "unpackenv.errors"}


def test_a_warm_start_loads_nothing_heavy(archive: Path, target: Path) -> None:
    code = f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})"
    cold = loaded(code)
    warm = loaded(code)
    assert warm == WARM | (WARM_STDLIB & warm), "what a warm start imports has changed: is it worth its milliseconds?"
    assert not warm & set(HEAVY)
    assert not {name for name in cold if not name.startswith("unpackenv.")} & set(HEAVY)


@pytest.mark.parametrize(
    ("codec", "others"), [("zstd", {"lzma", "xz", "xz_format"}), ("xz", {"zstd", "zstd_extension"})]
)
def test_a_cold_start_imports_no_other_codec(tmp_path: Path, codec: str, others: set[str]) -> None:
    """With a thread beside it, it runs in this process, whose modules can be seen."""
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": ""}), codec)
    code = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    code += f"import unpackenv; unpackenv.bootstrap({str(tmp_path / 'archive')!r}, {str(tmp_path / 'tree')!r})"
    found = {name.rpartition(".")[2] for name in loaded(code)}
    assert codec in found
    assert not found & others
