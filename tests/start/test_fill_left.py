"""A tree that was left before all of its files were filled: the next start of this boot goes on with it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.fills import (
    BEHIND,
    ON_DEMAND,
    Running,
    content,
    end_all,
    family,
    is_unfilled,
    kill,
    make_site,
    pack_site,
    wait_until_filled,
    wait_until_unused,
    wrong_files,
)
from helpers.processes import run, start, wait_for
from helpers.starts import boot_code, end_of
from rig.environment import environment
from unpackenv.start import stamp

pytestmark = pytest.mark.usefixtures("no_fill_left")

READ, SPANS = "package_1/data_13.bin", "large/spans.bin"
NOTE = "note.txt"


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


def kill_all(process: subprocess.Popen[str], target: Path) -> None:
    """End everything at once, as the end of a container does."""
    end_all(target)
    process.communicate()


def leave(archive: Path, target: Path) -> int:
    """Leave a tree of which little is filled; return its inode. There is a note in it that no archive has."""
    application = Running(archive, target, ON_DEMAND)
    assert (application.outcome, application.fill) == ("named", ON_DEMAND), application.end()
    assert (target / READ).read_bytes() == content(READ, (target / READ).stat().st_size)
    (target / NOTE).write_text("of the application")
    kill_all(application.process, target)
    assert stamp.state_of(str(target)) == stamp.UNFINISHED
    return target.stat().st_ino


def check(application: Running, target: Path, sizes: dict[str, int], *, goes_on: bool) -> None:
    """See whether a start goes on with the tree; every file must have its content."""
    assert (application.outcome, application.fill) == ("named", ON_DEMAND), application.end()
    assert (target / NOTE).exists() == goes_on
    assert is_unfilled(target / SPANS)
    assert is_unfilled(target / READ) == (not goes_on)
    assert wrong_files(target, sizes) == []
    application.end()


def test_what_was_filled_is_kept(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    inode = leave(archive, target)
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=True)
    assert target.stat().st_ino == inode


def test_again_and_again(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    leave(archive, target)
    for path in list(sizes)[:4]:
        application = Running(archive, target, ON_DEMAND)
        (target / path).read_bytes()
        kill_all(application.process, target)
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=True)


def test_the_rest_may_be_filled_behind(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    leave(archive, target)
    application = Running(archive, target, BEHIND)
    assert (application.outcome, application.fill) == ("named", BEHIND)
    wait_until_filled(target)
    application.end()
    assert end_of(archive, target).outcome == "reused"
    assert (target / NOTE).exists()
    assert sorted(each.name for each in target.iterdir() if each.name.startswith(".")) == [".unpackenv.stamp"]
    assert wrong_files(target, sizes) == []


def test_it_is_complete_before_the_start(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    leave(archive, target)
    assert end_of(archive, target).outcome == "unpacked"
    assert not (target / NOTE).exists()
    assert wrong_files(target, sizes) == []


LATE = """
import time
from unpackenv.start.fill import holder
def late(self, breaks, wait=holder.Holder._wait):
    if self.shard:
        time.sleep(0.5)  # the holder of the first shard has ended before this one looks
    wait(self, breaks)
