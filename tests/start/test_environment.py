"""Settings as people write them: empty variables, mistyped names, `~` and `$HOME`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from helpers.processes import python, run, wrapper
from rig.environment import environment
from unpackenv.start.settings import TABLE, Setting


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_an_empty_variable_is_as_none(archive: Path, target: Path, tmp_path: Path, setting: Setting) -> None:
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV="")
    name = setting.variable
    if name == "UNPACKENV_ARCHIVE":
        shutil.copy(archive, tmp_path / "packages.tar.zst")
    script = tmp_path / "script.py"
    home = f"from unpackenv.start import locations; locations.HOME = {str(tmp_path / 'opt')!r}\n"
    script.write_text(f"{home}import unpackenv; unpackenv.bootstrap(); import app; print(app.VERSION)")
    for _ in "cold", "warm":
        done = run([sys.executable, script], {**env, name: "", "HOME": str(target.parent)})
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert ("warning: UNPACKENV_DIGEST is empty" in done.stderr) == (name == "UNPACKENV_DIGEST")


@pytest.mark.parametrize(
    ("name", "meant"), [("UNPACKENV_TARGTE", "UNPACKENV_TARGET"), ("UNPACKENV_LOGFILE", "UNPACKENV_LOG_FILE")]
)
def test_a_variable_with_a_slip(archive: Path, target: Path, name: str, meant: str) -> None:
    command = wrapper("--archive", archive, "--target", target, "--", "true")
    for _ in "cold", "warm":
        done = run(command, environment(**{name: "/nowhere"}))
        assert done.returncode == 0
        assert f"; warning: {name} is no setting: did you mean {meant}?" in done.stderr


def test_a_variable_of_others(archive: Path, target: Path) -> None:
    done = run(wrapper("--archive", archive, "--target", target, "--", "true"), environment(UNPACKENV_IMAGE="mine"))
    assert "warning" not in done.stderr


@pytest.mark.parametrize("value", ["of", "2"])
def test_neither_on_nor_off(archive: Path, target: Path, value: str) -> None:
    said = f"UNPACKENV: {value!r} is neither off nor on"
    env = environment(UNPACKENV=value)
    done = run(wrapper("--archive", archive, "--target", target, "--", "true"), env)
    assert (done.returncode, done.stderr) == (125, f"unpackenv: error: {said}\n")
    assert said in python(f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {str(target)!r})", env).stderr


def test_an_option_with_a_slip(archive: Path, target: Path) -> None:
    done = run(wrapper("--archive", archive, "--targt", target, "--", "true"))
    assert done.returncode == 125
    assert "--targt: is no option of the wrapper. Did you mean --target?" in done.stderr


@pytest.mark.parametrize("value", ["~/env", "$HOME/env", "${HOME}/env", "/${HOME}/env"])
@pytest.mark.parametrize("how", ["variable", "option", "argument", "unpack"])
def test_home_and_variables_are_put_into_paths(archive: Path, tmp_path: Path, value: str, how: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = environment(HOME=home, UNPACKENV_LOG_FILE="~/log")
    if how == "variable":
        env["UNPACKENV_TARGET"] = value
        done = run(wrapper("--archive", archive, "--", "true"), env, cwd=tmp_path)
    elif how == "option":
        done = run(wrapper("--archive", archive, f"--target={value}", "--", "true"), env, cwd=tmp_path)
    elif how == "argument":
        done = python(f"import unpackenv; unpackenv.bootstrap({str(archive)!r}, {value!r})", env, cwd=tmp_path)
    else:
        done = run(wrapper("unpack", archive, "-C", value), env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (home / "env" / "app.py").exists()
    assert (home / "log").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("~", "$"))]


@pytest.mark.parametrize("value", ["~nobody-here/env", "$NOT_THERE/env", "x/${NOT_THERE}/env"])
def test_what_cannot_be_put_in_is_refused(archive: Path, tmp_path: Path, value: str) -> None:
    done = run(wrapper("--archive", archive, f"--target={value}", "--", "true"), cwd=tmp_path)
    assert done.returncode == 125
    assert f"target: {value!r} is not a path: it has a user or a variable that is not known here" in done.stderr
    assert os.listdir(tmp_path) == [name for name in os.listdir(tmp_path) if not name.startswith(("~", "$", "x"))]


def test_home_in_the_options_of_commands(archive: Path, tmp_path: Path) -> None:
    """No shell puts it into `--option=~/…`."""
    home = tmp_path / "home"
    home.mkdir()
    env = environment(HOME=home)
    site = tmp_path / "site"
    for command in (
        ("pack", site, "--level=1", "--output=~/x.tar.zst", "--target=~/env"),
        ("hook", "--site-dir=~", "--target=~/env", "--archive=~/x.tar.zst"),
        ("unpack", "~/x.tar.zst", "-C", "~/env"),
        ("verify", home / "x.tar.zst", "--target=~/env"),
        ("runtime", "$HOME/runtime"),
    ):
        done = run(wrapper(*command), env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert {"env", "runtime", "unpackenv.pth", "x.tar.zst"} <= {*os.listdir(home)}
    assert f"{home}/env" in (home / "unpackenv.pth").read_text()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("~", "$"))]
