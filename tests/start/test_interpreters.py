"""The Python that a command will run: the wrong one is refused before anything is unpacked, a missing one is named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.environments import VERSION, Environment
from helpers.processes import IS_ROOT, other_python, python, run, wrapper
from rig.environment import environment
from rig.sites import TAG, pack_tree, write_tree

IMPORT = "import flask, sys; print(flask.NAME, sys.prefix)"
# Where no other Python is found.
BARE = "/nowhere"


def started(made: Environment, *command: object, path: str = BARE) -> subprocess.CompletedProcess[str]:
    return run(wrapper("--archive", made.archive, "--", *command), environment(PATH=path))


@pytest.fixture
def made(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def commands(made: Environment) -> list[list[object]]:
    return [
        ["python", "-c", IMPORT],
        [f"python{VERSION}", "-c", IMPORT],
        [made.root / "bin/python3", "-c", IMPORT],
        ["tool"],
        [made.root / "bin/tool"],
    ]


def tag_of(python: str) -> str:
    code = "import sys; print(sys.implementation.cache_tag)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_python_of_an_environment_is_that_of_the_image(made: Environment) -> None:
    for command in commands(made):
        for outcome in "unpacked", "reused":
            done = started(made, *command)
            assert (done.returncode, done.stdout) == (0, f"packed {made.root}\n"), done.stderr
            assert f"unpackenv: {outcome} " in done.stderr
            assert "warning" not in done.stderr
        shutil.rmtree(made.root)


def test_the_wrong_python_is_refused_before_anything_is_unpacked(made: Environment) -> None:
    """Packed by one version, and the final image has another one where the environment's link leads."""
    other = other_python()
    made.lead_to(other)
    for command in commands(made):
        done = started(made, *command)
        assert (done.returncode, done.stdout) == (125, ""), command
        assert f"was packed for python {TAG}, and this interpreter has {tag_of(other)}" in done.stderr
        assert not made.root.exists()


def test_the_wrong_python_for_a_tree_that_is_there(made: Environment) -> None:
    """As on a volume, when the image has a new Python: then it is that which runs the wrapper, too."""
    other = other_python()
    assert started(made, "tool").returncode == 0
    made.lead_to(other)
    for command in commands(made):
        done = run([other, *wrapper("--archive", made.archive, "--", *command)[1:]], environment(PATH=BARE))
        assert (done.returncode, done.stdout) == (125, ""), command
        assert f"was packed for python {TAG}, and this interpreter has {tag_of(other)}" in done.stderr


def test_the_wrapper_may_be_another_python_than_the_environment(tmp_path: Path) -> None:
    other = other_python()
    made = Environment(tmp_path, python=tag_of(other), **{"import": "lib"})
    made.lead_to(other)
    (made.made / "lib/flask.py").write_text("NAME = 'packed'\n")
    made.pack(python=tag_of(other), **{"import": "lib"})
    for command in commands(made):
        for _ in "cold", "warm":
            done = started(made, *command)
            assert (done.returncode, done.stdout) == (0, f"packed {made.root}\n"), (command, done.stderr)
        shutil.rmtree(made.root)
    # What does not come with it is asked as ever.
    assert started(made, "sh", "-c", "true", path=os.defpath).returncode == 125


def test_force_takes_the_wrong_python(made: Environment) -> None:
    made.lead_to(other_python())
    done = run(wrapper("--archive", made.archive, "--force", "--", "python", "-c", "print('ran')"))
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


def test_force_says_that_it_takes_the_wrong_python(tmp_path: Path, target: Path) -> None:
    pack_tree(tmp_path / "a.tar.zst", write_tree(tmp_path / "site", {"app.py": ""}), python="cpython-36")
    for outcome in "unpacked", "reused":
        named = ("--archive", tmp_path / "a.tar.zst", "--target", target)
        done = run(wrapper(*named, "--force", "--", sys.executable, "-c", "import app"))
        assert done.returncode == 0, done.stderr
        assert f"unpackenv: {outcome} " in done.stderr
        assert f"packed for cpython-36, and this interpreter is {TAG}, as force says" in done.stderr


