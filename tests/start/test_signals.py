"""Stop signals: a start that waits, unpacks or publishes ends at once and leaves nothing; CMD handles later ones."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import (
    IS_ROOT,
    is_waiting,
    processes_with,
    result_of,
    run,
    start,
    wait_for,
    without_notices,
    wrapper,
)
from helpers.support import leftovers
from rig.environment import PATIENCE
from rig.sites import pack_tree, write_tree

PROMPT = 0.5  # seconds, as promised
SIGNALS = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
PHASES = pytest.mark.parametrize("phase", ["wait", "unpack", "publish"])
THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"

# Says how it was stopped, and whether its handlers are then those that it had before.
APPLICATION = """
import signal, unpackenv
def handlers():
    return [signal.getsignal(number) for number in signal.valid_signals()]
before = handlers()
try:
    unpackenv.bootstrap({archive!r}, {target!r}, workers=2)
except BaseException as stop:
    print(type(stop).__name__, getattr(stop, "code", None), handlers() == before, flush=True)
    raise
print("application")
"""


def application(archive: Path, target: Path) -> list[object]:
    return [sys.executable, "-c", APPLICATION.format(archive=str(archive), target=str(target))]


@pytest.fixture
def as_process_1() -> list[object]:
    """What makes a command process 1 of a PID namespace, with a /proc of its own."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not IS_ROOT or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("cannot make a PID namespace here")
    return list(prefix)


class Started:
    """A start that stands still in a phase, and what became of it."""

    def __init__(self, command: list[object], env: dict[str, str], phase: str, lock: Path) -> None:
        self._mark = f"PROCESSES_OF={env['PROCESSES_OF']}"
        self._held = lock.open("w") if phase == "wait" else None
        if self._held:
            fcntl.flock(self._held, fcntl.LOCK_EX)
        self._process = start(command, {**env, "STALLED": "unpack" if phase == "wait" else phase})
        begun = Path(env["STARTED"]).exists
        condition = (lambda: is_waiting(self.pid, lock)) if phase == "wait" else begun
        wait_for(condition, f"the {phase} to begin", self._process)

    @property
    def pid(self) -> int:
        """The application: the child of `unshare`, where there is one."""
        pid = self._process.pid
        if Path(f"/proc/{pid}/comm").read_text() != "unshare\n":
            return pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text() or pid)

    def stop(self, signum: int) -> None:
        """Send it a signal, and see all of its processes end, while what it stands still for goes on."""
        os.kill(self.pid, signum)
        self.stdout, stderr = self._process.communicate(timeout=PATIENCE)
        self.stderr = without_notices(stderr)
        self.returncode = self._process.returncode
        assert not processes_with(self._mark)
        if self._held:
            self._held.close()


def check_nothing_is_left(target: Path) -> None:
    assert leftovers(target) == []
    assert not target.exists()


# --- each signal, in each phase ------------------------------------------------------------------


