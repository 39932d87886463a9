"""A virtual environment that is unpacked elsewhere than it was made: what its scripts do there, and rewriting them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.environments import VERSION, Environment
from helpers.processes import IS_ROOT, python, run, wrapper
from helpers.support import leftovers
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive.facts import first
from unpackenv.start import stamp
from unpackenv.start.python import relocation


@pytest.fixture
def made(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def unpacked(made: Environment, target: Path, *options: object) -> str:
    """Unpack as an init container does, and return the line."""
    done = run(wrapper("unpack", made.archive, "-C", target, *options))
    assert done.returncode == 0, done.stderr
    return done.stderr


def ran(script: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # else there is one file more
    return subprocess.run([script, "a b", "c"], env=env, capture_output=True, text=True)


def counted(target: Path) -> tuple[int, int]:
    """Return how many files a tree has, and their bytes, hard links counted once."""
    files = [path.lstat() for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    sizes = {status.st_ino: status.st_size for status in files if status.st_ino != (target / stamp.NAME).stat().st_ino}
    return len(sizes), sum(sizes.values())


# --- said, where it is not asked for ---------------------------------------------------------------


def test_scripts_that_run_nothing_are_told_of(made: Environment, tmp_path: Path) -> None:
    line = unpacked(made, tmp_path / "elsewhere")
    warning = line.partition("; warning: ")[2]
    assert warning == (
        f"scripts in bin (1) run {made.root}/bin/python, which is not there: "
        f"use `python -m NAME`, unpack to {made.root} (--target), or rewrite them (--relocate)\n"
    )
    started = run(wrapper("--archive", made.archive, "--target", tmp_path / "other", "--", "true"))
    assert started.stderr.partition("; warning: ")[2] == warning
    again = run(wrapper("--archive", made.archive, "--target", tmp_path / "other", "--", "true"))
    assert "warning" not in again.stderr


def test_scripts_that_run_another_python_are_told_of(made: Environment, tmp_path: Path) -> None:
    unpacked(made, made.root)
    assert f"run {made.root}/bin/python, and not this environment: " in unpacked(made, tmp_path / "elsewhere")


def test_nothing_is_said_where_it_was_made(made: Environment, tmp_path: Path) -> None:
    assert "warning" not in unpacked(made, made.root)
    # Nor where that leads to the tree, as for a volume.
    (tmp_path / "volume").mkdir()
    made.root.rename(tmp_path / "away")
    made.root.symlink_to(tmp_path / "volume" / "tree")
    assert "warning" not in unpacked(made, tmp_path / "volume" / "tree")
    assert ran(made.root / "bin/tool").stdout == f"packed {made.root} a b c\n"


def test_what_pack_target_changes_is_told_of(made: Environment, tmp_path: Path) -> None:
    """The scripts name where it was made, whatever the archive records as its target."""
    made.made.rename(made.root)
    target = tmp_path / "final"
    done = run(wrapper("pack", made.root, "-o", made.archive, "--target", target, "--level", 1))
    assert done.returncode == 0, done.stderr
    made.root.rename(made.made)
    started = run(wrapper("--archive", made.archive, "--", "tool"))
    assert started.returncode == 127
    assert f"; warning: scripts in bin (1) run {made.root}/bin/python" in started.stderr
    assert f"tool: its interpreter {made.root}/bin/python{VERSION} is not there" in started.stderr
    run(["rm", "-r", target])
    started = run(wrapper("--archive", made.archive, "--relocate", "--", "tool"))
    assert (started.returncode, started.stdout) == (0, f"packed {target}\n"), started.stderr


def test_other_trees_have_nothing_to_relocate(site: Path, tmp_path: Path, target: Path) -> None:
    script = write_tree(site / "bin", {"tool": "#!/opt/recorded/bin/python\n"}) / "tool"
    pack_tree(tmp_path / "a.tar.zst", site, kind="prefix", bin="bin", target="/opt/recorded")
    done = run(wrapper("--archive", tmp_path / "a.tar.zst", "--target", target, "--relocate", "--", "true"))
    assert (done.returncode, "warning" in done.stderr) == (0, False)
    assert (target / "bin/tool").read_bytes() == script.read_bytes()


# --- rewritten -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["elsewhere", "with a space", "long-" + "x" * 120, "caf\u00e9", "deep/er"])
@pytest.mark.parametrize("options", [[], ["--in-place"]])
def test_scripts_are_rewritten(made: Environment, tmp_path: Path, name: str, options: list[str]) -> None:
    target = tmp_path / name
    if options:
        target.mkdir(parents=True)
        (target / "mine").write_text("stays")
    assert "warning" not in unpacked(made, target, "--relocate", *options)
    done = ran(target / "bin/tool")
    assert (done.returncode, done.stdout) == (0, f"packed {target} a b c\n"), done.stderr
    first_line = (target / "bin/tool").read_text().splitlines()[0]
    short = " " not in name and len(name) < 100
    assert first_line == (f"#!{target}/bin/python{VERSION}" if short else "#!/bin/sh")
    assert (target / "bin/by-env").read_bytes() == (made.made / "bin/by-env").read_bytes()
    activate = (target / "bin/activate").read_text()
    assert (f'VIRTUAL_ENV="{target}"\n' in activate) == (" " not in name)
    assert f"# not {made.root}-2\n" in activate
    assert (target / "pyvenv.cfg").read_bytes() == (made.made / "pyvenv.cfg").read_bytes()
    for path in ("bin", "bin/tool", "bin/activate"):
        packed, found = (made.made / path).stat(), (target / path).stat()
        assert (found.st_mode, int(found.st_mtime)) == (packed.st_mode, int(packed.st_mtime)), path
    expected = [".unpackenv.in-place"] if options else []
    assert leftovers(target) == expected


@pytest.mark.parametrize("how", ["option", "variable", "argument"])
def test_it_is_a_setting(made: Environment, tmp_path: Path, how: str) -> None:
    target = tmp_path / "elsewhere"
    named = ("--archive", made.archive, "--target", target)
    if how == "option":
        done = run(wrapper(*named, "--relocate", "--", "tool"))
    elif how == "variable":
        done = run(wrapper(*named, "--", "tool"), environment(UNPACKENV_RELOCATE="yes"))
    else:
        code = (
            f"import unpackenv, subprocess; unpackenv.bootstrap({str(made.archive)!r}, {str(target)!r}, relocate=True)"
        )
        done = python(f"{code}\nprint(subprocess.run(['tool'], capture_output=True, text=True).stdout, end='')")
    assert (done.returncode, done.stdout) == (0, f"packed {target}\n"), done.stderr


def test_files_that_are_no_scripts_of_it_stay(made: Environment, tmp_path: Path) -> None:
    """Another interpreter, a neighbour of that name, a program, a text that names the place."""
    root = os.fsencode(made.root)
    others = {
        "other": b"#!/usr/bin/python3\n", "neighbour": b"#!%s-2/bin/python\n" % root, "empty": b"",
        "program": b"\x7fELF\0#!%s/bin/python\n" % root, "text": b"see %s/bin/python\n" % root,
        "windows": b"#!%s/bin/python\r\n" % root, "unended": b"#!%s/bin/python" % root,
    }  # fmt: skip
    for name, content in others.items():
        (made.made / "bin" / name).write_bytes(content)
    made.pack()
    unpacked(made, tmp_path / "elsewhere", "--relocate")
    assert {name: (tmp_path / "elsewhere/bin" / name).read_bytes() for name in others} == others


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("options", ["", " -E"])
def test_back_to_a_short_path(quote: str, options: str) -> None:
    """What pip, or uv, has written for a path with a space."""

    def quoted(quote: str) -> bytes:
        return f"#!/bin/sh\n'''exec' {quote}/a b/bin/python{quote}{options} \"$0\" \"$@\"\n' '''\nimport sys\n".encode()

    short = f"#!/opt/v/bin/python{options}\nimport sys\n".encode()
    assert relocation.rewritten(b"tool", quoted(quote), b"/a b", b"/opt/v") == short
    assert relocation.rewritten(b"tool", short, b"/opt/v", b"/a b") == quoted('"')


def test_as_pip_writes_them() -> None:
    """The same bytes as its own library makes for that interpreter."""
    scripts = pytest.importorskip("pip._vendor.distlib.scripts")
    maker = scripts.ScriptMaker(None, None)
    for path in ("/opt/v", "/a b", "/" + "x" * 120, "/" + "x" * 111, "/" + "x" * 112, "/" + "x" * 113):
        interpreter = f"{path}/bin/python"
        maker.executable = f'"{interpreter}"' if " " in interpreter else interpreter
        expected = maker._get_shebang("utf-8").rstrip(b"\n") + b"\n"
        assert relocation.rewritten(b"tool", b"#!/old/bin/python\n", b"/old", path.encode()) == expected, path


def test_a_path_that_cannot_be_written_into_a_script(made: Environment, tmp_path: Path) -> None:
    line = unpacked(made, tmp_path / 'qu"oted $HOME', "--relocate")
    assert "as the path of the target cannot be written into them" in line
    assert (tmp_path / 'qu"oted $HOME/bin/tool').read_bytes() == (made.made / "bin/tool").read_bytes()


def test_two_names_of_one_script(made: Environment, tmp_path: Path) -> None:
    os.link(made.made / "bin/tool", made.made / "bin/tool2")
    made.pack()
    target = tmp_path / "elsewhere"
    unpacked(made, target, "--relocate")
    for name in "tool", "tool2":
        assert ran(target / "bin" / name).stdout == f"packed {target} a b c\n"
    found = stamp.read(str(target))
    assert found
    os.close(found[1])
    assert (int(first(found[0], "files")), int(first(found[0], "unpacked-size"))) == counted(target)


# --- what later starts and `verify` make of it -----------------------------------------------------


@pytest.mark.parametrize("name", ["s", "a much longer name than that of the place where it was made"])
def test_after_a_reboot_a_relocated_tree_is_counted_as_it_is(made: Environment, tmp_path: Path, name: str) -> None:
    """Its files are larger or smaller than those of the archive."""
    target = tmp_path / name
    unpacked(made, target, "--relocate")
    found = stamp.read(str(target))
    assert found
    os.close(found[1])
    assert (int(first(found[0], "files")), int(first(found[0], "unpacked-size"))) == counted(target)
    stamped = target / stamp.NAME
    boot = first(found[0], "boot")
    stamped.write_text(stamped.read_text().replace(boot, "0" * len(boot)))
    again = run(wrapper("--archive", made.archive, "--target", target, "--relocate", "--", "tool"))
    assert (again.returncode, again.stdout) == (0, f"packed {target}\n"), again.stderr
    assert again.stderr.startswith("unpackenv: reused")
    stamped.write_text(stamped.read_text().replace(boot, "0" * len(boot)))
    (target / "bin/tool").write_text("#!")
    again = run(wrapper("--archive", made.archive, "--target", target, "--relocate", "--", "tool"))
    assert "unpackenv: unpacked " in again.stderr


def test_a_second_start(made: Environment, tmp_path: Path) -> None:
    """It takes the tree as it is, and says so where that is not what it was asked for."""
    target = tmp_path / "elsewhere"
    named = ("--archive", made.archive, "--target", target)
    unpacked(made, target)
    done = run(wrapper(*named, "--relocate", "--", "true"))
    assert done.stderr.endswith(
        f"; warning: its scripts are for {made.root}: remove the tree, and the next start rewrites them\n"
    )
    run(["rm", "-r", target])
    unpacked(made, target, "--relocate")
    for options in ["--relocate"], []:
        done = run(wrapper(*named, *options, "--", "tool"))
        assert (done.stdout, "warning" in done.stderr) == (f"packed {target}\n", False)
    moved = target.rename(tmp_path / "moved")  # as a volume that is mounted elsewhere
    done = run(wrapper("--archive", made.archive, "--target", moved, "--relocate", "--", "true"))
    assert f"its scripts are for {target}: remove the tree" in done.stderr


@pytest.mark.parametrize("name", ["elsewhere", "with a space"])
def test_verify_knows_a_relocated_tree(made: Environment, tmp_path: Path, name: str) -> None:
    target = tmp_path / name

    def verified() -> tuple[int, str]:
        done = run(wrapper("verify", made.archive, "--target", target))
        return done.returncode, done.stdout

    unpacked(made, target, "--relocate")
    assert verified() == (0, f"{target}: complete and unaltered, its scripts rewritten for {target}\n")
    tool = target / "bin/tool"
    status, content = tool.stat(), tool.read_text()
    for altered in (content.replace("flask", "fl0sk"), content + "#", (made.made / "bin/tool").read_text()):
        tool.write_text(altered)
        os.utime(tool, ns=(status.st_atime_ns, status.st_mtime_ns))
        code, said = verified()
        assert code == 1
        assert said.startswith("altered: bin/tool (")
    run(["rm", "-r", target])
    unpacked(made, target)
    assert verified() == (0, f"{target}: complete and unaltered\n")


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
def test_a_full_disk_while_scripts_are_rewritten(made: Environment, tmp_path: Path, mount: Callable[..., None]) -> None:
    """Nothing is left, as wherever a start fails."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=1M", "none", disk)
    before = "import errno, os, sys\nfrom unpackenv.start.python import relocation\n"
    before += "def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\nrelocation._replace = full\n"
    code = (
        f"{before}import unpackenv\nunpackenv.bootstrap({str(made.archive)!r}, {str(disk / 'tree')!r}, relocate=True)"
    )
    done = python(code)
    assert "NoSpace" in done.stderr.splitlines()[-1]
    assert not (disk / "tree").exists()
    assert all(name.endswith(".lock") for name in os.listdir(disk))
