"""Targets of every kind: how a tree gets to its place, and what remains if that fails or is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.processes import IMPORT_ALL, IS_ROOT, processes_with, result_of, run, wait_for
from helpers.starts import boot
from helpers.support import describe, leftovers, make_tree
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.start import stamp
from unpackenv.start.machine import mounts

Mount = Callable[..., None]


def tree_of(target: Path) -> dict[bytes, tuple[object, ...]]:
    """Return what a target holds, without what is of unpackenv."""
    return {path: state for path, state in describe(target).items() if not path.startswith(b".unpackenv.")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of member."""
    return make_tree(tmp_path / "source")


@pytest.fixture
def packed(tmp_path: Path, tree: Path) -> Path:
    """Its archive, of several frames."""
    path = tmp_path / "tree.tar.zst"
    pack_tree(path, tree)
    return path


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """An archive of another version, with other files."""
    path = tmp_path / "newer.tar.zst"
    pack_tree(path, write_tree(tmp_path / "newer", {"app.py": "VERSION = 2\n", "newer/__init__.py": ""}))
    return path


def check(target: Path, tree: Path) -> None:
    assert tree_of(target) == describe(tree)
    assert leftovers(target) == []


# --- the three ways ------------------------------------------------------------------------------


def test_an_absent_target_is_made(packed: Path, tree: Path, target: Path) -> None:
    assert boot(packed, target) == "unpacked"
    check(target, tree)
    assert target.stat().st_mode & 0o7777 == 0o755


def test_absent_with_its_parents(packed: Path, tree: Path, target: Path) -> None:
    assert boot(packed, target / "a" / "b") == "unpacked"
    check(target / "a" / "b", tree)


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
@pytest.mark.parametrize("threads", [False, True])
def test_modes_do_not_depend_on_the_umask(packed: Path, tree: Path, target: Path, umask: int, threads: bool) -> None:
    before = f"import os, threading, time; os.umask({umask})\n"
    if threads:
        before += "threading.Thread(target=time.sleep, args=(10,), daemon=True).start()\n"
    assert boot(packed, target, before=before) == "unpacked"
    check(target, tree)
    assert target.stat().st_mode & 0o7777 == 0o755 & ~umask
    assert (target / stamp.NAME).stat().st_mode & 0o7777 == 0o644


def test_an_empty_directory_is_taken(packed: Path, tree: Path, target: Path) -> None:
    target.mkdir()
    assert boot(packed, target) == "unpacked"
    check(target, tree)


def test_link_to_a_directory(packed: Path, tree: Path, target: Path) -> None:
    target.mkdir()
    link = target.with_name("link")
    link.symlink_to(target)
    assert boot(packed, link) == "unpacked"
    assert link.is_symlink()
    check(target, tree)


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_root_is_filled_and_stays(
    packed: Path, tree: Path, target: Path, tmp_path: Path, mount: Mount, kind: str
) -> None:
    target.mkdir()
    (tmp_path / "volume").mkdir()
    mount(*(("-t", "tmpfs", "none") if kind == "tmpfs" else ("--bind", tmp_path / "volume")), target)
    inode = target.stat().st_ino
    assert boot(packed, target) == "unpacked"
    check(target, tree)
    assert target.stat().st_ino == inode
    assert boot(packed, target) == "reused"


def test_mount_root_with_lost_and_found(packed: Path, tree: Path, target: Path, mount: Mount) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "none", target)
    (target / "lost+found").mkdir()
    assert boot(packed, target) == "unpacked"
    found = tree_of(target)
    del found[b"lost+found"]
    assert found == describe(tree)


def test_mount_points_with_odd_names(tmp_path: Path, mount: Mount) -> None:
    for name in ("a b", "a\\b", "a\tb", "a\nb", "caf\u00e9"):
        path = tmp_path / name
        path.mkdir()
        assert not mounts.is_mount(str(path))
        mount("--bind", path, path)
        assert mounts.is_mount(str(path)), name


