"""Every Dockerfile of the documentation is built, and every `docker run` below it is run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import docker_client, documented
from helpers.docker_client import OFTEN, Docker
from helpers.documented import DOCKER_MD, PROJECT, adapted, line_of
from helpers.processes import run, wait_for
from rig.engine import Engine

README = PROJECT / "README.md"
RECIPES = documented.recipes()
RUNS = [(recipe.heading, words) for recipe in RECIPES.values() for words in recipe.runs]


def test_they_are_all_found() -> None:
    text = DOCKER_MD.read_text()
    assert len([recipe for recipe in RECIPES.values() if recipe.dockerfile]) == text.count("```dockerfile") >= 6
    assert all(recipe.runs for recipe in RECIPES.values())
    assert len(RUNS) == text.count("    docker run ")
    having = [path.name for path in documented.documents() if "```dockerfile" in path.read_text().lower()]
    assert having == ["README.md", "docker.md", "names-first.md", "remote-recipes.md", "serverless.md"]


def test_the_shortest_has_four_other_instructions_than_one_without_unpackenv() -> None:
    """The README shows these four."""
    own = [each for each in instructions(RECIPES["The shortest"].dockerfile) if "unpackenv" in each]
    assert len(own) == 4
    assert instructions(line_of(README, "# In the build stage")) == own


def instructions(dockerfile: str) -> list[str]:
    """Return the instructions of a Dockerfile, one that has several lines as one."""
    joined = dockerfile.replace("\\\n", "")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def test_scanners_find_the_packages_in_the_image(docker: Docker, image: Callable[[str], str]) -> None:
    listed = "pip list --format json --path /opt/unpackenv/metadata; cat /opt/unpackenv/*.cdx.json"
    done = docker.run(image("The shortest"), "sh", "-c", listed)
    assert done.returncode == 0, done.stderr
    by_metadata, by_sbom = map(json.loads, done.stdout.split("\n", 1))
    found = {(each["name"].lower(), each["version"]) for each in by_metadata}
    assert ("flask", "3.1.1") in found
    assert found == {(each["name"].lower(), each["version"]) for each in by_sbom["components"]}


@pytest.mark.parametrize(("heading", "words"), RUNS, ids=[f"{heading}: {' '.join(words)}" for heading, words in RUNS])
def test_a_dockerfile_works_as_documented(
    docker: Docker, image: Callable[[str], str], heading: str, words: tuple[str, ...]
) -> None:
    at = words.index("app")
    options, command, tag = words[:at], words[at + 1 :], image(RECIPES[heading].uses)
    if "--detach" in options:
        container = docker.start(tag, *command, options=OFTEN)
        wait_for(lambda: container.state["Health"]["Status"] != "starting", "the health check")
        assert container.state["Health"]["Status"] == "healthy", container.state
        return
    done = docker.run(tag, *command, options=options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unpackenv: unpacked") == 1, done.stderr
    if command:
        assert "Flask 3.1.1" in done.stdout
    else:
        where = json.loads(done.stdout)
        assert where["flask"].startswith(tree_in(done.stderr))
        assert where["native"].startswith(tree_in(done.stderr))


def tree_in(stderr: str) -> str:
    """Return the directory that the line of a start names; a slow one has a line before it, which names the archive."""
    unpacked = stderr[stderr.index("unpackenv: unpacked") :]
    return next(word for word in unpacked.split() if "/" in word and "env/" in word).rstrip(":,;")


def test_from_a_wheel_beside_the_dockerfile(
    engine: Engine, docker: Docker, python_images: None, tmp_path: Path
) -> None:
    make = adapted(line_of(DOCKER_MD, "pip wheel "), {"PATH/TO/THE/CLONE": PROJECT}).split()
    done = run([sys.executable, "-m", *make], dict(os.environ), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    copy = line_of(DOCKER_MD, "COPY unpackenv-*.whl")
    tag = docker_client.build(engine, "wheel", f"FROM python:3.12\n{copy}", tmp_path)
    started = docker.run(tag, "unpackenv", "--version")
    assert started.returncode == 0, started.stderr


def test_the_line_that_compiles_the_standard_library(
    engine: Engine, docker: Docker, python_images: None, tmp_path: Path
) -> None:
    line = line_of(DOCKER_MD, "RUN python -m compileall")
    compiled = docker_client.build(engine, "compiled", f"FROM python:3.12-slim\n{line}", tmp_path)
    written = []
    for tag in "python:3.12-slim", compiled:
        container = docker.start(tag, "python", "-c", "import asyncio, json")
        assert container.wait() == 0, container.stderr
        written.append(engine.out("diff", container.name).count(".pyc"))
    assert written[0] > 50
    assert written[1] == 0
