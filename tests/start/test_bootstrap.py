"""`bootstrap()`: where it finds the archive, where it puts the tree, what it returns, logs and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from helpers.processes import IMPORT_ALL, IS_ROOT, python, result_of
from helpers.starts import boot_code
from rig.environment import SOURCE, environment
from rig.sites import TAG, pack_tree, write_tree
from unpackenv.archive import trailer
from unpackenv.start.report import CHECK, FORK, IMPORT_PATHS, NAMES, PHASES, Clock

FIELDS = [
    "outcome", "archive", "digest", "key", "target", "import_paths", "bin", "python", "files", "size", "workers",
    "phases", "milliseconds", "tried",
]  # fmt: skip
REPORTED = f"{{name: getattr(report, name) for name in {FIELDS!r}}}"


def reported(archive: object = None, target: object = None, **settings: object) -> str:
    """Return code that bootstraps and leaves the fields of the report in `result`."""
    return boot_code(archive, target, f"result = {REPORTED}", **settings)


def raised(code: str, env: dict[str, str] | None = None, **options: object) -> dict[str, object]:
    """Return what is in the error that `code` raises."""
    indented = "\n".join("    " + line for line in code.splitlines())
    return result_of(  # type: ignore[no-any-return]
        f"from unpackenv import UnpackenvError\ntry:\n{indented}\n    result = 'no error'\n"
        "except UnpackenvError as e:\n"
        "    result = dict(type=type(e).__name__, text=str(e), where=e.where, hint=e.hint, facts=e.facts)\n",
        env,
        **options,
    )


# --- cold, warm, again ---------------------------------------------------------------------------


def test_cold_then_warm(archive: Path, target: Path) -> None:
    cold = result_of(reported(archive, target, workers=2))
    warm = result_of(reported(archive, target, workers=2))
    digest = trailer.identify(str(archive)).digest
    assert cold["outcome"] == "unpacked"
    assert warm["outcome"] == "reused"
    for report in cold, warm:
        assert report["archive"] == str(archive)
        assert report["target"] == str(target)
        assert report["digest"] == report["key"] == digest
        assert report["python"] == TAG
        assert report["import_paths"] == [str(target)]
        assert report["bin"] == ""
        assert report["files"] == 5
        assert report["size"] == sum(path.stat().st_size for path in target.rglob("*.*") if path.name[0] != ".")
        assert report["tried"] == []
        assert 0 < sum(report["phases"].values()) <= report["milliseconds"]
    assert cold["workers"] >= 1
    assert warm["workers"] == 0
    assert list(cold["phases"]) == [phase for phase in PHASES if phase != NAMES]
    assert list(warm["phases"]) == [CHECK, IMPORT_PATHS]


@pytest.mark.parametrize("before", ["pass", "gc.disable()", "gc.freeze()"])
def test_the_garbage_collector_is_left_as_it_was(archive: Path, target: Path, before: str) -> None:
    state = "(gc.isenabled(), gc.get_freeze_count() > 0)"
    start = f"import unpackenv\nunpackenv.bootstrap({str(archive)!r}, {str(target)!r})"
    was, now = result_of(f"import gc\n{before}\nbefore = {state}\n{start}\nresult = before, {state}\n")
    assert was == now
    assert was == [before != "gc.disable()", before == "gc.freeze()"]


def test_no_phase_fork_where_nothing_forked(archive: Path, target: Path) -> None:
    """A process with several threads unpacks by itself; its phases are the whole start all the same."""
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"
    report = result_of(code + reported(archive, target))
    assert list(report["phases"]) == [phase for phase in PHASES if phase not in (FORK, NAMES)]
    assert 0 < sum(report["phases"].values()) <= report["milliseconds"]


@pytest.mark.parametrize("name", ["fork", "publish"])
def test_phases_add_up(name: str) -> None:
    """Also where the rest of some phases belongs to one of them."""
    clock = Clock()
    clock.end_phase("lock")
    clock.end_phase(name, {"unpack": 40.0, "publish": 2.0})
    assert clock.phases["unpack"] == 40
    assert sum(clock.phases.values()) == pytest.approx((clock._last - clock.began) * 1e3)


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_second_call_returns_the_report_of_the_first(archive: Path, target: Path, start: str) -> None:
    if start == "warm":
        result_of(reported(archive, target))
    done = python(
        f"import sys, unpackenv\nfirst = unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
        "before = list(sys.path), dict(__import__('os').environ), first.fields()\n"
        f"second = unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
        "assert second is first\n"
        "assert before == (sys.path, dict(__import__('os').environ), second.fields())\n"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_call_that_names_nothing_returns_the_first_report(archive: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/helper.py").write_text("import unpackenv\nreport = unpackenv.bootstrap()\n")
    code = f"import unpackenv; first = unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
    code += f"import sys; before = sys.path[:]; sys.path.insert(0, {str(tmp_path / 'elsewhere')!r}); import helper\n"
    code += "result = [helper.report is first, sys.path[1:] == before]"
    assert result_of(code, environment(UNPACKENV_LOG="off")) == [True, True]


def test_the_packages_can_be_imported(archive: Path, target: Path) -> None:
    code = reported(archive, target) + "import app, package.more.deep as deep; result = [app.__file__, deep.NAME]"
    assert result_of(code) == [f"{target}/app.py", "package.more.deep"]


# --- where the archive is ------------------------------------------------------------------------


def test_archive_by_argument_wins_over_the_environment(archive: Path, target: Path) -> None:
    env = environment(UNPACKENV_ARCHIVE="/nowhere.tar.zst")
    assert result_of(reported(archive, target), env)["archive"] == str(archive)


def test_archive_by_environment(archive: Path, target: Path) -> None:
    moved = archive.rename(archive.with_name("any name at all"))
    assert result_of(reported(target=str(target)), environment(UNPACKENV_ARCHIVE=moved))["archive"] == str(moved)


@pytest.mark.parametrize("name", ["site-packages.tar.zst", "packages.tar.xz", "venv.tar.gz", "packages.tar"])
def test_archive_beside_the_calling_file(archive: Path, target: Path, tmp_path: Path, name: str) -> None:
    program = (
        write_tree(tmp_path / "application", {"main.py": f"import sys\n{reported(target=str(target))}"}) / "main.py"
    )
    beside = shutil.copy(archive, str(program.with_name(name)))
    code = f"import runpy; result = runpy.run_path({str(program)!r})['result']"
    assert result_of(code)["archive"] == beside


def test_archive_in_the_well_known_place(archive: Path, target: Path) -> None:
    code = f"from unpackenv.start import locations; locations.HOME = {str(archive.parent)!r}\n" + reported(
        target=str(target)
    )
    assert result_of(code)["archive"] == str(archive)


def test_archive_beside_the_caller_comes_first(archive: Path, target: Path, tmp_path: Path) -> None:
    program = write_tree(tmp_path / "application", {"main.py": reported(target=str(target))}) / "main.py"
    beside = shutil.copy(archive, str(program.with_name("venv.tar.zst")))
    code = f"from unpackenv.start import locations; locations.HOME = {str(archive.parent)!r}\nimport runpy\n"
    assert result_of(f"{code}result = runpy.run_path({str(program)!r})['result']")["archive"] == beside


def test_archive_in_the_working_directory_is_not_looked_at(archive: Path, target: Path, tmp_path: Path) -> None:
    code = f"from unpackenv.start import locations; locations.HOME = {str(tmp_path / 'home')!r}\n"
    error = raised(code + reported(target=str(target)), cwd=archive.parent)
    assert error["type"] == "ArchiveNotFound"
    assert str(tmp_path / "home") in str(error["text"])
    assert not target.exists()


def test_named_archive_that_is_not_there(tmp_path: Path, target: Path) -> None:
    error = raised(reported(tmp_path / "nothing.tar.zst", target))
    assert (error["type"], error["where"]) == ("ArchiveNotFound", str(tmp_path / "nothing.tar.zst"))


def test_without_an_archive_a_start_may_do_nothing(tmp_path: Path, target: Path) -> None:
    for given in {"missing": "ignore"}, {}:
        env = environment(UNPACKENV_MISSING="ignore")
        report = result_of(reported(tmp_path / "nothing.tar.zst", target, **given), env)
        assert (report["outcome"], report["target"], report["import_paths"]) == ("missing", "", [])
    assert not target.exists()


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no", "false"])
def test_switched_off_it_changes_nothing(archive: Path, target: Path, value: str) -> None:
    code = "import os, sys; path, environ = list(sys.path), dict(os.environ)\n"
    code += (
        reported(archive, target, workers=-5, log="nonsense")
        + "result = [report.outcome, sys.path == path, os.environ == environ]"
    )
    done = python(code + "\nprint(result)", environment(UNPACKENV=value))
    assert (done.stdout, done.stderr) == ("['off', True, True]\n", "")
    assert not target.exists()


# --- where the tree goes -------------------------------------------------------------------------


def test_target_argument_then_environment_then_recorded(site: Path, tmp_path: Path) -> None:
    places = {name: str(tmp_path / name) for name in ("argument", "variable", "recorded")}
    archive = tmp_path / "recorded.tar.zst"
    pack_tree(archive, site, target=places["recorded"])
    variable = environment(UNPACKENV_TARGET=places["variable"])
    assert result_of(reported(archive, places["argument"]), variable)["target"] == places["argument"]
    assert result_of(reported(archive), variable)["target"] == places["variable"]
    assert result_of(reported(archive))["target"] == places["recorded"]


def test_a_recorded_target_that_cannot_be_used_is_an_error(site: Path, tmp_path: Path) -> None:
    archive = tmp_path / "recorded.tar.zst"
    pack_tree(archive, site, target=str(tmp_path / "file" / "tree"))
    (tmp_path / "file").touch()
    assert raised(reported(archive), environment(HOME=tmp_path))["type"] == "TargetNotWritable"
    assert not (tmp_path / ".cache").exists()


DROP = "import os\nif os.geteuid() == 0: os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"


def default_place(archive: Path, home: str, env: dict[str, str], before: str = "") -> dict[str, object]:
    """Bootstrap without a target, as a user who is not root, with `home` in place of /opt/unpackenv."""
    code = f"{IMPORT_ALL}\nfrom unpackenv.start import locations; locations.HOME = {home!r}\n{before}\n"
    return result_of(code + reported(archive), env)  # type: ignore[no-any-return]


def default_name(archive: Path) -> str:
    return "env/" + trailer.identify(str(archive)).digest[:32]


@pytest.fixture
def shared(archive: Path, open_path: Path) -> Path:
    """The archive, where every user can read it."""
    moved = Path(shutil.copy(archive, open_path))
    moved.chmod(0o644)
    return moved


def closed(open_path: Path) -> str:
    """A directory below which nobody but root can make anything."""
    directory = open_path / "closed"
    directory.mkdir()
    directory.chmod(0o555)
    return str(directory / "opt")


def test_default_is_below_the_home_of_unpackenv(shared: Path, open_path: Path) -> None:
    report = default_place(shared, f"{open_path}/opt", environment(HOME=open_path / "home"))
    assert report["target"] == f"{open_path}/opt/{default_name(shared)}"
    again = default_place(shared, f"{open_path}/opt", environment(HOME=open_path / "home"))
    assert (again["outcome"], again["target"]) == ("reused", report["target"])
    assert not (open_path / "home").exists()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HOME": "{}/home"}, "{}/home/.cache/unpackenv"),
        ({"HOME": "{}/home", "XDG_CACHE_HOME": "{}/xdg"}, "{}/xdg/unpackenv"),
        ({"HOME": "{}/home", "XDG_CACHE_HOME": "relative"}, "{}/home/.cache/unpackenv"),
        ({"HOME": "/", "TMPDIR": "{}"}, "{}/unpackenv-{uid}"),
        ({"HOME": "relative", "TMPDIR": "{}"}, "{}/unpackenv-{uid}"),
        ({"TMPDIR": "{}"}, "{}/unpackenv-{uid}"),
        ({"HOME": "{}/closed", "TMPDIR": "{}"}, "{}/unpackenv-{uid}"),
        ({"HOME": "/dev/null", "TMPDIR": "{}"}, "{}/unpackenv-{uid}"),
    ],
)
def test_default_of_a_user_without_a_name(shared: Path, open_path: Path, variables: dict[str, str], place: str) -> None:
    uid = 54321 if IS_ROOT else os.geteuid()
    home = closed(open_path)
    env = environment(**{name: value.replace("{}", str(open_path)) for name, value in variables.items()})
    report = default_place(shared, home, env, DROP)
    expected = place.replace("{uid}", str(uid)).replace("{}", str(open_path))
    assert report["outcome"] == "unpacked"
    assert report["target"] == f"{expected}/{default_name(shared)}"
    assert f"{home}/{default_name(shared)}" in str(report["tried"])
    assert "target-not-writable" in str(report["tried"])
    again = default_place(shared, home, env, DROP)
    assert (again["outcome"], again["target"]) == ("reused", report["target"])
    for directory in (expected, expected + "/env"):
        status = os.stat(directory)
        assert (status.st_uid, status.st_mode & 0o777) == (uid, 0o700)


def test_no_default_place_can_be_used(shared: Path, open_path: Path) -> None:
    home = closed(open_path)
    env = environment(HOME=f"{open_path}/closed", TMPDIR=f"{open_path}/closed")
    error = raised(
        f"{IMPORT_ALL}\nfrom unpackenv.start import locations; locations.HOME = {home!r}\n{DROP}{reported(shared)}", env
    )
    assert error["type"] == "TargetNotWritable"
    assert "UNPACKENV_TARGET" in str(error["hint"])
    for place in (home, f"{open_path}/closed/.cache/unpackenv", f"{open_path}/closed/unpackenv-"):
        assert place in str(error["where"])


@pytest.mark.skipif(not IS_ROOT, reason="only root can make directories of other users")
def test_a_default_place_of_another_user_is_not_used(shared: Path, open_path: Path) -> None:
    foreign = open_path / "unpackenv-54321"
    (foreign / "env").mkdir(parents=True)
    shutil.copytree(Path(SOURCE), foreign / default_name(shared), ignore=shutil.ignore_patterns("*"))
    for path in (foreign, foreign / "env"):
        os.chown(path, 12345, 12345)
        path.chmod(0o777)
    env = environment(HOME="/", TMPDIR=open_path)
    code = f"{IMPORT_ALL}\nfrom unpackenv.start import locations; locations.HOME = {closed(open_path)!r}\n{DROP}"
    error = raised(code + reported(shared), env)
    assert error["type"] == "TargetNotWritable"


@pytest.mark.skipif(not IS_ROOT, reason="only root can make directories of other users")
def test_a_tree_in_a_default_place_of_another_user_is_not_trusted(shared: Path, open_path: Path) -> None:
    env = environment(HOME="/", TMPDIR=open_path)
    home = closed(open_path)
    planted = Path(str(default_place(shared, home, env, DROP)["target"]))
    for path in (planted, planted.parent, planted.parent.parent):
        os.chown(path, 12345, 12345)
        path.chmod(0o755)
    code = f"{IMPORT_ALL}\nfrom unpackenv.start import locations; locations.HOME = {home!r}\n{DROP}"
    assert raised(code + reported(shared), env)["type"] == "TargetNotWritable"


# --- digest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_another_digest_is_refused_cold_and_warm(archive: Path, target: Path, start: str) -> None:
    digest = trailer.identify(str(archive)).digest
    if start == "warm":
        result_of(reported(archive, target))
    assert result_of(reported(archive, target, digest=digest.upper()))["digest"] == digest
    assert result_of(reported(archive, target, digest="any"), environment(UNPACKENV_DIGEST=""))["digest"] == digest
    if start == "cold":
        shutil.rmtree(target)
    error = raised(reported(archive, target), environment(UNPACKENV_DIGEST="0" * 64))
    assert (error["type"], error["where"]) == ("DigestMismatch", str(archive))
    assert digest in str(error["text"])
    assert target.exists() == (start == "warm")


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "-1"), ("workers", "two"), ("workers", "1.5"), ("parallel", "fibers"), ("memory", "12 parsecs"),
        ("memory", "-1M"), ("lock_timeout", "soon"), ("lock_timeout", "nan"), ("lock_timeout", "-1"),
        ("missing", "perhaps"), ("digest", "12ab"),
        ("log", "xml"), ("in_place", "maybe"), ("force", "2"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_what_was_given(archive: Path, target: Path, name: str, value: str) -> None:
    by_argument = raised(reported(archive, target, **{name: value}))
    variable = f"UNPACKENV_{name.upper()}"
    by_environment = raised(reported(archive, target), environment(**{variable: value}))
    assert (by_argument["type"], by_argument["where"]) == ("SettingError", name)
    assert (by_environment["type"], by_environment["where"]) == ("SettingError", variable)
    assert repr(value) in str(by_argument["text"])
    assert not target.exists()


def test_numbers_and_paths_as_arguments(archive: Path, target: Path) -> None:
    code = "from pathlib import Path\nimport unpackenv\n"
    code += f"report = unpackenv.bootstrap(Path({str(archive)!r}), Path({str(target)!r}), workers=1, memory=1 << 28, "
    code += "lock_timeout=2.5, in_place=False, force=True)\nresult = report.workers"
    assert result_of(code) == 1


# --- other platforms -----------------------------------------------------------------------------

WITHOUT_FCNTL = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ('fcntl', 'pwd', 'grp', 'resource', 'termios'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
for name in ('fcntl', 'pwd', 'grp', 'resource', 'termios'):
    sys.modules.pop(name, None)
import os
os.geteuid = os.fork = None
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_on_other_platforms_it_is_off_or_an_error(archive: Path, target: Path, platform: str) -> None:
    code = f"{WITHOUT_FCNTL}\nsys.platform = {platform!r}\n"
    if platform == "win32":
        code += "for name in ('O_CLOEXEC', 'O_NOCTTY', 'O_NONBLOCK', 'uname'): delattr(os, name)\n"
    error = raised(code + reported(archive, target))
    assert error["type"] == "PlatformUnsupported"
    assert platform in str(error["text"])
    assert "UNPACKENV=off" in str(error["hint"])
    for env in (environment(UNPACKENV="off"), environment(UNPACKENV="off", UNPACKENV_LOG="json")):
        assert result_of(code + reported(archive, target), env)["outcome"] == "off"
    assert (
        raised(code + reported(archive, target), environment(UNPACKENV_MISSING="ignore"))["type"]
        == "PlatformUnsupported"
    )
    without = "import unpackenv; result = unpackenv.bootstrap(missing='ignore').outcome"
    assert result_of(code + without) == "missing"
    assert raised(f"{code}import unpackenv; unpackenv.bootstrap()")["type"] == "PlatformUnsupported"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_packing_elsewhere_says_how_to_pack_in_a_container(tmp_path: Path, platform: str) -> None:
    # The standard library of that system has other modules: what is imported before is that of this one.
    code = f"import argparse, shutil\n{WITHOUT_FCNTL}\nsys.platform = {platform!r}\nfrom unpackenv.cli import main\n"
    code += f"main(['pack', 'site-packages', '-o', {str(tmp_path / 'x.tar.zst')!r}])"
    done = python(code)
    assert (done.returncode, done.stdout) == (125, "")
    said = f"unpackenv: error: site-packages: packages that are installed on {platform} are for {platform}, "
    assert done.stderr.startswith(said)
    assert f'docker run --rm -v "$PWD":/work -w /work python:3.{sys.version_info[1]} sh -c ' in done.stderr
    assert "unpackenv pack site-packages -o " in done.stderr


def test_a_pin_is_no_call_that_names_nothing(archive: Path, target: Path) -> None:
    code = reported(archive, target) + "\nimport unpackenv\n"
    assert result_of(f"{code}result = unpackenv.bootstrap(digest=report.digest.upper()) is report") is True
    assert raised(f"{code}unpackenv.bootstrap(digest='0' * 64)")["type"] == "DigestMismatch"
    assert result_of(f"{code}result = unpackenv.bootstrap(digest='any') is report") is True
    assert raised(f"{code}unpackenv.bootstrap(digest='')")["type"] == "SettingError"


# --- what is logged ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_one_line_on_stderr_and_none_on_stdout(archive: Path, target: Path, start: str) -> None:
    if start == "warm":
        python(reported(archive, target))
    done = python(reported(archive, target, workers=2))
    assert done.stdout == ""
    outcome = "unpacked" if start == "cold" else "reused"
    by = r" by \d workers? \(.*\)" if start == "cold" else r"( \(.*\))?"
    pattern = rf"unpackenv: {outcome} 5 files, 0\.0 MB, at {re.escape(str(target))} in \d+\.\d ms{by}\n"
    assert re.fullmatch(pattern, done.stderr), done.stderr


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_the_line_in_json_has_every_field(archive: Path, target: Path, how: str) -> None:
    given, env = ({"log": "json"}, environment()) if how == "argument" else ({}, environment(UNPACKENV_LOG="json"))
    done = python(reported(archive, target, **given), env)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    logged = json.loads(line)
    assert logged["unpackenv"] == "start"
    assert logged["outcome"] == "unpacked"
    assert logged["target"] == str(target)
    assert set(FIELDS) < set(logged)


def test_without_a_log_nothing_is_said(archive: Path, target: Path) -> None:
    done = python(reported(archive, target, log="off"))
    assert (done.stdout, done.stderr) == ("", "")


def test_closed_stderr_is_no_obstacle(archive: Path, target: Path) -> None:
    done = python("import os; os.close(2)\n" + reported(archive, target) + "print(report.outcome)")
    assert done.stdout == "unpacked\n"


def test_a_mark_says_when_it_came(archive: Path, target: Path) -> None:
    done = python(f"{reported(archive, target)}import os; os.write(2, b'-'); unpackenv.mark('ready')")
    assert re.fullmatch(
        r"unpackenv: ready \d+ ms after the start of the process, \d+\.\d ms after bootstrap\n",
        done.stderr.partition("\n-")[2],
    )
    assert python(f"{reported(archive, target, log='off')}unpackenv.mark('ready')").stderr == ""
    done = python(f"{reported(archive, target)}unpackenv.mark('ready')", environment(UNPACKENV_LOG="json"))
    logged = json.loads(done.stderr.splitlines()[1])
    assert (logged["unpackenv"], logged["name"]) == ("mark", "ready")
    assert 0 <= logged["bootstrap_ms"] <= logged["process_ms"] + 20
    done = python("import unpackenv; unpackenv.mark('early')")
    assert re.fullmatch(r"unpackenv: early \d+ ms after the start of the process\n", done.stderr)


# --- another Python ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_archive_for_another_python(site: Path, target: Path, tmp_path: Path, start: str) -> None:
    archive = tmp_path / "other.tar.zst"
    pack_tree(archive, site, python="cpython-27")
    if start == "warm":
        assert result_of(reported(archive, target, force=True))["outcome"] == "unpacked"
    error = raised(reported(archive, target))
    assert error["type"] == "InterpreterMismatch"
    assert (error["facts"]["packed"], error["facts"]["found"]) == ("cpython-27", TAG)  # type: ignore[index]
    assert target.exists() == (start == "warm")
