"""A start whose interpreter will not use the bytecode that was packed says so; every other one does not."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import other_python, python, run, wrapper
from rig.environment import environment
from rig.sites import TAG, pack_tree, write_tree

COMPILED = ": modules are compiled when they are imported"
OPTIMIZED = f"the packed bytecode is not for -O (PYTHONOPTIMIZE){COMPILED}"
PREFIXED = f"the packed bytecode is not looked for (PYTHONPYCACHEPREFIX){COMPILED}"
STALE = f"the packed bytecode does not fit the times of its sources{COMPILED}"
NONE = f"no bytecode was packed{COMPILED}"
MODES = ("unchecked-hash", "checked-hash", "timestamp")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages directory with bytecode."""
    site = write_tree(tmp_path / "site", {f"package/{name}.py": "VALUE = 1\n" for name in ("__init__", "a", "b")})
    compileall.compile_dir(site, quiet=1)
    return site


@pytest.fixture
def archive(site: Path, tmp_path: Path) -> Path:
    return packed(site, tmp_path)


def packed(site: Path, tmp_path: Path, mode: str = "unchecked-hash", **variables: object) -> Path:
    path = tmp_path / f"{mode}.tar.zst"
    done = run(wrapper("pack", site, "-o", path, "--bytecode", mode, "--level", 1), environment(**variables))
    assert done.returncode == 0, done.stderr
    return path


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[0])["warnings"]
    return found


def called(archive: Path, target: Path, *options: str, **variables: object) -> list[str]:
    """Bootstrap in an interpreter with these options, and return the warnings of its line."""
    code = f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r}); import package.a"
    return warnings(run([sys.executable, *options, "-c", code], environment(UNPACKENV_LOG="json", **variables)))


def wrapped(archive: Path, target: Path, *command: object, **variables: object) -> list[str]:
    options = ("--archive", archive, "--target", target, "--log", "json")
    return warnings(run(wrapper(*options, "--", *command), environment(**variables)))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_said_where_it_is_used(site: Path, tmp_path: Path, target: Path, mode: str) -> None:
    archive = packed(site, tmp_path, mode)
    for _ in "cold", "warm":
        assert called(archive, target) == []
    assert wrapped(archive, target, "true", PYTHONOPTIMIZE="", PYTHONPYCACHEPREFIX="") == []


@pytest.mark.parametrize("options", [["-O"], ["-OO"], ["-X", "pycache_prefix=/nowhere"]])
def test_flags_of_the_interpreter(archive: Path, target: Path, options: list[str]) -> None:
    expected = [PREFIXED if "-X" in options else OPTIMIZED]
    for _ in "cold", "warm":
        assert called(archive, target, *options) == expected
    assert called(archive, target) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PYTHONOPTIMIZE": "1"}, [OPTIMIZED]), ({"PYTHONOPTIMIZE": "x"}, [OPTIMIZED]), ({"PYTHONOPTIMIZE": "0"}, []),
        ({"PYTHONPYCACHEPREFIX": "/nowhere"}, [PREFIXED]),
    ],
)  # fmt: skip
def test_variables_that_keep_bytecode_from_use_are_warned_of(
    archive: Path, target: Path, variables: dict[str, str], expected: list[str]
) -> None:
    assert called(archive, target, **variables) == expected
    for _ in "cold", "warm":
        assert wrapped(archive, target.with_name("other"), "true", **variables) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-O"], [OPTIMIZED]), (["-sOOc", "pass"], [OPTIMIZED]), (["-c", "pass", "-O"], []), (["-W", "Once"], []),
        (["-m", "platform", "-O"], []), (["-", "-O"], []), (["-X", "utf8", "-O"], [OPTIMIZED]),
        (["-X", "pycache_prefix=/nowhere"], [PREFIXED]), (["-sXpycache_prefix=/nowhere"], [PREFIXED]),
    ],
)  # fmt: skip
def test_options_of_the_command(archive: Path, target: Path, options: list[str], expected: list[str]) -> None:
    for _ in "cold", "warm":
        assert wrapped(archive, target, sys.executable, *options) == expected
        assert wrapped(archive, target, "echo", *options) == []


