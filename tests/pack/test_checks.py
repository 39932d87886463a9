"""`pack` refuses, records or warns of files that would not work where the tree is unpacked."""

from __future__ import annotations

import dataclasses
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.support import make
from unpackenv.errors import PackError
from unpackenv.pack import checks, scan, source

VERSION = f"3.{sys.version_info.minor}"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LIB = f"lib/python{VERSION}/site-packages"


@pytest.mark.parametrize(
    ("data", "libc"),
    [
        ("", "glibc"),
        ("\0GLIBC_2.9\0GLIBC_2.17\0GLIBC_2.2.5\0GLIBC_PRIVATE\0", "glibc 2.17"),
        ("see GLIBC_2.99", "glibc"),
    ],
)
def test_libc_that_shared_objects_need(tmp_path: Path, data: str, libc: str) -> None:
    make(tmp_path, f"package/_native{SUFFIX}", data=data)
    make(tmp_path, "package/notes.txt", data="\0GLIBC_2.98\0")
    (tmp_path / "package" / "libgone.so").symlink_to("nowhere")
    described = source.recognise(str(tmp_path))
    on = dataclasses.replace(described.interpreter, libc="glibc 2.36")
    tree = scan.scan(described, ())
    assert checks.needed_libc(dataclasses.replace(described, interpreter=on), tree) == libc
    musl = dataclasses.replace(described, interpreter=dataclasses.replace(on, libc="musl"))
    assert checks.needed_libc(musl, tree) == "musl"


def shared_objects(root: Path, exclude: Sequence[str] = ()) -> list[str]:
    """Those that are packed, checked against the interpreter."""
    described = source.recognise(str(root))
    tree = scan.scan(described, exclude)
    checks.check_extensions(described, tree)
    return checks.shared_objects(tree)


@pytest.mark.parametrize("suffix", [".so", ".abi3.so", SUFFIX])
def test_extension_modules_that_fit(tmp_path: Path, suffix: str) -> None:
    assert shared_objects(make(tmp_path, f"package/_native{suffix}")) == [f"package/_native{suffix}"]


@pytest.mark.parametrize("name", ["libx.so.1.2", "package.libs/libx-1234.so"])
def test_shared_libraries_are_native(tmp_path: Path, name: str) -> None:
    assert shared_objects(make(tmp_path, name)) == [name]


@pytest.mark.parametrize("name", ["x.sock", "notes.so.txt", ".so"])
def test_other_names_are_not_native(tmp_path: Path, name: str) -> None:
    assert shared_objects(make(tmp_path, name)) == []


def test_extension_module_for_several_pythons(tmp_path: Path) -> None:
    assert len(shared_objects(make(tmp_path, "_x.cpython-31-x86_64-linux-gnu.so", f"_x{SUFFIX}"))) == 2


@pytest.mark.parametrize(
    ("path", "built_for"),
    [
        ("package/_x.cpython-31-x86_64-linux-gnu.so", "cpython-31-x86_64-linux-gnu"),
        ("lib/python3.1/site-packages/", "Python 3.1"),
    ],
)
def test_tree_for_another_python(tmp_path: Path, path: str, built_for: str) -> None:
    make(tmp_path, path, f"fine{SUFFIX}")
    with pytest.raises(PackError, match=r"is for .*, but .* --python PATH") as caught:
        shared_objects(tmp_path)
    assert caught.value.facts == {"tree": built_for, "interpreter": VERSION}


def test_what_is_excluded_is_not_looked_at(tmp_path: Path) -> None:
    make(tmp_path, "old/_x.cpython-31-x86_64-linux-gnu.so", "x.so", "six.py")
    make(tmp_path, "outside.pth", data="/elsewhere\n")
    assert shared_objects(tmp_path, ["old", "x.so"]) == []
    assert warned(tmp_path)
    assert not warned(tmp_path, ["*.pth"])


def warned(root: Path, exclude: Sequence[str] = ()) -> list[str]:
    described = source.recognise(str(root))
    return checks.warnings(described, scan.scan(described, exclude))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("__editable__.app-1.0.pth", "/src/app"),
        ("app.egg-link", "/src/app"),
        ("app-1.0.dist-info/direct_url.json", '{"dir_info": {"editable": true}, "url": "file:///src/app"}'),
    ],
)
def test_an_editable_install_is_warned_of(tmp_path: Path, name: str, text: str) -> None:
    (warning,) = warned(make(tmp_path, name, data=text))
    assert warning.startswith(name.split("/")[0])
    assert "Install it without -e" in warning


@pytest.mark.parametrize("line", ["/elsewhere", "../elsewhere", "sub/../../elsewhere", "../tree-of-others"])
def test_pth_line_that_points_outside(tmp_path: Path, line: str) -> None:
    (warning,) = warned(make(tmp_path / "tree", "some.pth", data=f"# comment\n{line}\n"))
    assert warning.startswith(f"some.pth, line 2: {line} is outside")


def test_pth_import_that_names_a_path_outside(tmp_path: Path) -> None:
    (warning,) = warned(make(tmp_path, "some.pth", data="import sys; sys.path.append('/elsewhere')\n"))
    assert "names /elsewhere" in warning


@pytest.mark.parametrize("line", ["sub", ".", "", "#/../../comment", "import six; six.setup('a/b')", "sub/../other"])
def test_pth_line_that_is_fine(tmp_path: Path, line: str) -> None:
    assert warned(make(tmp_path, "some.pth", data=f"{line}\n")) == []


def test_absolute_pth_line_inside_holds_only_where_a_venv_is(tmp_path: Path) -> None:
    (warning,) = warned(make(tmp_path / "flat", "some.pth", data=str(tmp_path / "flat/sub")))
    assert "Write it relative" in warning
    venv = make(tmp_path / "venv", "pyvenv.cfg")
    assert warned(make(venv, f"{LIB}/some.pth", data=str(venv / LIB / "sub"))) == []


def test_installs_that_are_fine(tmp_path: Path) -> None:
    make(tmp_path, "app-1.0.dist-info/direct_url.json", data='{"dir_info": {}, "url": "file:///src/app"}')
    make(tmp_path, "app-1.0.dist-info/RECORD", "app.py")
    assert warned(tmp_path) == []


def test_venv_that_shows_the_system_packages(tmp_path: Path) -> None:
    make(tmp_path, "pyvenv.cfg", data="include-system-site-packages = true\n")
    (warning,) = warned(make(tmp_path, f"{LIB}/six.py"))
    assert "--system-site-packages" in warning
