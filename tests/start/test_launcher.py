"""The launcher: an executable that looks like a Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from helpers.file_server import FileServer
from helpers.fills import wait_until_filled
from helpers.processes import other_python, run, start, wrapper
from rig.environment import environment
from unpackenv.archive import trailer

BASE = os.path.realpath(sys.executable)
"""An interpreter that unpackenv is not installed in."""
FACTS = """
import json, sys, app
print(json.dumps([app.VERSION, sys.argv[1:], sys.executable, sys.prefix == sys.base_prefix]))
"""


def make(output: Path, *options: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unpackenv", "launcher", "-o", output, "--python", BASE, *options]
    done = run(command, environment())
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


def test_a_script_that_names_it(launcher: Path, bare: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!{launcher}\n{FACTS}")
    script.chmod(0o755)
    assert facts(script, bare, "a") == [1, ["a"], BASE, True]


def test_it_is_found_on_path(archive: Path, bare: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path / "trees/python3", "--archive", archive)
    env = {**bare, "PATH": f"{tmp_path}/trees:{bare['PATH']}"}
    assert facts("python3", env, "-c", FACTS)[0] == 1


def test_a_link_to_it(launcher: Path, bare: dict[str, str], tmp_path: Path, archive: Path) -> None:
    """YARN puts links into the directory of a job, to files that are in directories of their own."""
    job, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    job.mkdir()
    elsewhere.mkdir()
    shutil.move(launcher, elsewhere / "python")
    shutil.move(archive, tmp_path / "other")
    (job / "python").symlink_to(elsewhere / "python")
    (job / archive.name).symlink_to(tmp_path / "other")
    done = run(["./python", "-c", FACTS], bare, cwd=job)
    assert done.returncode == 0, done.stderr


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
    assert f"this launcher is for {sys.implementation.cache_tag}, and {other} is" in line
    done = make(tmp_path / "second", "--python", other, code=125)
    assert f"and this is {sys.implementation.cache_tag}" in done.stderr
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--python", "/a b/python"], "has a space"),
        (["--python", "/" + 120 * "p"], "too long"),
        (["--digest", "abc"], "is not a sha256"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: list[str], says: str) -> None:
    done = make(tmp_path / "python", "--archive", "a", *options, code=125)
    assert says in done.stderr
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
