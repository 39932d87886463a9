"""Errors as users see them: who named the target, and a traceback of their own program only."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.environments import Environment
from helpers.processes import IS_ROOT, run, start, wait_for, without_notices, wrapper
from rig.environment import PATIENCE, SOURCE, environment
from rig.sites import pack_tree, write_tree

Mount = Callable[..., None]
WHENCE = {
    "argument": "This target was given as an argument. ",
    "environment": "UNPACKENV_TARGET names this target. ",
    "recorded": "The archive records this target (a virtual environment's own path, or `pack --target`): name another "
    "one with UNPACKENV_TARGET, or set UNPACKENV=off where the packages are installed. ",
}

# --- whence the target ----------------------------------------------------------------------------


def in_use(target: Path, mount: Mount) -> None:
    write_tree(target, {"mine": "stays"})


def a_file(target: Path, mount: Mount) -> None:
    target.write_text("")


def below_a_file(target: Path, mount: Mount) -> None:
    target.parent.rmdir()
    target.parent.write_text("")


def read_only(target: Path, mount: Mount) -> None:
    mount("-t", "tmpfs", "-o", "ro", "none", target.parent)


def too_small(target: Path, mount: Mount) -> None:
    mount("-t", "tmpfs", "-o", "size=4k", "none", target.parent)


def without_exec(target: Path, mount: Mount) -> None:
    mount("-t", "tmpfs", "-o", "noexec", "none", target.parent)


@pytest.mark.parametrize("why", WHENCE)
@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (in_use, "target-refused"), (a_file, "target-refused"), (below_a_file, "target-not-writable"),
        (read_only, "target-read-only"), (too_small, "no-space"), (without_exec, "target-noexec"),
    ],
)  # fmt: skip
def test_a_refused_target_says_who_named_it(
    site: Path, tmp_path: Path, target: Path, mount: Mount, hinder: Callable[[Path, Mount], None], reason: str, why: str
) -> None:
    if hinder not in (in_use, a_file, below_a_file) and not IS_ROOT:
        pytest.skip("only root can mount")
    archive = tmp_path / "a.tar.zst"
    pack_tree(archive, site, native="yes", **({"target": str(target)} if why == "recorded" else {}))
    hinder(target, mount)
    options = ["--target", target] if why == "argument" else []
    env = environment(UNPACKENV_LOG="json", **({"UNPACKENV_TARGET": target} if why == "environment" else {}))
    done = run(wrapper("--archive", archive, *options, "--", "true"), env)
    line = json.loads(done.stderr)
    assert (done.returncode, line["reason"], line["target_why"]) == (125, reason, why)
    assert line["hint"].startswith(WHENCE[why])
    assert len(line["hint"]) > len(WHENCE[why]) + 10  # and what helps
    doctor = json.loads(run(wrapper("doctor", "--json", "--archive", archive, *options), env).stdout)
    assert [one["hint"].startswith(WHENCE[why]) for one in doctor["findings"] if one["reason"] == reason] == [True]


def test_the_first_start_on_the_machine_that_packed_it(tmp_path: Path) -> None:
    made = Environment(tmp_path)
    made.made.rename(made.root)
    for command in ["true"], [made.root / "bin/tool"]:
        done = run(wrapper("--archive", made.archive, "--", *command))
        assert done.returncode == 125
        assert f"unpackenv: error: {made.root}: is not empty, and what it holds was not unpacked" in done.stderr
        assert WHENCE["recorded"] in done.stderr
    done = run(wrapper("--archive", made.archive, "--", made.root / "bin/python", "-c", "pass"))
    assert WHENCE["recorded"] in done.stderr
    elsewhere = environment(UNPACKENV_TARGET=tmp_path / "elsewhere")
    assert run(wrapper("--archive", made.archive, "--", "true"), elsewhere).returncode == 0
    off = environment(UNPACKENV="off")
    assert run(wrapper("--archive", made.archive, "--", made.root / "bin/tool"), off).returncode == 0


# --- tracebacks -----------------------------------------------------------------------------------


def program(tmp_path: Path, archive: Path, target: Path, **settings: object) -> Path:
    given = "".join(f", {name}={value!r}" for name, value in settings.items())
    text = f"import unpackenv\n\n\ndef main():\n    unpackenv.bootstrap({str(archive)!r}, {str(target)!r}{given})\n"
    return write_tree(tmp_path / "application", {"app.py": f"{text}\n\nmain()\n"}) / "app.py"


def frames(stderr: str) -> list[str]:
    return re.findall(r'^  File "(.*?)", line', stderr, re.MULTILINE)


def check_traceback(app: Path, stderr: str) -> None:
    """The application's own frames, the call into unpackenv, and the sentence; no second traceback."""
    assert frames(stderr) == [str(app), str(app), f"{SOURCE}/unpackenv/__init__.py"], stderr
    assert stderr.count("Traceback") == 1
    assert "exception" not in stderr