@pytest.mark.parametrize("way", ["by name", "by path"])
def test_the_python_is_not_in_the_image(made: Environment, way: str) -> None:
    """As one of uv or pyenv, which only the build stage has."""
    made.lead_to(None)
    done = started(made, "python" if way == "by name" else made.root / "bin/python", "-c", IMPORT)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{made.archive}: its bin/python leads to {made.python}, which is not there. Make the env" in done.stderr
    assert not made.root.exists()


def test_another_python_on_path_runs_in_its_place(made: Environment, tmp_path: Path) -> None:
    """That one is asked: it may do, and the line says that it is another one, or it may not."""
    made.lead_to(None)
    (tmp_path / "path").mkdir()
    (tmp_path / "path/python").symlink_to(sys.executable)
    done = started(made, "python", "-c", "import flask; print(flask.NAME)", path=str(tmp_path / "path"))
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr
    assert f"warning: its bin/python leads to {made.python}, which is not there: {tmp_path}/path/python" in done.stderr
    shutil.rmtree(made.root)
    (tmp_path / "path/python").unlink()
    (tmp_path / "path/python").symlink_to(other_python())
    done = started(made, "python", "-c", IMPORT, path=str(tmp_path / "path"))
    assert (done.returncode, made.root.exists()) == (125, False)
    assert f"was packed for python {TAG}" in done.stderr


def test_links_of_the_environment_may_be_written_in_every_way(made: Environment, tmp_path: Path) -> None:
    """Absolute links into the environment itself, relative ones out of it, and loops."""
    python = made.made / "bin/python"
    for leads_to, code in (
        (str(made.root / "bin/real"), 0), (os.path.relpath(made.python, made.root / "bin"), 0), ("python3", 126)
    ):  # fmt: skip
        python.unlink()
        python.symlink_to(leads_to)
        if leads_to.endswith("real"):
            (made.made / "bin/real").symlink_to(made.python)
        made.pack()
        done = started(made, "python", "-c", IMPORT)
        assert done.returncode == code, (leads_to, done.stderr)
        if code == 0:
            shutil.rmtree(made.root)
            made.lead_to(other_python())
            assert started(made, "python", "-c", IMPORT).returncode == 125, leads_to
            made.lead_to(os.path.realpath(sys.executable))


# --- scripts ---------------------------------------------------------------------------------------


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_a_script_whose_python_is_not_there_is_named_with_it(made: Environment, start: str) -> None:
    if start == "warm":
        assert started(made, "tool").returncode == 0
    made.lead_to(None)
    for tool in "tool", made.root / "bin/tool":
        done = started(made, tool)
        assert (done.returncode, done.stdout) == (127, "")
        interpreter = f"{made.root}/bin/python{VERSION}"
        assert last_line(done).startswith(
            f"unpackenv: {tool}: its interpreter {interpreter} is not there (it leads to {made.python}). Run its module"
        )


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_a_script_whose_python_env_does_not_find(made: Environment, tmp_path: Path, start: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/env").symlink_to("/usr/bin/env")
    made.lead_to(None)
    if start == "warm":
        started(made, "sh", path=str(tmp_path / "bin"))
    for tool in "by-env", made.root / "bin/by-env":
        done = started(made, tool)
        assert (done.returncode, last_line(done)) == (
            127, f"unpackenv: {tool}: its interpreter python{VERSION} is not on PATH"
        )  # fmt: skip


def test_env_finds_the_python_of_the_tree(made: Environment, tmp_path: Path) -> None:
    """Also for a script that is not in it, and before it is unpacked."""
    script = tmp_path / "script"
    shutil.copy(made.made / "bin/by-env", script)
    for _ in "cold", "warm":
        done = started(made, script)
        assert (done.returncode, done.stdout) == (0, f"packed {made.root}\n"), done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#!/x/bin/python3.11", "its interpreter /x/bin/python3.11 is not there. Run its module with `python -m`"),
        ("#! /x/bin/python3.11 -E", "its interpreter /x/bin/python3.11 is not there. Run its module"),
        ("#!/x/bin/ruby", "its interpreter /x/bin/ruby is not there"),
        ("#!/bin/sh\r", r"its interpreter '/bin/sh\r' is not there"),
        ("#!/etc/passwd", "its interpreter /etc/passwd may not be executed"),
        ("#!/usr/bin/env -S python3.99 -E", "its interpreter python3.99 is not on PATH"),
    ],
)
@pytest.mark.parametrize("where", ["in the tree", "outside"])
def test_what_a_script_names_in_vain(
    site: Path, tmp_path: Path, target: Path, line: str, said: str, where: str
) -> None:
    folder = site / "bin" if where == "in the tree" else tmp_path / "path"
    script = write_tree(folder, {"gunicorn": f"{line}\nprint()\n"}) / "gunicorn"
    script.chmod(0o755)
    pack_tree(tmp_path / "a.tar.zst", site, bin="bin" if where == "in the tree" else "")
    env = environment(PATH=f"{tmp_path}/path:{os.defpath}")
    for _ in "cold", "warm":
        done = run(wrapper("--archive", tmp_path / "a.tar.zst", "--target", target, "--", "gunicorn"), env)
        assert done.returncode == (126 if "executed" in said and IS_ROOT else 127), done.stderr
        assert last_line(done).startswith(f"unpackenv: gunicorn: {said}"), done.stderr


