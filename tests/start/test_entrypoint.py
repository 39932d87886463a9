"""The wrapper: `python -m unpackenv [options] -- CMD` bootstraps, and then becomes CMD."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import other_python, run, start, wait_for, wrapper
from rig.environment import PATIENCE, SOURCE, environment
from rig.sites import TAG, pack_tree, write_tree


def started(archive: Path, target: Path, *command: object) -> list[object]:
    return wrapper("--archive", archive, "--target", target, "--", *command)


@pytest.mark.parametrize("start_", ["cold", "warm"])
def test_the_command_imports_from_the_tree(archive: Path, target: Path, start_: str) -> None:
    command = started(
        archive, target, sys.executable, "-c", "import app, package.more.deep as d; print(app.__file__, d.NAME)"
    )
    if start_ == "warm":
        run(command)
    done = run(command)
    assert (done.returncode, done.stdout) == (0, f"{target}/app.py package.more.deep\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("unpackenv: unpacked" if start_ == "cold" else "unpackenv: reused")


def test_no_process_is_left_between(archive: Path, target: Path) -> None:
    process = start(started(archive, target, "sh", "-c", "echo $$; echo $PPID; ls /proc/$$/fd"))
    stdout, _ = process.communicate(timeout=PATIENCE)
    pid, parent, *_ = stdout.split()
    assert int(pid) == process.pid
    assert int(parent) == os.getpid()


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_exit_code_is_that_of_the_command(archive: Path, target: Path, code: int) -> None:
    assert run(started(archive, target, "sh", "-c", f"exit {code}")).returncode == code


def test_command_that_is_killed(archive: Path, target: Path) -> None:
    assert run(started(archive, target, "sh", "-c", "kill -9 $$")).returncode == -9


def test_125_where_the_bootstrap_fails(target: Path, tmp_path: Path) -> None:
    done = run(started(tmp_path / "nothing", target, "touch", tmp_path / "ran"))
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith(f"unpackenv: error: {tmp_path}/nothing: there is no archive. ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_125_as_json(target: Path, tmp_path: Path) -> None:
    done = run(started(tmp_path / "nothing", target, "true"), environment(UNPACKENV_LOG="json"))
    error = json.loads(done.stderr)
    assert (error["unpackenv"], error["reason"], error["where"]) == (
        "error",
        "archive-not-found",
        f"{tmp_path}/nothing",
    )


def test_the_option_log_is_for_errors_too(target: Path, tmp_path: Path) -> None:
    done = run(wrapper("--log", "json", "--archive", tmp_path / "nothing", "--target", target, "--", "true"))
    assert json.loads(done.stderr)["reason"] == "archive-not-found"


def test_a_bootstrap_in_the_command_finds_what_the_wrapper_was_told(archive: Path, target: Path) -> None:
    code = "import unpackenv; report = unpackenv.bootstrap(log='off'); print(report.outcome, report.target)"
    done = run(started(archive, target, sys.executable, "-c", code))
    assert (done.returncode, done.stdout) == (0, f"reused {target}\n"), done.stderr


@pytest.mark.parametrize("command", ["/nowhere/python", "/nowhere/bin/python3.11"])
def test_127_for_an_interpreter_that_is_not_there(archive: Path, target: Path, command: str) -> None:
    done = run(started(archive, target, command, "-c", "pass"))
    assert done.returncode == 127
    assert done.stderr.splitlines()[-1] == f"unpackenv: {command}: No such file or directory"


def test_the_interpreter_of_a_packed_venv_is_not_there_before(tmp_path: Path) -> None:
    """A venv is unpacked to where it was; its own `python` is the one that counts, by path and by name."""
    python = other_python()
    environment_ = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", environment_], check=True, capture_output=True)
    done = run([sys.executable, "-m", "unpackenv", "pack", environment_, "-o", tmp_path / "venv.tar.zst"])
    assert done.returncode == 0, done.stderr
    for command in (environment_ / "bin/python", "python"):
        shutil.rmtree(environment_)
        done = run(
            wrapper("--archive", tmp_path / "venv.tar.zst", "--", command, "-c", "import sys; print(sys.prefix)")
        )
        assert (done.returncode, done.stdout) == (0, f"{environment_}\n"), done.stderr


def test_126_and_127(archive: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not executable")
    for command, code in (
        (tmp_path / "file", 126),
        (tmp_path, 126),
        ("no-such-command", 127),
        (tmp_path / "no/such", 127),
    ):
        done = run(started(archive, target, command))
        assert done.returncode == code, command
        assert done.stderr.splitlines()[-1].startswith(f"unpackenv: {command}: ")


def test_arguments_reach_the_command_as_they_are(archive: Path, target: Path) -> None:
    arguments = ["--archive", "a b", "", "--", "-m", "caf\u00e9", "*"]
    done = run(
        started(archive, target, sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *arguments)
    )
    assert json.loads(done.stdout) == arguments


def test_standard_streams_are_those_of_the_command(archive: Path, target: Path) -> None:
    done = run(started(archive, target, "sh", "-c", "cat; echo problem >&2"), stdin="from outside\n")
    assert done.stdout == "from outside\n"
    assert done.stderr.splitlines()[1:] == ["problem"]


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(archive: Path, target: Path, tmp_path: Path, signum: int) -> None:
    code = "import signal, sys, time\n"
    code += f"signal.signal({int(signum)}, lambda n, _: (print('got', n), sys.exit(7)))\n"
    code += f"open({str(tmp_path / 'up')!r}, 'w').close()\ntime.sleep({PATIENCE})"
    process = start(started(archive, target, sys.executable, "-c", code))
    wait_for((tmp_path / "up").exists, "the command to start", process)
    process.send_signal(signum)
    stdout, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (7, f"got {int(signum)}\n")


def test_signal_dispositions_are_the_default(archive: Path, target: Path) -> None:
    done = run(started(archive, target, "cat", "/proc/self/status"))
    masks = {
        line.split()[0]: int(line.split()[1], 16)
        for line in done.stdout.splitlines()
        if line.startswith("Sig") and "/" not in line
    }
    for name in ("SigIgn:", "SigBlk:", "SigCgt:"):
        for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            assert not masks[name] & 1 << signum - 1, (name, signum)


def test_a_broken_pipe_ends_the_command(archive: Path, target: Path) -> None:
    words = [str(word) for word in started(archive, target, "yes")]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == -signal.SIGPIPE


# --- environment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"LANG": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}, {"LANG": "C.UTF-8"}])
def test_locale_variables_are_those_that_were_set(archive: Path, target: Path, given: dict[str, str]) -> None:
    done = run(started(archive, target, "env"), environment(**given))
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: value for name, value in found.items() if name.startswith(("LC_", "LANG"))} == given


def test_nothing_but_the_start_is_added_to_the_environment(archive: Path, target: Path) -> None:
    given = environment(MINE="1")
    done = run(started(archive, target, "env"), given)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name for name in found if found[name] != given.get(name)} <= {
        "PYTHONPATH",
        "UNPACKENV_ARCHIVE",
        "UNPACKENV_BOOTSTRAPPED",
        "UNPACKENV_SITE",
        "UNPACKENV_TARGET",
        "_",
        "SHLVL",
        "PWD",
    }
    assert found["UNPACKENV_SITE"] == f"{TAG}:{target}"
    assert found["PYTHONPATH"] == f"{SOURCE}/unpackenv/start/shim:{given['PYTHONPATH']}:{target}"


def test_modules_in_the_working_directory_do_not_run(archive: Path, target: Path, tmp_path: Path) -> None:
    names = (
        "zstandard",
        "json",
        "struct",
        "zlib",
        "hashlib",
        "argparse",
        "fcntl",
        "marshal",
        "bisect",
        "lzma",
        "subprocess",
    )
    folder = write_tree(
        tmp_path / "work", {f"{name}.py": f"print('{name} of the working directory ran')\n" for name in names}
    )
    done = run(started(archive, target, "pwd"), environment(UNPACKENV_LOG="json"), cwd=folder)
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    done = run(wrapper("inspect", "--json", archive), cwd=folder)
    assert json.loads(done.stdout)["digest"]


def test_scripts_of_a_virtual_environment_are_on_the_path(site: Path, tmp_path: Path, target: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, capture_output=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    write_tree(packages, {"app.py": "WHERE = 'venv'\n"})
    tool = tmp_path / "venv" / "bin" / "tool"
    tool.write_text(f"#!{target}/bin/python\nimport sys, app; print(app.WHERE, sys.prefix)\n")
    tool.chmod(0o755)
    archive = tmp_path / "venv.tar.zst"
    pack_tree(archive, tmp_path / "venv", bin="bin", target=str(target))
    command = wrapper(
        "--archive",
        archive,
        "--",
        "sh",
        "-c",
        "echo $PATH; echo $VIRTUAL_ENV; tool; python -c 'import app, sys; print(app.WHERE, sys.prefix)'",
    )
    done = run(command)
    assert done.stdout.splitlines() == [
        f"{target}/bin:{os.defpath}",
        str(target),
        f"venv {target}",
        f"venv {target}",
    ], done.stderr
    # The wrapper's own search comes after the bootstrap: a script of the tree is found.
    assert run(wrapper("--archive", archive, "--", "tool")).stdout == f"venv {target}\n"


def test_a_venv_in_the_working_directory_is_not_taken_for_the_tree(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    done = run(wrapper("--missing", "ignore", "--archive", "/nowhere", "--", "env"), cwd=tmp_path)
    assert done.returncode == 0
    assert "VIRTUAL_ENV" not in done.stdout


def test_the_command_keeps_the_tree_in_use(archive: Path, target: Path) -> None:
    code = f"""
