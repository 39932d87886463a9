"""Names first in containers of a real engine: its default profile, without privileges, and a shared volume."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from helpers.docker_client import Docker

JSON = "--env=UNPACKENV_LOG=json"
UNPRIVILEGED = ["--user=12345:0", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
IMPORT = ["python", "-c", "import flask, sys; print(flask.__file__)"]


def start_line(stderr: str) -> dict[str, Any]:
    """Return the line of the start in what a container wrote to stderr."""
    (line,) = [line for line in stderr.splitlines() if line.startswith('{"unpackenv": "start"')]
    fields: dict[str, Any] = json.loads(line)
    return fields


@pytest.mark.parametrize("fill", ["behind", "on-demand"])
@pytest.mark.parametrize(
    "options", [[], UNPRIVILEGED, ["--read-only", "--tmpfs=/tmp:exec"]], ids=["default", "unprivileged", "read-only"]
)
def test_an_application_starts_before_its_files_are_there(
    docker: Docker, image: Callable[[str], str], options: list[str], fill: str
) -> None:
    done = docker.run(image("As entrypoint"), *IMPORT, options=[*options, JSON, f"--env=UNPACKENV_FILL={fill}"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("/flask/__init__.py\n")
    start = start_line(done.stderr)
    assert (start["outcome"], start["fill"], start["fill_why"]) == ("named", fill, None)


def test_what_was_filled_survives_a_restart(docker: Docker, image: Callable[[str], str]) -> None:
    code = (
        "import flask, pathlib, time; note = pathlib.Path(flask.__file__).parents[1] / 'note'\n"
        "print('kept' if note.exists() else 'new'); note.touch(); time.sleep(1200)"
    )
    options = [JSON, "--env=UNPACKENV_FILL=on-demand"]
    container = docker.start(image("As entrypoint"), "python", "-uc", code, options=options)
    container.wait_for_output("new")
    container.do("restart", "--time", 0)
    container.wait_for_output("kept")
    outcomes = [json.loads(line)["outcome"] for line in container.stderr.splitlines() if '"start"' in line]
    assert outcomes == ["named", "named"]


def test_containers_that_share_a_volume(docker: Docker, image: Callable[[str], str], heavy: list[str]) -> None:
    """The second one joins; it must not outlive those who fill its files, which end with the first one.

    It is PID 1, which nobody can kill from inside: it is interrupted.
    """
    options = [*heavy, f"--volume={docker.volume()}:/opt/unpackenv/env", JSON, "--env=UNPACKENV_FILL=on-demand"]
    wait = ["python", "-uc", "import app, time; print('started'); time.sleep(1200)"]
    first = docker.start(image("As entrypoint"), *wait, options=options)
    first.wait_for_output("started")
    second = docker.start(image("As entrypoint"), *wait, options=options)
    second.wait_for_output("started")
    assert start_line(first.stderr)["outcome"] == "named"
    assert start_line(second.stderr)["outcome"] == "joined"
    first.do("kill")
    assert second.wait() != 0
    assert '"reason": "tree-unfilled"' in second.stderr
    done = docker.run(image("As entrypoint"), "python", "-c", "import app", options=options)
    assert (done.returncode, start_line(done.stderr)["outcome"]) == (0, "named"), done.stderr
