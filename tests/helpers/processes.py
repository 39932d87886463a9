"""Processes for tests: interpreters in a known environment, and their output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rig
from rig.environment import PATIENCE, environment

IS_ROOT = os.geteuid() == 0
# Where the helpers of tests are, for an interpreter that is to import some.
PATHS = [str(Path(__file__).resolve().parents[1]), str(Path(rig.__file__).resolve().parents[1])]

# What a start says where it takes more than a second, and a step of a command where it takes ten, as any may on a slow
# machine.
_NOTICE = re.compile(
    r"^(unpackenv: (unpacking .* to|waiting for .*, which is unpacking to) /.*"
    r"|[a-z ]+: (\d+%(, about \d+ (s|min) left)?|\d+\.\d MB so far))\n",
    re.MULTILINE,
)

# What a start imports on its way, for processes that lose sight of the file system: another user, or another root.
IMPORT_ALL = """
import encodings.idna, hashlib, json, lzma, marshal, site, threading, traceback, zstandard
import unpackenv.start.bootstrap, unpackenv.start.cold.place
import unpackenv.archive.codecs.xz, unpackenv.archive.codecs.zstd, unpackenv.archive.codecs.zstd_format
import unpackenv.start.unpack.foreign, unpackenv.start.unpack.native
"""


def run(
    command: Sequence[object],
    env: dict[str, str] | None = None,
    *,
    cwd: Path | str = "/",
    stdin: str = "",
    before: Callable[[], None] | None = None,
    timeout: float = PATIENCE,
    notices: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; whether it went well is for the test to say.

    Its stderr is without what it says because it takes long, unless `notices` are wanted.
    """
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command]
    chosen = environment() if env is None else env
    done = subprocess.run(
        words, env=chosen, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout, preexec_fn=before
    )
    if not notices:
        done.stderr = without_notices(done.stderr)
    return done


def without_notices(stderr: str) -> str:
    """Return what starts have said but for what they say because they take long."""
    return _NOTICE.sub("", stderr)


def start(
    command: Sequence[object], env: dict[str, str] | None = None, *, new_group: bool = False
) -> subprocess.Popen[str]:
    """Start a command and return while it runs."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command]
    return subprocess.Popen(
        words,
        env=environment() if env is None else env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=new_group,
    )


def python(code: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter."""
    return run([sys.executable, "-c", code], env, **options)


def result_of(code: str, env: dict[str, str] | None = None, **options: Any) -> Any:
    """Run `code` in a fresh interpreter and return what it leaves in `result`."""
    done = python(code + "\nimport json as _json\nprint(_json.dumps(result))", env, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wrapper(*arguments: object) -> list[object]:
    """Return the command line of the wrapper, or of another command; `pack` writes no SBOM, which takes 0.3 s."""
    if arguments[:1] == ("pack",):
        arguments = ("pack", "--no-sbom", *arguments[1:])
    return [sys.executable, "-m", "unpackenv", *arguments]


def quickly(*folders: Path) -> dict[str, str]:
    """Return variables with which `pack` and `analyze` compress quickly, and that has modules of `folders`, too."""
    paths = [*map(str, folders), str(Path(__file__).parent / "quickly"), environment()["PYTHONPATH"]]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def wait_for(condition: Callable[[], object], what: str, *processes: subprocess.Popen[str]) -> None:
    """Wait until `condition` holds; it is an error if it never does, or if one of `processes` has ended before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        ended = [process for process in processes if process.poll() is not None]
        if ended and not condition():
            pytest.fail(f"waited for {what}, and a process ended with {ended[0].returncode}: {ended[0].communicate()}")
        time.sleep(0.005)


@contextmanager
def sooner_than(seconds: float) -> Iterator[None]:
    """See that the block ends sooner than a Python that starts with it and computes for so many seconds of a CPU."""
    other = start([sys.executable, "-c", f"import time\nwhile time.process_time() < {seconds}: pass"])
    try:
        yield
        assert other.poll() is None, f"took as long as {seconds} s of a CPU"
    finally:
        other.kill()
        other.communicate()


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    directory = f"/proc/{pid}/fd"
    try:
        return str(path) in [os.readlink(f"{directory}/{fd}") for fd in os.listdir(directory)]
    except OSError:
        return False


def is_waiting(pid: int, lock: Path) -> bool:
    """Whether a process sleeps because of a lock that another one has."""
    try:
        return has_open(pid, lock) and "\nState:\tS" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def processes_with(mark: str) -> list[int]:
    """Return the processes that have `mark` in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def is_gone(pid: int) -> bool:
    """Whether a process has let go of its files: it loses its environment, by which it is found, before."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def other_python() -> str:
    """Return a Python of another version, from 3.9, if one is here."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [f"/usr/bin/python3.{minor}" for minor in range(9, 20)]
    candidates += map(str, sorted(versions.glob("3.*/bin/python")) if os.access(versions, os.R_OK | os.X_OK) else [])
    probe = f"import sys; v = sys.version_info; sys.exit(v < (3, 9) or '%d.%d' % v[:2] == {own!r})"
    for candidate in candidates:
        if os.path.exists(candidate) and subprocess.run([candidate, "-c", probe], capture_output=True).returncode == 0:
            return candidate
    pytest.skip("no other Python here")