def test_a_script_of_a_tree_for_another_python(site: Path, tmp_path: Path, target: Path) -> None:
    """pip writes the interpreter that installed: it need not be the one that the wrapper is."""
    other = other_python()
    script = write_tree(site / "bin", {"tool": f"#!{other}\nimport app\n"}) / "tool"
    script.chmod(0o755)
    pack_tree(tmp_path / "a.tar.zst", site, bin="bin")
    for _ in "cold", "warm":
        done = run(wrapper("--archive", tmp_path / "a.tar.zst", "--target", target, "--", "tool"))
        assert done.returncode == 125
        assert f"was packed for python {TAG}, and this interpreter has {tag_of(other)}" in done.stderr
    done = run(wrapper("--archive", tmp_path / "a.tar.zst", "--target", target, "--force", "--", "tool"))
    assert done.returncode == 0, done.stderr


def test_a_program_for_another_c_library(tmp_path: Path, archive: Path, target: Path) -> None:
    """The kernel says that it is not there, as of a program whose loader is missing."""
    program = Path(shutil.which("true") or "/bin/true").read_bytes()
    found = re.search(rb"/lib[^\0]*/ld-linux[^\0]*", program)
    if not found:
        pytest.skip("`true` is linked without a loader here")
    other = found[0].replace(b"ld-linux", b"ld-gnuxx")
    (tmp_path / "other").write_bytes(program.replace(found[0], other))
    (tmp_path / "other").chmod(0o755)
    done = run(wrapper("--archive", archive, "--target", target, "--", tmp_path / "other"))
    assert done.returncode == 127
    assert f"other: its loader {other.decode()} is not there: it was built for another C library" in last_line(done)


def test_a_command_that_is_a_link_to_nothing(tmp_path: Path, archive: Path, target: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    done = run(wrapper("--archive", archive, "--target", target, "--", tmp_path / "link"))
    assert done.returncode == 127
    assert last_line(done) == f"unpackenv: {tmp_path}/link: leads to {tmp_path}/nothing, which is not there"


def test_a_warm_start_asks_nobody(made: Environment) -> None:
    """What only asks, or says what is missing, is not even loaded."""
    for command in ["python", "-c", IMPORT], ["tool"]:
        assert started(made, *command).returncode == 0
        code = "import os, sys\nbefore = set(sys.modules)\n"
        code += "def execvp(*_):\n    print(*set(sys.modules) - before)\n    sys.exit()\n"
        code += f"os.execvp = execvp\nsys.argv[1:] = {['--archive', str(made.archive), '--', *command]!r}\n"
        done = python(f"{code}from unpackenv.__main__ import main\nmain()", environment(PATH=BARE))
        loaded = set(done.stdout.split())
        assert "unpackenv.start.entrypoint" in loaded
        only = {f"unpackenv.start.{name}" for name in ("bytecode", "notfound", "relocation", "treepython")}
        assert not loaded & {*only, "subprocess", "re"}
