"""Faults while a start writes and publishes: injected into every call, and on really full file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import faults
from helpers.processes import IMPORT_ALL, PATHS, result_of
from helpers.starts import boot, end_of
from helpers.support import MTIME, Tally, describe, leftovers
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree
from unpackenv.start import stamp

Mount = Callable[..., None]
ENVIRONMENT = environment()
ENVIRONMENT["PYTHONPATH"] += f":{os.pathsep.join(PATHS)}"


@pytest.fixture
def versions(tmp_path: Path) -> tuple[list[str], list[str]]:
    """Archives and trees of two versions, of one shape: each function is called equally often for both."""
    archives, trees = [], []
    for number in (1, 2):
        tree = write_tree(
            tmp_path / f"tree-{number}",
            {
                "app.py": f"VERSION = {number}\n",
                "package/__init__.py": "",
                "package/spans-frames": f"version {number}\n" * 900,
                f"package/only_{number}/__init__.py": f"VERSION = {number}\n",
            },
        )
        (tree / "link").symlink_to(f"version-{number}")
        os.link(tree / "app.py", tree / "package" / "hard-link")
        for path in tree.rglob("*"):
            os.utime(path, (MTIME, MTIME), follow_symlinks=False)
        archives.append(str(tmp_path / f"version-{number}.tar.zst"))
        trees.append(str(tree))
        pack_tree(Path(archives[-1]), tree)
    return archives, trees


def swept(
    versions: tuple[list[str], list[str]], target: Path, how: str, mount: Mount, *, killed: bool
) -> dict[str, Any]:
    """Go through all faults, or all kills, for one kind of target, in an interpreter of its own."""
    if "mount root" in how or "in place" in how:
        target.mkdir()
    if "mount root" in how:
        mount("-t", "tmpfs", "none", target)
    code = "from helpers import faults; result = faults.sweep"
    code += f"(*{versions!r}, {str(target)!r}, replaces={'old' in how}, in_place={'in place' in how}, killed={killed})"
    return dict(result_of(code, ENVIRONMENT, timeout=PATIENCE))


HOW = pytest.mark.parametrize("how", ["absent", "old", "mount root", "old in a mount root", "in place", "old in place"])


@pytest.mark.slow
@HOW
def test_a_fault_at_any_call_leaves_the_old_tree_or_none(
    versions: tuple[list[str], list[str]], target: Path, how: str, mount: Mount, tally: Tally
) -> None:
    """And the next start without a fault ends with the whole tree."""
    found = swept(versions, target, how, mount, killed=False)
    tally("faults injected into calls of the file system", found["faults"])
    assert not found["problems"], "\n".join(found["problems"])
    assert found["faults"] > 80
    assert {"unpacked", "NoSpace", "TargetNotWritable", "UnpackFailed"} <= set(found["ends"])


@pytest.mark.slow
@HOW
def test_killed_at_any_call_the_next_start_ends_well(
    versions: tuple[list[str], list[str]], target: Path, how: str, mount: Mount, tally: Tally
) -> None:
    """The next start, of the same or of the other version."""
    found = swept(versions, target, how, mount, killed=True)
    tally("SIGKILLs at calls of the file system", found["faults"])
    assert not found["problems"], "\n".join(found["problems"])
    assert found["ends"] == {"killed": found["faults"]}
    assert found["faults"] > 40


# --- file systems that are full, read-only or tiny ------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, Path]:
    """An archive of some hundred files with 3 MB, and its tree."""
    files = {f"package_{number % 5}/module_{number}.py": f"{number}\n" * 2500 for number in range(300)}
    tree = write_tree(tmp_path / "large", files)
    pack_tree(tmp_path / "large.tar.zst", tree)
    return tmp_path / "large.tar.zst", tree


def place(disk: Path, where: str) -> tuple[Path, dict[str, object]]:
    """Return a target on a file system, and the settings for it."""
    if where == "mount root":
        return disk, {}
    if where == "in place":
        write_tree(disk / "tree", {"mine": "stays"})
    return disk / "tree", {"in_place": where == "in place"}


def check_nothing_is_accepted(target: Path) -> None:
    assert stamp.read(str(target)) is None


def check_whole(target: Path, tree: Path, where: str) -> None:
    found = faults.state_of(target)
    if where == "in place":
        assert found.pop(b"mine")[0] == "file"
    assert found == describe(tree)
    assert leftovers(target) == ([".unpackenv.in-place"] if where == "in place" else [])


WHERE = pytest.mark.parametrize("where", ["below a mount", "mount root", "in place"])


@WHERE
@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=100"])
@pytest.mark.parametrize("force", [False, True])
def test_too_small_a_file_system_for_bytes_or_inodes(
    large: tuple[Path, Path], tmp_path: Path, mount: Mount, where: str, limit: str, force: bool
) -> None:
    """Told before the first byte, or with FORCE by the file system itself."""
    archive, tree = large
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", limit, "none", disk)
    target, settings = place(disk, where)
    end = boot(archive, target, force=force, **settings)
    assert end.startswith("NoSpace: "), end
    assert ("No space left on device" if force else "needs") in end
    check_nothing_is_accepted(target)
    if where != "in place":
        assert [name for name in os.listdir(disk) if not name.endswith(".lock")] == []
    mount("-o", "remount,size=50m,nr_inodes=5000", disk)
    assert boot(archive, target, **settings) == "unpacked"
    check_whole(target, tree, where)


# Another process takes all the room that there is, when the first file has been written.
EATEN = """
import os, sys
from unpackenv.start.tree import writer
write_file = writer.TreeWriter.write_file
def eat_and_write(*arguments):
    if not os.path.exists(EATER):
        os.spawnl(os.P_WAIT, "/bin/sh", "sh", "-c", 'cat /dev/zero > "$0" 2>/dev/null', EATER)
    return write_file(*arguments)
