"""Users who may write next to the target, or in a part of an old tree, cannot redirect a start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.processes import IMPORT_ALL, IS_ROOT, start
from helpers.starts import boot
from helpers.support import describe
from rig.environment import PATIENCE
from rig.sites import pack_tree, write_tree

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root can be two users")

MALLORY, ALICE = 54321, 54322
Attack = Callable[[str], None]


def as_user(uid: int) -> str:
    """Return code that becomes another user."""
    return f"import os\nif {uid}: os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"


@pytest.fixture
def attack() -> Iterator[Attack]:
    """A function that runs code as another user until the test ends."""
    running: list[subprocess.Popen[str]] = []

    def begin(code: str) -> None:
        attacker = start([sys.executable, "-c", as_user(MALLORY) + code + "\n"])
        running.append(attacker)
        assert attacker.stdout
        assert attacker.stdout.readline() == "ready\n"

    yield begin
    for attacker in running:
        attacker.kill()
        attacker.communicate(timeout=PATIENCE)


@pytest.fixture
def shared(archive: Path, open_path: Path, site: Path) -> Path:
    """A directory in which everybody may write, with the archive, readable for all, beside it."""
    (open_path / "site.tar.zst").write_bytes(archive.read_bytes())
    directory = open_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.fixture
def canaries(open_path: Path) -> Path:
    """A directory of root with all the names that a start could hit through a link."""
    files = {
        f"{where}{name}": "canary" for where in ("", "package/", "package/more/", "sub/deep/", "y/") for name in NAMES
    }
    return write_tree(open_path / "canaries", files)


NAMES = ("app.py", "__init__.py", "data.txt", "deep.py", ".unpackenv.stamp", ".unpackenv.lock", "file")


# --- removal -------------------------------------------------------------------------------------

# Puts a link to CANARIES in the place of the directory `x` as soon as who removes it has closed it to others.
SWAPS_A_DIRECTORY = """
import os, time
for number in range(30):
    os.makedirs(f"{place}/x{number}/package/more")
    for name in range(30):
        open(f"{place}/x{number}/{name}", "w").close()
print("ready", flush=True)
done = set()
while True:
    for number in set(range(30)) - done:
        try:
            if os.stat(f"x{number}", dir_fd=work).st_mode & 0o777 == 0o700:
                os.rename(f"x{number}", f"gone{number}", src_dir_fd=work, dst_dir_fd=work)
                os.symlink(CANARIES, f"x{number}", dir_fd=work)
                done.add(number)
        except OSError:
            pass
"""


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("name", [".tree.unpackenv.work", ".tree.unpackenv.old"])
def test_directories_planted_as_leftovers_lead_nowhere(
    shared: Path, canaries: Path, attack: Attack, name: str, mode: int
) -> None:
    shared.chmod(mode)
    before = describe(canaries)
    code = f"place = {str(shared / name)!r}; CANARIES = {str(canaries)!r}; os.umask(0); os.mkdir(place)\n"
    attack(code + "work = os.open(place, os.O_RDONLY)\n" + SWAPS_A_DIRECTORY)
    boot(shared.parent / "site.tar.zst", shared / "tree", workers=1)
    assert describe(canaries) == before


def test_a_directory_open_to_all_in_an_old_tree_leads_nowhere(
    shared: Path, canaries: Path, tmp_path: Path, attack: Attack
) -> None:
    shared.chmod(0o755)
    old = tmp_path / "old.tar.zst"
    pack_tree(old, write_tree(tmp_path / "old", {"file": ""}))
    assert boot(old, shared / "tree", workers=1) == "unpacked"
    (shared / "tree" / "open").mkdir()
    (shared / "tree" / "open").chmod(0o777)
    before = describe(canaries)
    code = f"place = {str(shared / 'tree' / 'open' / 'own')!r}; CANARIES = {str(canaries)!r}; os.umask(0)\n"
    attack(code + "os.mkdir(place); work = os.open(place, os.O_RDONLY)\n" + SWAPS_A_DIRECTORY)
    boot(shared.parent / "site.tar.zst", shared / "tree", workers=1)
    assert describe(canaries) == before


# --- writing -------------------------------------------------------------------------------------

# Puts a directory of its own, with links to CANARIES in it, in the place of the one that a start has made.
SWAPS_THE_WORK_DIRECTORY = """
def swap(place):
    os.rename(place, place + ".gone")
    os.mkdir(place)
    for name in ("package", "sub", "y"):
        os.symlink(os.path.join(CANARIES, name), os.path.join(place, name))
    for name in ("app.py", "data.txt", ".unpackenv.stamp"):
        os.symlink(os.path.join(CANARIES, name), os.path.join(place, name))
    if os.geteuid() == 0:
        os.chown(place, 54321, 54321)
"""

AFTER_MKDIR = """
really_mkdir = os.mkdir
def mkdir(path, *arguments, **options):
    really_mkdir(path, *arguments, **options)
    if str(path).endswith(".work"):
        os.mkdir = really_mkdir
        swap(path)
os.mkdir = mkdir
"""

BEFORE_RENAME = """
really_rename = os.rename
def rename(source, *arguments, **options):
    if str(source).endswith(".work"):
        os.rename = really_rename
        swap(source)
    really_rename(source, *arguments, **options)
os.rename = rename
"""


@pytest.mark.parametrize("moment", [AFTER_MKDIR, BEFORE_RENAME], ids=["made", "published"])
def test_a_work_directory_that_is_exchanged_is_noticed(shared: Path, canaries: Path, moment: str) -> None:
    before = describe(canaries)
    mine = "from unpackenv.unpatched import os\n"  # the functions that a start calls
    attack = f"{mine}CANARIES = {str(canaries)!r}\n{SWAPS_THE_WORK_DIRECTORY}{moment}"
    outcome = boot(shared.parent / "site.tar.zst", shared / "tree", before=f"{IMPORT_ALL}{attack}", workers=1)
    assert outcome.startswith("TargetUntrusted"), outcome
    assert describe(canaries) == before


def test_links_put_in_the_way_of_writing_lead_nowhere(shared: Path, canaries: Path, attack: Attack, site: Path) -> None:
    before = describe(canaries)
    work = str(shared / ".tree.unpackenv.work")
    forever = f"""
print("ready", flush=True)
number = 0
while True:
    try:
        swap({work!r})
        number += 1
        os.rename({work + ".gone"!r}, {work!r} + f".gone{{number}}")
    except OSError:
        pass
"""
    attack(f"CANARIES = {str(canaries)!r}\n{SWAPS_THE_WORK_DIRECTORY}{forever}")
    outcomes = set()
    for number in range(20):
        outcome = boot(shared.parent / "site.tar.zst", shared / "tree", before=IMPORT_ALL + as_user(ALICE), workers=1)
        outcomes.add(outcome.partition(":")[0])
        assert describe(canaries) == before, (number, outcome)
    assert outcomes <= {"unpacked", "reused", "TargetUntrusted", "TargetRefused", "TargetNotWritable", "UnpackFailed"}
