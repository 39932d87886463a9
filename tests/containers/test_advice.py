"""`analyze` reads what `docker save` writes, and the doctor runs in containers whose start has just failed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import docker_client
from helpers.docker_client import Docker
from helpers.processes import run, wrapper
from rig.engine import Engine

PLAIN = """
FROM python:3.12-slim
COPY requirements.txt .
RUN pip install --target /site-packages -r requirements.txt
"""
HERE = Path(__file__).parent


def test_analyze_what_docker_save_writes(engine: Engine, python_images: None, tmp_path: Path) -> None:
    shutil.copy(HERE / "requirements.txt", tmp_path)
    docker_client.build(engine, "plain", PLAIN, tmp_path)
    saved = tmp_path / "image.tar"
    engine.run("save", "--output", saved, "plain")
    done = run(wrapper("analyze", saved, "--site", "/site-packages", "--json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    image = found["image"]
    assert image["site"] == "/site-packages"
    assert any(site.endswith("/site-packages") and "/usr/local/lib/" in site for site in image["sites"])  # pip's own
    assert {"Flask", "gunicorn", "MarkupSafe"} <= {package["name"] for package in found["packages"]}
    inside = (
        "import pathlib, sys; print(sum(p.stat().st_size for p in pathlib.Path(sys.argv[1]).rglob('*') if p.is_file()))"
    )
    size = engine.out("run", "--rm", "--network=none", "plain", "python", "-c", inside, "/site-packages")
    assert image["sites"]["/site-packages"] == int(size)
    assert found["advice"]["worth_it"] is False


@pytest.mark.parametrize("heading", ["The shortest", "As entrypoint"])
def test_doctor_names_what_made_a_container_fail(docker: Docker, image: Callable[[str], str], heading: str) -> None:
    """Where the hook ends every interpreter, and where the entrypoint never gets to the command."""
    command = ["-m", "unpackenv", "doctor", "--json"]
    python = ["--env=PYTHONPATH=/opt/unpackenv/runtime", "--entrypoint=python"]
    done = docker.run(image(heading), *command, options=[*python, "--read-only"])
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    problems = [one["reason"] for one in found["findings"] if one["level"] == "problem"]
    assert problems == ["target-not-writable"]
    (library,) = [one for one in found["findings"] if one["topic"] == "stdlib"]
    assert library["level"] == "warning"  # the image has it without bytecode
    assert "every start compiles" in library["text"]
    mended = ["--read-only", "--tmpfs=/tmp:exec", "--cpus=0.5", "--memory=200m"]
    done = docker.run(image(heading), *command, options=[*python, *mended])
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["summary"].startswith("A start here unpacks to /tmp/unpackenv-0/env/")
    (cpu,) = [one for one in found["findings"] if one["topic"] == "CPU" and "quota" in one["facts"]]
    assert (cpu["level"], cpu["facts"]["quota"]) == ("warning", 0.5)
    (memory,) = [one for one in found["findings"] if one["topic"] == "memory"]
    assert 0 < memory["facts"]["left"] <= 200 << 20