@SIGNALS
@PHASES
@pytest.mark.parametrize("first", [False, True])
def test_the_wrapper_stops(
    archive: Path, target: Path, slow: dict[str, str], tmp_path: Path, signum: int, phase: str, first: bool,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    command = wrapper("--archive", archive, "--target", target, "--", "touch", tmp_path / "ran")
    prefix = request.getfixturevalue("as_process_1") if first else []
    started = Started([*prefix, *command], slow, phase, target.with_name(".tree.unpackenv.lock"))
    started.stop(signum)
    assert started.returncode == 128 + signum
    assert started.stderr == ""
    assert not (tmp_path / "ran").exists()
    check_nothing_is_left(target)


@SIGNALS
@PHASES
@pytest.mark.parametrize("first", [False, True])
def test_the_library_stops(
    archive: Path, target: Path, slow: dict[str, str], signum: int, phase: str, first: bool,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    prefix = request.getfixturevalue("as_process_1") if first else []
    lock = target.with_name(".tree.unpackenv.lock")
    started = Started([*prefix, *application(archive, target)], slow, phase, lock)
    started.stop(signum)
    if signum == signal.SIGINT:
        # An uncaught KeyboardInterrupt ends the process by SIGINT itself, as shells want it; process 1 cannot.
        assert started.stdout == "KeyboardInterrupt None True\n"
        assert started.returncode == (128 + signum if first else -signum)
    else:
        assert started.stdout == f"SystemExit {128 + signum} True\n"
        assert started.returncode == 128 + signum
    check_nothing_is_left(target)


@PHASES
def test_a_stop_is_prompt(archive: Path, target: Path, slow: dict[str, str], phase: str) -> None:
    """A Python that starts at the same time and sleeps so long ends later: most times, however busy the machine is."""
    sooner = 0
    for _ in range(7):
        Path(slow["STARTED"]).unlink(missing_ok=True)
        started = Started(application(archive, target), slow, phase, target.with_name(".tree.unpackenv.lock"))
        sleeper = start([sys.executable, "-c", f"import time; time.sleep({PROMPT})"])
        started.stop(signal.SIGTERM)
        sooner += sleeper.poll() is None
        sleeper.communicate(timeout=PATIENCE)
    assert sooner > 3


@SIGNALS
@pytest.mark.parametrize("parallel", ["processes", "threads"])
@pytest.mark.parametrize("threaded", [False, True])
def test_workers_of_any_kind_stop(
    archive: Path, target: Path, slow: dict[str, str], signum: int, parallel: str, threaded: bool
) -> None:
    started = Started(
        [sys.executable, "-c", (THREADED if threaded else "") + application(archive, target)[2].replace(  # type: ignore[attr-defined]
            "workers=2", f"workers=2, parallel={parallel!r}"
        )],
        slow, "unpack", target,
    )  # fmt: skip
    started.stop(signum)
    assert "application" not in started.stdout
    check_nothing_is_left(target)


@SIGNALS
def test_the_command_line_stops(archive: Path, target: Path, slow: dict[str, str], signum: int) -> None:
    started = Started(wrapper("unpack", archive, "-C", target), slow, "unpack", target)
    started.stop(signum)
    assert (started.returncode, started.stderr) == (128 + signum, "")
    check_nothing_is_left(target)


@SIGNALS
@PHASES
def test_a_mount_is_empty_again(
    archive: Path, target: Path, slow: dict[str, str], mount: object, signum: int, phase: str
) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "none", target)  # type: ignore[operator]
    started = Started(application(archive, target), slow, phase, target / ".unpackenv.lock")
    started.stop(signum)
    assert "application" not in started.stdout
    assert not [name for name in os.listdir(target) if name not in (".unpackenv.lock", ".unpackenv.stamp")]


@SIGNALS
@pytest.mark.parametrize("phase", ["wait", "write", "publish"])
def test_in_place_no_partial_file_is_left(
    archive: Path, site: Path, target: Path, slow: dict[str, str], signum: int, phase: str
) -> None:
    files = [str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()]
    write_tree(target, dict.fromkeys(files, "old"))
    code = APPLICATION.replace("workers=2", "in_place=True").format(archive=str(archive), target=str(target))
    started = Started([sys.executable, "-c", code], slow, phase, target / ".unpackenv.lock")
    if phase == "write":
        assert any("partial" in path for path in leftovers(target))
    started.stop(signum)
    assert "application" not in started.stdout
    assert leftovers(target) == ([] if phase == "wait" else [".unpackenv.in-place", ".unpackenv.unfinished"])
    assert all((target / path).is_file() for path in files)


@SIGNALS
@pytest.mark.parametrize("phase", ["wait", "unpack", "publish", "put away"])
def test_an_old_tree_is_there_whole_or_not_at_all(
    archive: Path, target: Path, slow: dict[str, str], tmp_path: Path, signum: int, phase: str
) -> None:
    old = tmp_path / "old.tar.zst"
    pack_tree(old, write_tree(tmp_path / "old", {"old.py": ""}))
    assert run(wrapper("unpack", old, "-C", target)).returncode == 0
    started = Started(application(archive, target), slow, phase, target.with_name(".tree.unpackenv.lock"))
    started.stop(signum)
    assert leftovers(target) == []
    assert target.exists() == (phase != "put away")
    code = f"import unpackenv; result = unpackenv.bootstrap({str(old)!r}, {str(target)!r}).outcome"
    assert result_of(code) == ("unpacked" if phase == "put away" else "reused")


def test_signals_on_top_of_each_other_are_one(archive: Path, target: Path, slow: dict[str, str]) -> None:
    started = Started(application(archive, target), slow, "unpack", target)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) * 5:
        os.kill(started.pid, signum)
    started.stop(signal.SIGTERM)
    assert started.stdout in [f"{end} True\n" for end in ("SystemExit 143", "SystemExit 129", "KeyboardInterrupt None")]
    check_nothing_is_left(target)


@SIGNALS
def test_the_next_start_after_a_stop_unpacks(archive: Path, target: Path, slow: dict[str, str], signum: int) -> None:
    """Also in the process that was stopped, if it goes on: the lock is free again."""
    code = "import os, signal, unpackenv\ntry: bootstrap()\nexcept BaseException: pass\n"
    code += "open(os.environ['GO'], 'w').close(); print(bootstrap().outcome)"
    code = code.replace("bootstrap()", f"unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, lock_timeout=0)")
    process = start([sys.executable, "-c", code], slow)
    wait_for(Path(slow["STARTED"]).exists, "the unpack to begin", process)
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert stdout == "unpacked\n", stderr


# --- handlers of the program ---------------------------------------------------------------------


