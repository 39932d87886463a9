"""What this process and its children can import after a start, and which path takes precedence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import other_python, python, result_of, run
from rig.environment import SOURCE, environment
from rig.sites import pack_tree, write_tree

CHILD = """
import subprocess, sys
def child(code, *flags, **more):
    command = [more.pop("python", sys.executable), *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, **more).stdout.strip()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A site directory with .pth files."""
    return write_tree(
        tmp_path / "tree",
        {
            "app.py": "WHERE = __file__\n",
            "paths.pth": "# a comment\nextra\n\nnot/there\n",
            "extra/extra_module.py": "WHERE = __file__\n",
            "runs.pth": "import sys; sys.ran_pth = getattr(sys, 'ran_pth', 0) + 1\n",
            "json.py": "raise RuntimeError('shadows the standard library')\n",
            "quopri.py": "raise RuntimeError('shadows the standard library')\n",
            "installed.py": "WHERE = 'tree'\n",
        },
    )


@pytest.fixture
def booted(tree: Path, tmp_path: Path, target: Path) -> str:
    """Code that starts from an archive of `tree`."""
    archive = tmp_path / "archive.tar.zst"
    pack_tree(archive, tree)
    return f"import unpackenv\nunpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n{CHILD}"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment with a module that the tree has as well; unpackenv is importable there by a .pth file."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, capture_output=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    import zstandard

    outer = Path(zstandard.__file__).parents[1]
    write_tree(packages, {"installed.py": "WHERE = 'image'\n", "own.pth": f"{SOURCE}\n{outer}\n"})
    return tmp_path / "venv" / "bin" / "python"


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_pth_files_of_the_tree_count(booted: str, target: Path, start: str) -> None:
    code = "import sys, extra_module, app; result = [extra_module.WHERE, app.WHERE, sys.ran_pth, sys.path]"
    if start == "warm":
        result_of(booted + code)
    extra, app, ran, path = result_of(booted + code)
    assert extra == f"{target}/extra/extra_module.py"
    assert app == f"{target}/app.py"
    assert ran == 1
    assert path.count(str(target)) == path.count(f"{target}/extra") == 1
    assert f"{target}/not/there" not in path


def test_after_the_standard_library_and_before_site_packages(booted: str, venv: Path, target: Path) -> None:
    code = f"{booted}import sys, sysconfig, json, quopri, installed\n"
    code += "order = sysconfig.get_path('stdlib'), *sys.argv[1:], sysconfig.get_path('purelib')\n"
    code += "print(installed.WHERE, *map(sys.path.index, order))"
    done = run([venv, "-c", code, target, target / "extra"], {"PATH": os.defpath})
    assert done.returncode == 0, done.stderr
    where, *order = done.stdout.split()
    assert where == "tree"
    assert list(map(int, order)) == sorted(map(int, order))


def test_children_see_the_same(booted: str, venv: Path) -> None:
    code = f"""{booted}
look = (
    "import sys, json, quopri, installed, extra_module, app;"
    "print([sys.path[1:], installed.WHERE, extra_module.WHERE, app.WHERE, sys.ran_pth])"
)
import io, contextlib
out = io.StringIO()
with contextlib.redirect_stdout(out): exec(look)
mine, childs = out.getvalue().strip(), child(look)
below = child(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{look!r}}], check=True)")
for theirs in childs, below:
    assert mine == theirs, (mine, theirs)
