"""Recognising, scanning and summing up a tree that is to be packed."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from unpackenv.build import source
from unpackenv.errors import PackError, SettingError

VERSION = f"3.{sys.version_info.minor}"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LIB = f"lib/python{VERSION}/site-packages"


def make(root: Path, *paths: str, data: str = "") -> Path:
    """Make files, or directories where a path ends with a slash, below `root`; returns `root`."""
    for path in paths:
        place = root / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.write_text(data)
    return root


def scanned(root: Path, exclude: Sequence[str] = ()) -> dict[str, source.Entry]:
    return {entry.path: entry for entry in source.scan(source.recognise(str(root)), exclude).entries}


# --- recognise ---------------------------------------------------------------------------------


def test_flat_tree(tmp_path: Path) -> None:
    described = source.recognise(str(make(tmp_path, "six.py", "bin/tool")))
    assert (described.root, described.kind, described.import_paths) == (str(tmp_path), "site-packages", ("",))
    assert (described.bin, described.target) == ("bin", "")


def test_package_called_bin_holds_no_scripts(tmp_path: Path) -> None:
    assert source.recognise(str(make(tmp_path, "bin/__init__.py"))).bin == ""


def test_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "site/six.py"))
    assert source.recognise("site/").root == str(tmp_path / "site")


@pytest.mark.parametrize("inner", ["", "usr/", "usr/local/", "local/", "opt/some/python/"])
def test_prefix(tmp_path: Path, inner: str) -> None:
    make(tmp_path, "opt/" if inner.startswith("opt") else "etc/settings")
    described = source.recognise(str(make(tmp_path, f"{inner}{LIB}/six.py", f"{inner}bin/tool")))
    assert (described.kind, described.import_paths, described.bin) == ("prefix", (inner + LIB,), f"{inner}bin")


def test_prefix_with_several_import_paths(tmp_path: Path) -> None:
    others = (f"lib64/python{VERSION}/site-packages", "lib/python3/dist-packages", "lib/python3.1/site-packages")
    make(tmp_path, f"{LIB}/six.py", *(f"{path}/" for path in others))
    assert source.recognise(str(tmp_path)).import_paths == (others[0], others[1], LIB)


def test_venv(tmp_path: Path) -> None:
    make(tmp_path, "pyvenv.cfg", data=f"home = /usr/bin\nversion = {VERSION}.1\n")
    make(tmp_path, f"{LIB}/six.py", "bin/activate")
    (tmp_path / "bin/python").symlink_to(sys.executable)
    (tmp_path / "lib64").symlink_to("lib")
    described = source.recognise(str(tmp_path))
    assert (described.kind, described.import_paths, described.bin) == ("venv", (LIB,), "bin")
    assert described.target == str(tmp_path)
    assert described.interpreter.path == str(tmp_path / "bin/python")


def test_venv_without_an_interpreter_runs_ours(tmp_path: Path) -> None:
    make(tmp_path, "pyvenv.cfg", data=f"version_info = {VERSION}.1.final.0\n")
    make(tmp_path, f"{LIB}/six.py")
    assert source.recognise(str(tmp_path)).interpreter.path == sys.executable


def test_interpreter_facts(tmp_path: Path) -> None:
    interpreter = source.recognise(str(tmp_path), sys.executable).interpreter
    assert interpreter.implementation == sys.implementation.name
    assert interpreter.version == VERSION
    assert interpreter.cache_tag == sys.implementation.cache_tag
    assert interpreter.soabi == sysconfig.get_config_var("SOABI")
    assert interpreter.extension_suffixes[0] == SUFFIX
    assert len(bytes.fromhex(interpreter.magic)) == 4
    assert (interpreter.system, interpreter.machine) == (sys.platform, os.uname().machine)
    assert interpreter.libc == "musl" or interpreter.libc.startswith("glibc 2.")


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
    tree = source.scan(described, ())
    assert source.needed_libc(dataclasses.replace(described, interpreter=on), tree) == libc
    musl = dataclasses.replace(described, interpreter=dataclasses.replace(on, libc="musl"))
    assert source.needed_libc(musl, tree) == "musl"


def test_interpreter_is_looked_up_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some-python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source.recognise(str(tmp_path), "some-python").interpreter.path == str(tmp_path / "some-python")


@pytest.mark.parametrize("python", ["no-such-python", "/no/such/python", "/bin/false", "/bin/echo"])
def test_no_such_interpreter(tmp_path: Path, python: str) -> None:
    with pytest.raises(PackError, match="--python") as caught:
        source.recognise(str(tmp_path), python)
    assert caught.value.where == python


def test_interpreter_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "old"
    answers = '{"version": "3.8", "implementation": "", "cache_tag": "", "soabi": "", "extension_suffixes": [], '
    old.write_text(f'#!/bin/sh\necho \'{answers} "magic": "", "system": "", "machine": "", "libc": ""}}\'\n')
    old.chmod(0o755)
    with pytest.raises(PackError, match=r"is Python 3\.8"):
        source.recognise(str(tmp_path), str(old))


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="is not a directory"):
        source.recognise(str(tmp_path / "missing"))


def shared_objects(root: Path, exclude: Sequence[str] = ()) -> list[str]:
    """Those that are packed, checked against the interpreter."""
    described = source.recognise(str(root))
    tree = source.scan(described, exclude)
    source.check_extensions(described, tree)
    return source.shared_objects(tree)


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


def test_site_packages_of_another_python(tmp_path: Path) -> None:
    make(tmp_path, "lib/python3.1/site-packages/six.py")
    with pytest.raises(PackError, match=r"is for Python 3\.1, but"):
        source.recognise(str(tmp_path / "lib/python3.1/site-packages"))


def test_venv_of_another_python(tmp_path: Path) -> None:
    make(tmp_path, "pyvenv.cfg", data="version = 3.1.4\n")
    with pytest.raises(PackError, match=r"is for Python 3\.1, but"):
        source.recognise(str(tmp_path), sys.executable)


def test_what_is_excluded_is_not_looked_at(tmp_path: Path) -> None:
    make(tmp_path, "old/_x.cpython-31-x86_64-linux-gnu.so", "x.so", "six.py")
    make(tmp_path, "outside.pth", data="/elsewhere\n")
    assert shared_objects(tmp_path, ["old", "x.so"]) == []
    assert warned(tmp_path)
    assert not warned(tmp_path, ["*.pth"])


# --- warnings ----------------------------------------------------------------------------------


def warned(root: Path, exclude: Sequence[str] = ()) -> list[str]:
    described = source.recognise(str(root))
    return source.warnings(described, source.scan(described, exclude))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("__editable__.app-1.0.pth", "/src/app"),
        ("app.egg-link", "/src/app"),
        ("app-1.0.dist-info/direct_url.json", '{"dir_info": {"editable": true}, "url": "file:///src/app"}'),
    ],
)
def test_editable_install(tmp_path: Path, name: str, text: str) -> None:
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


# --- scan --------------------------------------------------------------------------------------


def test_order_is_that_of_names(tmp_path: Path) -> None:
    make(tmp_path, "b.py", "a/z.py", "a/sub/x.py", "a-b/y.py", "a.py", "c/", "B.py")
    assert list(scanned(tmp_path)) == [
        "B.py", "a.py", "b.py", "a", "a/z.py", "a/sub", "a/sub/x.py", "a-b", "a-b/y.py", "c",
    ]  # fmt: skip


def test_order_is_that_of_bytes(tmp_path: Path) -> None:
    names = [b"\xff", b"\xc3\xa9", b"z", b"\xf0\x9f\x90\x8d"]
    for name in names:
        open(os.path.join(os.fsencode(tmp_path), name), "w").close()
    assert [os.fsencode(path) for path in scanned(tmp_path)] == sorted(names)


def test_in_order_puts_parents_before_their_members() -> None:
    paths = {"a": "dir", "a/b": "dir", "a/b/c": "file", "a.py": "file", "a/z": "symlink"}
    entries = [source.Entry(path, kind, 0, 0) for path, kind in sorted(paths.items(), reverse=True)]
    assert [entry.path for entry in source.in_order(entries)] == ["a.py", "a", "a/z", "a/b", "a/b/c"]


def test_entries(tmp_path: Path) -> None:
    make(tmp_path, "package/data", data="12345")
    (tmp_path / "package/link").symlink_to("../nowhere")
    (tmp_path / "package/data").chmod(0o6750)
    (tmp_path / "package").chmod(0o1770)
    os.utime(tmp_path / "package/data", ns=(0, 1_600_000_000_999_999_999))
    entries = scanned(tmp_path)
    assert entries["package/data"] == ("package/data", "file", 0o750, 1_600_000_000, 5, "")
    assert entries["package"][1:3] == ("dir", 0o770)
    assert entries["package"].size == 0
    assert (entries["package/link"].kind, entries["package/link"].link) == ("symlink", "../nowhere")


def test_root_is_described_but_no_entry(tmp_path: Path) -> None:
    os.utime(tmp_path, (0, 1_500_000_000))
    assert source.scan(source.recognise(str(tmp_path))) == source.Tree((), 1_500_000_000)


def test_mtimes_before_1970_are_rounded_down(tmp_path: Path) -> None:
    os.utime(make(tmp_path, "old") / "old", ns=(0, -500_000_000))
    assert scanned(tmp_path)["old"].mtime == -1


def test_source_date_epoch_is_the_latest_mtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "old", "new")
    os.utime(tmp_path / "old", (0, 1_000_000_000))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    tree = source.scan(source.recognise(str(tmp_path)))
    assert {entry.path: entry.mtime for entry in tree.entries} == {"old": 1_000_000_000, "new": 1_500_000_000}
    assert tree.root_mtime == 1_500_000_000


def test_source_date_epoch_has_to_be_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SettingError, match="'yesterday' is not a number"):
        scanned(tmp_path)


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "tree/package/x.py", "outside/secret")
    (tmp_path / "tree/link").symlink_to(tmp_path / "outside")
    assert list(scanned(tmp_path / "tree")) == ["link", "package", "package/x.py"]


def hard_linked(root: Path) -> Path:
    make(root, "b/first", data="data")
    os.link(root / "b/first", root / "b/second")
    os.link(root / "b/first", root / "c")
    return root


def test_hard_links_follow_their_first_name_in_order(tmp_path: Path) -> None:
    entries = scanned(hard_linked(tmp_path))
    assert {path: (entry.kind, entry.size, entry.link) for path, entry in entries.items()} == {
        "c": ("file", 4, ""),
        "b": ("dir", 0, ""),
        "b/first": ("hardlink", 0, "c"),
        "b/second": ("hardlink", 0, "c"),
    }


def test_hard_link_whose_other_name_is_outside_is_a_file(tmp_path: Path) -> None:
    hard_linked(tmp_path)
    make(tmp_path / "b", "other/")
    os.rename(tmp_path / "b/second", tmp_path / "b/other/second")
    assert scanned(tmp_path / "b/other")["second"].kind == "file"


def test_symlink_with_two_names_is_two_symlinks(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    os.link(tmp_path / "a", tmp_path / "b", follow_symlinks=False)
    assert [entry.kind for entry in scanned(tmp_path).values()] == ["symlink", "symlink"]


@pytest.mark.parametrize("how", ["scan", "without"])
def test_next_name_is_the_file_when_the_first_is_left_out(tmp_path: Path, how: str) -> None:
    hard_linked(tmp_path)
    if how == "scan":
        entries = scanned(tmp_path, ["c"])
    else:
        entries = {entry.path: entry for entry in source.without(scanned(tmp_path).values(), {"c"})}
    assert list(entries) == ["b", "b/first", "b/second"]
    assert (entries["b/first"].kind, entries["b/first"].size, entries["b/first"].link) == ("file", 4, "")
    assert (entries["b/second"].kind, entries["b/second"].link) == ("hardlink", "b/first")


@pytest.mark.parametrize(
    ("glob", "left"),
    [
        ("tests", "pandas/a.pyi pandas/b.py"),
        ("tests/", "pandas/a.pyi pandas/b.py"),
        ("pandas/tests", "pandas/a.pyi pandas/b.py tests/y.py"),
        ("*.pyi", "pandas/b.py pandas/tests/x.py tests/y.py"),
        ("pandas/*.py", "pandas/a.pyi tests/y.py"),
        ("[ab].*", "pandas/tests/x.py tests/y.py"),
        ("pandas", "tests/y.py"),
        ("PANDAS", "pandas/a.pyi pandas/b.py pandas/tests/x.py tests/y.py"),
    ],
)
@pytest.mark.parametrize("inner", ["", f"{LIB}/"])
def test_exclude(tmp_path: Path, glob: str, left: str, inner: str) -> None:
    make(tmp_path, *(inner + path for path in ("pandas/a.pyi", "pandas/b.py", "pandas/tests/x.py", "tests/y.py")))
    files = [path for path, entry in scanned(tmp_path, ["unused", glob]).items() if entry.kind == "file"]
    assert files == [inner + path for path in left.split()]


def test_globs_that_match_nothing_are_told(tmp_path: Path) -> None:
    make(tmp_path, "pandas/tests/x.py", "tests/y.py")
    found = source.scan(source.recognise(str(tmp_path)), ["test", "tests", "pandas/tests", "*.py", "*.pyi"])
    assert found.unused == ("test", "*.py", "*.pyi")  # all of the *.py are in what "tests" drops


def test_excluded_directory_is_gone_itself(tmp_path: Path) -> None:
    assert list(scanned(make(tmp_path, "a/tests/x.py"), ["tests"])) == ["a"]


def test_what_unpackenv_keeps_at_a_root_is_not_packed(tmp_path: Path) -> None:
    make(tmp_path, ".unpackenv.stamp", ".unpackenv.lock", ".unpackenv.work-1/x", ".unpackenvrc", "sub/.unpackenv.stamp")
    assert list(scanned(tmp_path)) == [".unpackenvrc", "sub", "sub/.unpackenv.stamp"]


def test_special_files_are_refused_unless_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, other in (("pipe", "socket"), ("socket", "pipe")):
            with pytest.raises(PackError, match="is a socket, FIFO or device") as caught:
                scanned(tmp_path, [other])
            assert caught.value.where == str(tmp_path / name)
        assert scanned(tmp_path, ["pipe", "socket"]) == {}


def test_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "open", "sealed")
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("sealed"))  # root may read everything
    with pytest.raises(PackError, match="cannot be read") as caught:
        scanned(tmp_path)
    assert caught.value.where == str(tmp_path / "sealed")


def test_directory_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = source.recognise(str(make(tmp_path, "sealed/x")))

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PackError, match="cannot be read") as caught:
        source.scan(described)
    assert caught.value.where.rstrip("/") == str(tmp_path)


# --- packages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", f"{LIB}/"])
def test_packages(tmp_path: Path, inner: str) -> None:
    sizes = {
        "numpy/core.py": 100,
        "numpy-1.2.dist-info/RECORD": 10,
        "numpy.libs/libx.so": 1,
        "Jinja2-3.0.dist-info/RECORD": 5,
        "jinja2/x.py": 20,
        "six.py": 3,
        "__pycache__/six.cpython-39.pyc": 4,
        "some_tool-1.0-py3.9.egg-info": 9,
        "empty.py": 0,
    }
    for name, size in sizes.items():
        make(tmp_path, inner + name, data="x" * size)
    described = source.recognise(str(tmp_path))
    found = source.packages(source.scan(described), described)
    assert list(found.items()) == sorted(found.items(), key=lambda item: -item[1])
    assert found == {"numpy": 111, "jinja2": 25, "some_tool": 9, "six": 7}


def test_packages_of_the_same_size_are_in_order_of_names(tmp_path: Path) -> None:
    described = source.recognise(str(make(tmp_path, "c.py", "b.py", "a/x", data="data")))
    assert list(source.packages(source.scan(described), described)) == ["a", "b", "c"]


def test_only_the_output_itself_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "package/data.tar.zst", "data.tar.zst")
    found = source.scan(source.recognise(str(tmp_path)), (), str(tmp_path / "data.tar.zst"))
    assert [entry.path for entry in found.entries] == ["package", "package/data.tar.zst"]