@pytest.mark.skipif(not IS_ROOT, reason="needs a second user")
@pytest.mark.parametrize("empty", [True, False])
def test_parent_that_cannot_be_written(packed: Path, tree: Path, open_path: Path, empty: bool) -> None:
    shutil.copy(packed, open_path / "archive")
    target = open_path / "closed" / "tree"
    target.mkdir(parents=True)
    os.chown(target, 54321, 54321)
    target.parent.chmod(0o755)
    before = f"{IMPORT_ALL}\nimport os; os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
    if empty:
        assert boot(open_path / "archive", target, before=before) == "unpacked"
        check(target, tree)
        return
    target.rmdir()
    outcome = boot(open_path / "archive", target, before=before)
    assert outcome.startswith(f"TargetNotWritable: {target.parent}")
    assert not target.exists()


def test_file_is_no_target(packed: Path, target: Path) -> None:
    target.write_text("precious")
    assert boot(packed, target).startswith(f"TargetRefused: {target}: is not a directory")
    assert boot(packed, target, in_place=True).startswith("TargetRefused")
    assert target.read_text() == "precious"


def test_directory_of_somebody_else_is_refused(packed: Path, target: Path) -> None:
    write_tree(target, {"precious": "data"})
    before = describe(target.parent)
    assert boot(packed, target).startswith(f"TargetRefused: {target}: is not empty")
    (target.parent / ".tree.unpackenv.lock").unlink(missing_ok=True)
    os.utime(target.parent, (before_time := 1_600_000_000, before_time))
    assert describe(target.parent) == before


# --- in place ------------------------------------------------------------------------------------


def test_in_place_a_directory_keeps_what_it_has(packed: Path, tree: Path, target: Path) -> None:
    write_tree(target, {"package/__init__.py": "OLD", "package/old.py": "stays", "mine": "stays"})
    with (target / "package" / "__init__.py").open() as old:
        assert boot(packed, target, in_place=True) == "unpacked"
        assert old.read() == "OLD"  # who has a file open goes on reading it
    found = tree_of(target)
    assert found.pop(b"mine")[0] == found.pop(b"package/old.py")[0] == "file"
    assert found == describe(tree)
    assert leftovers(target) == [".unpackenv.in-place"]
    assert boot(packed, target) == "reused"


def test_in_place_twice(packed: Path, newer: Path, tree: Path, target: Path) -> None:
    target.mkdir()
    for archive, version in (packed, None), (newer, 2), (packed, None), (newer, 2):
        assert boot(archive, target, in_place=True) == "unpacked"
        assert version is None or f"VERSION = {version}" in (target / "app.py").read_text()
    found = tree_of(target)
    assert describe(tree).items() <= found.items()
    assert {b"app.py", b"newer/__init__.py"} < found.keys()


def test_in_place_replaces_links(packed: Path, tree: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    target.mkdir()
    (target / "old").symlink_to(tmp_path / "victim")  # where the archive has a file
    (target / "relative").symlink_to(tmp_path / "victim")  # where it has a symlink
    assert boot(packed, target, in_place=True) == "unpacked"
    assert tree_of(target) == describe(tree)
    assert (tmp_path / "victim").read_text() == "precious"


def test_in_place_by_environment_and_for_a_site_directory(packed: Path, tree: Path, target: Path) -> None:
    write_tree(target, {"mine": "stays"})
    assert boot(packed, target, environment(UNPACKENV_IN_PLACE="yes")) == "unpacked"
    other = write_tree(target.with_name("site"), {"mine": "stays"})
    assert boot(packed, other, before=f"import sys; sys.path.append({str(other)!r})") == "unpacked"
    for place in target, other:
        assert (place / "mine").read_text() == "stays"
        assert (place / "package" / "__init__.py").exists()


def test_what_was_filled_in_place_is_not_thrown_away(packed: Path, newer: Path, target: Path) -> None:
    write_tree(target, {"mine": "stays"})
    assert boot(packed, target, in_place=True) == "unpacked"
    assert boot(newer, target).startswith("TargetRefused")
    assert (target / "mine").read_text() == "stays"
    assert boot(newer, target, in_place=True) == "unpacked"
    assert (target / "mine").read_text() == "stays"


def test_links_that_were_there_are_resolved(tmp_path: Path, target: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"lib/python/a.py": "A", "lib64/b.py": "B", "usr/lib/c.py": "C"})
    archive = tmp_path / "archive.tar.zst"
    pack_tree(archive, tree)
    (target / "usr/lib").mkdir(parents=True)
    (target / "lib").symlink_to("usr/lib")
    (target / "lib64").symlink_to(target / "lib")
    assert boot(archive, target, in_place=True) == "unpacked"
    assert (target / "lib").is_symlink()
    assert (target / "lib64").is_symlink()
    for name, content in {"python/a.py": "A", "b.py": "B", "c.py": "C"}.items():
        assert (target / "usr/lib" / name).read_text() == content


