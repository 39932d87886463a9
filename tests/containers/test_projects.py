"""What `unpackenv dockerfile` prints is built as it stands, and its container runs: for each kind of project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers import docker_client
from helpers.docker_client import Docker
from helpers.processes import run, wrapper
from rig.engine import Engine

PROJECTS = Path(__file__).parent / "projects"
CASES = [
    ("requirements", ""), ("requirements", "--venv"), ("uv", ""), ("poetry", ""), ("pdm", ""), ("package", ""),
    ("package", "--venv"), ("application", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_printed_dockerfile_works(
    engine: Engine, docker: Docker, python_images: None, tmp_path: Path, name: str, option: str
) -> None:
    shutil.copytree(PROJECTS / name, tmp_path, dirs_exist_ok=True)
    printed = run(wrapper("dockerfile", tmp_path, *option.split()))
    assert printed.returncode == 0, printed.stderr
    tag = docker_client.build(engine, f"project-{name}{option}", printed.stdout, tmp_path)
    done = docker.run(tag)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unpackenv: unpacked") == 1, done.stderr
    tree = "/opt/venv/" if option else "/opt/unpackenv/env/"
    assert done.stdout.startswith(tree)
    assert done.stdout.rstrip().endswith("/itsdangerous/__init__.py")


def test_every_project_is_tried() -> None:
    assert {path.name for path in PROJECTS.iterdir()} == {name for name, _ in CASES}
