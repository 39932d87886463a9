"""The launcher: an executable that looks like a Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from helpers.file_server import FileServer
from helpers.fills import wait_until_filled
from helpers.processes import other_python, run, start, wrapper
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive import trailer

BASE = os.path.realpath(sys.executable)
"""An interpreter that unpackenv is not installed in."""
FACTS = """
import json, sys, app
print(json.dumps([app.VERSION, sys.argv[1:], sys.executable, sys.prefix == sys.base_prefix]))
"""


def make(output: Path, *options: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unpackenv", "launcher", "-o", output, "--python", BASE, *options]
    done = run(command, environment(**variables))
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="session")
def made_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("launcher") / "python"
    make(output, "--archive", "site-packages.tar.zst")
    return output


@pytest.fixture
def launcher(made_launcher: Path, tmp_path: Path, archive: Path) -> Path:
    """A launcher; the archive is beside it."""
    assert archive.parent == tmp_path
    return Path(shutil.copy(made_launcher, tmp_path))


@pytest.fixture
def bare(target: Path) -> dict[str, str]:
    """The environment of a machine where unpackenv is not installed."""
    plain = {name: value for name, value in environment().items() if not name.startswith(("PYTHON", "UNPACKENV"))}
    return {**plain, "UNPACKENV_TARGET": str(target)}


def facts(launcher: Path | str, env: dict[str, str], *words: object) -> list[Any]:
    done = run([launcher, *words], env)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_it_needs_nothing_but_the_interpreter(launcher: Path, bare: dict[str, str], target: Path) -> None:
    expected = [1, ["a", "-b"], BASE, True]
    assert facts(launcher, bare, "-c", FACTS, "a", "-b") == expected
    assert "reused" in run([launcher, "-c", "import app"], bare).stderr
    (target.parent.parent / "script.py").write_text(FACTS)
    assert facts(launcher, bare, target.parent.parent / "script.py", "a", "-b") == expected


def test_options_of_the_interpreter(launcher: Path, bare: dict[str, str]) -> None:
    code = "import sys; print(sys.flags.optimize, sys.flags.utf8_mode, sys._xoptions, sys.warnoptions)"
    asked = ["-OO", "-Xutf8", "-X", "importtime", "-W", "error", "-c", code]
    done, plain = run([launcher, *asked], bare), run([BASE, *asked], bare)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    assert run([launcher, "-V"], bare).stdout == run([BASE, "-V"], bare).stdout
    assert run([launcher, "-m", "json.tool", "--help"], bare).stdout.startswith("usage: python -m json.tool")
    assert run([launcher, "-m", "package"], bare).stderr.endswith("cannot be directly executed\n")
    assert json.loads(run([launcher], bare, stdin=FACTS).stdout)[0] == 1


def test_how_it_ends(launcher: Path, bare: dict[str, str]) -> None:
    assert run([launcher, "-c", "raise SystemExit(7)"], bare).returncode == 7
    process = start([launcher, "-c", "import time; print('up', flush=True); time.sleep(600)"], bare)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == -signal.SIGTERM


def test_children_of_its_interpreter(launcher: Path, bare: dict[str, str], tmp_path: Path) -> None:
    """Those of multiprocessing, and what runs `sys.executable`."""
    (tmp_path / "main.py").write_text("""
import multiprocessing, subprocess, sys

def version(_):
    import app
    return app.VERSION

if __name__ == "__main__":
    for method in "spawn", "forkserver", "fork":
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(version, [1, 2]) == [1, 1]
    subprocess.run([sys.executable, "-c", "import app"], check=True)
    print("right")
