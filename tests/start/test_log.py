"""The timing log: lines of every kind against their schema, the file that many processes append to, marks."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.containers_by_hand import cpu_group
from helpers.documented import PROJECT
from helpers.processes import is_waiting, python, result_of, run, start, wait_for, wrapper
from helpers.starts import boot_code
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive import reader
from unpackenv.start.log import json_lines
from unpackenv.start.machine import usage

SCHEMA = json.loads((PROJECT / "docs" / "timing-log.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TEXT_FIELDS = 10


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def checked(line: str) -> dict[str, Any]:
    """Return a line of the log; it must be as the schema says, and hold nothing that the schema does not know."""
    fields: dict[str, Any] = json.loads(line)
    VALIDATOR.validate(fields)
    kind = SCHEMA["$defs"][fields["unpackenv"]]
    assert set(fields) == {*SCHEMA["properties"], *kind["properties"]}
    return fields


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [checked(line) for line in file.read_text().splitlines()]


# --- every kind of line --------------------------------------------------------------------------


def test_unpacked_and_reused(site: Path, archive: Path, target: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    began = time.time()
    for _ in range(2):
        done = python(boot_code(archive, target), environment(UNPACKENV_LOG="json", UNPACKENV_LOG_FILE=log))
        assert checked(done.stderr) == lines_of(log)[-1]
    cold, warm = lines_of(log)
    assert (cold["outcome"], warm["outcome"]) == ("unpacked", "reused")
    assert (cold["workers"], cold["workers_why"], warm["workers"], warm["workers_why"]) == (1, "frames", 0, None)
    for line in (cold, warm):
        assert began - 1 < line["time"] < time.time() + 1
        assert line["host"] == socket.gethostname()
        assert 0 < sum(line["phases"].values()) <= line["milliseconds"] <= line["process_ms"] + 10
        assert (line["archive"], line["archive_size"]) == (str(archive), archive.stat().st_size)
        assert (line["target"], line["target_why"]) == (str(target), "argument")
        assert line["files"] == 5
        assert line["size"] == sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
        assert 4 << 20 < line["peak_rss"] < 200 << 20
        assert 0 < line["cpu_ms"] < line["process_ms"] + 20
        assert line["lock_wait_ms"] == 0


def test_a_text_line_has_few_fields(archive: Path, target: Path) -> None:
    """Among them what is there in the worst of cases only."""
    code = boot_code(archive, target)
    code += "report.throttled_ms, report.tried, report.warnings = 40.0, ['/a (no-space)'], ['/b: is large']\n"
    text = result_of(code + "result = report.text()")
    expected = (
        rf"unpackenv: (unpacked) (5 files), (0\.0 MB), at ({target}) in ([\d.]+ ms) by (1 worker) (\(.*\)); "
        r"(throttled by the CPU quota for 40 ms); (not used: /a \(no-space\)); (warning: /b: is large)"
    )
    found = re.fullmatch(expected, text)
    assert found, text
    assert len(found.groups()) == TEXT_FIELDS


def test_a_start_that_waited_says_how_long(archive: Path, target: Path, slow: dict[str, str], tmp_path: Path) -> None:
    options = wrapper("--archive", archive, "--target", target, "--", "true")
    first = start(options, {**slow, "STALLED": "publish", "UNPACKENV_LOG": "json"})
    wait_for((tmp_path / "started").exists, "the first start", first)
    second = start(options, environment(UNPACKENV_LOG="json"))
    wait_for(lambda: is_waiting(second.pid, target.with_name(".tree.unpackenv.lock")), "the second to wait", second)
    time.sleep(0.06)
    Path(slow["GO"]).touch()
    line = checked(second.communicate(timeout=PATIENCE)[1])
    assert line["outcome"] == "waited"
    assert 50 < line["lock_wait_ms"] <= line["phases"]["lock"]
    _, stderr = first.communicate(timeout=PATIENCE)
    assert checked(stderr)["lock_wait_ms"] == 0


@pytest.mark.parametrize("how", ["bootstrap", "wrapper"])
@pytest.mark.parametrize("outcome", ["off", "missing"])
def test_a_start_that_does_nothing_says_why(tmp_path: Path, how: str, outcome: str) -> None:
    chosen = {"UNPACKENV": "off"} if outcome == "off" else {"UNPACKENV_MISSING": "ignore"}
    words = [sys.executable, "-c", "import unpackenv; unpackenv.bootstrap(); unpackenv.bootstrap()"]
    words = words if how == "bootstrap" else wrapper("--", "true")
    quiet = run(words, environment(**chosen), cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    log = tmp_path / "log"
    loud = run(words, environment(**chosen, UNPACKENV_LOG="json", UNPACKENV_LOG_FILE=log), cwd=tmp_path)
    assert checked(loud.stderr) == lines_of(log)[0]
    (line,) = lines_of(log)
    assert (line["outcome"], line["target"], line["archive"], line["files"]) == (outcome, None, None, 0)


@pytest.mark.parametrize("how", ["bootstrap", "wrapper", "unpack", "hook"])
def test_an_error_is_a_line_with_its_reason(archive: Path, target: Path, tmp_path: Path, how: str) -> None:
    """A directory of something else is in the way."""
    write_tree(target, {"mine": ""})
    log = tmp_path / "log"
    words = {
        "bootstrap": [sys.executable, "-c", boot_code(archive, target)],
        "wrapper": wrapper("--archive", archive, "--target", target, "--", "true"),
        "unpack": [sys.executable, "-m", "unpackenv", "unpack", archive, "-C", target],
        "hook": [
            sys.executable,
            "-c",
            f"from unpackenv.start import hook; hook.run(auto=True, archive={str(archive)!r}, target={str(target)!r})",
        ],
    }[how]
    in_file = run(words, environment(UNPACKENV_LOG_FILE=log))
    on_stderr = run(words, environment(UNPACKENV_LOG="json"))
    assert in_file.returncode == on_stderr.returncode == (1 if how == "bootstrap" else 125)
    assert ("unpackenv: error: " in in_file.stderr) == (how != "bootstrap")  # for people the exception is enough
    for line in (*lines_of(log), checked(on_stderr.stderr.splitlines()[0])):
        assert (line["outcome"], line["reason"], line["where"]) == ("error", "target-refused", str(target))
        assert line["what"]
        assert line["hint"].endswith("UNPACKENV=off starts the interpreter without it") == (how == "hook")
        assert (line["archive"], line["archive_size"]) == (str(archive), archive.stat().st_size)
        assert line["target"] == str(target)
        assert line["target_why"] == ("environment" if how == "hook" else "argument")
        assert list(line["phases"]) == ["check"]
        assert line["milliseconds"] > line["phases"]["check"]
        assert line["key"] == line["digest"] != ""


def test_error_of_a_setting(tmp_path: Path) -> None:
    """It is told where the others are told: nothing else is known yet."""
    for words in (wrapper("--", "true"), wrapper("--nonsense", "--", "true")):
        log = tmp_path / "log"
        run(words, environment(UNPACKENV_LOG_FILE=log, UNPACKENV_WORKERS="many"))
        line = lines_of(log)[-1]
        assert (line["reason"], line["archive"], line["target_why"]) == ("setting", None, None)


def test_error_of_a_worker(archive: Path, target: Path, tmp_path: Path) -> None:
    """What the child had used by then is counted, though it ended without a result."""
    code = f"""
