"""A start leaves the application's process as it was; several starts in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import is_waiting, processes_with, python, result_of, start, wait_for, without_notices
from helpers.support import file_input, leftovers
from rig.environment import PATIENCE, environment
from rig.sites import pack, pack_tree, write_tree

THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"

STATE = """
import gc, glob, locale, os, signal, sys
state = dict(
    modules=sorted(
        name for name in sys.modules if not name.startswith("unpackenv.") and name not in sys.builtin_module_names
    ),
    handlers=[repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    blocked=[int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    umask=os.umask(0o022),
    cwd=os.getcwd(),
    locale=locale.setlocale(locale.LC_ALL),
    files=sorted(os.readlink(fd) for fd in glob.glob("/proc/self/fd/*") if os.path.exists(fd)),
    collects=gc.isenabled(),
    threads=len(os.listdir("/proc/self/task")),
    children=open(f"/proc/self/task/{os.getpid()}/children").read(),
    group=os.getpgid(0) == os.getpid(),
    switch=sys.getswitchinterval(),
    excepthook=repr(sys.excepthook),
    path=sys.path,
    environ=dict(os.environ),
)
"""


def state_after(code: str, cwd: Path) -> dict[str, object]:
    """Return the state of a process that has run `code`; its standard streams are pipes, whose names vary."""
    state = result_of(f"{code}\n{STATE}\nresult = state", cwd=cwd)
    state["files"] = [name for name in state["files"] if not name.startswith(("pipe:", "/proc/"))]
    return state  # type: ignore[no-any-return]


@pytest.mark.parametrize("codec", ["zstd", "xz"])
def test_after_a_cold_start_as_after_a_warm_one(site: Path, tmp_path: Path, target: Path, codec: str) -> None:
    archive = tmp_path / "archive"
    pack_tree(archive, site, codec)
    code = f"import os; os.umask(0o027)\nimport unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})"
    cold, warm = state_after(code, tmp_path), state_after(code, tmp_path)
    assert cold["files"] == [f"{target}/.unpackenv.stamp"]
    assert cold["umask"] == 0o027
    for name in cold:
        assert cold[name] == warm[name], name


def test_after_a_cold_start_of_a_foreign_archive(site: Path, tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "packages.tar.xz"
    subprocess.run(["tar", "-C", site, "-cJf", archive, "."], check=True)
    code = f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})"
    cold, warm = state_after(code, tmp_path), state_after(code, tmp_path)
    for name in cold:
        assert cold[name] == warm[name], name


def test_after_a_cold_start_in_threads(archive: Path, tmp_path: Path, target: Path) -> None:
    code = f"{THREADED}import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})"
    cold, warm = state_after(code, tmp_path), state_after(code, tmp_path)
    added = set(cold.pop("modules")) - set(warm.pop("modules"))  # type: ignore[call-overload]
    assert not {name for name in added if name.startswith(("zstandard", "psutil"))}
    for name in cold:
        assert cold[name] == warm[name], name


def test_after_a_failed_start(tmp_path: Path, target: Path, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[20] ^= 1
    archive.write_bytes(data)
    code = f"import unpackenv\ntry: unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
    code += "except unpackenv.UnpackenvError: pass\nelse: raise SystemExit('no error')"
    failed, nothing = state_after(code, tmp_path), state_after("import unpackenv", tmp_path)
    failed.pop("modules"), nothing.pop("modules")
    for name in failed:
        assert failed[name] == nothing[name], name


@pytest.mark.parametrize("threaded", [False, True])
def test_the_application_imports_its_own_zstandard(tmp_path: Path, target: Path, threaded: bool) -> None:
    tree = write_tree(tmp_path / "tree", {"zstandard/__init__.py": "WHOSE = 'application'\n", "zstandard/more.py": ""})
    archive = tmp_path / "archive"
    pack_tree(archive, tree)
    code = f"{THREADED if threaded else ''}import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
    code += "import zstandard, zstandard.more; result = [zstandard.WHOSE, zstandard.__file__]"
    assert result_of(code) == ["application", f"{target}/zstandard/__init__.py"]


def test_a_zstandard_that_the_application_had_is_left(archive: Path, target: Path) -> None:
    code = f"{THREADED}import zstandard as before, unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
    code += "import zstandard; result = zstandard is before"
    assert result_of(code) is True


@pytest.mark.parametrize("codec", ["zstd", "xz"])
def test_memory_is_given_back(tmp_path: Path, target: Path, codec: str) -> None:
    archive = tmp_path / "archive"
    content = os.urandom(1 << 20) * 40
    pack(
        archive,
        [file_input(tmp_path, b"big", content)],
        codec,
        frame_size=16 << 20,
        facts={"python": [sys.implementation.cache_tag]},
    )
    code = f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, workers=2)\n"
    code += "lines = [line.split() for line in open('/proc/self/status') if line.startswith(('VmHWM', 'VmRSS'))]\n"
    code += "result = {line[0]: int(line[1]) for line in lines}"
    cold, warm = result_of(code), result_of(code)
    for name in cold:
        assert cold[name] - warm[name] < 4096, name  # kB; one frame alone has 16384


def test_start_in_a_thread_that_may_not_set_handlers(archive: Path, target: Path) -> None:
    code = "import threading, unpackenv; out = []\n"
    code += f"def work(): out.append(unpackenv.bootstrap({str(archive)!r}, {str(target)!r}).outcome)\n"
    code += "thread = threading.Thread(target=work); thread.start(); thread.join(); result = out"
    assert result_of(code) == ["unpacked"]


# --- several at once -----------------------------------------------------------------------------


def test_simultaneous_starts_unpack_once(archive: Path, target: Path) -> None:
    code = f"import unpackenv; print(unpackenv.bootstrap({str(archive)!r}, {str(target)!r}).outcome)"
    running = [start([sys.executable, "-c", code]) for _ in range(6)]
    outcomes = []
    for process in running:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, stderr
        assert len(without_notices(stderr).splitlines()) == 1
        outcomes.append(stdout.strip())
    assert outcomes.count("unpacked") == 1
    assert set(outcomes) <= {"unpacked", "waited", "reused"}


def test_one_waits_for_the_other(archive: Path, target: Path, tmp_path: Path, slow: dict[str, str]) -> None:
    code = f"import unpackenv; print(unpackenv.bootstrap({str(archive)!r}, {str(target)!r}).outcome)"
    first = start([sys.executable, "-c", code], slow)
    wait_for((tmp_path / "started").exists, "the first to begin", first)
    second = start([sys.executable, "-c", code])
    wait_for(lambda: is_waiting(second.pid, target.with_name(".tree.unpackenv.lock")), "the second to wait", second)
    Path(slow["GO"]).touch()
    stdout, stderr = second.communicate(timeout=PATIENCE)
    assert stdout == "waited\n", stderr
    assert first.communicate(timeout=PATIENCE)[0] == "unpacked\n"


def test_waiting_has_an_end(archive: Path, target: Path, tmp_path: Path, slow: dict[str, str]) -> None:
    code = f"import unpackenv; print(unpackenv.bootstrap({str(archive)!r}, {str(target)!r}).outcome)"
    first = start([sys.executable, "-c", code], slow)
    wait_for((tmp_path / "started").exists, "the first to begin", first)
    second = python(code, environment(UNPACKENV_LOCK_TIMEOUT="0.2", UNPACKENV_LOG="json"))
    assert "LockTimeout" in second.stderr
    holder = f"process {first.pid} on {os.uname().nodename}"
    assert f"{holder} has been unpacking for longer than 0.2 s" in second.stderr
    assert "UNPACKENV_LOCK_TIMEOUT" in second.stderr
    first.terminate()
    first.communicate(timeout=PATIENCE)
    assert python(code).stdout == "unpacked\n"


def test_what_a_killed_application_began_is_finished_or_begun_again(
    archive: Path, target: Path, tmp_path: Path, slow: dict[str, str]
) -> None:
    """Only the application is killed; the process that works for it holds the lock as long as it lives."""
    code = f"import unpackenv; print(unpackenv.bootstrap({str(archive)!r}, {str(target)!r}).outcome)"
    first = start([sys.executable, "-c", code], slow)
    wait_for((tmp_path / "started").exists, "the first to begin", first)
    first.kill()
    first.wait()
    second = start([sys.executable, "-c", code])
    wait_for(lambda: is_waiting(second.pid, target.with_name(".tree.unpackenv.lock")), "the second to wait", second)
    Path(slow["GO"]).touch()
    first.communicate(timeout=PATIENCE)
    stdout, stderr = second.communicate(timeout=PATIENCE)
    assert stdout in ("waited\n", "unpacked\n"), stderr
    wait_for(lambda: not processes_with(f"PROCESSES_OF={tmp_path}"), "all processes to end")
    assert leftovers(target) == []
    shutil.rmtree(target)
    assert python(code).stdout == "unpacked\n"