@pytest.mark.parametrize("link", ["/elsewhere", "../elsewhere", "loop"])
def test_link_that_leaves_the_target_is_refused(tmp_path: Path, target: Path, link: str) -> None:
    archive = tmp_path / "archive.tar.zst"
    pack_tree(archive, write_tree(tmp_path / "tree", {"loop/a.py": "A", "other/b.py": "B"}))
    elsewhere = target.with_name("elsewhere")
    elsewhere.mkdir()
    target.mkdir()
    (target / "loop").symlink_to(f"{target.parent}{link}" if link.startswith("/") else link)
    outcome = boot(archive, target, in_place=True)
    assert outcome.startswith(("TargetRefused", "UnpackFailed", "ArchiveUnsafe")), outcome
    assert str(target / "loop") in outcome or "loop" in outcome
    assert list(elsewhere.iterdir()) == []
    assert not (target / stamp.NAME).exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root can change its root")
def test_the_root_directory_can_be_a_target(tmp_path: Path, mount: Mount) -> None:
    tree = write_tree(tmp_path / "tree", {"usr/local/lib/python/site-packages/app.py": "A = 1\n", "lib/b.py": "B"})
    archive = tmp_path / "packages.tar.xz"
    subprocess.run(["tar", "-C", tree, "-cJf", archive, "usr", "lib"], check=True)
    root = write_tree(tmp_path / "root", {"etc/mine": "stays", "usr/lib/old": "stays"})
    (root / "proc").mkdir()
    (root / "lib").symlink_to("usr/lib")
    shutil.copy(archive, root)
    mount("--bind", "/proc", root / "proc")
    before = f"{IMPORT_ALL}\nimport os; os.chroot({str(root)!r}); os.chdir('/')\n"
    assert boot(Path("/packages.tar.xz"), "/", before=before) == "unpacked"
    assert (root / "usr/local/lib/python/site-packages/app.py").read_text() == "A = 1\n"
    assert (root / "usr/lib/b.py").read_text() == "B"
    assert (root / "lib").is_symlink()
    assert (root / "etc/mine").read_text() == (root / "usr/lib/old").read_text() == "stays"
    stamped = (root / stamp.NAME).read_text()
    assert "import=usr/local/lib/python/site-packages\n" in stamped
    assert boot(Path("/packages.tar.xz"), "/", before=before) == "reused"


# --- another archive for the same target ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["directory", "mount"])
def test_versions_in_turn(
    packed: Path, newer: Path, tree: Path, tmp_path: Path, target: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "mount":
        target.mkdir()
        request.getfixturevalue("mount")("-t", "tmpfs", "none", target)
    for archive, source in [(packed, tree), (newer, tmp_path / "newer")] * 2:
        assert boot(archive, target) == "unpacked"
        check(target, source)
        assert boot(archive, target) == "reused"


def test_a_failed_start_leaves_the_old_tree(packed: Path, newer: Path, tree: Path, target: Path) -> None:
    assert boot(packed, target) == "unpacked"
    data = bytearray(newer.read_bytes())
    data[10] ^= 0xFF  # in the first frame
    newer.write_bytes(data)
    assert boot(newer, target).startswith("ArchiveCorrupt")
    check(target, tree)
    assert boot(packed, target) == "reused"


def test_tree_of_a_lower_layer_is_replaced(packed: Path, newer: Path, tmp_path: Path, mount: Mount) -> None:
    layers = tmp_path / "layers"
    layers.mkdir()
    mount("-t", "tmpfs", "none", layers)
    lower, upper, work, merged = (layers / name for name in ("lower", "upper", "work", "merged"))
    for directory in (lower, upper, work, merged):
        directory.mkdir()
    (lower / "empty").mkdir()
    assert boot(packed, lower / "tree") == "unpacked"
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", merged)
    assert boot(packed, merged / "tree") == "reused"
    assert boot(newer, merged / "empty") == "unpacked"
    check(merged / "empty", tmp_path / "newer")
    assert boot(newer, merged / "tree") == "unpacked"
    check(merged / "tree", tmp_path / "newer")


# --- a tree that is there ------------------------------------------------------------------------


def test_read_only_mount_is_reused(packed: Path, target: Path, tmp_path: Path, mount: Mount) -> None:
    assert boot(packed, target) == "unpacked"
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount("--bind", target, mounted)
    mount("-o", "remount,ro,bind", mounted)
    assert boot(packed, mounted) == "reused"


def test_read_only_mount_without_a_tree(packed: Path, target: Path, mount: Mount) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "-o", "ro", "none", target)
    outcome = boot(packed, target)
    assert outcome.startswith(f"TargetReadOnly: {target}"), outcome
    assert "UNPACKENV_TARGET" in outcome


