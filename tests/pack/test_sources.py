"""`pack --sources none` and `--optimize`: modules as bytecode only, and bytecode for every optimisation level."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import run, wrapper
from helpers.support import CODECS, TAR_FLAG
from rig.environment import environment
from rig.sites import TAG, write_tree
from unpackenv.pack import scan, source, sources

BODY = "def broken():\n    raise ValueError('on line 2')\n"
SITE: dict[str, Any] = {
    "app.py": "VERSION = 1\n",
    "package/__init__.py": "from .module import VALUE\n",
    "package/__main__.py": "import sys; print('main', __spec__.name, sys.argv[1:])\n",
    "package/module.py": f"VALUE = 'packed'\n{BODY}",
    "package/empty.py": "",
    "package/py.typed": "",
    "package/templates/page.html": "<p>",
    "package/tests/test_module.py": "import inspect; inspect.getsource(inspect)\n",
    "package/no-module.py": "VALUE = 2\n",
    "package/old_python.py": "print 'hello'\n",
    "namespace/part/module.py": "VALUE = 3\n",
    "share/some-tool/helper.py": "VALUE = 4\n",
    "reads/__init__.py": "import inspect\ndef show(f):\n    return inspect.getsource(f)\nTEXT = show(show)\n",
    "extra.pth": "more\n",
    "more/by_path.py": "VALUE = 5\n",
}
LEFT_OUT = [
    "app.py", "more/by_path.py", "namespace/part/module.py", "package/__init__.py", "package/__main__.py",
    "package/empty.py", "package/module.py", "package/tests/test_module.py",
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "site", SITE)


def packed(site: Path, *options: object) -> subprocess.CompletedProcess[str]:
    archive = site.parent / "packages.tar.zst"
    return run(wrapper("pack", site, "-o", archive, "--level", 1, *options))


def unpacked(site: Path, *options: object) -> Path:
    """Pack a tree, and return it as a start has it."""
    done = packed(site, *options)
    assert done.returncode == 0, done.stderr
    target = site.parent / "tree"
    assert started(site, "-c", "").returncode == 0
    return target


def started(site: Path, *arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run an interpreter behind the wrapper."""
    env = environment(UNPACKENV_ARCHIVE=site.parent / "packages.tar.zst", UNPACKENV_TARGET=site.parent / "tree")
    return run(wrapper("--", sys.executable, *arguments), {**env, **{k: str(v) for k, v in variables.items()}})


def files_of(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()} - {".unpackenv.stamp"}


# --- which are left out --------------------------------------------------------------------------


def test_modules_are_bytecode_beside_where_their_source_was(site: Path) -> None:
    usual = files_of(unpacked(site))
    shutil.rmtree(site.parent / "tree")
    found = files_of(unpacked(site, "--sources", "none"))
    assert usual - found == {*LEFT_OUT, *map(cached, LEFT_OUT)}
    assert found - usual == {f"{path}c" for path in LEFT_OUT}


def cached(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, "__pycache__", f"{name[:-3]}.{TAG}.pyc")


def test_what_is_told_of_it(site: Path) -> None:
    done = packed(site, "--sources", "none")
    size = sum((site / path).stat().st_size for path in LEFT_OUT)
    assert f"  sources of {len(LEFT_OUT)} modules left out ({size} bytes): tracebacks show" in done.stdout
    assert "    kept: reads, reads/__init__.py, line 3: asks for sources (getsource)\n" in done.stdout
    assert done.stdout.count("kept:") == 1
    assert "sources" not in packed(site).stdout
    shown = run(wrapper("inspect", site.parent / "packages.tar.zst")).stdout
    assert "sources" not in shown
    packed(site, "--sources", "none")
    assert "  sources none\n" in run(wrapper("inspect", site.parent / "packages.tar.zst")).stdout


