"""The notice of a start that takes long, and when there is none."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest

from helpers.processes import run, start, wrapper
from rig.environment import environment
from rig.sites import write_tree

# Each file takes longer than it takes until a start says something.
SLOW = """
import time
from unpackenv.start.cold import notice
from unpackenv.start.tree import writer
write_file = writer.TreeWriter.write_file
def slow(*arguments):
    write_file(*arguments)
    time.sleep(0.05 + 2 * notice.AFTER_MS / 1e3 / 5)
writer.TreeWriter.write_file = slow
"""
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"


@pytest.fixture
def slowly(tmp_path: Path) -> dict[str, str]:
    """An environment in which a cold start takes some seconds."""
    folder = write_tree(tmp_path / "slow", {"sitecustomize.py": SLOW})
    env = environment()
    env["PYTHONPATH"] = f"{folder}:{env['PYTHONPATH']}"
    return env


@pytest.mark.parametrize("threads", ["", THREAD], ids=["child", "threads"])
def test_a_long_unpack_says_so_once(archive: Path, target: Path, slowly: dict[str, str], threads: str) -> None:
    code = f"{threads}import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r}); import app"
    done = run([sys.executable, "-c", code], slowly, notices=True)
    first, second = done.stderr.splitlines()
    assert first == f"unpackenv: unpacking 0.0 MB to {target}"
    assert second.startswith("unpackenv: unpacked 5 files")


@pytest.mark.parametrize("log", ["json", "off"])
def test_only_people_are_told(archive: Path, target: Path, slowly: dict[str, str], log: str) -> None:
    done = run(wrapper("--archive", archive, "--target", target, "--log", log, "--", "true"), slowly, notices=True)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == (1 if log == "json" else 0)
    assert "unpacking" not in done.stderr


def test_a_foreign_archive_is_named(site: Path, tmp_path: Path, target: Path, slowly: dict[str, str]) -> None:
    archive = tmp_path / "packages.tar.gz"
    run(["tar", "-C", site, "-czf", archive, "."])
    done = run(wrapper("--archive", archive, "--target", target, "--", "true"), slowly, notices=True)
    assert done.stderr.splitlines()[0] == f"unpackenv: unpacking {archive} to {target}"


def test_a_start_that_waits_names_the_other(archive: Path, target: Path) -> None:
    """It says so while it waits: the other one goes on when it has."""
    with open(target.parent / f".{target.name}.unpackenv.lock", "w") as lock:
        lock.write("process 1 on elsewhere")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = start(wrapper("--archive", archive, "--target", target, "--", "true"))
        assert waiting.stderr
        said = waiting.stderr.readline()
    assert said == f"unpackenv: waiting for process 1 on elsewhere, which is unpacking to {target}\n"
    rest = waiting.communicate()[1]
    assert waiting.returncode == 0
    assert rest.startswith("unpackenv: unpacked 5 files")
    assert len(rest.splitlines()) == 1


def test_a_failure_says_its_sentence_last(archive: Path, target: Path, slowly: dict[str, str], tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[20] ^= 1
    archive.write_bytes(data)
    done = run(wrapper("--archive", archive, "--target", target, "--", "true"), slowly)
    assert done.returncode == 125
    assert "error" in done.stderr.splitlines()[-1]
