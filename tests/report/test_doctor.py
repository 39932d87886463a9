"""`unpackenv doctor` with each kind of problem: it predicts the error of a start, and a start ends with it."""

from __future__ import annotations

import compileall
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import containers_by_hand
from helpers.containers_by_hand import MB, Container
from helpers.diagnoses import Diagnosis, doctor, start
from helpers.environments import Environment
from helpers.processes import IMPORT_ALL, IS_ROOT, result_of, run, wrapper
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.pack import runtime

Mount = Callable[..., None]

README = Path(__file__).parents[2] / "README.md"
# What lies below the standard library, and is not counted with it.
NO_MODULES_OF_IT = ("site-packages", "dist-packages", "test")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of a tree with a shared object, as its facts say."""
    path = tmp_path / "site-packages.tar.zst"
    pack_tree(path, write_tree(tmp_path / "site", {"app.py": "", "data": "some data\n" * 20_000}), native="yes")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "trees").mkdir()
    return tmp_path / "trees" / "tree"


def test_all_is_well(archive: Path, target: Path) -> None:
    found = doctor("--archive", archive, "--target", target)
    assert (found.returncode, found.problems) == (0, [])
    assert found.found["summary"].startswith(f"A start here unpacks to {target}: 0 problems")
    assert found.only("place", "ok")["facts"]["usable"]
    workers = found.only("workers")["facts"]
    assert workers["workers"] == min(workers["bounds"].values())
    assert found.only("match")["level"] == "ok"
    assert os.listdir(target.parent) == []  # nothing of it is left
    assert start("--archive", archive, "--target", target) == ""
    warm = doctor("--archive", archive, "--target", target)
    assert warm.returncode == 0
    assert warm.found["summary"].startswith(f"A start here takes the tree that is at {target}")
    assert warm.only("tree")["facts"]["path"] == str(target)


def test_the_text_has_a_line_for_each_finding(archive: Path, target: Path) -> None:
    done = run(wrapper("doctor", "--archive", archive, "--target", target))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^  ok +place +{target}: a start unpacks here \(", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith(f"A start here unpacks to {target}: 0 problems, ")


LOSSES: dict[str, Callable[[Path], object]] = {
    "missing": lambda tree: (tree / "data").unlink(),
    "cut off": lambda tree: os.truncate(tree / "data", 4096),
    "a directory": lambda tree: ((tree / "data").unlink(), (tree / "data").mkdir()),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("how", ["", "with files of others", "in place", "without its archive", "of tar"])
def test_a_tree_in_which_files_are_missing(archive: Path, target: Path, tmp_path: Path, loss: str, how: str) -> None:
    """A start takes it, as its stamp says that it is complete; the doctor looks."""
    if how == "of tar":
        archive = tmp_path / "site.tar.gz"
        subprocess.run(["tar", "-C", tmp_path / "site", "-czf", archive, "."], check=True)
    named = ["--archive", archive, "--target", target]
    if how == "in place":
        write_tree(target, {"mine": "stays"})
        named.append("--in-place")
    assert start(*named) == ""
    if how == "with files of others":
        write_tree(target, {"cache/more": "x" * 1_000_000, "cache/and more": ""})
    if how == "without its archive":
        archive.unlink()
    whole = doctor(*named)
    assert (whole.returncode, whole.only("tree")["level"]) == (0, "ok")
    LOSSES[loss](target)
    assert start(*named) == ""
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, ["tree-mismatch"])
    damaged = found.only("tree", "problem")
    if how in ("without its archive", "of tar"):
        assert re.search(r": \d files? of .* but its stamp says 2 files of 200\.0 kB$", damaged["text"]), damaged[
            "text"
        ]
    else:
        assert damaged["text"].endswith("1 of its 2 members are missing or cut off, such as data")
    assert found.found["summary"].startswith(f"A start here takes the tree that is at {target}, and finds it damaged: ")
    stamp = target / ".unpackenv.stamp"
    assert f"Remove {stamp if how == 'in place' else 'it'}, and the next start unpacks again" in damaged["hint"]


def test_a_tree_that_cannot_be_counted(tmp_path: Path, target: Path) -> None:
    """The files of a tree in a directory with other files can be counted only if its archive lists them."""
    tree = write_tree(tmp_path / "plain", {"app.py": "", "data": "some data\n"})
    subprocess.run(["tar", "-C", tree, "-czf", tmp_path / "site.tar.gz", "."], check=True)
    write_tree(target, {"mine": "stays"})
    named = ("--archive", tmp_path / "site.tar.gz", "--target", target)
    assert start(*named, "--in-place") == ""
    (target / "data").unlink()
    found = doctor(*named)
    assert found.returncode == 0
    assert "its stamp says 2 files of 10 bytes, which were not counted" in found.only("tree", "note")["text"]
    assert "complete" not in json.dumps(found.found)


def test_what_a_start_with_a_tree_does_not_need(archive: Path, target: Path, tmp_path: Path) -> None:
    """It reads no archive and writes to no place: what is wrong with these is a warning."""
    named = ("--archive", archive, "--target", target)
    assert start(*named) == ""
    write_tree(tmp_path / "hidden", {"zstandard/__init__.py": "raise ImportError('broken')\n"})
    path = f"{tmp_path / 'hidden'}:{environment()['PYTHONPATH']}"
    assert start(*named, PYTHONPATH=path) == ""
    found = doctor(*named, PYTHONPATH=path)
    assert (found.returncode, found.problems) == (0, [])
    assert found.only("zstandard")["level"] == "warning"
    assert found.found["summary"].startswith(f"A start here takes the tree that is at {target}: ")
    assert "a start would unpack here, if there were no tree" in found.only("place", "ok")["text"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else")
def test_a_tree_in_which_not_everybody_may_look(archive: Path, target: Path) -> None:
    assert start("--archive", archive, "--target", target) == ""
    code = f"""{IMPORT_ALL}