from unpackenv.start.tree import writer
def write_file(*arguments):
    kept.append(b"x" * (90 << 20))
    raise MemoryError
kept = []
writer.TreeWriter.write_file = write_file
{boot_code(archive, target, log="json")}"""
    line = checked(python(code).stderr.splitlines()[0])
    assert line["reason"] == "unpack-failed"
    assert line["peak_rss"] > 90 << 20


@pytest.mark.parametrize(
    ("environ", "pack_for", "expected"),
    [
        ({"UNPACKENV_TARGET": "{}/named"}, "", "environment"),
        ({}, "{}/recorded", "recorded"),
        ({"HOME": "{}/home"}, "", "default-cache"),
        ({"TMPDIR": "{}"}, "", "default-temporary"),
    ],
)
def test_the_line_says_who_named_the_target(
    site: Path, tmp_path: Path, environ: dict[str, str], pack_for: str, expected: str
) -> None:
    """/opt/unpackenv, where tests must not write, is in the way of a file."""
    archive = tmp_path / "a.tar.zst"
    pack_tree(archive, site, **({"target": pack_for.format(tmp_path)} if pack_for else {}))
    code = f"from unpackenv.start import locations\nlocations.HOME = {str(archive)!r}\nimport unpackenv\n"
    code += f"unpackenv.bootstrap({str(archive)!r}, log='json')"
    env = environment(**{name: value.format(tmp_path) for name, value in environ.items()})
    line = checked(python(code, env).stderr)
    assert (line["target_why"], line["target"].startswith(str(tmp_path))) == (expected, True)
    assert len(line["tried"]) == ("default" in expected)


def test_why_so_many_workers(tmp_path: Path, target: Path) -> None:
    tree = write_tree(tmp_path / "tree", {f"{number}": os.urandom(20_000).hex() for number in range(6)})
    pack_tree(tmp_path / "a.tar.zst", tree)
    with reader.open_archive(str(tmp_path / "a.tar.zst")) as opened:
        frames = len(opened.toc.frame_raw)
    assert 3 < frames < 99
    for settings, expected in (({"workers": 3}, (3, "setting")), ({"workers": 99}, (frames, "frames"))):
        line = checked(python(boot_code(tmp_path / "a.tar.zst", target, **settings, log="json")).stderr)
        assert (line["workers"], line["workers_why"]) == expected
        subprocess.run(["rm", "-r", target], check=True)


# --- figures -------------------------------------------------------------------------------------

BUSY = """
import time
from unpackenv.start.tree import writer
write_file = writer.TreeWriter.write_file
def slow(*arguments):
    end = time.process_time() + {seconds}
    while time.process_time() < end:
        pass
    return write_file(*arguments)
