"""Containers that share one volume: one of them unpacks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from helpers.containers_by_hand import log_line
from helpers.docker_client import Docker
from rig.environment import PATIENCE

JSON = "--env=UNPACKENV_LOG=json"


@pytest.fixture
def unprivileged(image: Callable[[str], str]) -> str:
    return image("Not as root")


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a container, which went well; return the outcome of its start, and what it has printed."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    return log_line(stderr)["outcome"], stdout


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_unpack_once(docker: Docker, image: Callable[[str], str], heavy: list[str], replicas: int) -> None:
    options = [*heavy, f"--volume={docker.volume()}:/opt/unpackenv/env", JSON]
    command = ["python", "-c", "import app; print(app.__file__)"]
    started = [docker.begin(image("As entrypoint"), *command, options=options) for _ in range(replicas)]
    outcomes, printed = zip(*map(ended, started))
    assert sorted(outcomes) == ["unpacked", *["waited"] * (replicas - 1)]
    assert len(set(printed)) == 1
    assert ended(docker.begin(image("As entrypoint"), *command, options=options)) == ("reused", printed[0])


def test_a_new_volume_belongs_to_the_user_of_the_image(docker: Docker, unprivileged: str) -> None:
    options = ["--read-only", f"--volume={docker.volume()}:/opt/unpackenv/env", JSON]
    done = docker.run(unprivileged, options=options)
    assert done.returncode == 0, done.stderr
    assert log_line(done.stderr)["target"].startswith("/opt/unpackenv/env/")
    assert json.loads(done.stdout)["uid"] == 1000


def test_two_versions_do_not_meet_and_the_old_one_is_pruned(
    docker: Docker, unprivileged: str, heavy: list[str]
) -> None:
    volume = f"--volume={docker.volume()}:/opt/unpackenv/env"
    old = docker.start(unprivileged, "python", "-c", "import app, time; time.sleep(1200)", options=[volume, *heavy])
    new = docker.start(unprivileged, "python", "-c", "import flask, time; time.sleep(1200)", options=[volume])
    trees = {container.exec("python", "-c", f"import {name}; print({name}.__file__)").split("/")[4]
             for container, name in ((old, "app"), (new, "flask"))}  # fmt: skip
    assert len(trees) == 2

    def prune() -> dict[str, str]:
        command = ["python", "-m", "unpackenv", "prune", "--older-than", "0"]
        pruning = docker.run(unprivileged, *command, options=[volume])
        assert pruning.returncode == 0, pruning.stderr
        lines = [line.split(": ") for line in pruning.stdout.splitlines()]
        return {path.rpartition("/")[2]: what.partition(",")[0] for path, what in lines}

    assert prune() == dict.fromkeys(trees, "in use")
    old.do("kill")
    assert sorted(prune().values()) == ["in use", "removed"]
    assert new.exec("python", "-c", "import flask; print(flask.Flask.__name__)") == "Flask\n"


def test_mounted_read_only_after_another_has_unpacked(docker: Docker, image: Callable[[str], str]) -> None:
    volume = docker.volume()
    for mode, outcome in (("rw", "unpacked"), ("ro", "reused")):
        options = ["--read-only", f"--volume={volume}:/opt/unpackenv/env:{mode}", JSON]
        assert ended(docker.begin(image("As entrypoint"), options=options))[0] == outcome
