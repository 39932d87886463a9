"""The entrypoint as PID 1: signals, exit codes, restarts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from helpers.docker_client import Container, Docker
from helpers.processes import wait_for
from rig.environment import PATIENCE

SLOWLY = "--cpus=0.05"  # to unpack `heavy` takes much longer than to look at it

# An application that takes its leave: as PID 1 it gets no signal that it has no handler for.
POLITE = f"""
import flask, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep({PATIENCE})
"""


@pytest.fixture
def entrypoint(image: Callable[[str], str]) -> str:
    return image("As entrypoint")


def staged(container: Container) -> list[str]:
    """Return what is in the default place, but for locks."""
    trees = container.written / "opt/unpackenv/env"
    found = sorted(path.name for path in trees.iterdir()) if trees.exists() else []
    return [name for name in found if name != "CACHEDIR.TAG" and not name.endswith(".lock")]


@pytest.mark.parametrize("init", [False, True], ids=["as PID 1", "--init"])
def test_stop_while_it_unpacks(docker: Docker, entrypoint: str, heavy: list[str], init: bool) -> None:
    options = [*heavy, SLOWLY, *(["--init"] if init else [])]
    container = docker.start(entrypoint, "echo", "started", options=options)
    wait_for(lambda: any(name.endswith(".work") for name in staged(container)), "the unpack")
    assert container.first_process[0] == ("/sbin/docker-init" if init else "python")
    container.stop()
    assert (container.state["ExitCode"], container.stdout) == (143, ""), container.stderr
    assert staged(container) == []


def test_start_again_after_a_stop_while_it_unpacked(docker: Docker, entrypoint: str, heavy: list[str]) -> None:
    container = docker.start(entrypoint, "echo", "started", options=[*heavy, SLOWLY])
    wait_for(lambda: any(name.endswith(".work") for name in staged(container)), "the unpack")
    container.do("kill")
    assert [name.rpartition(".")[2] for name in staged(container)] == ["work"]
    container.do("update", "--cpus=2")
    container.do("start")
    assert (container.wait(), container.stdout) == (0, "started\n"), container.stderr
    assert len(staged(container)) == 1
    assert not staged(container)[0].endswith(".work")


def test_stop_after_the_exec(docker: Docker, entrypoint: str) -> None:
    container = docker.start(entrypoint, "python", "-c", POLITE)
    container.wait_for_output("ready")
    assert container.first_process == ["python", "-c", POLITE]
    container.stop()
    assert container.state["ExitCode"] == 7


def test_stop_after_the_exec_with_an_init(docker: Docker, entrypoint: str) -> None:
    """Which passes the signal on, and its end, to an application that has no handler."""
    code = "import flask, time; print('ready', flush=True); time.sleep(1200)"
    container = docker.start(entrypoint, "python", "-c", code, options=["--init"])
    container.wait_for_output("ready")
    assert container.first_process[0] == "/sbin/docker-init"
    container.stop()
    assert container.state["ExitCode"] == 143


def test_tini_of_the_image(docker: Docker, image: Callable[[str], str]) -> None:
    container = docker.start(image("With tini"), "python", "-c", POLITE)
    container.wait_for_output("ready")
    assert container.first_process[0] == "tini"
    container.stop()
    assert container.state["ExitCode"] == 7


def test_restart_is_warm(docker: Docker, entrypoint: str) -> None:
    container = docker.start(entrypoint, options=["--env=UNPACKENV_LOG=json"])
    assert container.wait() == 0, container.stderr
    container.do("restart")
    assert container.wait() == 0, container.stderr
    lines = [json.loads(line) for line in container.stderr.splitlines()]
    assert [line["outcome"] for line in lines] == ["unpacked", "reused"]
    assert lines[0]["target"] == lines[1]["target"]
    first, second = (json.loads(line)["flask"] for line in container.stdout.splitlines())
    assert first == second == f"{lines[0]['target']}/flask/__init__.py"


@pytest.mark.parametrize(
    ("command", "options", "code", "said"),
    [
        (["true"], ["--env=UNPACKENV_ARCHIVE=/nowhere"], 125, "unpackenv: error: /nowhere: there is no archive"),
        (["/srv/app.py"], [], 126, "unpackenv: /srv/app.py: Permission denied"),
        (["nowhere"], [], 127, "unpackenv: nowhere: No such file or directory"),
        (["python", "-c", "import flask, sys; sys.exit(3)"], [], 3, "unpackenv: unpacked"),
        (["sh", "-c", "kill -9 $$; exit 4"], ["--init"], 137, "unpackenv: unpacked"),
        (["python", "-c", "import flask; print('done')"], [], 0, "unpackenv: unpacked"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_the_exit_code_is_that_of_the_command_or_says_what_failed(
    docker: Docker, entrypoint: str, command: list[str], options: list[str], code: int, said: str
) -> None:
    done = docker.run(entrypoint, *command, options=options)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