from unpackenv.report.doctor import tree as doctor_tree
from unpackenv.start.report import Report
report = Report("reused")
report.target, report.files, report.size = {str(target)!r}, 2, 200_000
looked = doctor_tree._files_of(report, {str(archive)!r})
import os
opened, doctor_tree._open = doctor_tree._open({str(archive)!r}), lambda archive: opened
os.setgid(54321), os.setuid(54321)
denied = doctor_tree._files_of(report, "")
result = [looked.level, denied.level, denied.text]
"""
    looked, denied, text = result_of(code)
    assert (looked, denied) == ("ok", "note")
    assert "its stamp says 2 files of 200.0 kB, which could not be checked (Permission denied: " in text


def test_a_missing_archive_is_a_problem_as_it_is_for_a_start(tmp_path: Path) -> None:
    named = ("--archive", tmp_path / "nowhere")
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, ["archive-not-found"])
    assert start(*named) == "archive-not-found"
    ignored = doctor(*named, "--missing", "ignore")
    assert (ignored.returncode, ignored.problems) == (0, [])
    assert "does nothing, as there is no archive" in ignored.found["summary"]


def test_a_tree_without_its_archive(archive: Path, target: Path, tmp_path: Path) -> None:
    """As an init container leaves it."""
    assert start("--archive", archive, "--target", target) == ""
    found = doctor("--archive", tmp_path / "nowhere", "--target", target)
    assert (found.returncode, found.problems) == (0, [])
    assert "takes the tree" in found.found["summary"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-30], "archive-unsupported"),
        (lambda data: data[: len(data) // 2], "archive-unsupported"),
        (lambda data: data[:-200] + bytes(50) + data[-150:], "archive-corrupt"),
        (lambda data: b"nothing of the kind" * 100, "archive-unsupported"),
    ],
    ids=["end missing", "half", "table of contents", "something else"],
)
def test_a_damaged_archive(archive: Path, target: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    archive.write_bytes(change(archive.read_bytes()))
    named = ("--archive", archive, "--target", target)
    failure = start(*named)
    found = doctor(*named)
    assert found.returncode == 1
    if failure in ("archive-corrupt", "archive-unsupported"):
        assert failure in found.problems
    assert set(found.problems) & {reason, failure}


def test_a_wrong_digest_is_a_problem_as_it_is_for_a_start(archive: Path, target: Path) -> None:
    named = ("--archive", archive, "--target", target, "--digest", "0" * 64)
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, ["digest-mismatch"])
    assert start(*named) == "digest-mismatch"


def test_another_interpreter_is_a_problem_as_it_is_for_a_start(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "archive"
    pack_tree(archive, write_tree(tmp_path / "site", {"app.py": ""}), python="cpython-36")
    named = ("--archive", archive, "--target", target)
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, ["interpreter-mismatch"])
    assert "cpython-36" in found.only("match")["text"]
    assert start(*named) == "interpreter-mismatch"
    forced = doctor(*named, "--force")
    assert (forced.returncode, forced.only("match")["level"]) == (0, "warning")
    for said in found, forced:
        assert not [one for one in said.found["findings"] if one["topic"] == "bytecode"]  # it is for the other one


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython decodes zstd itself")
def test_a_missing_zstandard_is_a_problem_as_it_is_for_a_start(archive: Path, target: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "hidden", {"zstandard/__init__.py": "raise ImportError('broken')\n"})
    path = f"{tmp_path / 'hidden'}:{environment()['PYTHONPATH']}"
    named = ("--archive", archive, "--target", target)
    found = doctor(*named, PYTHONPATH=path)
    assert (found.returncode, found.problems) == (1, ["archive-unsupported"])
    assert found.only("zstandard")["level"] == "problem"
    assert start(*named, PYTHONPATH=path) == "archive-unsupported"


def test_a_setting_that_cannot_be(archive: Path) -> None:
    found = doctor("--archive", archive, UNPACKENV_WORKERS="many")
    assert (found.returncode, found.problems) == (1, ["setting"])


def test_a_setting_that_is_mistyped(archive: Path, target: Path) -> None:
    found = doctor("--archive", archive, "--target", target, UNPACKENV_LOGFILE="starts.log")
    assert found.only("settings")["text"] == "UNPACKENV_LOGFILE is not a setting"
    assert found.returncode == 0
    known = doctor("--archive", archive, "--target", target, UNPACKENV_LOG_FILE=target.parent / "starts.log")
    assert all(one["topic"] != "settings" for one in known.found["findings"])


def test_a_start_that_is_off_is_no_problem(archive: Path, target: Path) -> None:
    found = doctor("--archive", archive, "--target", target, UNPACKENV="off")
    assert found.returncode == 0
    assert "does nothing, as UNPACKENV=off says" in found.found["summary"]


# --- places ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [("ro", "target-read-only"), ("noexec", "target-noexec"), ("size=64k", "no-space"), ("nr_inodes=3", "no-space")],
)
def test_a_mount_that_refuses_is_a_problem_as_it_is_for_a_start(
    archive: Path, tmp_path: Path, mount: Mount, options: str, reason: str
) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    mount("-t", "tmpfs", "-o", options, "none", place)
    named = ("--archive", archive, "--target", place)
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, [reason])
    assert start(*named) == reason


def test_a_target_in_use(archive: Path, target: Path) -> None:
    write_tree(target, {"mine": "stays"})
    named = ("--archive", archive, "--target", target)
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, ["target-refused"])
    assert os.listdir(target) == ["mine"]
    assert start(*named) == "target-refused"


def test_a_file_in_the_way(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    named = ("--archive", archive, "--target", tmp_path / "file" / "tree")
    found = doctor(*named)
    assert (found.returncode, found.problems) == (1, ["target-not-writable"])
    assert start(*named) == "target-not-writable"


def test_default_places_in_their_order(archive: Path, tmp_path: Path, mount: Mount) -> None:
    """One that cannot be used is named with the reason, and the next one is taken.

    The first is not /opt/unpackenv: starts of other tests would find it, too.
    """
    opt, home, temporary = tmp_path / "opt", tmp_path / "home", tmp_path / "temporary"
    for path in opt, home, temporary:
        path.mkdir()
    moved = f"from unpackenv.start import locations\nlocations.HOME = {str(opt)!r}\n"
    moved_to = write_tree(tmp_path / "moved", {"sitecustomize.py": moved})
    (home / ".cache").mkdir()
    (home / ".cache" / "unpackenv").mkdir(mode=0o777)
    os.chmod(home / ".cache" / "unpackenv", 0o777)
    mount("-t", "tmpfs", "-o", "noexec,mode=755", "none", opt)
    variables = {"HOME": home, "TMPDIR": temporary, "PYTHONPATH": f"{moved_to}:{environment()['PYTHONPATH']}"}
    found = doctor("--archive", archive, **variables)
    assert (found.returncode, found.problems) == (0, [])
    places = found.of("place")
    assert [(one["facts"]["path"].partition("/env/")[0], one["reason"]) for one in places] == [
        (str(opt), "target-noexec"),
        (f"{home}/.cache/unpackenv", "target-untrusted"),
        (f"{temporary}/unpackenv-{os.geteuid()}", ""),
    ]
    assert found.found["summary"].startswith(f"A start here unpacks to {temporary}/")
    assert os.listdir(temporary) == []
    mount("-t", "tmpfs", "-o", "ro", "none", temporary)
    found = doctor("--archive", archive, **variables)
    assert (found.returncode, found.problems) == (1, ["target-not-writable"])
    assert start("--archive", archive, **variables) == "target-not-writable"


def test_another_start_at_work(archive: Path, target: Path) -> None:
    with open(target.parent / ".tree.unpackenv.lock", "w") as lock:
        lock.write("process 4711 on elsewhere\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = doctor("--archive", archive, "--target", target)
    assert "process 4711 on elsewhere is unpacking there" in found.only("place", "warning")["text"]
    assert found.returncode == 0
    assert doctor("--archive", archive, "--target", target).of("place", "warning") == []


def test_a_slow_file_system(archive: Path, target: Path, tmp_path: Path) -> None:
    slow = "import unpackenv.report.doctor.places as places\nplaces._SLOW_FILE = 0\n"
    path = write_tree(tmp_path / "slow", {"sitecustomize.py": slow})
    found = doctor("--archive", archive, "--target", target, PYTHONPATH=f"{path}:{environment()['PYTHONPATH']}")
    assert "making a small file takes" in found.only("writing", "warning")["text"]
    assert found.returncode == 0


def test_what_a_killed_start_left(archive: Path, target: Path) -> None:
    (target.parent / ".tree.unpackenv.work").mkdir()
    assert "a start was killed there" in doctor("--archive", archive, "--target", target).only("place", "note")["text"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else")
def test_a_target_of_somebody_else(archive: Path, target: Path) -> None:
    os.chown(target.parent, 12345, 12345)
    found = doctor("--archive", archive, "--target", target)
    assert [one["text"].partition(": ")[2] for one in found.of("place", "warning")] == [
        "its parent belongs to uid 12345"
    ]
    assert found.returncode == 0
    assert doctor("--strict", "--archive", archive, "--target", target).returncode == 1


def test_a_tree_of_before_the_machine_restarted(archive: Path, target: Path, tmp_path: Path, mount: Mount) -> None:
    """A start counts it, and renews its stamp; where it cannot, every start counts it."""
    assert start("--archive", archive, "--target", target) == ""
    (tmp_path / "boot_id").write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    rebooted: list[object] = ["unshare", "--mount", "sh", "-c"]
    boot_id = f"mount --bind {tmp_path}/boot_id /proc/sys/kernel/random/boot_id"
    if not IS_ROOT or run([*rebooted, boot_id]).returncode:
        pytest.skip("cannot make a mount namespace here")

    def after_restart(setup: str = "true") -> Diagnosis:
        command = wrapper("doctor", "--json", "--archive", archive, "--target", target)
        return Diagnosis(run([*rebooted, f'{boot_id} && {setup} && exec "$@"', "sh", *command]))

    fixed = after_restart(f"mount --bind {target} {target} && mount -o remount,ro,bind {target}")
    assert fixed.returncode == 0
    assert "its stamp cannot be renewed: every start counts them" in fixed.only("tree", "warning")["text"]
    renewed = after_restart()
    assert "so its files were counted; its stamp was renewed" in renewed.only("tree", "note")["text"]
    assert renewed.of("tree", "warning") == []
    again = after_restart()
    assert again.only("tree")["level"] == "ok"
    (target / "data").unlink()
    cut_off = doctor("--archive", archive, "--target", target)  # which is another boot again
    assert "has a tree of another archive, or one that cannot be used" in cut_off.only("tree", "note")["text"]
    assert cut_off.found["summary"].startswith(f"A start here unpacks to {target}")


# --- files besides the tree --------------------------------------------------------------------


@pytest.mark.parametrize(("topic", "variable"), [("log file", "UNPACKENV_LOG_FILE"), ("trace", "UNPACKENV_TRACE")])
def test_files_that_a_start_writes(
    archive: Path, target: Path, tmp_path: Path, mount: Mount, topic: str, variable: str
) -> None:
    """Where one cannot be written, the doctor warns of it, and so does a start."""
    written, fixed = tmp_path / "written", tmp_path / "fixed"
    for directory in written, fixed:
        directory.mkdir()
    mount("-t", "tmpfs", "-o", "ro", "none", fixed)
    named = ("--archive", archive)
    for number, path in enumerate((written / "file", fixed / "file", tmp_path / "nowhere" / "file", written)):
        here = target.with_name(f"tree-{number}")  # a warm start writes no trace
        found = doctor(*named, "--target", here, **{variable: path})
        assert found.returncode == 0
        one = found.only(topic)
        assert one["facts"] == {"path": str(path)}
        assert os.listdir(written) == []
        done = run(wrapper("--log", "json", *named, "--target", here, "--", "true"), environment(**{variable: path}))
        (warning,) = json.loads(done.stderr)["warnings"] or [""]
        assert one["level"] == ("warning" if warning else "ok"), (path, one, warning)
        assert bool(warning) == (number > 0)
        if warning:
            assert warning.startswith(f"the {topic} {path}")
            assert one["text"].startswith(f"the {topic} {path} cannot be written (")
        else:
            (written / "file").unlink()


def test_a_log_that_is_there_is_left_as_it_is(archive: Path, target: Path, tmp_path: Path) -> None:
    log = tmp_path / "starts.log"
    log.write_text("a line\n")
    before = log.stat()
    named = ("--archive", archive, "--target", target, "--log-file")
    assert doctor(*named, log).only("log file")["level"] == "ok"
    assert (log.read_text(), log.stat().st_mtime_ns) == ("a line\n", before.st_mtime_ns)
    os.mkfifo(tmp_path / "unread")
    assert "No such device or address" in doctor(*named, tmp_path / "unread").only("log file", "warning")["text"]


# --- limits ------------------------------------------------------------------------------------


def test_half_a_cpu(archive: Path, target: Path) -> None:
    group = containers_by_hand.cpu_group(0.5)
    try:
        done = run(wrapper("doctor", "--json", "--archive", archive, "--target", target), before=group.join)
    finally:
        group.remove()
    found = Diagnosis(done)
    assert found.returncode == 0
    (cpu,) = [one for one in found.of("CPU") if "quota" in one["facts"]]
    assert (cpu["level"], cpu["facts"]["quota"]) == ("warning", 0.5)
    assert cpu["facts"]["cgroups"] in ("v1", "v2")
    assert found.only("workers")["facts"]["bounds"]["quota"] == 1


def test_too_little_memory_is_a_problem_as_it_is_for_a_start(tmp_path: Path, target: Path) -> None:
    """Less than a start needs: it is refused before the kernel would kill it."""
    archive = tmp_path / "archive"
    site = write_tree(tmp_path / "site", {"app.py": ""})
    (site / "data").write_bytes(os.urandom(40 * MB))
    done = run(wrapper("pack", site, "-o", archive, "--codec", "zstd", "--level", 1, "--frame-size", "64M"))
    assert done.returncode == 0, done.stderr
    group = containers_by_hand.memory_group(64 * MB)
    named = ["--archive", archive, "--target", target]
    try:
        found = Diagnosis(run(wrapper("doctor", "--json", *named), before=group.join))
        started = run(wrapper("--log", "json", *named, "--", "true"), before=group.join)
        killed = group.killed()
    finally:
        group.remove()
    assert (found.returncode, found.problems) == (1, ["memory-limit"])
    assert found.only("memory")["facts"]["left"] < 64 * MB
    assert json.loads(started.stderr)["reason"] == "memory-limit"
    assert killed == 0


def test_workers_that_were_asked_for(archive: Path, target: Path) -> None:
    named = ("--archive", archive, "--target", target)
    assert "bounded by" in doctor(*named).only("workers")["text"]
    assert doctor(*named, "--workers", 1).returncode == 0


def test_an_archive_of_tar(archive: Path, target: Path, tmp_path: Path) -> None:
    path = tmp_path / "packages.tar.xz"
    subprocess.run(["tar", "-C", tmp_path, "-cJf", path, "site"], check=True)
    found = doctor("--archive", path, "--target", target)
    assert (found.returncode, found.problems) == (0, [])
    assert "made by tar" in found.only("archive", "note")["text"]
    assert found.of("zstandard") == []


# --- the interpreter ---------------------------------------------------------------------------


def test_standard_library_without_bytecode(archive: Path, target: Path, tmp_path: Path) -> None:
    """As official images ship it."""
    named = ("--archive", archive, "--target", target)
    found = doctor(*named, PYTHONPYCACHEPREFIX=tmp_path / "empty")
    library = found.only("stdlib")
    assert library["level"] == "warning"
    assert library["facts"]["compiled"] < library["facts"]["modules"]
    assert "every start compiles what it imports" in library["text"]
    assert found.returncode == 0
    modules = Path(os.__file__).parent
    sources = [path for path in modules.rglob("*.py") if path.relative_to(modules).parts[0] not in NO_MODULES_OF_IT]
    for source in sources:
        compiled = Path(f"{tmp_path}/cache{source.with_suffix('')}.{sys.implementation.cache_tag}.pyc")
        compiled.parent.mkdir(parents=True, exist_ok=True)
        compiled.touch()
    again = doctor(*named, PYTHONPYCACHEPREFIX=tmp_path / "cache")
    assert again.only("stdlib")["level"] == "ok"
    assert again.only("stdlib")["facts"]["compiled"] == library["facts"]["modules"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PYTHONOPTIMIZE": "1"}, "the packed bytecode is not for -O (PYTHONOPTIMIZE)"),
        ({"PYTHONPYCACHEPREFIX": "/nowhere"}, "the packed bytecode is not looked for (PYTHONPYCACHEPREFIX)"),
    ],
)
def test_bytecode_that_is_not_used(tmp_path: Path, target: Path, variables: dict[str, str], message: str) -> None:
    """Before there is a tree and when it is there, as a start says it; with what it costs, and what helps."""
    archive = tmp_path / "a.tar.zst"
    site = write_tree(tmp_path / "site", {"app.py": "A = 1\n"})
    assert run(wrapper("pack", site, "-o", archive, "--level", 1)).returncode == 0
    named = ("--archive", archive, "--target", target)
    for _ in "cold", "warm":
        assert doctor(*named).only("bytecode")["level"] == "ok"
        found = doctor(*named, **variables)
        one = found.only("bytecode", "warning")
        assert (found.returncode, one["text"].startswith(message)) == (0, True)
        assert next(iter(variables)) in one["hint"]
        assert 0 < one["facts"]["seconds_a_module"] < 60
        assert f"about {one['facts']['seconds_a_module'] * 1e3:.1f} ms each" in one["text"]
        done = run(wrapper("--log", "json", *named, "--", "true"), environment(**variables))
        assert json.loads(done.stderr)["warnings"] == [f"{message}: modules are compiled when they are imported"]


def test_bytecode_that_is_stale_or_missing(tmp_path: Path, target: Path) -> None:
    site = write_tree(tmp_path / "site", {"app.py": "A = 1\n"})
    compileall.compile_dir(site, quiet=1)
    os.utime(site / "app.py", (1_000_000_000, 1_000_000_000))
    pack_tree(tmp_path / "keep", site, bytecode="keep")
    pack_tree(tmp_path / "none", site, bytecode="none")
    assert start("--archive", tmp_path / "keep", "--target", target) == ""
    stale = doctor("--archive", tmp_path / "keep", "--target", target).only("bytecode", "warning")
    assert stale["text"].startswith("the packed bytecode does not fit the times of its sources")
    assert "unchecked-hash" in stale["hint"]
    none = doctor("--archive", tmp_path / "none", "--target", target.with_name("other")).only("bytecode", "warning")
    assert none["text"].startswith("no bytecode was packed")


def test_a_virtual_environment(tmp_path: Path, target: Path) -> None:
    """The Python that it lacks, and scripts that name another place."""
    made = Environment(tmp_path)
    assert doctor("--archive", made.archive).of("environment") == []
    elsewhere = ("--archive", made.archive, "--target", target)
    assert f"scripts of the environment name {made.root}" in doctor(*elsewhere).only("environment", "warning")["text"]
    assert doctor(*elsewhere, "--relocate").of("environment") == []
    assert start(*elsewhere, "--relocate") == ""
    assert doctor(*elsewhere).of("environment") == []
    made.lead_to(None)
    for options in elsewhere, elsewhere[:2]:
        found = doctor(*options)
        assert found.returncode == 0
        text = f"{made.archive}: its bin/python leads to {made.python}, which is not there"
        assert found.only("environment", "warning")["text"] == text


def test_without_psutil_it_says_so(archive: Path, target: Path, tmp_path: Path) -> None:
    named = ("--archive", archive, "--target", target)
    assert "busiest" in doctor(*named).only("machine")["facts"]
    write_tree(tmp_path / "hidden", {"psutil.py": "raise ImportError\n"})
    found = doctor(*named, PYTHONPATH=f"{tmp_path / 'hidden'}:{environment()['PYTHONPATH']}")
    assert found.returncode == 0
    assert "psutil is not installed" in found.only("machine", "note")["text"]


def test_where_psutil_finds_nothing(archive: Path, target: Path, tmp_path: Path) -> None:
    """Sandboxes leave out what they like of /proc; the doctor says so, and goes on."""
    (tmp_path / "root").mkdir()
    bare = Container(tmp_path / "root", proc=False)
    bare.bind(archive, "/opt/archive", read_only=True)
    bare.tmpfs("/temporary")
    env = environment(HOME="/", TMPDIR="/temporary")
    found = Diagnosis(bare.run(wrapper("doctor", "--json", "--archive", "/opt/archive"), env))
    assert "psutil cannot read the machine's figures here (" in found.only("machine", "note")["text"]
    assert found.returncode == 0
    empty = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /proc/meminfo && exec "$@"', "sh"]
    found = Diagnosis(run([*empty, *wrapper("doctor", "--json", "--archive", archive, "--target", target)]))
    assert "MemTotal" in found.only("machine", "note")["text"]
    assert found.returncode == 0


# --- where it runs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_doctor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A runtime. Shared: never write to it."""
    return runtime.write(str(tmp_path_factory.mktemp("final") / "runtime")).path