@pytest.mark.parametrize("case", ["refused", "system", "setting", "missing", "interpreter", "corrupt"])
def test_an_error_in_an_application_has_its_own_frames(
    site: Path, archive: Path, tmp_path: Path, target: Path, case: str
) -> None:
    """Whether it was found at once, in the process that unpacks, or said by the operating system."""
    settings: dict[str, object] = {}
    expected = {
        "refused": f"TargetRefused: {target}: is not empty", "system": f"TargetNotWritable: {target}: is in the way",
        "setting": "SettingError: workers: 'many'", "missing": "ArchiveNotFound: ", "corrupt": "ArchiveCorrupt: ",
        "interpreter": "InterpreterMismatch: ",
    }[case]  # fmt: skip
    at = target
    if case == "refused":
        write_tree(target, {"mine": ""})
    elif case == "system":
        target.write_text("")
        at = target / "below"
    elif case == "setting":
        settings = {"workers": "many"}
    elif case == "missing":
        archive.unlink()
    elif case == "interpreter":
        pack_tree(archive, site, python="cpython-27")
    else:
        data = bytearray(archive.read_bytes())
        data[20] ^= 1
        archive.write_bytes(data)
    app = program(tmp_path, archive, at, **settings)
    done = run([sys.executable, app])
    assert done.returncode == 1
    check_traceback(app, done.stderr)
    assert done.stderr.splitlines()[-1].startswith(f"unpackenv.errors.{expected}"), done.stderr


def test_what_the_system_said_can_still_be_found(archive: Path, tmp_path: Path, target: Path) -> None:
    target.write_text("")
    code = f"import unpackenv\ntry:\n    unpackenv.bootstrap({str(archive)!r}, {str(target / 'below')!r})\n"
    code += "except unpackenv.UnpackenvError as error:\n    print(isinstance(error.__context__, OSError))"
    assert run([sys.executable, "-c", code]).stdout == "True\n"


def test_control_c_while_it_unpacks(archive: Path, tmp_path: Path, target: Path, slow: dict[str, str]) -> None:
    app = program(tmp_path, archive, target)
    app.write_text(
        app.read_text().replace("import unpackenv\n", "import sys\nsys.argv[0] = '-c'\nimport unpackenv\n", 1)
    )
    # The stand-still is for programs of `-c`.
    code = f"exec(compile(open({str(app)!r}).read(), {str(app)!r}, 'exec'))"
    process = start([sys.executable, "-c", code], slow, new_group=True)
    wait_for((tmp_path / "started").exists, "the start to unpack")
    os.kill(process.pid, signal.SIGINT)
    stderr = without_notices(process.communicate(timeout=PATIENCE)[1])
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert frames(stderr) == ["<string>", str(app), str(app), f"{SOURCE}/unpackenv/__init__.py"], stderr
    assert "exception" not in stderr


def test_a_pip_installed_one_is_as_quiet(archive: Path, tmp_path: Path, target: Path) -> None:
    """Frames are those of the copy that runs, wherever that is."""
    shutil.copytree(SOURCE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    write_tree(target, {"mine": ""})
    app = program(tmp_path, archive, target)
    env = environment()
    env["PYTHONPATH"] = str(tmp_path / "copy")
    done = subprocess.run([sys.executable, "-S", app], env=env, capture_output=True, text=True)
    assert sum("/copy/unpackenv/" in frame for frame in frames(done.stderr)) == 1