writer.TreeWriter.write_file = eat_and_write
"""


@WHERE
def test_a_file_system_that_somebody_fills_meanwhile(
    large: tuple[Path, Path], tmp_path: Path, mount: Mount, where: str
) -> None:
    archive, tree = large
    disk, eater = tmp_path / "disk", tmp_path / "disk" / "lost+found" / "eater"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=12m", "none", disk)
    eater.parent.mkdir()  # the one name that a mount root may hold
    target, settings = place(disk, where)
    end = boot(archive, target, before=EATEN.replace("EATER", repr(str(eater))), workers=2, **settings)
    assert end.startswith("NoSpace: "), end
    assert "No space left on device" in end
    check_nothing_is_accepted(target)
    eater.unlink()
    eater.parent.rmdir()
    assert boot(archive, target, **settings) == "unpacked"
    check_whole(target, tree, where)


@WHERE
def test_a_small_ext4(large: tuple[Path, Path], tmp_path: Path, mount: Mount, where: str) -> None:
    archive, tree = large
    if not (mkfs := shutil.which("mkfs.ext4", path="/sbin:/usr/sbin:/bin:/usr/bin")):
        pytest.skip("no mkfs.ext4 here")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(12 << 20)
    subprocess.run([mkfs, "-q", "-F", "-O", "^has_journal", "-N", "1000", image], check=True)
    mount("-o", "loop", image, disk)
    target, settings = place(disk, where)
    (disk / "lost+found" / "eater").write_bytes(bytes(10 << 20))
    end = boot(archive, target, **settings)
    assert end.startswith("NoSpace: "), end
    assert "needs" in end
    end = boot(archive, target, force=True, **settings)
    assert end.startswith("NoSpace: "), end
    assert "No space left on device" in end
    check_nothing_is_accepted(target)
    (disk / "lost+found" / "eater").unlink()
    assert boot(archive, target, **settings) == "unpacked"
    if where == "mount root":
        (disk / "lost+found").rmdir()
    check_whole(target, tree, where)


@WHERE
def test_an_older_version_on_a_read_only_mount(
    large: tuple[Path, Path], versions: tuple[list[str], list[str]], tmp_path: Path, mount: Mount, where: str
) -> None:
    archive, tree = large
    older = Path(versions[0][0])
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "none", disk)
    target, settings = place(disk, where)
    assert boot(older, target, **settings) == "unpacked"
    mount("-o", "remount,ro", disk)
    before = describe(disk)
    assert boot(archive, target, **settings).startswith("TargetReadOnly: ")
    assert boot(older, target, **settings) == "reused"
    assert describe(disk) == before
    mount("-o", "remount,rw", disk)
    assert boot(archive, target, **settings) == "unpacked"
    if where != "in place":
        check_whole(target, tree, where)


@pytest.mark.parametrize("parallel", ["processes", "threads"])
def test_few_files_may_be_open(large: tuple[Path, Path], target: Path, parallel: str) -> None:
    """Wherever the limit strikes, the start says so or does with less."""
    archive, tree = large
    before = f"{IMPORT_ALL}\nimport os, resource, unpackenv.errors\nused = len(os.listdir('/proc/self/fd')) - 1\n"
    ends = []
    for more in (0, 1, 2, 3, 4, 5, 6, 8, 10, 15):
        limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, (used + {more}, used + {more}))"
        end = end_of(archive, target, before=before + limit, workers=2, parallel=parallel)
        assert end.outcome == "unpacked" or "Too many open files" in end.said, end
        assert end.where, end
        ends.append(end.outcome)
        if end.outcome != "unpacked":
            check_nothing_is_accepted(target)
        assert boot(archive, target) == ("reused" if end.outcome == "unpacked" else "unpacked")
        check_whole(target, tree, "")
        shutil.rmtree(target)
    assert ends[0] != "unpacked"
    assert ends[-1] == "unpacked"
