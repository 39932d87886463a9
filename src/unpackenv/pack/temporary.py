"""Temporary directories and commands of a long step: none of them outlives a stop signal."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from unpackenv.errors import NoSpace, PackError

FULL = (errno.ENOSPC, errno.EDQUOT)
_SECONDS_TO_REMOVE = 0.2


class Directory:
    """A temporary directory, from `make` on, until this context is left.

    After a stop signal another process removes it, and may outlive this one: tens of thousands of files take seconds.
    """

    def __init__(self) -> None:
        self._path = ""

    def make(self, where: str = "") -> str:
        """Make it, in the directory `where` or that of temporary files, and return its path."""
        # Set before the directory is made: a signal may come in between.
        self._path = os.path.join(where or tempfile.gettempdir(), f"unpackenv-{secrets.token_hex(8)}")
        try:
            os.mkdir(self._path, 0o700)
        except OSError:
            self._path = ""
            raise
        return self._path

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        try:
            if self._path and (kind is None or issubclass(kind, Exception)):
                shutil.rmtree(self._path)
        finally:
            if self._path and os.path.lexists(self._path):  # a stop signal came, perhaps just now
                _remove_aside(self._path)


def _remove_aside(path: str) -> None:
    try:
        remover = subprocess.Popen(
            ["rm", "-rf", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(subprocess.TimeoutExpired):
        remover.wait(_SECONDS_TO_REMOVE)


@contextmanager
def room(where: str, need: str) -> Iterator[None]:
    """Translate the OSError of a full disk or quota into `NoSpace`, for files that are written below `where`.

    `need` says what needs how much: "compiling takes about 3 MB".
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        hint = "Make room there, or name another directory with TMPDIR"
        raise NoSpace(f"is full, or your quota there: {need}", where=where, hint=hint) from error


@contextmanager
def process_limit() -> Iterator[None]:
    """Raise `PackError` if a limit allows no more processes."""
    try:
        yield
    except BlockingIOError as error:
        hint = "Raise the limit (ulimit -u, or pids.max of the cgroup)"
        raise PackError(f"a limit allows no more processes ({error.strerror})", hint=hint) from error


class Commands:
    """Commands that threads run. When this context is left, running ones are killed and no new one can start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def run(
        self, command: Sequence[str], stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return its result; `stdin` is the text that it reads."""
        with self._lock:
            if self._closed:
                raise InterruptedError
            with process_limit():
                process = subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="backslashreplace",
                )
            self._running.add(process)
        try:
            out, err = process.communicate(stdin)
        finally:
            with self._lock:
                self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            process.kill()
            process.wait()
