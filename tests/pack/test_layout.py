"""A folder that does not look like installed packages: refused if no start could import it, else a warning."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.support import make
from unpackenv.errors import PackError
from unpackenv.pack import checks, layout, scan, source

LIB = f"lib/python3.{sys.version_info.minor}/site-packages"


def warnings_for(root: Path, exclude: Sequence[str] = ()) -> list[str]:
    """Return the warnings for a tree; raises `PackError` if it is refused."""
    described = source.recognise(str(root))
    tree = scan.scan(described, exclude)
    layout.check(described, tree)
    checks.check_wheels(described, tree)
    return [*layout.warnings(described, tree), *checks.warnings(described, tree)]


@pytest.mark.parametrize(
    ("paths", "what", "hint"),
    [
        ([], "holds no files", "Name the folder"),
        (["a/", "b/c/"], "holds no files", "Name the folder"),
        (["app.py", ".venv/pyvenv.cfg", ".venv/bin/x"], "holds a virtual environment (.venv)", "{}/.venv"),
        (["app.py", "env/pyvenv.cfg", f"env/{LIB}/m.py"], "holds a virtual environment (env)", "--exclude env"),
        (["python/m.py"], "has its packages in python,", "Pack {}/python"),
        (["python/m/__init__.py", "bin/tool"], "has its packages in python,", "Pack {}/python"),
        ([f"python/{LIB}/m.py", "bin/tool"], f"has its packages in python/{LIB},", f"Pack {{}}/python/{LIB}"),
        (["site-packages/m.py"], "has its packages in site-packages,", "Pack {}/site-packages"),
        (["python3.9/site-packages/m.py", "x/"], "has its packages in python3.9/site-packages,", "Pack {}/python3.9"),
        (["packages/m.py", "packages/m-1.dist-info/RECORD"], "has its packages in packages,", "Pack {}/packages"),
        (["six-1.0-py3-none-any.whl", "more-1.0.tar.gz"], "holds wheels (such as six-1.0", "--find-links {}"),
    ],
)
def test_what_is_no_folder_of_packages_is_refused_with_the_better_one(
    tmp_path: Path, paths: list[str], what: str, hint: str
) -> None:
    root = make(tmp_path, "tree/") / "tree"
    make(root, *paths)
    with pytest.raises(PackError) as caught:
        warnings_for(root)
    assert (caught.value.where, what in caught.value.what) == (str(root), True), caught.value.what
    assert hint.format(root) in caught.value.hint


@pytest.mark.parametrize("inner", ["site-packages/flask", "packages/flask"])
def test_one_package_among_others(tmp_path: Path, inner: str) -> None:
    root = tmp_path / inner
    make(root, "__init__.py", "app.py")
    make(root.parent, "Flask-3.0.dist-info/RECORD")
    with pytest.raises(PackError, match="is one package") as caught:
        warnings_for(root)
    assert caught.value.hint == f"Pack {root.parent}"


def test_all_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="or all of them are excluded"):
        warnings_for(make(tmp_path, "tests/x.py"), ["tests"])


def test_a_project_without_its_environment_is_packed(tmp_path: Path) -> None:
    assert warnings_for(make(tmp_path, "app.py", ".venv/pyvenv.cfg"), [".venv"]) == []


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["index.js", "node_modules/x.js"], "there is nothing to import"),
        (["not-a-name/m.py"], "there is nothing to import"),
        ([f"{LIB}/", "bin/tool"], f"there is nothing to import in {{}}/{LIB}"),
        (["__init__.py", "app.py"], "{} is a package itself"),
        (["pyproject.toml", "src/app/__init__.py"], "{} is the source of a project (pyproject.toml)"),
        (["setup.py", "app/__init__.py"], "{} is the source of a project (setup.py)"),
    ],
)
def test_what_looks_wrong_is_warned_of(tmp_path: Path, paths: list[str], text: str) -> None:
    (warning,) = warnings_for(make(tmp_path, *paths))
    assert warning.startswith(text.format(tmp_path))


@pytest.mark.parametrize(
    "paths",
    [
        ["m.py"],
        ["native.cpython-39-x86_64-linux-gnu.so"],
        ["extra.pth"],
        ["namespace/m.py"],
        ["namespace/deeper/m.py", "data/x.txt"],
        ["python/__init__.py", "python/m.py"],
        ["python/m.py", "app.py"],
        ["package/__init__.py", "package/_vendor/other-1.dist-info/RECORD"],
        ["app.py", "wheels.whl"],
        ["__init__.py", "setup.py", "flask/__init__.py", "flask-3.0.dist-info/RECORD"],
        [f"{LIB}/m.py", "bin/tool", "pyproject.toml"],
        [f"{LIB}/venvs/x/pyvenv.cfg", f"{LIB}/m.py"],
        ["m.py", "templates/venv/pyvenv.cfg"],
    ],
)
def test_trees_that_are_fine(tmp_path: Path, paths: list[str]) -> None:
    assert warnings_for(make(tmp_path, *paths)) == []


# --- for another system ------------------------------------------------------------------------


def wheel(root: Path, *platforms: str) -> Path:
    make(root, "package/__init__.py")
    tags = "".join(f"Tag: cp39-abi3-{platform}\n" for platform in platforms)
    return make(root, "package-1.dist-info/WHEEL", data=f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n{tags}")


@pytest.mark.parametrize(
    "platform",
    ["win_amd64", "win32", "macosx_11_0_arm64", "macosx_10_9_universal2", "manylinux2014_s390x", "linux_ppc64"],
)
def test_a_wheel_for_another_system_is_refused(tmp_path: Path, platform: str) -> None:
    with pytest.raises(PackError, match=f"was installed for {platform}, but") as caught:
        warnings_for(wheel(tmp_path, platform))
    assert caught.value.where == str(tmp_path / "package-1.dist-info")


@pytest.mark.parametrize(
    "platforms",
    [
        ["any"],
        ["linux_{}"],
        ["manylinux_2_17_{}", "manylinux2014_{}"],
        ["manylinux1_{}.manylinux_2_5_{}"],
        ["macosx_11_0_arm64", "manylinux_2_28_{}"],
        ["something_new"],
        [],
    ],
)
def test_a_wheel_for_this_system(tmp_path: Path, platforms: list[str]) -> None:
    machine = source.recognise(str(tmp_path)).interpreter.machine
    assert warnings_for(wheel(tmp_path, *(platform.replace("{}", machine) for platform in platforms))) == []


# --- for another user --------------------------------------------------------------------------


def test_what_only_the_owner_can_read_is_told(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "open.py", "package/m.py")
    (tmp_path / "a.py").chmod(0o600)
    (tmp_path / "package").chmod(0o700)
    (warning,) = warnings_for(tmp_path)
    assert warning.startswith("only the owner can read 2 files and folders (such as a.py)")
    assert f"chmod -R go+rX {tmp_path}" in warning
    (tmp_path / "a.py").chmod(0o640)
    (tmp_path / "package").chmod(0o750)
    assert warnings_for(tmp_path) == []
