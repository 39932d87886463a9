"""What imports what: the layers of the project, and what a start may load."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import SOURCE, pack_tree, result_of, write_tree

PACKAGE = Path(SOURCE) / "unpackenv"
# What each layer may import of ours, beside itself.
ALLOWED = {
    "errors": set(),
    "unpatched": set(),
    "archive": {"errors", "unpatched"},
    "start": {"errors", "unpatched", "archive", "__init__"},
    "pack": {"errors", "archive", "__init__"},
    "report": {"errors", "archive", "start", "pack", "__init__"},
    "cli": {"errors", "archive", "start", "pack", "report", "__init__"},
    "__main__": {"start", "cli"},
    "__init__": {"errors", "start"},
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
    """Yield every module of ours that a file imports, at any place: also in functions, and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "unpackenv")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            if node.module and node.module.split(".")[0] == "unpackenv":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> str:
    """Return the layer of a dotted name: what is no layer is something in `unpackenv/__init__.py`."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    return name if name in ALLOWED else "__init__"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].partition(".")[0]
    assert own in ALLOWED, f"{own} is a new layer: say above what it may import"
    found = {layer(name) for name in imported(path)}
    assert found <= ALLOWED[own] | {own}


@pytest.mark.parametrize("name", ALONE)
def test_stands_alone(name: str) -> None:
    assert list(imported(PACKAGE / name)) == []


def test_every_layer_is_seen() -> None:
    seen = {path.relative_to(PACKAGE).parts[0].partition(".")[0] for path in modules()}
    assert {"archive", "cli", "errors", "pack", "report", "start"} <= seen
    assert "unpackenv.start.bootstrap.bootstrap" in set(imported(PACKAGE / "__init__.py"))
    assert {"pack", "report"} <= {layer(name) for path in (PACKAGE / "cli").glob("*.py") for name in imported(path)}


def test_logs_are_read_without_what_starts() -> None:
    """They come from elsewhere: what reads them knows their format, and nothing of this machine."""
    found = {layer(name) for path in (PACKAGE / "report/timings").rglob("*.py") for name in imported(path)}
    assert found <= {"report", "archive", "errors"}


def loaded(code: str) -> set[str]:
    """Return the modules that `code` adds to those of a bare interpreter, whose `site` may have imported much."""
    result = result_of(f"import sys\nbefore = set(sys.modules)\n{code}\nresult = sorted(set(sys.modules) - before)")
    return set(result)


WARM = {
    "unpackenv", "unpackenv.archive", "unpackenv.archive.facts", "unpackenv.archive.interpreter",
    "unpackenv.archive.trailer", "unpackenv.errors", "unpackenv.start", "unpackenv.start.bootstrap",
    "unpackenv.start.importpaths", "unpackenv.start.places", "unpackenv.start.report", "unpackenv.start.settings",
    "unpackenv.start.shim", "unpackenv.start.shim.unpackenv_site", "unpackenv.start.stamp", "unpackenv.unpatched",
}  # fmt: skip
WARM_STDLIB = {"__future__", "_struct", "fcntl", "struct", "zlib"}


def test_import_unpackenv(archive: Path, target: Path) -> None:
    assert loaded("import unpackenv") - {"__future__"} == {"unpackenv", "unpackenv.errors"}


def test_warm_start(archive: Path, target: Path) -> None:
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
