"""Names first where something goes wrong: processes that are killed or stopped, damage, a full disk, no leases."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from helpers.fills import Running, family, kill, wait_until_filled, wait_until_synced, wrong_files
from helpers.processes import python, run, wait_for, wrapper
from helpers.starts import boot_code, end_of
from helpers.support import Tally
from rig.environment import PATIENCE, environment

pytestmark = pytest.mark.usefixtures("no_fill_left")

BEHIND, ON_DEMAND = "behind", "on-demand"
# Until it is killed.
WAITS = f"print('started', flush=True)\nimport time; time.sleep({PATIENCE})"


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


def variables(archive: Path, target: Path, fill: str, **more: object) -> dict[str, str]:
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_FILL=fill, **more)
    env["PYTHONPATH"] += os.pathsep + os.pathsep.join(sys.path)
    return env


def reading(target: Path, sizes: dict[str, int], seed: int = 1) -> str:
    """Return code of an application that reads every file, in random order, and prints which are wrong.

    If any are, it does not end before it is killed.
    """
    paths = list(sizes)
    random.Random(seed).shuffle(paths)
    order = {path: sizes[path] for path in paths}
    rest = "print('started', flush=True)\nfrom helpers.fills import wrong_files\n"
    rest += f"wrong = wrong_files({str(target)!r}, {order})\nprint(wrong, flush=True)\n"
    rest += f"if wrong:\n    import time; time.sleep({PATIENCE})"
    return boot_code(rest=rest)


def begin(code: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start an application, and return when its packages can be used. It may read its stdin, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "started\n", process.communicate()
    return process


def check_next_start(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    """See that the next start has a whole tree."""
    wait_until_filled(target)
    assert end_of(archive, target).outcome in ("unpacked", "reused")
    assert wrong_files(target, sizes) == []


# --- processes that are killed or stopped --------------------------------------------------------

ROLES = ("hold", "guard", "fill", "watch")


def victims(target: Path, roles: tuple[str, ...], choose: random.Random) -> list[int]:
    """Return one process of each of the roles, as far as there is one."""
    found = []
    for role in roles:
        pids = [pid for pid, name in family(target).items() if name == role and pid not in found]
        found += choose.sample(pids, min(1, len(pids)))
    return found


# Not a holder, for which its guardian waits a while, see below; nor a watcher, which has the stderr open that this test
# reads to its end.
STOPPED = ("guard", "fill")


@pytest.mark.parametrize("fill", [BEHIND, ON_DEMAND])
@pytest.mark.parametrize(
    ("role", "how"), [*((role, signal.SIGKILL) for role in ROLES), *((role, signal.SIGSTOP) for role in STOPPED)]
)
def test_any_process_may_be_killed_or_stopped(
    archive: Path, target: Path, sizes: dict[str, int], role: str, fill: str, how: signal.Signals
) -> None:
    process = begin(reading(target, sizes), variables(archive, target, fill))
    kill(victims(target, (role,), random.Random(1)), how)
    out, said = process.communicate()
    assert (process.returncode, out) == (0, "[]\n"), said


@pytest.mark.parametrize("shard", [0, 1])
def test_each_successor_has_a_guardian_of_its_own(
    archive: Path, target: Path, sizes: dict[str, int], shard: int
) -> None:
    """Guardian, holder, guardian and holder of a shard are killed, one after the other."""
    wait = reading(target, sizes).replace("from helpers", "import sys; sys.stdin.read()\nfrom helpers", 1)
    process = begin(wait, variables(archive, target, ON_DEMAND))
    holder = sorted(pid for pid, name in family(target).items() if name == "hold")[shard]
    for role in ("guard", "hold") * 2:
        wait_for(lambda of=holder: guardian_of(target, of), "a guardian", process)
        guardian = guardian_of(target, holder)
        kill([guardian if role == "guard" else holder])
        if role == "hold":
            holder = guardian
            wait_for(lambda of=holder: family(target).get(of) == "hold", "the guardian to be the holder", process)
        else:
            wait_for(lambda of=holder, old=guardian: guardian_of(target, of) not in (0, old), "another one", process)
    out, said = process.communicate()
    assert (process.returncode, out) == (0, "[]\n"), said


def guardian_of(target: Path, holder: int) -> int:
    """Return the guardian of a holder, or 0."""
    guardians = [pid for pid, name in family(target).items() if name == "guard"]
    return next((pid for pid in guardians if parent_of(pid) == holder), 0)


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


# A filler that gets no CPU: it hangs, and counts as late. The directory `reached` says that it does.
LATE = """import os, time
from unpackenv.start.fill import filler
filler.Filler.is_late = lambda self: True
def hang():
    os.makedirs({reached!r}, exist_ok=True)
    time.sleep({patience})