def test_a_noexec_mount_takes_pure_python_only(tmp_path: Path, tree: Path, target: Path, mount: Mount) -> None:
    native, pure = tmp_path / "native.tar.zst", tmp_path / "pure.tar.zst"
    pack_tree(native, tree, native="yes")
    pack_tree(pure, tree, native="no")
    target.mkdir()
    mount("-t", "tmpfs", "-o", "noexec", "none", target)
    assert boot(native, target).startswith(f"TargetNoExec: {target}")
    assert tree_of(target) == {}
    assert boot(pure, target) == "unpacked"
    assert boot(native, target, force=True) == "unpacked"


@pytest.mark.parametrize("name", ["x.so", "x.cpython-39-x86_64-linux-gnu.so", "libs/libx.so.1.2"])
def test_noexec_mount_and_what_plain_tar_made(tmp_path: Path, target: Path, mount: Mount, name: str) -> None:
    for kind, path in ("native", name), ("pure", "x.so.txt"):
        tree = write_tree(tmp_path / kind, {path: "", "app.py": ""})
        subprocess.run(["tar", "-C", tree, "-cJf", tmp_path / f"{kind}.tar.xz", "."], check=True)
    target.mkdir()
    mount("-t", "tmpfs", "-o", "noexec", "none", target)
    assert boot(tmp_path / "native.tar.xz", target).startswith(f"TargetNoExec: {target}")
    assert tree_of(target) == {}
    assert boot(tmp_path / "pure.tar.xz", target) == "unpacked"
    assert boot(tmp_path / "native.tar.xz", target, force=True) == "unpacked"


def test_what_a_killed_start_left_is_not_in_the_way_of_the_next(tmp_path: Path, mount: Mount) -> None:
    """On a disk that has room for one tree and a half."""
    archive = tmp_path / "archive.tar.zst"
    pack_tree(archive, write_tree(tmp_path / "tree", {"zeros": "0" * 3_000_000}))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=5M", "none", disk)
    write_tree(disk / ".tree.unpackenv.work", {"zeros": "0" * 3_000_000})
    assert boot(archive, disk / "tree") == "unpacked"


@pytest.mark.parametrize("kind", ["native", "plain tar"])
def test_a_mount_with_room_for_one_tree(tmp_path: Path, target: Path, mount: Mount, kind: str) -> None:
    """There the old version goes before the new one is unpacked, so its room is counted."""
    archives = [tmp_path / f"archive-{number}.tar.zst" for number in (1, 2)]
    for number, archive in enumerate(archives):
        tree = write_tree(tmp_path / f"tree-{number}", {"zeros": str(number) * 3_000_000})
        if kind == "native":
            pack_tree(archive, tree)
        else:
            subprocess.run(["tar", "-C", tree, "--zstd", "-cf", archive, "."], check=True)
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=4M", "none", target)
    for archive in (*archives, *archives):
        assert boot(archive, target) == "unpacked"


def test_in_place_what_everybody_may_write_to_is_refused(packed: Path, target: Path) -> None:
    (target / "package").mkdir(parents=True)
    (target / "package").chmod(0o777)
    outcome = boot(packed, target, in_place=True)
    assert outcome.startswith(f"TargetUntrusted: {target}/package: may be written by everybody"), outcome
    (target / "package").chmod(0o1777)
    assert boot(packed, target, in_place=True) == "unpacked"


