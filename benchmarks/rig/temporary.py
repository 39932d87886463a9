"""A temporary directory for one run of the tests, which must leave nothing in it; it is removed at the end.

build/failed-tests keeps the files of failed tests, by interpreter: CI runs several at the same time.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

_SECONDS_TO_END = 30


class Temporary:
    """A plugin of pytest, for the process that shows what came of the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="unpackenv-tests-")).resolve()
        self._path.chmod(0o1777)  # as /tmp: tests become other users
        self._tests = self._path / "tests"
        self._kept = config.rootpath / "build" / "failed-tests" / "python{}.{}".format(*sys.version_info)
        os.environ["TMPDIR"] = str(self._path)
        tempfile.tempdir = None
        if config.option.basetemp is None:
            config.option.basetemp = str(self._tests)
        if getattr(config.option, "numprocesses", None):  # else the tests run here, and may look at handlers
            signal.signal(signal.SIGTERM, lambda *_: pytest.exit("told to stop", 128 + signal.SIGTERM))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        yield
        left = [*self._processes(), *self._files(), *self._mounts()]
        if left:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        kept = self._keep()
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            for what in left:
                reporter.write_line(f"left by a test: {what}", red=True)
            if kept:
                reporter.write_line(f"what failed tests had in their directories is in {self._kept}")

    def pytest_unconfigure(self) -> None:
        subprocess.run(["chmod", "-R", "u+rwX", self._path], check=False, capture_output=True)
        shutil.rmtree(self._path, ignore_errors=True)

    def _processes(self) -> list[str]:
        """Kill what tests have started and not ended; return what that was."""
        until = time.monotonic() + _SECONDS_TO_END
        while (found := self._running()) and time.monotonic() < until:
            time.sleep(0.1)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"process {pid}: {command}" for pid, command in found.items()]

    def _running(self) -> dict[int, str]:
        mark = f"TMPDIR={self._path}".encode()
        found = {}
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                place = Path(f"/proc/{pid}")
                if pid != os.getpid() and mark in (place / "environ").read_bytes():
                    words = (place / "cmdline").read_text(errors="replace").split("\0")[:-1]
                    found[pid] = shlex.join(words)[:200]
        return found

    def _files(self) -> list[str]:
        found = sorted(path for path in self._path.iterdir() if path != self._tests)
        return [f"{path}" for path in found if not path.name.endswith("cacert.pem")]  # older pips leave theirs

    def _mounts(self) -> list[str]:
        """Take off what is still mounted, lest its files be removed."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        found = [point for point in reversed(points) if point.startswith(f"{self._path}/")]
        for point in found:
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        return [f"mount {point}" for point in found]

    def _keep(self) -> bool:
        """Keep the directories of tests that failed; pytest has removed those of the others."""
        found = [*self._tests.glob("test_*"), *self._tests.glob("popen-*/test_*")]
        failed = [path for path in found if not path.is_symlink()]  # pytest has a link to the last of each name
        if failed:
            shutil.rmtree(self._kept, ignore_errors=True)
            self._kept.mkdir(parents=True)
            subprocess.run(["mv", "--backup=numbered", "-t", self._kept, *failed], check=False, capture_output=True)
        return bool(failed)