"""
    done = run([venv, "-c", code], {"PATH": os.defpath})
    assert done.returncode == 0, done.stderr


def test_children_with_a_pythonpath_of_their_own(booted: str, venv: Path, tmp_path: Path, target: Path) -> None:
    own = write_tree(tmp_path / "own", {"installed.py": "WHERE = 'PYTHONPATH'\n"})
    code = f"{booted}print(child('import sys, installed, app; print(installed.WHERE, sys.path[1])'))"
    done = run([venv, "-c", code], {"PATH": os.defpath, "PYTHONPATH": str(own)})
    assert done.stdout == f"PYTHONPATH {own}\n", done.stderr


def test_children_that_ignore_the_environment(booted: str, venv: Path) -> None:
    code = f"{booted}print(child('import sys, installed; print(installed.WHERE)', '-I'))"
    done = run([venv, "-c", code], {"PATH": os.defpath})
    assert done.stdout == "image\n", done.stderr  # what `unpackenv hook` is for


@pytest.mark.parametrize("kind", ["module", "package"])
def test_an_existing_sitecustomize_is_chained(booted: str, tmp_path: Path, kind: str) -> None:
    name = "sitecustomize.py" if kind == "module" else "sitecustomize/__init__.py"
    own = write_tree(tmp_path / "own", {name: "import sys; sys.customised = getattr(sys, 'customised', 0) + 1\n"})
    env = environment()
    env["PYTHONPATH"] += f":{own}"
    code = f"{booted}import sys, sitecustomize\n"
    code += "look = 'import sys, app, sitecustomize; print(sys.customised, sitecustomize.__file__)'\n"
    code += "result = [sys.customised, sitecustomize.__file__, child(look)]"
    file = str(own / name)
    assert result_of(code, env) == [1, file, f"1 {file}"]


def test_a_sitecustomize_in_the_tree_does_not_run_twice(tmp_path: Path, target: Path) -> None:
    tree = write_tree(
        tmp_path / "tree", {"sitecustomize.py": "import sys; sys.customised = getattr(sys, 'customised', 0) + 1\n"}
    )
    archive = tmp_path / "archive"
    pack_tree(archive, tree)
    code = f"import unpackenv\nunpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n{CHILD}"
    code += "result = child('import sys; print(getattr(sys, \\'customised\\', 0))')"
    # Some distributions have one in the standard library, which comes before the tree.
    has_one = result_of("import importlib.util; result = importlib.util.find_spec('sitecustomize') is not None")
    assert result_of(code) == ("0" if has_one else "1")


def test_a_failing_sitecustomize_is_told(booted: str, tmp_path: Path) -> None:
    own = write_tree(tmp_path / "own", {"sitecustomize.py": "import not_there\n"})
    env = environment()
    env["PYTHONPATH"] += f":{own}"
    done = python(
        f"{booted}print(subprocess.run([sys.executable, '-c', 'import app'], capture_output=True, text=True).stderr)",
        env,
    )
    assert "not_there" in done.stdout


def test_child_of_another_python_ignores_the_tree(booted: str) -> None:
    code = "import sys, importlib.util as u; print(u.find_spec('app'), [p for p in sys.path if 'shim' in p])"
    assert result_of(f"{booted}result = child({code!r}, python={other_python()!r})") == "None []"


def test_scripts_are_on_path(tmp_path: Path, target: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"bin/tool": "#!/bin/sh\necho the tool\n", "app.py": ""})
    (tree / "bin" / "tool").chmod(0o755)
    archive = tmp_path / "archive"
    pack_tree(archive, tree, bin="bin")
    code = f"import unpackenv, os, subprocess\nreport = unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
    code += "result = [report.bin, os.environ['PATH'], subprocess.run(['tool'], capture_output=True, text=True).stdout]"
    for _ in "cold", "warm":
        found, path, said = result_of(code, environment(PATH="/usr/bin:/bin"))
        assert (found, path, said) == (f"{target}/bin", f"{target}/bin:/usr/bin:/bin", "the tool\n")


def test_several_import_paths(tmp_path: Path, target: Path) -> None:
    from rig.sites import members_of, pack

    tree = write_tree(tmp_path / "tree", {"lib/a.py": "", "lib64/b.py": ""})
    facts = {"python": [sys.implementation.cache_tag], "import": ["lib", "lib64"]}
    pack(tmp_path / "archive", members_of(tree), facts=facts)
    code = f"import unpackenv\nreport = unpackenv.bootstrap({str(tmp_path / 'archive')!r}, {str(target)!r})\n{CHILD}"
    code += "import a, b; result = [report.import_paths, child('import a, b; print(a.__file__)')]"
    assert result_of(code) == [[f"{target}/lib", f"{target}/lib64"], f"{target}/lib/a.py"]


def test_isolated_interpreter_without_site(booted: str) -> None:
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); sys.path += {[path for path in sys.path if path]!r}\n"
    code += f"{booted}import app; print(app.WHERE)"
    done = run([sys.executable, "-I", "-S", "-c", code])
    assert done.returncode == 0, done.stderr