writer.TreeWriter.write_file = slow
"""


@pytest.mark.parametrize("sigchld", ["SIG_DFL", "SIG_IGN"])
def test_cpu_and_memory_of_all_processes(archive: Path, target: Path, sigchld: str) -> None:
    code = f"import signal; signal.signal(signal.SIGCHLD, signal.{sigchld})\n{BUSY.format(seconds=0.04)}"
    code += boot_code(
        archive, target, "result = report.cpu_ms, report.milliseconds, report.peak_rss, report.throttled_ms"
    )
    cpu_ms, milliseconds, peak_rss, throttled_ms = result_of(code)
    assert 200 < cpu_ms < milliseconds + 100
    assert 5 << 20 < peak_rss < 200 << 20
    assert throttled_ms is None or throttled_ms >= 0


def test_cpu_in_threads(archive: Path, target: Path) -> None:
    code = f"{BUSY.format(seconds=0.04)}import threading\n"
    code += f"threading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n{boot_code(archive, target)}"
    assert result_of(f"{code}result = report.cpu_ms > 200") is True


def test_throttled_for_real(archive: Path, target: Path) -> None:
    group = cpu_group(0.1)
    try:
        code = BUSY.format(seconds=0.03) + boot_code(archive, target)
        done = python(code, environment(), before=group.join)
        again = python(boot_code(archive, target, log="json"), before=group.join)
    finally:
        group.remove()
    found = re.search(r"; throttled by the CPU quota for (\d+) ms\n", done.stderr)
    assert found, done.stderr
    assert int(found[1]) > 100
    assert checked(again.stderr)["throttled_ms"] is not None


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/", {"cpu.stat": "usage_usec 9\nnr_throttled 2\nthrottled_usec 12345\n"}, 12.345),
        ("0::/a/b", {"a/b/cpu.stat": "throttled_usec 2000", "cpu.stat": "throttled_usec 1"}, 2),
        ("0::/docker/host", {"cpu.stat": "throttled_usec 7000"}, 7),
        ("0::/", {"cpu.stat": "usage_usec 9\nuser_usec 9\n"}, None),
        ("0::/", {}, None),
        ("3:cpu,cpuacct:/x\n0::/", {"cpu/x/cpu.stat": "nr_periods 1\nthrottled_time 5000000\n"}, 5),
        ("3:cpuset:/x\n2:cpu:/docker/host\n0::/", {"cpu/cpu.stat": "throttled_time 3000000"}, 3),
    ],
)
def test_throttling_is_found_in_either_version_of_cgroups(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: float | None
) -> None:
    write_tree(tmp_path / "proc" / "self", {"cgroup": cgroup + "\n"})
    write_tree(tmp_path / "sys" / "fs" / "cgroup", files)
    assert usage.find_throttled(f"{tmp_path}/")[1] == expected


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_json_as_others_write_it(value: object) -> None:
    assert json_lines.encoded(value) == json.dumps(value)


def test_paths_that_are_no_text(archive: Path, tmp_path: Path) -> None:
    target = os.fsdecode(os.fsencode(tmp_path) + b'/\xff\n"tree')
    line = checked(python(boot_code(archive, Path(target), log="json")).stderr)
    assert line["target"] == target


# --- the file ------------------------------------------------------------------------------------


def test_many_processes_append_to_one_file(archive: Path, target: Path, tmp_path: Path) -> None:
    """Real starts, each with marks whose lines are longer than what a pipe takes at once."""
    log = tmp_path / "log"
    code = boot_code(
        archive,
        target,
        "for number in range(50): unpackenv.mark(f'{os.getpid()} {number} ' + 'x' * (97 * number))",
    )
    env = environment(UNPACKENV_LOG="off", UNPACKENV_LOG_FILE=log)
    running = [start([sys.executable, "-c", f"import os\n{code}"], env) for _ in range(24)]
    for process in running:
        assert process.communicate(timeout=PATIENCE) == ("", "")
    assert max(map(len, log.read_bytes().splitlines())) > 8192
    found = lines_of(log)
    starts = [line for line in found if line["unpackenv"] == "start"]
    assert sorted(line["pid"] for line in starts) == sorted(process.pid for process in running)
    assert [line["outcome"] for line in starts].count("unpacked") == 1
    marks = [tuple(map(int, line["name"].split()[:2])) for line in found if line["unpackenv"] == "mark"]
    assert sorted(marks) == sorted((process.pid, number) for process in running for number in range(50))


@pytest.mark.parametrize("form", ["text", "json", "off"])
@pytest.mark.parametrize("kind", ["nowhere", "directory", "full", "fifo", "nul"])
def test_a_file_that_cannot_be_written_stops_nothing(
    archive: Path, target: Path, tmp_path: Path, kind: str, form: str
) -> None:
    file = tmp_path / "log"
    if kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)  # that nobody reads
    path = {"nowhere": tmp_path / "nowhere" / "log", "full": Path("/dev/full"), "nul": Path("log\0")}.get(kind, file)
    code = boot_code(archive, target, "unpackenv.mark('ready'); print(report.outcome)", log=form, log_file=str(path))
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "unpacked\n")
    code = {"nowhere": errno.ENOENT, "directory": errno.EISDIR, "full": errno.ENOSPC, "fifo": errno.ENXIO}.get(kind)
    why = os.strerror(code) if code else "that is no path"
    warning = f"the log file {path} cannot be written ({why})"
    if form == "json":
        first, second = map(checked, done.stderr.splitlines())
        assert (first["warnings"], second["warnings"]) == ([warning], [])
    else:
        assert done.stderr.splitlines().count(f"unpackenv: warning: {warning}") == 1
        assert len(done.stderr.splitlines()) == {"text": 3, "off": 1}[form]


def test_a_file_is_made_for_its_owner_to_write(archive: Path, target: Path, tmp_path: Path) -> None:
    python(boot_code(archive, target, log_file=str(tmp_path / "log")), before=lambda: os.umask(0))
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o644


def test_one_line_a_start_not_one_a_worker(tmp_path: Path, target: Path) -> None:
    pack_tree(tmp_path / "a.tar.zst", write_tree(tmp_path / "t", {f"{n}": os.urandom(9000).hex() for n in range(9)}))
    run(wrapper("--archive", tmp_path / "a.tar.zst", "--target", target, "--workers=4", "--log-file", tmp_path / "log",
                "--", "true"))  # fmt: skip
    (line,) = lines_of(tmp_path / "log")
    assert line["workers"] == 4


# --- marks and imports ---------------------------------------------------------------------------


@pytest.fixture
def slow_imports(tmp_path: Path) -> Path:
    """An archive of modules that take known times to import."""
    files = {
        "slowest.py": "import time; time.sleep(0.12)",
        "outer.py": "import time; time.sleep(0.03)\nimport slowest",
        "broken.py": "import outer\nimport nothing_of_that_name",
        **{f"quick_{number}.py": "" for number in range(12)},
    }
    pack_tree(tmp_path / "slow.tar.zst", write_tree(tmp_path / "slow-site", files))
    return tmp_path / "slow.tar.zst"


def test_marks_until_ready(slow_imports: Path, target: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = boot_code(
        slow_imports,
        target,
        "import time; unpackenv.mark('configured'); time.sleep(0.05); import outer; unpackenv.mark('imported')\n"
        "time.sleep(0.05); unpackenv.mark('ready'); unpackenv.mark('later')",
        imports=2,
    )
    done = python(code, environment(UNPACKENV_LOG_FILE=log))
    _, configured, imported, ready, later = lines_of(log)
    assert [line["name"] for line in (configured, imported, ready, later)] == [
        "configured",
        "imported",
        "ready",
        "later",
    ]
    assert configured["import_ms"] + 150 <= imported["import_ms"] <= ready["import_ms"] < imported["bootstrap_ms"] - 49
    assert ready["bootstrap_ms"] >= imported["bootstrap_ms"] + 50
    assert [point["name"] for point in ready["points"]] == ["configured", "imported", "ready"]
    assert ready["points"][1]["process_ms"] == imported["process_ms"]
    assert (configured["imports"], imported["imports"]) == ([], [])
    assert ready["imports"] == sorted(ready["imports"], key=lambda each: -each["self_ms"])
    slowest, outer = sorted(ready["imports"], key=lambda each: each["cumulative_ms"])
    assert (slowest["module"], outer["module"]) == ("slowest", "outer")
    assert 120 <= slowest["self_ms"] == slowest["cumulative_ms"]
    assert outer["self_ms"] >= 30
    assert outer["cumulative_ms"] == pytest.approx(slowest["self_ms"] + outer["self_ms"], abs=0.01)
    assert [point["name"] for point in later["points"]] == ["later"]
    assert (later["import_ms"], later["imports"]) == (None, [])
    text = done.stderr.splitlines()[3]
    assert re.fullmatch(
        r"unpackenv: ready \d+ ms after the start of the process, [\d.]+ ms after bootstrap, "
        r"[\d.]+ ms of that importing; slowest imports: (slowest|outer) \d+, (slowest|outer) \d+",
        text,
    )


def test_imports_cost_nothing_where_nobody_asks(archive: Path, target: Path) -> None:
    code = "import sys, _frozen_importlib\nbefore = _frozen_importlib._find_and_load\n"
    code += boot_code(archive, target, "unpackenv.mark('ready')")
    code += "result = [before is _frozen_importlib._find_and_load, 'unpackenv.start.log.import_times' in sys.modules]"
    assert result_of(code) == [True, False]


def test_ready_ends_the_watch(archive: Path, target: Path) -> None:
    code = "import _frozen_importlib\nbefore = _frozen_importlib._find_and_load\n"
    code += boot_code(archive, target, "during = _frozen_importlib._find_and_load; unpackenv.mark('ready')", imports=1)
    assert result_of(code + "result = [during is before, _frozen_importlib._find_and_load is before]") == [False, True]


def test_a_module_that_is_still_being_imported(slow_imports: Path, target: Path, tmp_path: Path) -> None:
    """As under a server that imports the application, whose last line is the mark."""
    write_tree(tmp_path / "served", {"served.py": "import unpackenv, outer\nunpackenv.mark('ready')"})
    code = boot_code(slow_imports, target, f"import sys; sys.path.append({str(tmp_path / 'served')!r}); import served",
               imports=1, log="json")  # fmt: skip
    _, ready = map(checked, python(code).stderr.splitlines())
    assert ready["import_ms"] >= 150


def test_imports_of_threads(slow_imports: Path, target: Path) -> None:
    rest = """
