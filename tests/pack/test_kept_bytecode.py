"""Bytecode that is packed as it is: the interpreter uses it, or `pack` says that it will not."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from helpers.processes import run, wrapper
from rig.environment import environment
from rig.sites import TAG, write_tree
from unpackenv.pack import kept_bytecode, scan, source

MODES = py_compile.PycInvalidationMode
MTIME = 1_600_000_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A tree with bytecode of the kind that pip makes."""
    root = write_tree(
        tmp_path / "site", {"app.py": "VALUE = 1\n", "package/__init__.py": "", "package/more.py": "X = 2\n"}
    )
    for path in root.rglob("*.py"):
        os.utime(path, (MTIME, MTIME))
        py_compile.compile(str(path), doraise=True)
    return root


def warned(root: Path) -> list[str]:
    described = source.recognise(str(root))
    return kept_bytecode.examine(scan.scan(described), described).warnings(described)


def imported(tree: Path, *options: str) -> str:
    """Return what the interpreter says of the bytecode of `app` and `package.more`."""
    code = f"import sys; sys.path.insert(0, {str(tree)!r}); import app, package.more"
    stderr = run([sys.executable, "-B", "-v", *options, "-c", code], environment()).stderr
    return "\n".join(line for line in stderr.splitlines() if str(tree) in line)


def pack(site: Path, to: Path, epoch: int) -> Path:
    done = run(
        wrapper("pack", site, "-o", to, "--level", 1, "--bytecode", "keep"), environment(SOURCE_DATE_EPOCH=epoch)
    )
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    return to


def unpacked(archive: Path, to: Path) -> Path:
    assert run(wrapper("unpack", archive, "-C", to)).returncode == 0
    return to


def test_bytecode_gets_the_time_that_its_source_has_in_the_archive(site: Path, tmp_path: Path) -> None:
    tree = unpacked(pack(site, tmp_path / "x.tar.zst", MTIME - 1000), tmp_path / "tree")
    assert (tree / "app.py").stat().st_mtime == MTIME - 1000
    log = imported(tree)
    assert "stale" not in log
    for name in ("app", "package/more"):
        assert f"{Path(name).name}.{TAG}.pyc matches {tree}/{name}.py" in log
    before = (site / f"__pycache__/app.{TAG}.pyc").read_bytes()
    after = (tree / f"__pycache__/app.{TAG}.pyc").read_bytes()
    assert (after[:8], after[8:12], after[12:]) == (before[:8], (MTIME - 1000).to_bytes(4, "little"), before[12:])


def test_bytecode_stays_where_times_do(site: Path, tmp_path: Path) -> None:
    tree = unpacked(pack(site, tmp_path / "x.tar.zst", MTIME + 1000), tmp_path / "tree")
    for path in site.rglob("*.pyc"):
        assert (tree / path.relative_to(site)).read_bytes() == path.read_bytes()


def test_two_builds_give_the_same_archive(site: Path, tmp_path: Path) -> None:
    first = pack(site, tmp_path / "first.tar.zst", MTIME - 1000)
    for path in site.rglob("*.py"):
        os.utime(path, (MTIME + 500, MTIME + 500))
        py_compile.compile(str(path), doraise=True)
    assert pack(site, tmp_path / "second.tar.zst", MTIME - 1000).read_bytes() == first.read_bytes()


def test_hard_linked_bytecode_gets_the_time_of_each_source(site: Path, tmp_path: Path) -> None:
    shutil.copy2(site / "app.py", site / "bpp.py")
    os.utime(site / "bpp.py", (MTIME - 2000, MTIME - 2000))
    cache = site / "__pycache__"
    py_compile.compile(str(site / "bpp.py"), doraise=True)
    os.link(cache / f"app.{TAG}.pyc", cache / f"app.{TAG}.opt-1.pyc")
    tree = unpacked(pack(site, tmp_path / "x.tar.zst", MTIME - 1000), tmp_path / "tree")
    for name, mtime in (("app", MTIME - 1000), ("bpp", MTIME - 2000)):
        data = (tree / f"__pycache__/{name}.{TAG}.pyc").read_bytes()
        assert int.from_bytes(data[8:12], "little") == mtime
    plain, optimised = (tree / f"__pycache__/app.{TAG}{ending}" for ending in (".pyc", ".opt-1.pyc"))
    assert plain.read_bytes() == optimised.read_bytes()


