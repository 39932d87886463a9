"""The hook: every interpreter in the container imports from the tree, and with `--auto` the first one unpacks it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from helpers.docker_client import OFTEN, Docker
from helpers.processes import wait_for

HEALTH = ["--health-cmd=python -c 'import flask; print(flask.__file__)'", *OFTEN]
WHERE = "import flask; print(flask.__file__)"


@pytest.fixture
def automatic(image: Callable[[str], str]) -> str:
    return image("The shortest")


def test_an_unchanged_application_that_is_its_own_pid_1(docker: Docker, automatic: str) -> None:
    container = docker.start(automatic)
    assert container.wait() == 0, container.stderr
    container.do("restart")
    assert container.wait() == 0, container.stderr
    assert "unpackenv" not in container.inspect()["Path"] + " ".join(container.inspect()["Args"])
    assert container.stderr.count("unpackenv: unpacked") == 1  # and a warm start says nothing
    for line in container.stdout.splitlines():
        where = json.loads(line)
        assert where["flask"].startswith("/opt/unpackenv/env/")
        assert where["first"] == ["python", "/srv/app.py"]


def test_stop_while_the_application_unpacks(docker: Docker, automatic: str, heavy: list[str]) -> None:
    """Which is no application yet: nothing of it has run."""
    command = ["python", "-c", "print('started')"]
    container = docker.start(automatic, *command, options=[*heavy, "--cpus=0.05"])
    trees = container.written / "opt/unpackenv/env"
    wait_for(lambda: list(trees.glob(".*.work")), "the unpack")
    container.stop()
    assert (container.state["ExitCode"], container.stdout) == (143, ""), container.stderr
    assert list(trees.glob(".*.work")) == []


@pytest.mark.parametrize("flag", [[], ["-I"], ["-s"]], ids=["", "-I", "-s"])
def test_docker_exec_finds_the_packages(docker: Docker, automatic: str, flag: list[str]) -> None:
    container = docker.start(automatic, "sleep", "1200")
    first = container.exec("python", *flag, "-c", WHERE)
    assert first.startswith("/opt/unpackenv/env/")
    assert container.exec("python", *flag, "-c", WHERE, options=["--workdir=/tmp", "--env=HOME=/"]) == first
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {WHERE!r}], check=True)"
    assert container.exec("python", "-c", child) == first


def test_a_health_check_finds_the_packages(docker: Docker, automatic: str) -> None:
    container = docker.start(automatic, "python", "-c", "import flask, time; time.sleep(1200)", options=HEALTH)
    wait_for(lambda: container.state["Health"]["Status"] != "starting", "the health check")
    health = container.state["Health"]
    assert health["Status"] == "healthy", health
    assert health["Log"][-1]["Output"].startswith("/opt/unpackenv/env/")


def test_health_check_while_it_unpacks(docker: Docker, automatic: str, heavy: list[str]) -> None:
    """It waits for the same unpack, and does none of its own."""
    options = [*heavy, "--cpus=0.5", "--health-cmd=python -c 'import app; print(app.__file__)'", *OFTEN]
    container = docker.start(automatic, "python", "-c", "import app, time; time.sleep(1200)", options=options)
    wait_for(lambda: container.state["Health"]["Status"] != "starting", "the health check")
    assert container.state["Health"]["Status"] == "healthy", container.state
    assert container.stderr.count("unpackenv: unpacked") == 1


def test_what_builds_environments_does_not_unpack(docker: Docker, automatic: str) -> None:
    script = "python -m pip --version && python -m venv --without-pip /tmp/v && ls /opt/unpackenv"
    done = docker.run(automatic, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    names = ["metadata", "runtime", "site-packages.tar.zst", "site-packages.tar.zst.cdx.json"]
    assert done.stdout.splitlines()[1:] == names