def test_a_link_where_the_lock_should_be(packed: Path, target: Path, tmp_path: Path) -> None:
    target.with_name(".tree.unpackenv.lock").symlink_to(tmp_path / "elsewhere")
    outcome = boot(packed, target)
    assert outcome.startswith("TargetRefused"), outcome
    assert ".tree.unpackenv.lock: is in the place of the lock" in outcome
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks(packed: Path, target: Path) -> None:
    before = """
import errno, fcntl
def flock(fd, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
    outcome = boot(packed, target, before=before)
    assert outcome.startswith("TargetRefused"), outcome
    assert "takes no locks (No locks available)" in outcome
    assert not target.exists()


def test_too_small_a_mount(tmp_path: Path, target: Path, mount: Mount) -> None:
    archive = tmp_path / "archive.tar.zst"
    pack_tree(archive, write_tree(tmp_path / "tree", {"zeros": "0" * 3_000_000}))
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=1M", "none", target)
    outcome = boot(archive, target)
    assert outcome.startswith(f"NoSpace: {target}: needs 3.0 MB and has 1.0 MB free"), outcome
    assert tree_of(target) == {}


def test_tree_without_its_archive(packed: Path, target: Path, tmp_path: Path) -> None:
    assert boot(packed, target) == "unpacked"
    missing = tmp_path / "not here.tar.zst"
    assert boot(missing, target) == "reused"
    digest = stamp.read(str(target))[0]["digest"][0]  # type: ignore[index]
    assert boot(missing, target, digest=digest) == "reused"
    assert boot(missing, target, digest="0" * 64).startswith("ArchiveNotFound")
    assert boot(missing, target.with_name("other")).startswith("ArchiveNotFound")


def test_moved_tree_is_recognised(packed: Path, target: Path) -> None:
    assert boot(packed, target) == "unpacked"
    moved = target.rename(target.with_name("moved"))
    assert boot(packed, moved) == "reused"


@pytest.mark.parametrize("damage", ["empty", "cut", "other version", "link", "binary"])
def test_damaged_stamp_is_no_stamp(packed: Path, target: Path, tmp_path: Path, damage: str) -> None:
    assert boot(packed, target) == "unpacked"
    path = target / stamp.NAME
    good = path.read_bytes()
    if damage == "link":
        path.rename(tmp_path / "stamp")
        path.symlink_to(tmp_path / "stamp")
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut": good[:-6],
                "other version": good.replace(b"stamp=1", b"stamp=9"),
                "binary": b"\0" * 99,
            }[damage]
        )
    assert stamp.read(str(target)) is None


def test_the_stamp_is_locked_by_who_uses_the_tree(packed: Path, target: Path) -> None:
    code = f"import unpackenv, fcntl, os; unpackenv.bootstrap({str(packed)!r}, {str(target)!r})\n"
    code += f"fd = os.open({str(target / stamp.NAME)!r}, os.O_RDONLY)\n"
    code += "try:\n    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n    result = 'free'\n"
    code += "except BlockingIOError:\n    result = 'in use'"
    assert result_of(code) == "in use"
    assert result_of(code) == "in use"


# --- killed --------------------------------------------------------------------------------------

# Kills every process of a start, the application's own first, when it comes to a certain step.
KILLER = """
import os, signal, sys
where, _, count = os.environ["KILL_AT"].partition(":")
left = int(count or 1)
main = os.getpid()

def wrap(owner, name, after):
    original = getattr(owner, name)
    def wrapped(*arguments, **options):
        global left
        result = original(*arguments, **options) if after else None
        left -= 1
        if not left:
            group = os.getpgid(0)
            os.kill(main, signal.SIGKILL)
            if group != os.getpgid(main):
                os.killpg(group, signal.SIGKILL)
        return result if after else original(*arguments, **options)
    setattr(owner, name, wrapped)

if sys.argv[0] == "-c":
    from unpackenv.start.unpack import native
    from unpackenv.start import stamp
    from unpackenv.start.tree import staging, writer
    owner, name, when = where.split(".")
    owners = {"stamp": stamp, "Tree": writer.TreeWriter, "staging": staging, "os": os, **vars(staging)}
    wrap(owners[owner], name, when == "after")
