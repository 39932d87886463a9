"""`pack --strip`: debug symbols are left out where that changes nothing that is loaded."""

from __future__ import annotations

import ctypes
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import run, wrapper
from rig.environment import environment
from rig.sites import write_tree

# Enough functions for more than a block of debug symbols.
CODE = "".join(f"int part_{number}(int value) {{ return value + {number}; }}\n" for number in range(300))
CODE += "int answer(void) { return 42; }\nint main(void) { return answer(); }\n"

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("strip")), reason="needs gcc and binutils")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A library and a program with debug symbols, a library without any, and files that are none of these."""
    root = write_tree(tmp_path / "site", {"module.py": "VALUE = 1\n"})
    (root / "data.bin").write_bytes(b"\x7fELF" + bytes(8000))
    source = tmp_path / "code.c"
    source.write_text(CODE)
    for name, options in (("lib.so", ["-g", "-shared"]), ("program", ["-g"]), ("plain.so", ["-shared", "-s"])):
        subprocess.run(["gcc", "-fPIC", *options, "-o", root / name, source], check=True)
    return root


def packed(site: Path, **variables: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    archive, tree = site.parent / "packages.tar.zst", site.parent / "tree"
    done = run(wrapper("pack", site, "-o", archive, "--level", 1, "--strip"), environment(**variables))
    if done.returncode == 0:
        run(wrapper("unpack", archive, "-C", tree))
    return done, tree


def sections(path: Path) -> str:
    return subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout


def test_symbols_are_left_out_and_the_code_is_the_same(site: Path) -> None:
    done, tree = packed(site)
    assert done.returncode == 0, done.stderr
    before = (site / "lib.so").stat().st_size + (site / "program").stat().st_size
    assert "  debug symbols of 2 files left out: " in done.stdout
    for name in ("lib.so", "program"):
        assert ".debug_info" in sections(site / name)
        assert ".debug_info" not in sections(tree / name)
        assert stat.S_IMODE((tree / name).stat().st_mode) == stat.S_IMODE((site / name).stat().st_mode)
        assert int((tree / name).stat().st_mtime) == int((site / name).stat().st_mtime)
    assert (tree / "lib.so").stat().st_size + (tree / "program").stat().st_size < before
    assert ctypes.CDLL(str(tree / "lib.so")).answer() == 42
    assert subprocess.run([tree / "program"]).returncode == 42
    assert (tree / "plain.so").read_bytes() == (site / "plain.so").read_bytes()
    assert (tree / "data.bin").read_bytes() == (site / "data.bin").read_bytes()
    assert run(wrapper("verify", site.parent / "packages.tar.zst")).returncode == 0


BREAKS = {
    "other bytes": ("data[-9000 if len(data) > 9000 else 300] ^= 1; data[0x1005] ^= 1", "strip changes what is loaded"),
    "cut off": ("del data[len(data) // 4 :]", "it cannot be checked"),
    "no ELF": ("data[4] = 7", "it cannot be checked"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_what_strip_breaks_is_packed_as_it_is(site: Path, tmp_path: Path, how: str) -> None:
    """With a strip in the PATH that goes wrong."""
    code, says = BREAKS[how]
    script = f"""#!{sys.executable}
import sys
data = bytearray(open(sys.argv[-1], "rb").read())
{code}
open(sys.argv[-2], "wb").write(data)
"""
    tools = write_tree(tmp_path / "tools", {"strip": script})
    (tools / "strip").chmod(0o755)
    done, tree = packed(site, PATH=f"{tools}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"    kept: [34] files \(such as [\w.]+\), {says}", done.stdout), done.stdout
    assert "of 0 files" in done.stdout
    for name in ("lib.so", "program", "plain.so"):
        assert (tree / name).read_bytes() == (site / name).read_bytes()


def test_a_file_that_strip_refuses(site: Path) -> None:
    (site / "data.bin").write_bytes((site / "lib.so").read_bytes()[:5000])
    done, tree = packed(site)
    assert "    kept: data.bin, " in done.stdout
    assert (tree / "data.bin").read_bytes() == (site / "data.bin").read_bytes()


def test_without_the_program(site: Path, tmp_path: Path) -> None:
    done, _ = packed(site, PATH=str(tmp_path))
    assert done.returncode == 125
    assert "--strip: there is no program strip here. Install binutils" in done.stderr


def test_tests_are_left_out(tmp_path: Path) -> None:
    files = {"package/__init__.py": "", "package/tests/test_it.py": "", "test/a.py": "", "package/testing.py": ""}
    site = write_tree(tmp_path / "site", files)
    run(wrapper("pack", site, "-o", tmp_path / "x.tar.zst", "--exclude-tests", "--exclude", "testing.py"))
    shown = run(wrapper("inspect", tmp_path / "x.tar.zst", "--files")).stdout
    assert "package/__init__.py" in shown
    assert "test" not in shown.replace(str(tmp_path), "")