def test_handlers_of_the_program_are_left_alone(archive: Path, target: Path, slow: dict[str, str]) -> None:
    code = "import signal, unpackenv\nsignal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n"
    code += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += f"outcome = unpackenv.bootstrap({str(archive)!r}, {str(target)!r}).outcome\n"
    code += "print(outcome, signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    process = start([sys.executable, "-c", code], slow)
    wait_for(Path(slow["STARTED"]).exists, "the unpack to begin", process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "mine\n"
    Path(slow["GO"]).touch()
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert stdout == "unpacked True\n", stderr
    assert process.returncode == 0


@SIGNALS
@PHASES
def test_a_handler_of_the_program_that_raises_ends_the_start(
    archive: Path, target: Path, slow: dict[str, str], signum: int, phase: str
) -> None:
    code = f"import signal, sys\nsignal.signal({int(signum)}, lambda number, _: sys.exit(100 + number))\n"
    command = [sys.executable, "-c", code + str(application(archive, target)[2])]
    started = Started(command, slow, phase, target.with_name(".tree.unpackenv.lock"))
    started.stop(signum)
    assert (started.returncode, started.stdout) == (100 + signum, f"SystemExit {100 + signum} True\n")
    check_nothing_is_left(target)


def test_ignored_signals_stay_ignored(archive: Path, target: Path, slow: dict[str, str], tmp_path: Path) -> None:
    """As under nohup: neither the start nor the command hears of them."""
    command = wrapper("--archive", archive, "--target", target, "--", "sh", "-c", "kill -HUP $$; echo alive")
    process = start(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command], slow)
    wait_for(Path(slow["STARTED"]).exists, "the unpack to begin", process)
    process.send_signal(signal.SIGHUP)
    Path(slow["GO"]).touch()
    assert process.communicate(timeout=PATIENCE)[0] == "alive\n"


# Runs CODE again and again, stopped each time at the next of the byte codes of `child`.
AT_ANY_MOMENT = """
import opcode, os, signal, sys
from unpackenv.start.machine import child
# At the byte codes that begin a block CPython looks for no signal; only a tracer can raise there.
never = [opcode.opmap[name] for name in ("NOP", "SETUP_FINALLY") if name in opcode.opmap]
def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
before = handlers()
ends, number = set(), 0
def tracer(frame, event, argument):
    global calls, number
    if frame.f_code.co_filename != child.__file__ or os.getpid() != main:
        return None
    frame.f_trace_opcodes = True
    if event != "opcode":
        return tracer
    calls += 1
    if calls == number and frame.f_code.co_code[frame.f_lasti] in never:
        number += 1
    elif calls == number and signal.getsignal(SIGNUM) not in (signal.SIG_DFL, signal.SIG_IGN):
        sys.settrace(None)
        os.kill(main, SIGNUM)
    return tracer
main = os.getpid()
while True:
    calls = 0
    number += 1
    try:
        sys.settrace(tracer)
        child.with_stop_signals(lambda: CODE)
        sys.settrace(None)
        ends.add("done")
    except BaseException as stop:
        sys.settrace(None)
        ends.add(type(stop).__name__ + str(getattr(stop, "code", "")))
    assert handlers() == before, (number, handlers())
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), number
    try:
        os.waitpid(-1, os.WNOHANG)
        raise AssertionError(f"{number}: a child is left")
    except ChildProcessError:
        pass
    if calls < number:
        break
result = [sorted(ends), number]
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since 3.12 an exception in a tracer of byte codes goes astray")
@pytest.mark.parametrize(
    ("signum", "stopped"), [(signal.SIGTERM, "SystemExit143"), (signal.SIGINT, "KeyboardInterrupt")]
)
@pytest.mark.parametrize("code", ["None", "child.run(dict)"])
def test_a_signal_at_any_moment_is_one_of_two_ends(signum: int, stopped: str, code: str) -> None:
    """Whenever it comes, it ends the start as it should, or the start is over and the program has its own handlers."""
    ends, number = result_of(AT_ANY_MOMENT.replace("SIGNUM", str(int(signum))).replace("CODE", code))
    assert ends == sorted([stopped, "done"])
    assert number > 50


# --- after the exec ------------------------------------------------------------------------------


@pytest.mark.parametrize("start_", ["cold", "warm"])
def test_as_process_1_the_command_is_alone(
    archive: Path, target: Path, as_process_1: list[object], start_: str
) -> None:
    command = [*as_process_1, *wrapper("--archive", archive, "--target", target, "--")]
    if start_ == "warm":
        assert run([*command, "true"]).returncode == 0
    code = "import os; print(os.getpid(), [name for name in os.listdir('/proc') if name.isdigit()])"
    done = run([*command, sys.executable, "-I", "-c", code])
    assert done.stdout == "1 ['1']\n", done.stderr


@SIGNALS
def test_as_process_1_the_command_gets_its_signals(
    archive: Path, target: Path, tmp_path: Path, as_process_1: list[object], signum: int
) -> None:
    code = f"import signal, sys, time\nsignal.signal({int(signum)}, lambda n, _: (print('got', n), sys.exit(7)))\n"
    code += f"open({str(tmp_path / 'up')!r}, 'w').close()\ntime.sleep({PATIENCE})"
    process = start(
        [*as_process_1, *wrapper("--archive", archive, "--target", target, "--", sys.executable, "-c", code)]
    )
    wait_for((tmp_path / "up").exists, "the command to start", process)
    os.kill(int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()), signum)
    assert process.communicate(timeout=PATIENCE)[0] == f"got {int(signum)}\n"
    assert process.returncode == 7