"""

POINTS = [
    "Sibling.open.after", "Tree.make_directory.after:2", "Tree.write_file.after:1", "Tree.write_file.after:7",
    "Tree.begin_file.after", "Tree.write_piece.after:2", "Tree.symlink.after:3", "Tree.finish_directory.after",
    "stamp.write.before", "stamp.write.after", "Sibling.publish.after",
]  # fmt: skip


def kill_at(tmp_path: Path, point: str, archive: Path, target: Path, **settings: object) -> None:
    """Start in a process group of its own, and have it killed at `point`."""
    killer = write_tree(tmp_path / "killer", {"sitecustomize.py": KILLER})
    env = environment(KILL_AT=point, PROCESSES_OF=tmp_path)
    env["PYTHONPATH"] = f"{killer}:{env['PYTHONPATH']}"
    given = "".join(f", {name}={value!r}" for name, value in settings.items())
    code = f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, workers=1{given})\n"
    code += "raise SystemExit('not killed')"
    killed = run([sys.executable, "-c", code], env)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    wait_for(lambda: not processes_with(f"PROCESSES_OF={tmp_path}"), "the processes to end")


@pytest.mark.parametrize("point", POINTS)
def test_killed_beside_the_target(packed: Path, tree: Path, target: Path, tmp_path: Path, point: str) -> None:
    kill_at(tmp_path, point, packed, target)
    published = point == "Sibling.publish.after"
    assert target.exists() == published
    assert boot(packed, target) == ("reused" if published else "unpacked")
    check(target, tree)


@pytest.mark.parametrize(
    "point",
    [
        *POINTS[1:8],
        "os.rename.before:2",
        "os.rename.after",
        "os.rename.after:4",
        "stamp.write.before",
        "stamp.write.after",
        "Inside.publish.after",
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_killed_inside_a_mount(
    packed: Path, newer: Path, tree: Path, target: Path, tmp_path: Path, mount: Mount, point: str, old: bool
) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "none", target)
    if old:
        assert boot(newer, target) == "unpacked"
    kill_at(tmp_path, point, packed, target)
    assert boot(packed, target) == ("reused" if point in ("stamp.write.after", "Inside.publish.after") else "unpacked")
    assert tree_of(target) == describe(tree)
    assert leftovers(target) == []  # the mark goes as the stamp comes
    if point == "stamp.write.after":
        newer.write_bytes(b"no archive")
        assert boot(newer, target) != "unpacked"
        assert boot(packed, target) == "reused"
        assert tree_of(target) == describe(tree)


@pytest.mark.parametrize("point", [*POINTS[1:8], "os.rename.before:2", "os.rename.after:4", "stamp.write.before"])
def test_killed_in_place(packed: Path, tree: Path, target: Path, tmp_path: Path, point: str) -> None:
    write_tree(target, {"mine": "stays", "old": "old", "package/mine": "stays"})
    kill_at(tmp_path, point, packed, target, in_place=True)
    assert stamp.read(str(target)) is None
    refused = boot(packed, target)
    assert refused.startswith("TargetRefused"), refused
    assert boot(packed, target, in_place=True) == "unpacked"
    found = tree_of(target)
    assert found.pop(b"mine")[0] == found.pop(b"package/mine")[0] == "file"
    assert found == describe(tree)
    assert leftovers(target) == [".unpackenv.in-place"]


def test_partial_files_of_a_killed_start_are_removed(packed: Path, target: Path) -> None:
    names = [".unpackenv.partial.99", "package/.unpackenv.partial.7", "package/.unpackenv.partial.link"]
    write_tree(target, {**dict.fromkeys([".unpackenv.in-place", *names], ""), ".unpackenv.unfinished": "package\0"})
    assert boot(packed, target, in_place=True) == "unpacked"
    assert not [name for name in names if (target / name).exists()]


@pytest.mark.parametrize(
    "point",
    ["os.rename.before:2", "os.rename.after:2", "os.rename.before:3", "os.rename.after:3", "Tree.write_file.after"],
)
def test_killed_while_it_replaces_an_old_tree(
    packed: Path, newer: Path, tree: Path, target: Path, tmp_path: Path, point: str
) -> None:
    assert boot(newer, target) == "unpacked"
    kill_at(tmp_path, point, packed, target)
    assert boot(packed, target) == ("reused" if point == "os.rename.after:3" else "unpacked")
    check(target, tree)


def test_back_to_the_old_tree_after_a_killed_unpack_of_another(
    packed: Path, newer: Path, tree: Path, target: Path, tmp_path: Path
) -> None:
    assert boot(packed, target) == "unpacked"
    kill_at(tmp_path, "Tree.write_file.after", newer, target)
    assert leftovers(target) == [".tree.unpackenv.work"]
    with target.with_name(".tree.unpackenv.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as long as somebody is at work there, it is no leftover
        assert boot(packed, target) == "reused"
        assert leftovers(target) == [".tree.unpackenv.work"]
    assert boot(packed, target) == "reused"
    check(target, tree)


def test_leftovers_of_any_kind_are_removed(packed: Path, tree: Path, target: Path) -> None:
    for name in (".tree.unpackenv.work", ".tree.unpackenv.old"):
        left = write_tree(target.with_name(name), {"package/__init__.py": "half", "closed/file": ""})
        (left / "closed").chmod(0o000)
        (left / "link").symlink_to(tree)
    assert boot(packed, target) == "unpacked"
    check(target, tree)


def test_a_worker_that_is_killed_fails_the_start(packed: Path, target: Path, tmp_path: Path) -> None:
    before = (
        "import os, signal, unpackenv.start.tree.writer as writer; main = os.getpid()\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "writer.TreeWriter.write_file = die"
    )
    outcome = boot(packed, target, before=before)
    assert outcome.startswith("UnpackFailed: a worker was killed by signal 9"), outcome
    assert "memory limit" in outcome
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


def test_a_worker_whose_first_one_is_killed_does_not_go_on_in_its_place(packed: Path, target: Path) -> None:
    before = (
        "import os, signal, unpackenv.start.tree.writer as writer\n"
        "make = writer.TreeWriter.make_directory\n"
        "def die(*arguments):\n"
        "    if os.getpid() == os.getpgid(0): os.kill(os.getpid(), signal.SIGKILL)\n"  # it has started the others
        "    return make(*arguments)\n"
        "writer.TreeWriter.make_directory = die"
    )
    outcome = boot(packed, target, before=before, workers=4)
    assert outcome.startswith("UnpackFailed: a worker was killed by signal 9"), outcome
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


# --- what changes while a start waits, and where others have been ---------------------------------


@pytest.mark.parametrize("kind", ["native", "plain tar"])
def test_an_archive_that_is_replaced_while_a_start_waits(
    packed: Path, newer: Path, tree: Path, target: Path, tmp_path: Path, kind: str
) -> None:
    """What is unpacked is what the stamp names, or nothing."""
    current, replacement = tmp_path / "current.tar.zst", newer
    if kind == "native":
        shutil.copy(packed, current)
    else:
        subprocess.run(["tar", "-C", tree, "--zstd", "-cf", current, "."], check=True)
    replace = f"""
import os, shutil
from unpackenv.start.tree import lock
really_acquire = lock.acquire
def acquire(*arguments):
    shutil.copy({str(replacement)!r}, {str(current)!r} + ".new")
    os.rename({str(current)!r} + ".new", {str(current)!r})
    return really_acquire(*arguments)
lock.acquire = acquire
"""
    outcome = boot(current, target, before=replace)
    assert outcome.startswith("UnpackFailed"), outcome
    assert "was replaced by another archive" in outcome
    assert not target.exists()
    assert boot(current, target) == "unpacked"


REAPS_ALL = """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "reap"])
def test_a_program_that_takes_care_of_its_children(packed: Path, tree: Path, target: Path, handler: str) -> None:
    before = f"import os, signal\n{REAPS_ALL}signal.signal(signal.SIGCHLD, {handler})\n"
    assert boot(packed, target, before=before) == "unpacked"
    check(target, tree)


def test_a_fifo_where_the_stamp_should_be(packed: Path, target: Path) -> None:
    target.mkdir()
    os.mkfifo(target / ".unpackenv.stamp")
    assert boot(packed, target) == "unpacked"  # and did not wait for somebody to write to it