holder.Holder._wait = late
"""


@pytest.mark.parametrize("before", ["", LATE])
def test_on_demand_that_has_ended_is_kept(archive: Path, target: Path, sizes: dict[str, int], before: str) -> None:
    application = Running(archive, target, ON_DEMAND, before)
    (target / READ).read_bytes()
    (target / NOTE).touch()
    application.end()
    wait_until_unused(target)
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=True)


def test_at_a_mount_root(archive: Path, tmp_path: Path, sizes: dict[str, int], mount: Callable[..., None]) -> None:
    target = tmp_path / "volume"
    target.mkdir()
    mount("-t", "tmpfs", "none", target)
    try:
        leave(archive, target)
        check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=True)
        leave(archive, target)
        assert end_of(archive, target).outcome == "unpacked"
        assert not (target / NOTE).exists()
        assert wrong_files(target, sizes) == []
        assert not any((target / name).exists() for name in stamp.FILL_NAMES)
    finally:
        kill(list(family(target)))
        wait_until_filled(target)


def written_in_part(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"a part")


def cut(path: Path) -> None:
    os.truncate(path, 3)
    os.utime(path, (1, 1))


@pytest.mark.parametrize("path", ["package_2/data_2.bin", SPANS])
@pytest.mark.parametrize("how", [written_in_part, cut])
def test_a_file_whose_writer_was_killed(
    archive: Path, target: Path, sizes: dict[str, int], path: str, how: Callable[[Path], None]
) -> None:
    leave(archive, target)
    how(target / path)
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=True)


def test_removed_files_stay_removed(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    leave(archive, target)
    (target / "package_2/data_2.bin").unlink()
    application = Running(archive, target, ON_DEMAND)
    assert not (target / "package_2/data_2.bin").exists()
    assert (target / NOTE).exists()
    application.end()


def other_boot(target: Path) -> None:
    path = target / stamp.NAME
    path.write_text(path.read_text().replace(stamp.boot_id(), "0" * 36))


def no_journal(target: Path) -> None:
    (target / stamp.JOURNAL).unlink()


def journal_of_another_archive(target: Path) -> None:
    with open(target / stamp.JOURNAL, "ab") as file:
        file.write(b"\2")


def two_names(target: Path) -> None:
    """A file that is not of the archive, with a second name outside of the tree."""
    path = target / "package_2/data_2.bin"
    (target.parent / "outside").write_text("of somebody else")
    path.unlink()
    os.link(target.parent / "outside", path)


def link_instead_of_file(target: Path) -> None:
    path = target / "package_2/data_2.bin"
    (target.parent / "outside").write_text("of somebody else")
    path.unlink()
    path.symlink_to(target.parent / "outside")


def link_instead_of_directory(target: Path) -> None:
    (target / "package_2").rename(target.parent / "moved")
    (target / "package_2").symlink_to(target.parent / "moved")
    written_in_part(target.parent / "moved/data_2.bin")
    (target.parent / "outside").write_bytes((target.parent / "moved/data_2.bin").read_bytes())


@pytest.mark.parametrize(
    "change",
    [other_boot, no_journal, journal_of_another_archive, two_names, link_instead_of_file, link_instead_of_directory],
)
def test_it_is_unpacked_again(
    archive: Path, target: Path, sizes: dict[str, int], change: Callable[[Path], None]
) -> None:
    leave(archive, target)
    change(target)
    outside = target.parent / "outside"
    before = outside.read_bytes() if outside.exists() else b""
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=False)
    assert not outside.exists() or outside.read_bytes() == before


def test_of_another_archive(archive: Path, target: Path, tmp_path: Path) -> None:
    leave(archive, target)
    sizes = make_site(tmp_path / "site", 150)
    pack_site(tmp_path / "archive", tmp_path / "site")
    check(Running(tmp_path / "archive", target, ON_DEMAND), target, sizes, goes_on=False)


def test_while_somebody_uses_it(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    """All that fill and watch were killed, so that an application is left that may have read anything."""
    first = Running(archive, target, ON_DEMAND)
    (target / NOTE).touch()
    kill([pid for pid, name in family(target).items() if name == "watch"])
    kill(list(family(target)))
    wait_until_filled(target)
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=False)
    first.end()


def test_killed_while_it_goes_on(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    """At random moments of fill=behind, and of the starts that go on with it."""
    choose = random.Random(5)
    for _ in range(6):
        application = Running(archive, target, BEHIND)
        time.sleep(choose.uniform(0, 0.05))
        kill_all(application.process, target)
    application = Running(archive, target, ON_DEMAND)
    assert application.outcome in ("named", "reused")
    assert wrong_files(target, sizes) == []
    application.end()


def test_a_stopped_start_is_no_left_tree(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    """A start is killed while it leases what is left."""
    leave(archive, target)
    slow = "import time; from unpackenv.start.fill import left; left.LeftNames._restore = lambda *_: time.sleep(600)\n"
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_FILL=ON_DEMAND)
    process = start([sys.executable, "-c", slow + boot_code()], env)
    wait_for((target / stamp.UNFINISHED_MARK).exists, "the tree to be unfinished", process)
    kill_all(process, target)
    check(Running(archive, target, ON_DEMAND), target, sizes, goes_on=False)


def test_commands_see_an_unfinished_tree(archive: Path, target: Path) -> None:
    leave(archive, target)
    done = run([sys.executable, "-m", "unpackenv", "fill", target])
    assert done.returncode == 125
    assert "nobody fills it any more" in done.stderr
