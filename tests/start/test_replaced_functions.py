"""Starts in applications that have replaced functions of the interpreter."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.processes import is_waiting, python, start, wait_for
from rig.environment import PATIENCE
from rig.sites import TAG, members_of, pack

GEVENT = "import gevent.monkey; gevent.monkey.patch_all()"
EVENTLET = "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch(os=True)"
MOCKS = """
import os, time, threading, _thread
def refuse(*_, **__): raise AssertionError("the application's, and called by a start")
names = "close fork fstat lseek open pipe read rename unlink utime waitpid write"
for name in names.split(): setattr(os, name, refuse)
for name in "clock_gettime monotonic perf_counter process_time sleep time".split(): setattr(time, name, refuse)
threading.Thread = threading.Lock = refuse
"""
STANDS_STILL = "import time; time.sleep = lambda _: None; time.monotonic = time.perf_counter = time.time = lambda: 1.0"
REPLACED = {"gevent": GEVENT, "eventlet": EVENTLET, "mocks": MOCKS, "a clock that stands still": STANDS_STILL}
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"


@pytest.fixture(params=["native", "foreign"])
def any_archive(request: pytest.FixtureRequest, archive: Path, site: Path, tmp_path: Path) -> Path:
    """An archive that `pack` made, and one that tar made."""
    if request.param == "native":
        return archive
    foreign = tmp_path / "packages.tar.xz"
    subprocess.run(["tar", "-C", site, "-cJf", foreign, "."], check=True)
    return foreign


@pytest.mark.parametrize("replaced", REPLACED)
@pytest.mark.parametrize("threaded", [False, True])
def test_an_application_that_replaces_functions_starts(
    any_archive: Path, target: Path, replaced: str, threaded: bool
) -> None:
    boot = (
        f"import unpackenv\nunpackenv.bootstrap({str(any_archive)!r}, {str(target)!r})\nimport app; print(app.VERSION)"
    )
    code = f"{THREAD if threaded else ''}\n{REPLACED[replaced]}\n{boot}"
    for outcome in "unpacked", "reused":
        done = python(code)
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
        assert f"unpackenv: {outcome} " in done.stderr


def test_functions_that_are_replaced_after_the_import(archive: Path, target: Path) -> None:
    boot = f"unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\nimport app; print(app.VERSION)"
    done = python(f"import unpackenv, unpackenv.start.bootstrap\n{GEVENT}\n{boot}")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.fixture
def held(target: Path) -> Iterator[Path]:
    """The lock of `target`, held by this process."""
    path = target.parent / f".{target.name}.unpackenv.lock"
    with open(path, "w") as file:
        file.write("process 1 on elsewhere")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


@pytest.mark.parametrize("replaced", REPLACED)
def test_the_wait_for_another_start_ends(archive: Path, target: Path, held: Path, replaced: str) -> None:
    boot = f"import unpackenv\nunpackenv.bootstrap({str(archive)!r}, {str(target)!r}, lock_timeout=0.2)"
    done = python(f"{REPLACED[replaced]}\n{boot}")
    assert "process 1 on elsewhere has been unpacking for longer than 0.2 s" in done.stderr


@pytest.mark.parametrize("replaced", REPLACED)
def test_a_start_that_waits_hears_a_signal(archive: Path, target: Path, held: Path, replaced: str) -> None:
    boot = f"import unpackenv\nunpackenv.bootstrap({str(archive)!r}, {str(target)!r})"
    waiting = start([sys.executable, "-c", f"{REPLACED[replaced]}\n{boot}"])
    wait_for(lambda: is_waiting(waiting.pid, held), "the start to wait", waiting)
    waiting.terminate()
    _, said = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 128 + signal.SIGTERM, said


def test_threads_of_an_application_are_named_as_the_reason(site: Path, target: Path, tmp_path: Path) -> None:
    """A greenlet is no thread: there is one worker, and no limit of the system is to blame."""
    archive = tmp_path / "frames.tar.zst"
    pack(archive, members_of(site), frame_size=2000, facts={"python": [TAG]})
    boot = f"unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, parallel='threads', workers=2)"
    done = python(f"{GEVENT}\nimport unpackenv\n{boot}")
    assert done.returncode == 0
    assert "; warning: the application has replaced threads: only one worker unpacked" in done.stderr
    assert "the system refused" not in done.stderr