def test_a_source_that_is_a_link_has_the_time_of_what_it_leads_to(site: Path, tmp_path: Path) -> None:
    (site / "link.py").symlink_to("package/more.py")
    py_compile.compile(str(site / "link.py"), doraise=True)
    tree = unpacked(pack(site, tmp_path / "x.tar.zst", MTIME - 1000), tmp_path / "tree")
    data = (tree / f"__pycache__/link.{TAG}.pyc").read_bytes()
    assert int.from_bytes(data[8:12], "little") == (tree / "package/more.py").stat().st_mtime == MTIME - 1000


# --- warnings ----------------------------------------------------------------------------------


def another_time(site: Path) -> None:
    os.utime(site / "app.py", (MTIME + 1, MTIME + 1))


def another_size(site: Path) -> None:
    (site / "app.py").write_text("VALUE = 10\n")
    os.utime(site / "app.py", (MTIME, MTIME))


def another_content(site: Path) -> None:
    py_compile.compile(str(site / "app.py"), doraise=True, invalidation_mode=MODES.CHECKED_HASH)
    (site / "app.py").write_text("VALUE = 2\n")


@pytest.mark.parametrize("change", [another_time, another_size, another_content])
def test_stale_bytecode_is_told(site: Path, change: object) -> None:
    assert warned(site) == []
    change(site)  # type: ignore[operator]
    (warning,) = warned(site)
    assert warning.startswith(f"the bytecode __pycache__/app.{TAG}.pyc is out of date")


def test_stale_bytecode_is_counted(site: Path, tmp_path: Path) -> None:
    for path in site.rglob("*.py"):
        os.utime(path, (MTIME + 1, MTIME + 1))
    done = run(wrapper("pack", site, "-o", tmp_path / "x.tar.zst", "--level", 1, "--bytecode", "keep"))
    (warning,) = [line for line in done.stderr.splitlines() if "bytecode" in line]
    assert warning.startswith(f"warning: bytecode of 3 files (__pycache__/app.{TAG}.pyc, …) is out of date")
    done = run(wrapper("pack", site, "-o", tmp_path / "x.tar.zst", "--level", 1))
    assert "bytecode" not in done.stderr


def test_hashed_bytecode_that_holds(site: Path) -> None:
    for path, mode in (("app.py", MODES.CHECKED_HASH), ("package/more.py", MODES.UNCHECKED_HASH)):
        py_compile.compile(str(site / path), doraise=True, invalidation_mode=mode)
        os.utime(site / path, (MTIME + 7, MTIME + 7))
    assert warned(site) == []


@pytest.mark.parametrize("how", ["named so", "magic number", "cut short"])
def test_bytecode_of_another_python_is_told(site: Path, how: str) -> None:
    path = site / f"__pycache__/app.{TAG}.pyc"
    data = path.read_bytes()
    if how == "named so":
        path.rename(site / "__pycache__/app.cpython-31.pyc")
    else:
        path.write_bytes(b"\0\0\r\n" + data[4:] if how == "magic number" else data[:9])
    (warning,) = warned(site)
    assert f"is for another Python than {TAG}" in warning
    (site / "__pycache__/app.cpython-30.pyc").write_bytes(data)
    path.write_bytes(data)
    assert warned(site) == []  # there is the right one besides


@pytest.mark.parametrize("mode", ["keep", "unchecked-hash", "none"])
def test_a_module_without_source_that_another_python_compiled(tmp_path: Path, mode: str) -> None:
    site = write_tree(tmp_path / "site", {"app.py": ""})
    py_compile.compile(str(site / "app.py"), cfile=str(site / "fine.pyc"), doraise=True)
    (site / "old.pyc").write_bytes(b"\0\0\r\n" + bytes(20))
    done = run(wrapper("pack", site, "-o", tmp_path / "x.tar.zst", "--level", 1, "--bytecode", mode))
    (warning,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert warning.startswith("warning: the bytecode old.pyc is for another Python")


def test_all_bytecode_of_the_standard_library_is_judged_as_the_interpreter_does(tmp_path: Path) -> None:
    """A real tree of hundreds of modules, of which some are touched."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    site = tmp_path / "site"
    site.mkdir()
    for path in modules:
        shutil.copy(path, site)
    subprocess.run([sys.executable, "-m", "compileall", "-q", site], check=True)
    touched = [path for number, path in enumerate(sorted(site.glob("*.py"))) if number % 7 == 0]
    for path in touched:
        os.utime(path, (MTIME, MTIME))
    described = source.recognise(str(site))
    found = kept_bytecode.examine(scan.scan(described), described)
    assert found.stale == [f"__pycache__/{path.stem}.{TAG}.pyc" for path in touched]
    assert found.retimed == {}