"""
# The other shard's, in a part of a file that spans frames: only the first shard is told who waits for that file.
IN_A_PIECE = """
fill_frame = filler.Filler._fill_frame
def until_a_piece(self, holder, frame):
    if holder.shard == 1 and holder.plan.pieces(frame):
        hang()
    return fill_frame(self, holder, frame)
filler.Filler._fill_frame = until_a_piece
"""
# Just after it has noted that somebody waits for a file of the frame that it fills.
AFTER_ITS_NOTE = """
write = filler.Filler._write
def until_wanted(self, holder, row):
    while holder.shard == 0 and 1 not in bytes(holder.board.wanted):
        os.makedirs({reached!r}, exist_ok=True)
        time.sleep(0.01)
    if holder.board.wanted[row]:
        hang()
    write(self, holder, row)
filler.Filler._write = until_wanted
"""


@pytest.mark.parametrize("where", [IN_A_PIECE, AFTER_ITS_NOTE], ids=["in a piece", "after its note"])
def test_a_filler_without_a_cpu_keeps_nobody_waiting(
    archive: Path, target: Path, tmp_path: Path, sizes: dict[str, int], where: str
) -> None:
    reached = tmp_path / "reached"
    before = (LATE + where).format(reached=str(reached), patience=PATIENCE)
    rest = f"while not os.path.exists({str(reached)!r}):\n    time.sleep(0.01)\n"
    rest += f"from helpers.fills import wrong_files\nprint(wrong_files({str(target)!r}, {sizes!r}))"
    done = python(before + boot_code(rest=rest), variables(archive, target, BEHIND, UNPACKENV_WORKERS=2))
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.slow
def test_at_random_moments(archive: Path, tmp_path: Path, sizes: dict[str, int], tally: Tally) -> None:
    """One process is killed: the application notices nothing. Two: it notices nothing, or is killed.

    If both have the leases of a shard, these end at once: it may have read zeros before it is killed.
    """
    choose = random.Random(20)
    ends = []
    for number, roles in enumerate([*[(role,) for role in ROLES], *combinations_with_replacement(ROLES, 2)] * 2):
        target = tmp_path / f"tree-{number}"
        fill = choose.choice((BEHIND, ON_DEMAND))
        process = begin(reading(target, sizes, number), variables(archive, target, fill))
        time.sleep(choose.uniform(0, 0.15))
        kill(victims(target, roles, choose))
        out, said = process.communicate()
        holds_leases = sorted(roles) == ["guard", "hold"]
        assert out in ("[]\n", "") or (holds_leases and process.returncode), (roles, fill, out, said)
        if process.returncode:
            assert (len(roles), process.returncode) == (2, -signal.SIGKILL), (roles, fill, out, said)
            ends.append("killed")
        else:
            ends.append("went on")
        if not process.returncode and fill == BEHIND:
            wait_until_filled(target)
        check_next_start(archive, target, sizes)
    print({end: ends.count(end) for end in set(ends)})
    tally("processes that fill, killed at random moments", len(ends))


def test_the_application_is_killed_before_it_knows_of_the_tree(
    archive: Path, target: Path, sizes: dict[str, int]
) -> None:
    """So the first process of the family cannot tell it, and ends. None of the others may wait for that one."""
    before = """
import os, select, signal
from unpackenv.start.cold import job
from unpackenv.start.fill import guardian
guardian._signal = None  # no guardian can kill
main, run = os.getpid(), job.Job.run
def run_and_kill(self):
    result = run(self)
    os.kill(main, signal.SIGKILL)
    select.select([watched], [], [])
    return result