def test_in_a_container(with_doctor: str, archive: Path, tmp_path: Path) -> None:
    """With a read-only root and nothing to write to it says so; with a tmpfs, where a start unpacks."""
    env = {"PYTHONPATH": "/opt/runtime", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/", "TMPDIR": "/temporary"}
    command = [sys.executable, "-S", "-m", "unpackenv", "doctor", "--json", "--archive", "/opt/archive"]
    for temporary in False, True:
        (tmp_path / f"root-{temporary}").mkdir()
        container = Container(tmp_path / f"root-{temporary}")
        container.bind(archive, "/opt/archive", read_only=True)
        container.bind(with_doctor, "/opt/runtime", read_only=True)
        if temporary:
            container.tmpfs("/temporary")
        found = Diagnosis(container.run(command, env, user=containers_by_hand.SOMEBODY))
        reasons = [one["reason"] for one in found.of("place")]
        assert reasons == ["target-read-only", "" if temporary else "target-read-only"], found.found
        assert found.problems == ([] if temporary else ["target-not-writable"])
        assert found.returncode == (0 if temporary else 1)


def test_after_the_hook_has_failed(with_doctor: str, tmp_path: Path) -> None:
    """Every interpreter of the image ends with 125, but for the one that says why."""
    python = _venv(tmp_path)
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": ""}), python="cpython-36")
    base = {"PATH": os.defpath, "PYTHONPATH": with_doctor}
    done = run(
        [python, "-m", "unpackenv", "hook", "--auto", "--archive", tmp_path / "archive", "--target", tmp_path / "tree"],
        base,
    )
    assert done.returncode == 0, done.stderr
    done = run([python, "-c", "pass"], {"PATH": os.defpath})
    assert (done.returncode, done.stdout) == (125, "")
    found = Diagnosis(run([python, "-m", "unpackenv", "doctor", "--json"], {"PATH": os.defpath}))
    assert (found.returncode, found.problems) == (1, ["interpreter-mismatch"])
    assert found.only("hook")["facts"]["auto"] is True
    assert found.only("archive", "ok")["facts"]["path"] == str(tmp_path / "archive")
    # The hook turns starts off for tools such as this one, which is not what a start would find.
    pack_tree(tmp_path / "archive", tmp_path / "site")
    found = Diagnosis(run([python, "-m", "unpackenv", "doctor", "--json"], {"PATH": os.defpath}))
    assert found.found["summary"].startswith("A start here unpacks to ")


def _venv(tmp_path: Path) -> Path:
    import venv

    venv.create(tmp_path / "image", with_pip=False)
    return tmp_path / "image/bin/python"


def test_from_what_the_readme_puts_into_an_image(tmp_path: Path, archive: Path) -> None:
    """Its Dockerfile has a line that writes a runtime; that has the doctor, and `verify`."""
    (options,) = re.findall(r"^RUN unpackenv runtime (.*?) &&", README.read_text(), re.MULTILINE)
    at = tmp_path / "runtime"
    done = run(wrapper("runtime", *options.replace("/opt/unpackenv/runtime", str(at)).split()))
    assert done.returncode == 0, done.stderr
    env = {"PATH": os.defpath, "PYTHONPATH": str(at), "UNPACKENV_ARCHIVE": str(archive)}
    done = run([sys.executable, "-S", "-m", "unpackenv", "doctor"], env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("A start here unpacks to ")
    done = run([sys.executable, "-S", "-m", "unpackenv", "verify"], env)
    assert (done.returncode, done.stdout) == (0, f"{archive}: sound\n")
    names = {path.name for path in (at / "unpackenv/report").glob("*.py")}
    assert "analyze.py" not in names


def test_no_start_pays_for_it(with_doctor: str, archive: Path, target: Path) -> None:
    """A start imports nothing of what only looks into a container, cold or warm."""
    env = {"PATH": os.defpath, "PYTHONPATH": with_doctor}
    code = f"import sys, unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r}); print(*sorted(sys.modules))"
    for _ in ("cold", "warm"):
        done = run([sys.executable, "-S", "-c", code], env)
        assert done.returncode == 0, done.stderr
        loaded = {name for name in done.stdout.split() if name.startswith("unpackenv.")}
        assert "unpackenv.start.bootstrap" in loaded
        assert not [name for name in loaded if name.startswith(("unpackenv.report", "unpackenv.cli", "unpackenv.pack"))]