READINGS = {
    "import inspect\ninspect.getsource(print)": "line 2: asks for sources (getsource)",
    "from inspect import getsourcelines as lines, getsourcelines\ngetsourcelines(f)": "line 2: asks for sources (get",
    "import torch\n@torch.jit.script\ndef f(x):\n    return x": "line 2: compiles functions from their sources (jit",
    "import numba\n@numba.njit(cache=True)\ndef f(x):\n    return x": "line 2: keeps compiled functions beside",
    "import os\nrun(os.path.join(os.path.dirname(__file__), 'worker.py'))": "line 2: looks for a source beside it",
    "from pathlib import Path\nWORKER = Path(__file__).parent / 'worker.py'": "line 2: looks for a source beside it",
    "print(open(__file__).read())": "line 1: reads a source (open)",
    "import pkgutil\npkgutil.get_data('package', 'worker.py')": "line 2: reads a source (get_data)",
    "import os\nD = os.path.dirname(__file__)\nN = [n for n in os.listdir(D) if n.endswith('.py')]": "line 3: looks",
    "__file__; print 'hello'": "line 1: cannot be looked at",
}  # fmt: skip


@pytest.mark.parametrize("code", READINGS)
def test_a_package_that_reads_its_sources_keeps_them(tmp_path: Path, code: str) -> None:
    files = {"reads/__init__.py": "", "reads/sub/how.py": f"{code}\n", "other.py": "", "reads_not/how.py": ""}
    chosen = chosen_of(write_tree(tmp_path / "site", files))
    assert chosen.left_out == {"other.py", "reads_not/how.py"}
    assert list(chosen.kept) == ["reads"]
    assert chosen.kept["reads"].startswith(f"reads/sub/how.py, {READINGS[code]}")


@pytest.mark.parametrize(
    "code",
    [
        "import os\nDATA = os.path.join(os.path.dirname(__file__), 'data.json')", "'''getsource of __file__'''",
        "# inspect.getsource(f)", "import linecache\nlinecache.getline('a', 1)", "import numba\nnumba.njit(print)",
    ],
)  # fmt: skip
def test_what_reads_no_source(tmp_path: Path, code: str) -> None:
    chosen = chosen_of(write_tree(tmp_path / "site", {"package.py": f"{code}\n"}))
    assert (chosen.left_out, chosen.kept) == ({"package.py"}, {})


def chosen_of(site: Path, *keep: str) -> sources.Chosen:
    described = source.recognise(str(site))
    return sources.choose(scan.scan(described), described, keep)


def test_known_packages(tmp_path: Path) -> None:
    known = [*sources.KNOWN_READERS, *sources.KNOWN_OTHERS]
    asks = "import inspect; inspect.getsource(f)\n"
    chosen = chosen_of(write_tree(tmp_path / "site", {f"{name}/__init__.py": asks for name in known}))
    assert chosen.kept == sources.KNOWN_READERS
    assert chosen.left_out == {f"{name}/__init__.py" for name in sources.KNOWN_OTHERS}


def test_packages_to_keep(site: Path) -> None:
    done = packed(site, "--sources", "none", "--keep-sources", "Package, app", "--keep-sources", "gone")
    assert "warning: --keep-sources gone is no package of the tree\n" in done.stderr
    assert "    kept: package, as asked\n" in done.stdout
    assert "    kept: app, as asked\n" in done.stdout
    assert f"sources of {len(LEFT_OUT) - 6} modules left out" in done.stdout


def test_links_keep_what_they_lead_to(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "site", {"package/__init__.py": "", "package/module.py": "VALUE = 1\n"})
    (root / "package/alias.py").symlink_to("module.py")
    os.link(root / "package/module.py", root / "package/second.py")
    tree = unpacked(root, "--sources", "none")
    code = "from package import module, second; print(module.VALUE, second.VALUE)"
    assert started(root, "-c", code).stdout == "1 1\n", sorted(files_of(tree))


# --- how they are used ---------------------------------------------------------------------------