watched = os.pidfd_open(main)
job.Job.run = run_and_kill
"""
    done = python(before + boot_code(), variables(archive, target, BEHIND))
    assert done.returncode == -signal.SIGKILL
    wait_until_filled(target)
    assert end_of(archive, target).outcome == "reused"
    assert wrong_files(target, sizes) == []


PUBLISHES = """
import os, signal, time
from unpackenv.start.fill import names_first
def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
def expect(self):
    for pid, _ in self._others:
        for victim in [*(children(pid) if BOTH else []), pid]:
            os.kill(victim, signal.SIGKILL)
    time.sleep(0.3)  # so that others notice
    expects(self)
expects, names_first.Fill.expect_readers = names_first.Fill.expect_readers, expect
"""


def test_a_process_is_killed_that_has_made_its_names(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    """Its guardian takes over when the tree is published."""
    done = python(f"BOTH = False\n{PUBLISHES}" + reading(target, sizes), variables(archive, target, BEHIND))
    assert (done.returncode, done.stdout) == (0, "started\n[]\n"), done.stderr


def test_it_and_its_guardian_are_killed(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    """The application ends as soon as it runs."""
    code = f"BOTH = True\n{PUBLISHES}" + boot_code(rest=f"import time; time.sleep({PATIENCE})")
    done = python(code, variables(archive, target, BEHIND))
    assert done.returncode == -signal.SIGKILL
    assert "the processes that held a part of its files were killed" in done.stderr
    check_next_start(archive, target, sizes)


def test_the_first_process_is_killed_while_names_are_made(archive: Path, target: Path) -> None:
    """The start fails when no other process makes names any more, which would be in the way of the next start."""
    code = """
import os, signal, time, unpackenv
from unpackenv.start.fill import names_first
make = names_first.Fill._make_shard
def killed(self, shard):
    if shard == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    make(self, shard)
names_first.Fill._make_shard = killed
try:
    unpackenv.bootstrap()
except unpackenv.UnpackenvError as error:
    print(type(error).__name__)
from helpers.processes import processes_with
print(processes_with("UNPACKENV_TARGET=" + os.environ["UNPACKENV_TARGET"]))
print(unpackenv.bootstrap(fill="before").outcome)
"""
    done = python(code, variables(archive, target, BEHIND))
    assert done.stdout == "UnpackFailed\n[]\nunpacked\n", done.stderr


def test_without_anybody_who_fills_the_application_ends(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    process = begin(
        boot_code(rest=WAITS),
        variables(archive, target, ON_DEMAND),
    )
    kill([pid for pid, name in family(target).items() if name != "watch"])
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "cannot be filled" in said
    check_next_start(archive, target, sizes)


def test_each_application_ends_also_one_that_has_joined(archive: Path, target: Path) -> None:
    code = boot_code(rest=WAITS)
    processes = [begin(code, variables(archive, target, ON_DEMAND)) for _ in range(5)]
    kill([pid for pid, name in family(target).items() if name != "watch"])
    assert [process.communicate()[1].count("cannot be filled") for process in processes] == [1] * 5
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 5


@pytest.mark.slow
def test_a_holder_that_is_stopped_is_replaced(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    process = begin(reading(target, sizes), variables(archive, target, ON_DEMAND))
    stopped = [pid for pid, name in family(target).items() if name == "hold"]
    kill(stopped, signal.SIGSTOP)
    assert process.communicate()[0] == "[]\n"
    assert process.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_stop_are_for_the_application(
    archive: Path, target: Path, sizes: dict[str, int], how: signal.Signals
) -> None:
    """A service manager sends them to every process; the application goes on, and may have files to read until it ends.

    The kernel sends SIGHUP, too: to a process group that has lost its last parent, if a process in it is stopped.
    """
    first, joined = (Running(archive, target, ON_DEMAND) for _ in range(2))
    assert (first.outcome, joined.outcome) == ("named", "joined")
    before = family(target)
    kill(list(before), how)
    time.sleep(0.2)
    assert family(target) == before
    assert wrong_files(target, sizes) == []
    for application in (first, joined):
        application.end()
        assert application.process.returncode == 0


@pytest.mark.slow
def test_a_lease_that_is_broken_by_force_ends_the_application(
    archive: Path, target: Path, sizes: dict[str, int]
) -> None:
    """All processes that fill are stopped, as by `docker pause`; the kernel lets the reader in after 45 s."""
    path = str(target / "large/spans.bin")
    rest = f"""import sys
