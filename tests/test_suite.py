"""The suite itself: a fixture that fails is one error, no run leaves files, no test depends on the machine's speed."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.documented import PROJECT
from helpers.interpreters import EACH_INTERPRETER, NEWEST, ON_ONE
from helpers.processes import PATHS, processes_with, run, start, wait_for
from programs import means
from rig import kept
from rig.environment import PATIENCE, environment
from rig.sites import write_tree

TESTS, BENCHMARKS = PROJECT / "tests", PROJECT / "benchmarks"
SHARED = {"renderer", "rig"}


def suite(folder: Path, code: str, *options: object) -> tuple[list[object], dict[str, str]]:
    """Make a suite of its own, with the plugins of this one; return the command that runs it, and its environment."""
    ini = "[pytest]\naddopts = -p rig.plugin -ra\ntmp_path_retention_policy = failed\n"
    write_tree(folder, {"pytest.ini": ini, "test_it.py": code})
    (folder / "tmp").mkdir(exist_ok=True)
    env = environment(TMPDIR=folder / "tmp", XDG_CACHE_HOME=folder / "cache", COLUMNS=200)
    env["PYTHONPATH"] += f":{os.pathsep.join(PATHS)}"
    return [sys.executable, "-m", "pytest", *options, folder], env


def pytest_of(folder: Path, code: str, *options: object) -> subprocess.CompletedProcess[str]:
    """Run such a suite to its end."""
    command, env = suite(folder, code, *options)
    return run(command, env, cwd=folder)


# --- what cannot be made -------------------------------------------------------------------------

SHARING = """
import pytest
from rig import kept

@pytest.fixture(scope="session")
def image():
    MAKE

@pytest.mark.parametrize("number", range(8))
def test_shared(image, number):
    pass

def test_other():
    pass
"""
MAKE = """kept.made("image", "it", lambda to: kept.run("sh", "-c", "echo tried >> tried; echo no network; exit 9"))"""


@pytest.mark.parametrize("processes", [0, 2])
def test_what_cannot_be_made_is_one_error(tmp_path: Path, processes: int) -> None:
    """Of one test, and tried once, also where several processes run the tests."""
    done = pytest_of(tmp_path, SHARING.replace("MAKE", MAKE), "-n", processes)
    assert "1 passed, 7 skipped, 1 error in" in done.stdout, done.stdout
    assert len(re.findall("^image could not be made: sh ended with 9: no network$", done.stdout, re.MULTILINE)) == 1
    assert "def image" not in done.stdout
    (skipped,) = re.findall(r"^SKIPPED .*", done.stdout, re.MULTILINE)
    first = r"test_it.py::test_shared\[\d\]"
    assert re.match(rf"SKIPPED \[7\] test_it.py: needs what could not be made, see {first}", skipped)
    assert (tmp_path / "tried").read_text() == "tried\n"


def test_a_fixture_with_a_fault_is_one_traceback(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, SHARING.replace("MAKE", "raise ValueError('a fault')"))
    assert "1 passed, 7 skipped, 1 error in" in done.stdout, done.stdout
    assert done.stdout.count("def image") == 1


def test_what_could_not_be_made_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    for _ in range(2):
        pytest_of(tmp_path, SHARING.replace("MAKE", MAKE))
    assert (tmp_path / "tried").read_text() == "tried\n" * 2


def test_what_is_made_is_given_time_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SECONDS", 0.2)
    env = environment(MARK=tmp_path)
    with pytest.raises(kept.NotMade, match=r"^sh still ran after 0.2 s$"):
        kept.run("sh", "-c", "sleep 1200 & sleep 1200", env=env)
    wait_for(lambda: not processes_with(f"MARK={tmp_path}"), "the end of what was killed")


# --- what is left --------------------------------------------------------------------------------

LEAVING = """
import pathlib, subprocess, tempfile
def test_tidy(tmp_path):
    (tmp_path / "file").touch()
"""
FILE = """
def test_file():
    tempfile.mkstemp(prefix="stray-")
"""
PROCESS = """
def test_process():
    subprocess.Popen(["sleep", "1200"]).returncode = 0
"""
FAILS = """
def test_fails(tmp_path):
    (tmp_path / "why").write_text("for a look")
    assert False
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_a_tidy_suite_leaves_nothing(tmp_path: Path, processes: int) -> None:
    done = pytest_of(tmp_path, LEAVING, "-n", processes)
    assert (done.returncode, "left by" in done.stdout) == (0, False), done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("code", "said"), [(FILE, r".*/stray-\w+"), (PROCESS, r"process \d+: sleep 1200")])
def test_what_a_test_leaves_is_an_error(tmp_path: Path, code: str, said: str) -> None:
    done = pytest_of(tmp_path, "from rig import temporary; temporary._SECONDS_TO_END = 0.2\n" + LEAVING + code)
    assert done.returncode == 1, done.stdout
    assert re.search(rf"^left by a test: {said}$", done.stdout, re.MULTILINE), done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not processes_with(f"TMPDIR={tmp_path}")