import threading
threads = [threading.Thread(target=__import__, args=(name,)) for name in ("slowest", "quick_1")]
for thread in threads: thread.start()
for thread in threads: thread.join()
unpackenv.mark("ready")"""
    _, ready = map(checked, python(boot_code(slow_imports, target, rest, imports=1, log="json")).stderr.splitlines())
    assert ready["imports"][0]["self_ms"] >= 120  # of slowest, unless the machine makes the other one wait for longer
    assert ready["import_ms"] >= 120


def test_tracebacks_of_imports_look_the_same(slow_imports: Path, target: Path) -> None:
    plain, watched = (
        python(boot_code(slow_imports, target, "import broken", imports=count, log="off")) for count in (0, 3)
    )
    assert "No module named 'nothing_of_that_name'" in plain.stderr
    assert watched.stderr == plain.stderr.replace("'imports': 0", "'imports': 3")


def test_marks_of_what_the_wrapper_has_become(slow_imports: Path, target: Path, tmp_path: Path) -> None:
    """It is the same process, and knows when the bootstrap ended; its first mark begins the watch."""
    log = tmp_path / "log"
    code = "import unpackenv; unpackenv.mark('begin'); import outer; unpackenv.mark('ready')"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    options = ("--archive", slow_imports, "--target", target, "--log", "off", "--log-file", log, "--imports=1", "--")
    assert run(wrapper(*options, sys.executable, "-c", f"{code}\n{child}")).returncode == 0
    _, begin, ready, other, _ = lines_of(log)
    assert 0 < begin["bootstrap_ms"] < begin["process_ms"] + 10
    assert ready["bootstrap_ms"] > begin["bootstrap_ms"] + 150
    assert ready["import_ms"] >= 150
    assert ready["imports"][0]["self_ms"] >= 120
    assert other["bootstrap_ms"] is None  # of another process


def test_nothing_is_watched_after_ready(archive: Path, target: Path) -> None:
    code = "import unpackenv; unpackenv.mark('ready'); unpackenv.mark('later'); import shlex; unpackenv.mark('last')"
    options = ("--archive", archive, "--target", target, "--log", "json", "--imports=1", "--")
    _, *marks = map(checked, run(wrapper(*options, sys.executable, "-c", code)).stderr.splitlines())
    assert [line["import_ms"] for line in marks] == [None, None, None]


def test_marks_of_an_application_that_the_hook_serves(slow_imports: Path, target: Path) -> None:
    python(boot_code(slow_imports, target))
    hook = (
        f"from unpackenv.start import hook; hook.run(auto=False, archive={str(slow_imports)!r}, target={str(target)!r})"
    )
    code = f"{hook}\nimport outer, unpackenv\nunpackenv.mark('ready')"
    (line,) = python(code, environment(UNPACKENV_LOG="json", UNPACKENV_IMPORTS=1)).stderr.splitlines()
    assert checked(line)["bootstrap_ms"] >= checked(line)["import_ms"] >= 150


def test_marks_where_the_system_has_little() -> None:
    """As on Windows, where a laptop may run the application, too."""
    bare = "import os, sys\nfor name in 'O_CLOEXEC', 'O_NONBLOCK', 'O_NOCTTY', 'uname': delattr(os, name)\n"
    bare += "sys.platform = 'win32'\nimport unpackenv\nunpackenv.bootstrap()\nunpackenv.mark('ready')"
    done = python(bare, environment(UNPACKENV="off"))
    assert done.returncode == 0
    assert re.fullmatch(r"unpackenv: ready [^\n]*\n", done.stderr)