import fcntl, os
fd = os.open({str(target / ".unpackenv.stamp")!r}, os.O_RDONLY)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
except BlockingIOError:
    print("in use")
"""
    assert run(started(archive, target, sys.executable, "-I", "-c", code)).stdout == "in use\n"


# --- options -------------------------------------------------------------------------------------


def test_options_in_both_forms(archive: Path, target: Path) -> None:
    options = [
        f"--archive={archive}",
        "--target",
        target,
        "--log=json",
        "--workers",
        "1",
        "--lock-timeout=5",
        "--force",
        "--in-place=no",
    ]
    done = run(wrapper(*options, "--", "true"))
    report = json.loads(done.stderr)
    assert (report["archive"], report["target"], report["workers"]) == (str(archive), str(target), 1)


def test_options_win_over_the_environment(archive: Path, target: Path) -> None:
    env = environment(UNPACKENV_ARCHIVE="/nowhere", UNPACKENV_LOG="off", UNPACKENV_TARGET=target)
    done = run(wrapper("--archive", archive, "--log", "text", "--", "true"), env)
    assert (done.returncode, f"at {target} in" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nonsense"], "--nonsense: is no option of the wrapper. Its options are --archive, --target, "),
        (["--archive"], "--archive: needs a value"),
        (["--workers", "many"], "workers: 'many' is not a whole number from 0"),
        (["--in-place=perhaps"], "in_place: 'perhaps' is not yes or no"),
        (["--target", "/tmp/x", "stray"], "stray: is no option of the wrapper"),
    ],
)
def test_a_bad_option_is_refused_before_the_command_runs(options: list[str], said: str, tmp_path: Path) -> None:
    done = run(wrapper(*options, "--", "touch", tmp_path / "ran"))
    assert done.returncode == 125
    assert done.stderr.startswith(f"unpackenv: error: {said}"), done.stderr
    assert not (tmp_path / "ran").exists()


def test_switched_off_the_command_runs_as_it_is(target: Path) -> None:
    done = run(wrapper("--archive", "/nowhere", "--target", target, "--", "env"), environment(UNPACKENV="off"))
    assert done.returncode == 0
    assert done.stderr == ""
    assert "UNPACKENV_SITE" not in done.stdout


def test_without_an_archive_the_command_may_run(target: Path) -> None:
    done = run(wrapper("--missing", "ignore", "--archive", "/nowhere", "--target", target, "--", "echo", "started"))
    assert (done.returncode, done.stdout) == (0, "started\n")


def test_dashes_of_a_subcommand_are_its_own(archive: Path, target: Path) -> None:
    done = run(wrapper("inspect", "--", archive))
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, str(archive)), done.stderr


def test_without_a_command_the_usage_is_wrong() -> None:
    for arguments in ([], ["--"], ["--archive", "x", "--"]):
        assert run(wrapper(*arguments)).returncode == 2, arguments


def test_an_empty_command(archive: Path, target: Path) -> None:
    """As Compose passes on one whose variable is not set."""
    done = run(started(archive, target, ""))
    assert (done.returncode, target.exists()) == (125, False)
    assert done.stderr.startswith("unpackenv: error: the command after `--` is empty")


# --- another interpreter -------------------------------------------------------------------------


def test_match_is_checked_with_the_interpreter_of_the_command(site: Path, tmp_path: Path, target: Path) -> None:
    other = other_python()
    tag = subprocess.run(
        [other, "-c", "import sys; print(sys.implementation.cache_tag)"], capture_output=True, text=True
    ).stdout.strip()
    own, others = tmp_path / "own.tar.zst", tmp_path / "others.tar.zst"
    pack_tree(own, site)
    pack_tree(others, site, python=tag)
    code = "import app, sys; print(app.__file__)"
    done = run(started(others, target, other, "-c", code))
    assert (done.returncode, done.stdout) == (0, f"{target}/app.py\n"), done.stderr
    assert run(started(others, target, other, "-c", code)).returncode == 0  # warm
    script = tmp_path / "script"
    script.write_text(f"#!{other}\n{code}\n")
    script.chmod(0o755)
    assert run(started(others, target, script)).stdout == f"{target}/app.py\n"
    script.write_text(f"#!/usr/bin/env -S python3 -s\n{code}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(other)
    env = environment(PATH=f"{tmp_path}/bin:{os.defpath}")
    assert run(started(others, target, script), env).stdout == f"{target}/app.py\n"
    for command in ([other, "-c", code], [script]):
        wrong = run(started(own, tmp_path / "wrong", *command), env)
        assert wrong.returncode == 125
        assert f"was packed for python {TAG}, and this interpreter has {tag}" in wrong.stderr
    assert not (tmp_path / "wrong").exists()
    forced = run(
        wrapper("--archive", own, "--target", tmp_path / "wrong", "--force", "--", other, "-c", "print('ran')")
    )
    assert (forced.returncode, forced.stdout) == (0, "ran\n")


def test_a_program_that_is_only_called_like_python_is_not_asked(archive: Path, target: Path, tmp_path: Path) -> None:
    program = tmp_path / "python-deploy"
    program.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/runs\n")
    program.chmod(0o755)
    assert run(started(archive, target, program)).returncode == 0
    assert (tmp_path / "runs").read_text() == "ran\n"
