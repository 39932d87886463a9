"""An application's packages, an archive of them, and places for the tree."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.file_server import FileServer, serving
from helpers.fills import family, kill, make_site, pack_site
from helpers.held_fills import Held
from helpers.processes import IS_ROOT
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree

SITE = {
    "app.py": "VERSION = 1\n",
    "package/__init__.py": "VALUE = 'packed'\n",
    "package/data.txt": "some data\n" * 500,
    "package/more/__init__.py": "",
    "package/more/deep.py": "NAME = __name__\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages directory of a few files."""
    return write_tree(tmp_path / "site", SITE)


@pytest.fixture
def archive(tmp_path: Path, site: Path) -> Path:
    """A native archive of `site`, for the interpreter that runs the tests."""
    path = tmp_path / "site-packages.tar.zst"
    pack_tree(path, site)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory that is not there yet, in one of its own."""
    (tmp_path / "trees").mkdir()
    return tmp_path / "trees" / "tree"


@pytest.fixture
def no_fill_left(target: Path) -> Iterator[None]:
    """Nothing fills the tree any more when the test has ended."""
    yield
    for how in (signal.SIGCONT, signal.SIGKILL):
        kill(list(family(target)), how)


# Stands still at a step of a start until it may go on, so that it is in that phase when something happens to it.
SLOW = """
import os, signal, sys, time

def stalled(step):
    def slow(*arguments):
        if phase == "publish":  # before the stamp: once it is there, nothing may be taken back
            stall()
        result = step(*arguments)
        if phase == "unpack" or phase == "put away" or (phase == "write" and is_partial(arguments[0])):
            stall()
        return result
    return slow

def is_partial(fd):
    return "/package/.unpackenv.partial" in os.readlink(f"/proc/self/fd/{fd}")

def stall():
    open(os.environ["STARTED"], "w").close()
    until = time.monotonic() + float(os.environ["SECONDS"])
    while not os.path.exists(os.environ["GO"]) and time.monotonic() < until:
        if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:  # told to stop, and in a thread, which is waited for
            break
        time.sleep(0.01)

if sys.argv[0] in ("-c", "-m"):
    from unpackenv.start import stamp
    from unpackenv.start.tree import staging, writer
    phase = os.environ["STALLED"]
    owner, name = {
        "unpack": (writer.TreeWriter, "write_file"),
        "write": (writer, "_write"),  # of a file that will replace another
        "publish": (stamp, "write"),
        "put away": (staging.Sibling, "_put_away"),
    }[phase]
    setattr(owner, name, stalled(getattr(owner, name)))
"""


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """An environment in which a cold start stands still at each step of the phase `STALLED`, until there is a `GO`."""
    folder = write_tree(tmp_path / "slow", {"sitecustomize.py": SLOW})
    places = {"STARTED": tmp_path / "started", "GO": tmp_path / "go", "PROCESSES_OF": tmp_path}
    env = environment(**places, SECONDS=PATIENCE, STALLED="unpack")
    env["PYTHONPATH"] = f"{folder}:{env['PYTHONPATH']}"
    return env


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """An archive of many frames, for names first, and the sizes of its files. Shared: never write to it."""
    folder = tmp_path_factory.mktemp("made")
    sizes = make_site(folder / "site")
    pack_site(folder / "archive", folder / "site")
    return folder / "archive", sizes


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """As `made`, for starts by URL: its end is not all of it. Shared: never write to it."""
    folder = tmp_path_factory.mktemp("large")
    sizes = make_site(folder / "site")
    (folder / "site/zzz").write_bytes(os.urandom(1_500_000))
    pack_site(folder / "archive.tar.zst", folder / "site")
    return folder / "archive.tar.zst", sizes


@pytest.fixture
def sizes(made: tuple[Path, dict[str, int]]) -> dict[str, int]:
    return made[1]


@pytest.fixture
def server(archive: Path) -> Iterator[FileServer]:
    """A server of the archive."""
    with serving(archive.read_bytes()) as running:
        yield running


@pytest.fixture
def held(tmp_path: Path, archive: Path, target: Path) -> Iterator[Held]:
    """Starts at `target` with fill=behind, whose files are not filled before the test says so."""
    kept = Held(tmp_path, archive, target)
    yield kept
    kept.kill_all()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may enter and write to, as /tmp."""
    with tempfile.TemporaryDirectory(prefix="unpackenv-test-", dir="/var/tmp") as name:
        os.chmod(name, 0o1777)
        yield Path(name)


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """A function that mounts something until the test ends: `mount("-t", "tmpfs", "none", path)`."""
    if not IS_ROOT:
        pytest.skip("only root can mount")
    mounted: list[str] = []

    def mount_at(*arguments: object) -> None:
        words = [str(word) for word in arguments]
        done = subprocess.run(["mount", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        if "remount" not in ",".join(words):
            mounted.append(words[-1])

    yield mount_at
    for path in reversed(mounted):
        subprocess.run(["umount", "--lazy", path], check=True)