print('started', flush=True)
sys.stdin.readline()
open({path!r}).close()
print('let in', flush=True)
import time; time.sleep({PATIENCE})"""
    process = begin(boot_code(rest=rest), variables(archive, target, ON_DEMAND))
    assert process.stdin
    assert process.stdout
    fillers = [pid for pid, name in family(target).items() if name != "watch"]
    kill(fillers, signal.SIGSTOP)
    print("open", file=process.stdin, flush=True)
    assert process.stdout.readline() == "let in\n"
    kill(fillers, signal.SIGCONT)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "let in by force" in said
    check_next_start(archive, target, sizes)


# --- what cannot be filled -----------------------------------------------------------------------


def test_a_frame_that_is_damaged_after_the_start(
    archive: Path, target: Path, sizes: dict[str, int], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(archive.read_bytes())
    path = str(target / "large/spans.bin")
    rest = f"print('started', flush=True)\nimport sys; sys.stdin.readline()\nopen({path!r}).read()"
    process = begin(boot_code(rest=rest), variables(copy, target, ON_DEMAND))
    with open(copy, "r+b") as file:
        data = bytearray(file.read())
        for at in range(0, len(data) * 3 // 4, 50):
            data[at] ^= 1
        file.seek(0)
        file.write(data)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert "is damaged" in said
    check_next_start(archive, target, sizes)


def test_a_disk_that_is_full(archive: Path, tmp_path: Path, sizes: dict[str, int], mount: Callable[..., None]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=8M", "none", disk)
    target = disk / "tree"
    path = str(target / "large/spans.bin")
    waste = str(disk / "waste")
    full = f"try:\n    with open({waste!r}, 'wb', 0) as file:\n        while file.write(bytes(4096)): pass\n"
    full += "except OSError: pass\n"
    rest = f"print('started', flush=True)\n{full}open({path!r}).read()"
    process = begin(boot_code(rest=rest), variables(archive, target, ON_DEMAND))
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert "cannot be written (No space left on device)" in said
    (disk / "waste").unlink()
    check_next_start(archive, target, sizes)


# --- what is not to be had -----------------------------------------------------------------------

NO_LEASES = """
import fcntl
own = fcntl.fcntl
def without(fd, command, *rest):
    if command == fcntl.F_SETLEASE: raise OSError(22, "Invalid argument")
    return own(fd, command, *rest)
fcntl.fcntl = without
"""
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"


@pytest.mark.parametrize(
    ("before", "settings", "why"),
    [
        (NO_LEASES, {}, "leases are not to be had (Invalid argument)"),
        (THREAD, {}, "the application has several threads"),
        ("", {"parallel": "threads"}, "workers are to be threads"),
        ("", {"sync": True}, "the tree is to be synced first"),
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))\n", {}, "RLIMIT_NOFILE"),
    ],
)
def test_files_are_filled_before_where_they_cannot_be_behind(
    archive: Path, target: Path, sizes: dict[str, int], before: str, settings: dict[str, object], why: str
) -> None:
    end = end_of(archive, target, before=before, fill=BEHIND, **settings)
    assert (end.outcome, end.facts["fill"]) == ("unpacked", "before")
    assert why in end.facts["fill_why"]
    assert wrong_files(target, sizes) == []
    assert b"\nfill=" not in (target / ".unpackenv.stamp").read_bytes()
    assert not family(target)


def test_nothing_is_said_of_it_where_they_are_to_be_filled_before(archive: Path, target: Path) -> None:
    end = end_of(archive, target, before=THREAD)
    assert (end.facts["fill"], end.facts["fill_why"]) == ("before", "")


def test_an_archive_of_plain_tar_and_a_target_in_use(archive: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-C", archive.parent / "site", "-cf", tmp_path / "plain.tar", "."], check=True)
    end = end_of(tmp_path / "plain.tar", tmp_path / "tree", fill=BEHIND)
    assert (end.facts["fill"], end.facts["fill_why"]) == ("before", "the archive was made by plain tar")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "own").touch()
    end = end_of(archive, tmp_path / "used", fill=BEHIND, in_place=True)
    assert (end.facts["fill"], end.facts["fill_why"]) == ("before", "the target is filled in place")


@pytest.mark.parametrize("limit", [100, 256])
def test_few_descriptors(archive: Path, target: Path, sizes: dict[str, int], limit: int) -> None:
    """What does not fit is filled before the start."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
    process = begin(before + reading(target, sizes), variables(archive, target, BEHIND))
    assert process.communicate()[0] == "[]\n"
    wait_until_filled(target)
    assert run(wrapper("verify", archive, "--target", target)).returncode == 0


