"""`recognise`: what a directory holds, and which interpreter it is for."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from helpers.support import make
from unpackenv.errors import PackError
from unpackenv.pack import source

VERSION = f"3.{sys.version_info.minor}"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LIB = f"lib/python{VERSION}/site-packages"


def test_a_directory_of_packages_is_recognised(tmp_path: Path) -> None:
    described = source.recognise(str(make(tmp_path, "six.py", "bin/tool")))
    assert (described.root, described.kind, described.import_paths) == (str(tmp_path), "site-packages", ("",))
    assert (described.bin, described.target) == ("bin", "")


def test_package_called_bin_holds_no_scripts(tmp_path: Path) -> None:
    assert source.recognise(str(make(tmp_path, "bin/__init__.py"))).bin == ""


def test_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "site/six.py"))
    assert source.recognise("site/").root == str(tmp_path / "site")


@pytest.mark.parametrize("inner", ["", "usr/", "usr/local/", "local/", "opt/some/python/"])
def test_an_installation_is_recognised(tmp_path: Path, inner: str) -> None:
    make(tmp_path, "opt/" if inner.startswith("opt") else "etc/settings")
    described = source.recognise(str(make(tmp_path, f"{inner}{LIB}/six.py", f"{inner}bin/tool")))
    assert (described.kind, described.import_paths, described.bin) == ("prefix", (inner + LIB,), f"{inner}bin")


def test_prefix_with_several_import_paths(tmp_path: Path) -> None:
    others = (f"lib64/python{VERSION}/site-packages", "lib/python3/dist-packages", "lib/python3.1/site-packages")
    make(tmp_path, f"{LIB}/six.py", *(f"{path}/" for path in others))
    assert source.recognise(str(tmp_path)).import_paths == (others[0], others[1], LIB)


def test_a_virtual_environment_is_recognised(tmp_path: Path) -> None:
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


def test_the_interpreter_is_described(tmp_path: Path) -> None:
    interpreter = source.recognise(str(tmp_path), sys.executable).interpreter
    assert interpreter.implementation == sys.implementation.name
    assert interpreter.version == VERSION
    assert interpreter.cache_tag == sys.implementation.cache_tag
    assert interpreter.soabi == sysconfig.get_config_var("SOABI")
    assert interpreter.extension_suffixes[0] == SUFFIX
    assert len(bytes.fromhex(interpreter.magic)) == 4
    assert (interpreter.system, interpreter.machine) == (sys.platform, os.uname().machine)
    assert interpreter.libc == "musl" or interpreter.libc.startswith("glibc 2.")


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
    with pytest.raises(PackError, match="does not exist"):
        source.recognise(str(tmp_path / "missing"))


def test_site_packages_of_another_python(tmp_path: Path) -> None:
    make(tmp_path, "lib/python3.1/site-packages/six.py")
    with pytest.raises(PackError, match=r"is for Python 3\.1, but"):
        source.recognise(str(tmp_path / "lib/python3.1/site-packages"))


def test_venv_of_another_python(tmp_path: Path) -> None:
    make(tmp_path, "pyvenv.cfg", data="version = 3.1.4\n")
    with pytest.raises(PackError, match=r"is for Python 3\.1, but"):
        source.recognise(str(tmp_path), sys.executable)