""")
    done = run([launcher, tmp_path / "main.py"], bare)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_an_interpreter_with_a_long_path(tmp_path: Path, archive: Path, bare: dict[str, str]) -> None:
    python = tmp_path / "a 'space' and $more" / ("p" * 120) / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(BASE)
    make(tmp_path / "launcher", "--archive", archive, "--python", python)
    assert facts(tmp_path / "launcher", bare, "-c", FACTS)[:3] == [1, [], str(python)]


def test_a_script_that_names_it(launcher: Path, bare: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!{launcher}\n{FACTS}")
    script.chmod(0o755)
    assert facts(script, bare, "a") == [1, ["a"], BASE, True]


def test_it_is_found_on_path(archive: Path, bare: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path / "trees/python3", "--archive", archive)
    env = {**bare, "PATH": f"{tmp_path}/trees:{bare['PATH']}"}
    assert facts("python3", env, "-c", FACTS)[0] == 1


@pytest.mark.parametrize("beside", ["the link", "the launcher"])
def test_a_link_to_it(launcher: Path, bare: dict[str, str], tmp_path: Path, archive: Path, beside: str) -> None:
    """YARN puts links into the directory of a job, to files that are in directories of their own."""
    job, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    job.mkdir()
    elsewhere.mkdir()
    shutil.move(launcher, elsewhere / "python")
    shutil.move(archive, tmp_path / "other")
    (job / "python").symlink_to(elsewhere / "python")
    (job if beside == "the link" else elsewhere).joinpath(archive.name).symlink_to(tmp_path / "other")
    done = run(["./python", "-c", FACTS], bare, cwd=job)
    assert done.returncode == 0, done.stderr


def test_relative_paths_are_beside_it(archive: Path, bare: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path / "python", "--archive", archive.name, "--target", "trees/a", "--log-file", "starts.log")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run([tmp_path / "python", "-c", FACTS], bare, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trees/a/app.py").is_file()
    assert json.loads((tmp_path / "starts.log").read_text())["target"] == str(tmp_path / "trees/a")
    assert not list(elsewhere.iterdir())


def test_variables_are_those_of_its_start(archive: Path, bare: dict[str, str], tmp_path: Path) -> None:
    """A scheduler names a directory for each job."""
    make(tmp_path / "python", "--archive", archive.name, "--target", "$JOB_DIR/app")
    assert facts(tmp_path / "python", {**bare, "JOB_DIR": str(tmp_path / "job")}, "-c", FACTS)[0] == 1
    assert (tmp_path / "job/app/app.py").is_file()
    done = run([tmp_path / "python", "-c", FACTS], bare)
    assert done.returncode == 125
    assert "'$JOB_DIR/app' is not a path: it has a user or a variable that is not known here" in done.stderr


def test_another_codec(site: Path, tmp_path: Path, bare: dict[str, str]) -> None:
    pack_tree(tmp_path / "site-packages.tar.xz", site, "xz")
    make(tmp_path / "python", "--archive", "site-packages.tar.xz", "--codec", "xz")
    assert facts(tmp_path / "python", bare, "-c", FACTS)[0] == 1


@pytest.mark.usefixtures("no_fill_left")
@pytest.mark.parametrize("fill", ["behind", "on-demand"])
def test_names_first(launcher: Path, bare: dict[str, str], fill: str, target: Path) -> None:
    env = {**bare, "UNPACKENV_FILL": fill}
    done = run([launcher, "-c", FACTS], env)
    assert json.loads(done.stdout)[0] == 1, done.stderr
    assert "unpackenv: named " in done.stderr
    wait_until_filled(target)


def test_an_archive_by_url(server: FileServer, bare: dict[str, str], tmp_path: Path, target: Path) -> None:
    digest = trailer.identify(str(tmp_path / "site-packages.tar.zst")).digest
    make(tmp_path / "python", "--archive", f"{server.url}/a", "--digest", digest)
    assert facts(tmp_path / "python", {**bare, "NO_PROXY": "*"}, "-c", FACTS)[0] == 1


def test_an_environment_brings_its_own(tmp_path: Path, target: Path, bare: dict[str, str], site: Path) -> None:
    """Then it is found without variables, too."""
    made = tmp_path / "venv"
    venv.create(made, symlinks=True, with_pip=False)
    (packages,) = made.glob("lib/python*/site-packages")
    shutil.copy(site / "app.py", packages)
    done = run(wrapper("pack", made, "-o", tmp_path / "env.tar.zst"))
    assert done.returncode == 0, done.stderr
    make(tmp_path / "python", "--archive", "env.tar.zst", "--target", target)
    expected = [1, [], str(target / "bin/python"), False]
    assert facts(tmp_path / "python", bare, "-c", FACTS) == expected
    assert facts(tmp_path / "python", bare, "-I", "-c", FACTS) == expected


def test_the_module(archive: Path, target: Path) -> None:
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target)
    command = [sys.executable, "-m", "unpackenv.python", "-c", FACTS, "a"]
    done = run(command, env)
    assert json.loads(done.stdout)[:3] == [1, ["a"], sys.executable], done.stderr


def test_turned_off(launcher: Path, bare: dict[str, str], target: Path) -> None:
    done = run([launcher, "-c", "print('up')"], {**bare, "UNPACKENV": "off"})
    assert (done.returncode, done.stdout) == (0, "up\n"), done.stderr
    assert not target.exists()


# --- starts within starts ------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another launcher, for another archive, which has another version of the application and lacks the package.

    The archive says where its tree belongs: by default, root's trees are on the machine itself.
    """
    site = write_tree(tmp_path / "other-site", {"app.py": "VERSION = 2\n"})
    pack_tree(tmp_path / "other.tar.zst", site, target=str(tmp_path / "other-tree"))
    make(tmp_path / "other", "--archive", "other.tar.zst")
    return tmp_path / "other"


CHILD = """
import json, subprocess, sys
child = "import app, json, package; print(json.dumps([app.VERSION, package.VALUE]))"
done = subprocess.run([*sys.argv[1:], "-c", child], stdout=subprocess.PIPE)
import app
print(json.dumps([app.VERSION, json.loads(done.stdout)]))
"""


def test_a_launcher_starts_another_one(
    launcher: Path, other: Path, bare: dict[str, str], tmp_path: Path, target: Path
) -> None:
    """The other one's packages come first, and its tree takes no other's place."""
    env = {name: value for name, value in bare.items() if name != "UNPACKENV_TARGET"}
    make(launcher, "--archive", "site-packages.tar.zst", "--target", target)
    for _ in "cold", "warm":
        assert facts(launcher, env, "-c", CHILD, other) == [1, [2, "packed"]]
    assert (target / "package").is_dir()
    assert (tmp_path / "other-tree/app.py").exists()


