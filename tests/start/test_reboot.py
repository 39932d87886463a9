"""After a reboot a start counts the files of a tree before it uses the tree, once, unless it was synced."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.processes import IMPORT_ALL, IS_ROOT, run, wrapper
from helpers.starts import boot
from helpers.support import describe, leftovers
from rig.environment import environment
from rig.sites import pack_tree
from unpackenv.start import stamp

Mount = Callable[..., None]
OTHER_BOOT = "01234567-89ab-cdef-0123-456789abcdef\n"
# Another boot id, in a mount namespace: what the machine says after a restart.
REBOOTED = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


@pytest.fixture
def rebooted(tmp_path: Path) -> list[object]:
    """What runs a command as after a restart of the machine."""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text(OTHER_BOOT)
    prefix: list[object] = ["unshare", "--mount", "sh", "-c", REBOOTED, boot_id]
    if not IS_ROOT or subprocess.run([*map(str, prefix), "true"], capture_output=True).returncode:
        pytest.skip("cannot make a mount namespace here")
    return prefix


def boot_of(target: Path) -> str:
    found = stamp.read(str(target))
    assert found
    os.close(found[1])
    return found[0]["boot"][0]


LOSSES: dict[str, Callable[[Path], object]] = {
    "a file is missing": lambda tree: (tree / "package/more/deep.py").unlink(),
    "a file is empty": lambda tree: os.truncate(tree / "app.py", 0),
    "a file is cut off": lambda tree: os.truncate(tree / "package/data.txt", 4096),
}


def test_a_whole_tree_is_counted_once(archive: Path, target: Path, site: Path, rebooted: list[object]) -> None:
    assert boot(archive, target) == "unpacked"
    assert boot_of(target) == stamp.boot_id() != OTHER_BOOT.strip()
    inode = target.stat().st_ino
    assert boot(archive, target, prefix=rebooted) == "reused"
    assert boot_of(target) == OTHER_BOOT.strip()
    LOSSES["a file is missing"](target)
    assert boot(archive, target, prefix=rebooted) == "reused"  # not counted again
    assert boot(archive, target) == "unpacked"  # but after the next restart
    assert target.stat().st_ino != inode
    assert {path: state for path, state in describe(target).items() if path != stamp.NAME.encode()} == describe(site)


@pytest.mark.parametrize("what", LOSSES)
@pytest.mark.parametrize("codec", ["zstd", "xz", "plain"])
def test_what_a_crash_took_is_noticed(
    tmp_path: Path, target: Path, site: Path, rebooted: list[object], what: str, codec: str
) -> None:
    archive = tmp_path / "archive"
    if codec == "plain":
        subprocess.run(["tar", "-C", site, "-cJf", archive, "."], check=True)
    else:
        pack_tree(archive, site, codec)
    assert boot(archive, target) == "unpacked"
    LOSSES[what](target)
    assert boot(archive, target) == "reused"  # the same boot: nothing can have been lost
    assert boot(archive, target, prefix=rebooted) == "unpacked"
    assert boot(archive, target, prefix=rebooted) == "reused"
    (target / stamp.NAME).unlink()
    assert describe(target) == describe(site)
    assert leftovers(target) == []


def test_a_synced_tree_is_not_counted(archive: Path, target: Path, rebooted: list[object]) -> None:
    assert boot(archive, target, environment(UNPACKENV_SYNC="yes")) == "unpacked"
    LOSSES["a file is missing"](target)
    assert boot(archive, target, prefix=rebooted) == "reused"
    assert boot_of(target) == stamp.SYNCED


def test_one_that_was_filled_in_place_is_filled_again(archive: Path, target: Path, rebooted: list[object]) -> None:
    target.mkdir()
    (target / "mine").touch()
    assert boot(archive, target, in_place=True) == "unpacked"
    LOSSES["a file is empty"](target)
    assert boot(archive, target, prefix=rebooted, in_place=True) == "unpacked"
    assert (target / "app.py").read_text() == "VERSION = 1\n"
    assert (target / "mine").exists()


def test_on_a_read_only_mount_every_start_counts(
    archive: Path, target: Path, tmp_path: Path, rebooted: list[object], mount: Mount
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "none", disk)
    tree = disk / "tree"
    assert boot(archive, tree) == "unpacked"
    mount("-o", "remount,ro", disk)
    assert boot(archive, tree, prefix=rebooted) == "reused"
    assert boot_of(tree) == stamp.boot_id()
    mount("-o", "remount,rw", disk)
    LOSSES["a file is cut off"](tree)
    mount("-o", "remount,ro", disk)
    assert boot(archive, tree, prefix=rebooted).startswith("TargetReadOnly: ")


def test_without_the_archive_the_loss_is_told(archive: Path, target: Path, rebooted: list[object]) -> None:
    """As where an init container unpacked it."""
    assert run(wrapper("unpack", archive, "-C", target)).returncode == 0
    assert boot(None, target, prefix=rebooted) == "reused"
    LOSSES["a file is missing"](target)
    assert boot(None, target, prefix=rebooted) == "reused"
    assert boot(None, target).startswith("TreeMismatch: ")


def test_who_may_not_look_everywhere_cannot_count(
    archive: Path, open_path: Path, tmp_path: Path, rebooted: list[object]
) -> None:
    """Unpacked by root, used by another user; the same as where a directory vanishes under who counts."""
    target = open_path / "trees" / "tree"
    target.parent.mkdir(mode=0o755)
    copy = open_path / "site.tar.zst"
    copy.write_bytes(archive.read_bytes())
    assert boot(copy, target) == "unpacked"
    (target / "package").chmod(0o700)
    somebody = f"{IMPORT_ALL}\nimport os; os.setgid(54321); os.setuid(54321)\n"
    assert boot(copy, target, before=somebody, prefix=rebooted).startswith("TargetNotWritable: ")