def test_what_a_failed_test_had_is_kept_in_build(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, LEAVING + FAILS)
    kept = tmp_path / "build/failed-tests" / "python{}.{}".format(*sys.version_info)
    assert f"is in {kept}\n" in done.stdout
    assert [path.read_text() for path in kept.glob("*/*")] == ["for a look"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_run_that_is_told_to_stop_leaves_nothing(tmp_path: Path) -> None:
    up = tmp_path / "up"
    code = f"import time\ndef test_it(tmp_path):\n open({str(up)!r}, 'w').close()\n time.sleep({PATIENCE})"
    process = start(*suite(tmp_path, code, "-n", 1))
    wait_for(up.exists, "the test to begin", process)
    process.terminate()
    stdout, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM, stdout
    assert list((tmp_path / "tmp").iterdir()) == []


# --- what is said before -------------------------------------------------------------------------


def test_what_is_missing_is_said_with_what_is_not_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "_PATH", str(tmp_path))
    monkeypatch.setattr(kept, "DIRECTORY", tmp_path / "cache")
    said = "\n".join(means.lines())
    assert "and 10 more this first time" in said
    assert f"{tmp_path}/cache (" in said
    for tool in means.TOOLS:
        assert f"Not here: {tool.command} (apt-get install {tool.package}); without: {tool.without}." in said
    assert {tool.package for tool in means.missing()} >= {tool.package for tool in means.TOOLS}


def test_make_test_says_it_first() -> None:
    done = run(["make", "--dry-run", "test"], environment(PATH=os.environ["PATH"]), cwd=PROJECT)
    assert done.stdout.splitlines()[0].endswith("-m programs.means"), done.stderr


# --- where things are ----------------------------------------------------------------------------

USUAL_FILES = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "mkdocs.yml"}
DIRECTORIES = {"benchmarks", "docs", "src", "tests"}
MADE = {"build", "dist"}


def test_the_top_level_holds_few_things() -> None:
    """What else there is has its place below one of the directories."""
    there = {name for name in os.listdir(PROJECT) if name[0] != "." and not name.endswith(".egg-info")}
    assert there - MADE == {*USUAL_FILES, "pyproject.toml", *DIRECTORIES}


def imported(path: Path) -> Iterator[str]:
    """Yield the names of the modules that a file imports, by the first word."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def modules(folder: Path) -> set[str]:
    """Return the modules and packages of a directory that is on the path."""
    return {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_tests_and_benchmarks_import_nothing_of_each_other() -> None:
    """What both need is in two packages of its own, which import neither: the rig, and the real workload."""
    of_tests, of_benchmarks = modules(TESTS), modules(BENCHMARKS) - SHARED
    assert {"helpers", "programs", "measure", "parts"} <= of_tests | of_benchmarks
    forbidden = {TESTS: of_benchmarks, BENCHMARKS: of_tests}
    forbidden.update({BENCHMARKS / name: of_tests | of_benchmarks for name in SHARED})
    wrong = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for folder, names in forbidden.items()
        for path in sorted(folder.rglob("*.py"))
        for name in imported(path)
        if name in names
    ]
    assert wrong == []


def changes_path(node: ast.AST) -> bool:
    """Whether a statement or a call changes `sys.path`."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in {f"sys.path.{name}" for name in ("append", "extend", "insert")}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(ast.unparse(target).startswith("sys.path") for target in targets if target)


def test_no_module_of_tests_or_benchmarks_changes_where_modules_are_looked_for() -> None:
    """The configuration of pytest and the Makefile say it."""
    wrong = [
        f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}"
        for folder in (TESTS, BENCHMARKS)
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if changes_path(node)
    ]
    assert wrong == []


# --- how fast the machine is ---------------------------------------------------------------------

CLOCKS = ("monotonic", "perf_counter", "perf_counter_ns", "monotonic_ns")
# Where a clock guards against hanging, spreads kills over a start, or is compared with figures of the same start.
MAY_LOOK = ("tests/helpers/processes.py", "tests/programs/soak.py", "benchmarks/tests/test_parts.py")


def hasty(path: Path) -> Iterator[str]:
    """Yield the lines of a file that give a process a time of their own, or look at a clock to judge one."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.keyword) and node.arg == "timeout" and isinstance(node.value, ast.Constant):
            yield f"{name}: a timeout that is not PATIENCE"
        if isinstance(node, ast.Attribute) and node.attr == "timeout" and ast.unparse(node.value) == "pytest.mark":
            yield f"{name}: a timeout of a test"
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS and not name.startswith(MAY_LOOK):
            yield f"{name}: a clock"


def test_no_test_depends_on_how_fast_the_machine_is() -> None:
    assert [
        what for path in sorted([*TESTS.rglob("*.py"), *(BENCHMARKS / "tests").rglob("*.py")]) for what in hasty(path)
    ] == []


# --- what runs where -----------------------------------------------------------------------------


def test_what_each_interpreter_runs_is_there() -> None:
    """A test that was renamed or moved would silently run on one interpreter only."""
    for name in (*EACH_INTERPRETER, *ON_ONE, *NEWEST):
        file, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}" in (TESTS / file).read_text(), name