# --- other starts --------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [BEHIND, ON_DEMAND])
def test_many_starts_at_once(archive: Path, target: Path, fill: str) -> None:
    """One makes the names, and all applications run before the tree is full."""
    rest = "print(report.outcome, report.fill, flush=True)\nimport sys; sys.stdin.read()"
    env = variables(archive, target, fill)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", boot_code(rest=rest)], env=env, cwd="/", text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(64)
    ]  # fmt: skip
    outcomes = [process.stdout.readline().strip() for process in processes if process.stdout]
    watchers = list(family(target).values()).count("watch")
    for process in processes:
        assert process.communicate()[1].count("error") == 0
    assert outcomes.count(f"named {fill}") == 1
    assert all(outcome.split()[0] in ("named", "waited", "reused", "joined") for outcome in outcomes)
    assert fill == BEHIND or watchers == 64


@pytest.mark.parametrize("before", ["", THREAD])
def test_a_start_that_wants_all_files_first_waits_for_them(
    archive: Path, target: Path, sizes: dict[str, int], before: str
) -> None:
    process = begin(
        boot_code(rest=WAITS),
        variables(archive, target, ON_DEMAND),
    )
    end = end_of(archive, target, before=before, fill=None if before else "before")
    assert end.outcome in ("reused", "waited")
    assert wrong_files(target, sizes) == []
    assert (
        b"\nfill=s\n" in (target / ".unpackenv.stamp").read_bytes()
        or b"\nfill=w\n" in (target / ".unpackenv.stamp").read_bytes()
    )
    process.kill()
    process.communicate()


def test_the_application_may_end_first(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    assert python(boot_code(), variables(archive, target, BEHIND)).returncode == 0
    wait_until_filled(target)
    assert end_of(archive, target).outcome == "reused"
    assert wrong_files(target, sizes) == []


def test_on_demand_ends_with_its_applications(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    code = boot_code(rest="print('started', flush=True)\nimport sys; sys.stdin.read()")
    first, second = (begin(code, variables(archive, target, ON_DEMAND)) for _ in range(2))
    first.communicate()
    time.sleep(3)
    assert wrong_files(target, {path: size for path, size in sizes.items() if path.endswith("7.bin")}) == []
    second.communicate()
    check_next_start(archive, target, sizes)


@pytest.mark.parametrize(
    ("letter", "outcome"), [("b", "unpacked"), ("d", "unpacked"), ("w", "unpacked"), ("s", "reused")]
)
def test_a_tree_of_another_boot(archive: Path, target: Path, sizes: dict[str, int], letter: str, outcome: str) -> None:
    assert python(boot_code(), variables(archive, target, BEHIND)).returncode == 0
    wait_until_synced(target)
    stamp = target / ".unpackenv.stamp"
    text = stamp.read_text()
    boot = text.partition("\nboot=")[2].partition("\n")[0]
    stamp.write_text(text.replace(boot, boot[::-1]).replace("\nfill=s\n", f"\nfill={letter}\n"))
    assert end_of(archive, target).outcome == outcome
    assert wrong_files(target, sizes) == []


def test_as_the_first_process_of_a_container(archive: Path, target: Path, sizes: dict[str, int]) -> None:
    code = (
        reading(target, sizes)
        + "\nimport os, signal\nchild = open('/proc/self/task/1/children').read().split()"
        + "\nprint(len(child))\nos.kill(int(child[0]), signal.SIGKILL)\nprint(os.waitpid(-1, 0)[0] == int(child[0]))"
    )
    done = run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code], variables(archive, target, BEHIND)
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "started\n[]\n1\nTrue\n", done.stderr
    check_next_start(archive, target, sizes)
