"""gunicorn from the packed virtual environment: the route of a flask application, by several workers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from helpers.docker_client import Docker
from helpers.processes import wait_for
from rig.environment import PATIENCE

# Asks until four workers have answered.
ASK = """
import json, time, urllib.request
answers, deadline = {}, time.monotonic() + PATIENCE
while len(answers) < 4 and time.monotonic() < deadline:
    try:
        answer = json.load(urllib.request.urlopen("http://127.0.0.1:8000/"))
        answers[answer["pid"]] = answer
    except OSError:
        time.sleep(0.05)
print(json.dumps(list(answers.values())))
""".replace("PATIENCE", str(PATIENCE))


def test_four_workers_use_one_tree_and_stop_with_their_server(docker: Docker, image: Callable[[str], str]) -> None:
    container = docker.start(image("A virtual environment, with gunicorn"))
    for start in "cold", "warm":
        if start == "warm":
            container.do("restart")
        answers = json.loads(container.exec("python", "-I", "-c", ASK))
        assert len(answers) == 4, container.stderr
        for answer in answers:
            assert answer["flask"].startswith("/opt/venv/lib/python3")
            assert answer["native"].startswith("/opt/venv/lib/python3")
            assert answer["pid"] != 1
            assert answer["first"][1] == "/opt/venv/bin/gunicorn"
    assert container.stderr.count("unpackenv: unpacked") == 1
    container.stop()
    assert container.state["ExitCode"] == 0  # gunicorn's own: it got the signal


@pytest.mark.parametrize("fill", ["behind", "on-demand"])
def test_four_workers_while_files_arrive(docker: Docker, image: Callable[[str], str], fill: str) -> None:
    options = ["--bind=0.0.0.0:8000", "--workers=4", "--worker-tmp-dir=/dev/shm", "--chdir=/srv", "app:app"]
    command = ["python", "-m", "gunicorn", *options]
    container = docker.start(image("As entrypoint"), *command, options=[f"--env=UNPACKENV_FILL={fill}"])
    answers = json.loads(container.exec("python", "-I", "-c", ASK))
    assert len(answers) == 4, container.stderr
    assert re.findall(r"unpackenv: (unpacked|named|reused|error)", container.stderr) == ["named"]
    container.stop()
    assert container.state["ExitCode"] == 0


def test_python_on_path_is_that_of_the_environment(docker: Docker, image: Callable[[str], str]) -> None:
    container = docker.start(image("A virtual environment, with gunicorn"))
    wait_for(lambda: "Listening" in container.stderr, "gunicorn")
    code = "import flask, sys; print(sys.prefix, flask.__file__.startswith(sys.prefix))"
    assert container.exec("python", "-c", code) == "/opt/venv True\n"
    assert "Flask 3.1.1" in container.exec("flask", "--version")