def test_every_module_is_found(site: Path) -> None:
    unpacked(site, "--sources", "none")
    code = """
import app, importlib, namespace.part.module, package.module, pkgutil, runpy, reads
import package
print(app.VERSION, package.VALUE, namespace.part.module.VALUE, importlib.import_module("by_path").VALUE)
print(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))
print(package.module.__file__.endswith("/package/module.pyc"), package.module.__cached__.endswith("module.pyc"))
runpy.run_module("package", run_name="__main__")
"""
    done = started(site, "-c", code)
    lines = [
        "1 packed 3 5", "['__main__', 'empty', 'module', 'no-module', 'old_python']", "True True",
        "main package.__main__ []",
    ]  # fmt: skip
    assert done.stdout.splitlines() == lines, done.stderr
    assert "warning" not in done.stderr
    assert started(site, "-m", "package", "word").stdout == "main package.__main__ ['word']\n"


def test_a_traceback_has_names_and_numbers(site: Path) -> None:
    unpacked(site, "--sources", "none")
    done = started(site, "-c", "import package.module as m; m.broken()")
    assert 'package/module.py", line 3, in broken\n' in done.stderr
    assert "raise ValueError" not in done.stderr
    assert "ValueError: on line 2\n" in done.stderr


@pytest.mark.parametrize("level", [0, 1, 2])
def test_one_level_for_all(site: Path, level: int) -> None:
    write_tree(site, {"level.py": "'''text'''\nLEVEL = (__debug__, __doc__)\n"})
    unpacked(site, "--sources", "none", "--optimize", level)
    for flags in ([], ["-O"], ["-OO"]):
        shown = started(site, *flags, "-c", "import level; print(level.LEVEL)").stdout
        assert shown == f"{(level < 1, 'text' if level < 2 else None)}\n"


@pytest.mark.parametrize("codec", CODECS)
def test_sources_of_their_own(site: Path, codec: str) -> None:
    original = {path: (site / path).read_bytes() for path in LEFT_OUT}
    kept = site.parent / f"sources.tar.{'xz' if codec == 'xz' else 'zst'}"
    tree = unpacked(site, "--sources", "none", "--sources-to", kept)
    subprocess.run(["tar", TAR_FLAG[codec], "-C", tree, "-xf", kept], check=True)
    assert {path: (tree / path).read_bytes() for path in LEFT_OUT} == original
    done = started(site, "-c", "import inspect, package.module as m; print(inspect.getsource(m.broken)); m.broken()")
    assert done.stdout == f"{BODY}\n"
    assert "raise ValueError" in done.stderr
    assert run(wrapper("verify", kept)).returncode == 0


# --- optimisation levels -------------------------------------------------------------------------


def test_bytecode_for_every_level(site: Path) -> None:
    write_tree(site, {"level.py": "'''text'''\nLEVEL = (__debug__, __doc__)\n"})
    tree = unpacked(site, "--optimize", "2,0,1")
    names = {path.name for path in (tree / "__pycache__").glob("level.*")}
    assert names == {f"level.{TAG}{tag}.pyc" for tag in ("", ".opt-1", ".opt-2")}
    (tree / "level.py").write_text("LEVEL = 'compiled again'\n")
    for flags, shown in (([], "(True, 'text')"), (["-O"], "(False, 'text')"), (["-OO"], "(False, None)")):
        assert started(site, *flags, "-c", "import level; print(level.LEVEL)").stdout == f"{shown}\n"


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sources", "none", "--bytecode", "keep"], "--sources none: needs bytecode that this pack makes"),
        (["--sources", "none", "--bytecode", "none"], "--sources none: needs bytecode that this pack makes"),
        (["--sources", "none", "--optimize", "0,2"], "--sources none: has one module for all levels"),
        (["--keep-sources", "app"], "--keep-sources: needs --sources none"),
        (["--sources-to", "x.tar.zst"], "--sources-to: needs --sources none"),
        (["--optimize", "3"], "'3' is not 0, 1, 2, or several of them"),
        (["--optimize", ""], "'' is not 0, 1, 2, or several of them"),
        (["--sources", "none", "--sources-to", "/nowhere/x.tar.zst"], "is no directory, so the archive cannot be"),
    ],
)
def test_options_that_do_not_fit(site: Path, options: list[str], says: str) -> None:
    done = packed(site, *options)
    assert done.returncode in (2, 125)
    assert says in done.stderr
    assert not (site.parent / "packages.tar.zst").exists()