@pytest.mark.parametrize("copied", [True, False])
def test_a_launcher_starts_itself(launcher: Path, bare: dict[str, str], tmp_path: Path, copied: bool) -> None:
    """By another path."""
    if copied:
        shutil.copy(launcher, tmp_path / "again")
    else:
        (tmp_path / "again").symlink_to(launcher)
    assert facts(launcher, bare, "-c", CHILD, tmp_path / "again") == [1, [1, "packed"]]


def test_the_wrapper_starts_a_launcher(other: Path, bare: dict[str, str], archive: Path, tmp_path: Path) -> None:
    command = ["--archive", archive, "--target", tmp_path / "trees/tree", "--", sys.executable, "-c", CHILD, other]
    done = run(wrapper(*command))
    assert json.loads(done.stdout) == [1, [2, "packed"]], done.stderr


# --- what is wrong -------------------------------------------------------------------------------


def test_no_archive(launcher: Path, bare: dict[str, str], archive: Path) -> None:
    archive.unlink()
    done = run([launcher, "-c", "pass"], bare)
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert f"unpackenv: error: {archive}: " in line


def test_another_version_of_python(launcher: Path, bare: dict[str, str], tmp_path: Path) -> None:
    other = other_python()
    done = run([other, "-IS", launcher, "-c", "pass"], bare)
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert f"this launcher is for {sys.implementation.cache_tag} ({EXTENSION_SUFFIXES[0]}), and {other} is" in line
    path = {"PATH": f"{os.path.dirname(other)}:{os.defpath}"}
    for name in other, os.path.basename(other):
        done = make(tmp_path / "second", "--python", name, code=125, **path)
        assert f"is not the same Python as this, {sys.implementation.cache_tag}" in done.stderr
        assert not (tmp_path / "second").exists()


def test_no_interpreter(launcher: Path, bare: dict[str, str]) -> None:
    launcher.write_bytes(launcher.read_bytes().replace(BASE.encode(), b"/" + b"n" * (len(BASE) - 1), 1))
    done = run([launcher, "-c", "pass"], bare)
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert f"unpackenv: error: {launcher}: there is no Python here at {BASE}" in line


def test_it_does_not_become_itself(tmp_path: Path, bare: dict[str, str]) -> None:
    name = os.path.basename(BASE)
    assert "would find the launcher itself" in make(tmp_path / name, "--python", name, code=125).stderr
    make(tmp_path / "launcher", "--python", name)
    (tmp_path / name).symlink_to(tmp_path / "launcher")
    done = run([tmp_path / "launcher"], {**bare, "PATH": str(tmp_path)})
    assert done.returncode == 125
    assert f"there is no Python here at {name}" in done.stderr


def test_a_python_of_the_tree_that_is_not_there(tmp_path: Path, bare: dict[str, str], target: Path) -> None:
    """Python is not looked for on PATH, where the launcher is."""
    made = tmp_path / "venv"
    venv.create(made, symlinks=True, with_pip=False)
    (made / "bin/python").unlink()
    (made / "bin/python").symlink_to("/nowhere/python3")
    done = run(wrapper("pack", made, "-o", tmp_path / "env.tar.zst"))
    assert done.returncode == 0, done.stderr
    make(tmp_path / "python", "--archive", "env.tar.zst")
    done = run([tmp_path / "python", "-c", "pass"], {**bare, "PATH": f"{tmp_path}:{os.defpath}"})
    assert done.returncode == 125
    assert "/nowhere/python3, which is not there" in done.stderr


def test_a_python_without_files_in_memory(launcher: Path, bare: dict[str, str], tmp_path: Path) -> None:
    """As those are that were built for an old glibc."""
    code = "import os, posix, runpy, sys; del os.memfd_create, posix.memfd_create; sys.argv = sys.argv[1:]\n"
    code += "sys.path.insert(0, sys.argv[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    done = run([BASE, "-IS", "-c", code, launcher, "-c", FACTS], bare)
    assert json.loads(done.stdout)[0] == 1, done.stderr


def test_a_setting_that_a_start_would_refuse(tmp_path: Path) -> None:
    done = make(tmp_path / "python", "--archive", "a", "--digest", "abc", code=125)
    assert "is not a sha256" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_place_for_it(tmp_path: Path) -> None:
    assert "is no directory" in make(tmp_path / "none/python", code=125).stderr
    assert "is no regular file" in make(tmp_path, code=125).stderr


def test_the_same_bytes(launcher: Path, made_launcher: Path, archive: Path) -> None:
    make(launcher, "--archive", archive.name)
    assert launcher.read_bytes() == made_launcher.read_bytes()


def test_a_name_on_path(tmp_path: Path, archive: Path, target: Path, bare: dict[str, str]) -> None:
    name = os.path.basename(BASE)
    make(tmp_path / "launcher", "--archive", archive, "--target", target, "--python", name)
    env = {**bare, "PATH": f"{os.path.dirname(BASE)}:{bare['PATH']}"}
    assert facts(tmp_path / "launcher", env, "-c", FACTS) == [1, [], BASE, True]