def test_flags_of_the_wrapper_do_not_count(archive: Path, target: Path) -> None:
    command = [
        sys.executable,
        "-O",
        *wrapper("--archive", archive, "--target", target, "--log", "json", "--", "true")[1:],
    ]
    for _ in "cold", "warm":
        assert warnings(run(command)) == []


def test_bytecode_that_the_interpreter_has_written_since(archive: Path, target: Path) -> None:
    assert called(archive, target, "-O", PYTHONDONTWRITEBYTECODE="") == [OPTIMIZED]
    python(f"import compileall; compileall.compile_dir({str(target)!r}, optimize=1, quiet=1)")
    assert called(archive, target, "-O") == []
    assert called(archive, target, "-OO") == [OPTIMIZED]


def test_bytecode_that_is_stale_is_warned_of(site: Path, tmp_path: Path, target: Path) -> None:
    """As archives have them that were packed with one time for all files, by whichever tool."""
    archive = tmp_path / "foreign.tar.xz"
    subprocess.run(["tar", "--mtime=@1000000000", "-C", site, "-cJf", archive, "."], check=True)
    assert called(archive, target) == [STALE]
    assert called(archive, target) == []  # a warm start does not look
    (target / ".unpackenv.stamp").unlink()
    pack_tree(tmp_path / "keep.tar.zst", target, bytecode="keep")
    for way in called, wrapped:
        other = target.with_name(way.__name__)
        assert way(tmp_path / "keep.tar.zst", other, *([] if way is called else ["true"])) == [STALE]
    subprocess.run(["tar", "-C", site, "-cJf", archive, "."], check=True)
    assert called(archive, target.with_name("fresh")) == []


def test_times_that_are_kept(site: Path, tmp_path: Path, target: Path) -> None:
    assert called(packed(site, tmp_path, "keep"), target) == []


def test_none_was_packed(site: Path, tmp_path: Path, target: Path) -> None:
    archive = packed(site, tmp_path, "none")
    assert called(archive, target) == [NONE]
    assert called(archive, target) == []
    # Where nobody knows whether there should be any, there is nothing to say.
    subprocess.run(["tar", "--exclude=__pycache__", "-C", site, "-cJf", tmp_path / "f.tar.xz", "."], check=True)
    assert called(tmp_path / "f.tar.xz", target.with_name("foreign"), "-O") == []


def test_bytecode_of_another_version(site: Path, tmp_path: Path, target: Path) -> None:
    """Of the same name, as pre-releases have it; and what is for another Python altogether is not counted."""
    for path in site.rglob("*.pyc"):
        path.write_bytes(b"\0\0\r\n" + path.read_bytes()[4:])
    pack_tree(tmp_path / "keep.tar.zst", site, bytecode="keep")
    assert called(tmp_path / "keep.tar.zst", target) == [STALE]
    for path in site.rglob("*.pyc"):
        path.rename(path.with_name(path.name.replace(str(TAG), "cpython-36")))
    pack_tree(tmp_path / "keep.tar.zst", site, bytecode="keep")
    assert called(tmp_path / "keep.tar.zst", target.with_name("other")) == []


def test_the_interpreter_of_the_command_counts(site: Path, tmp_path: Path, target: Path) -> None:
    other = other_python()
    subprocess.run([other, "-m", "compileall", "-q", site], check=True)
    for path in site.rglob(f"*.{TAG}.pyc"):
        path.write_bytes(b"")
    pack_tree(tmp_path / "keep.tar.zst", site, bytecode="keep", python="")
    assert wrapped(tmp_path / "keep.tar.zst", target, other, "-c", "pass") == []
    assert wrapped(tmp_path / "keep.tar.zst", target.with_name("own"), sys.executable, "-c", "pass") == [STALE]


def test_the_warning_is_in_the_line_of_the_start(archive: Path, target: Path) -> None:
    done = run(wrapper("--archive", archive, "--target", target, "--", "true"), environment(PYTHONOPTIMIZE=1))
    assert done.stderr.rstrip().endswith(f"; warning: {OPTIMIZED}")
    assert os.listdir(target)
