"""Files and directories that take long to make, kept under ~/.cache/unpackenv-tests for tests and benchmarks.

The first run that needs one makes it, and others wait. It is made next to its place and renamed, so a killed run leaves
no half of it. If it cannot be made, no process of the same run tries again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

DIRECTORY = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unpackenv-tests"
# A download on a slow line, a base image on a slow machine: not a measure of speed, a guard against hanging.
SECONDS = 3600.0
_UNUSED_SECONDS = 3600
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex


class NotMade(Exception):
    """What others need could not be made; the message says what, and why.

    `first` names the test in another process of this run that has found it out, if there is one.
    """

    def __init__(self, message: str, first: str = "") -> None:
        super().__init__(message)
        self.first = first


def made(name: str, made_of: str, make: Callable[[Path], None], *, suffix: str = "", latest: bool = False) -> Path:
    """Return the file or directory that `make` has made of `made_of`, at the path that it is given.

    With `latest`, those that were made of something else go, once nobody has asked for them for an hour. Raises
    `NotMade`.
    """
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    place = DIRECTORY / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}{suffix}"
    with open(f"{place}.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _check_earlier(lock)
            for leftover in DIRECTORY.glob(f"{place.name}.tmp-*"):
                shutil.rmtree(leftover)
            with tempfile.TemporaryDirectory(prefix=f"{place.name}.tmp-", dir=DIRECTORY) as work:
                work_place = Path(work) / f"made{suffix}"
                try:
                    make(work_place)
                except (NotMade, OSError) as error:
                    _note(lock, str(error))
                    raise NotMade(f"{name} could not be made: {error}") from error
                os.rename(work_place, place)
        if latest:
            os.utime(f"{place}.lock")
            _remove_unused(name, suffix)
    return place


def run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Return what a command prints that makes something. Raises `NotMade` if it fails or does not end."""
    words = [str(word) for word in command]
    with subprocess.Popen(
        words, cwd=cwd, env=env, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            if isinstance(error, subprocess.TimeoutExpired):
                raise NotMade(f"{words[0]} still ran after {SECONDS:g} s") from None
            raise
    if process.returncode:
        raise NotMade(f"{words[0]} ended with {process.returncode}: {(stderr or stdout).strip()[-2000:]}")
    return stdout


def _note(lock: TextIO, why: str) -> None:
    """Let the other processes of this run know what could not be made, and which test has tried."""
    lock.truncate(0)
    first = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    json.dump({"run": _RUN, "why": why, "first": first}, lock)


def _check_earlier(lock: TextIO) -> None:
    lock.seek(0)
    text = lock.read()
    noted = json.loads(text) if text else {}
    if noted.get("run") == _RUN:
        raise NotMade(noted["why"], noted["first"])


def _remove_unused(name: str, suffix: str) -> None:
    for lock in DIRECTORY.glob(f"{name}-{'?' * 16}{suffix}.lock"):
        if lock.stat().st_mtime < time.time() - _UNUSED_SECONDS:
            lock.with_suffix("").unlink(missing_ok=True)
            lock.unlink()
