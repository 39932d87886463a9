"""Documents whose commands need an engine, other than docs/docker.md: each runs as it stands, with an image `app`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import documented, snippets
from helpers.documented import DOCKER_MD, PROJECT
from rig.engine import Engine
from rig.environment import PATIENCE
from rig.sites import write_tree

# Without a base image, which may have packages of its own.
SITE = f"/usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
PLAIN = f"FROM scratch\nCOPY site-packages {SITE}\n"


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return snippets.fill(tmp_path)


def run(engine: Engine, folder: Path, document: str) -> dict[str, str]:
    return documented.run([PROJECT / "docs" / document], folder, {**snippets.env(folder), "DOCKER_HOST": engine.host})


def build(engine: Engine, context: Path, dockerfile: str) -> None:
    """Make the image `app` as docs/docker.md says."""
    (context / "Dockerfile").write_text(dockerfile)
    command = documented.line_of(DOCKER_MD, "docker build ")
    done = subprocess.run(
        command, shell=True, cwd=context, env=engine.env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def test_these_are_all() -> None:
    blocks = [snippet for document in documented.documents() for snippet in documented.snippets(document)]
    assert {block.document.name for block in blocks if block.needs_docker} == {"analyze.md", "doctor.md"}


def test_the_commands_of_analyze_work_on_images(engine: Engine, bench: Path) -> None:
    metadata = {"pandas-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pandas\nVersion: 2.0\n"}
    write_tree(bench / "site-packages", metadata)  # by which packages are found in an image
    build(engine, bench, PLAIN)
    (said,) = run(engine, bench, "analyze.md").values()
    assert said.count("verdict: ") == 3
    assert len(re.findall("^  pandas ", said, re.MULTILINE)) == 3


def test_the_commands_of_doctor_work_in_a_container(
    engine: Engine, python_images: None, context: Path, bench: Path
) -> None:
    build(engine, context, documented.recipes()["The shortest"].dockerfile)
    here, there = run(engine, bench, "doctor.md").values()
    assert "A start here " in here
    assert " in /opt/unpackenv/runtime\n" in there
    assert "A start here " in there
