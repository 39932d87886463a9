"""The documents whose commands need an engine, beside docs/docker.md: each is run as it stands, with an image `app`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import documented
import snippets
from documented import DOCKER_MD, PROJECT
from engine import Engine

PLAIN = "FROM base\nCOPY site-packages /usr/local/lib/python3/site-packages\n"


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return snippets.fill(tmp_path)


def run(engine: Engine, folder: Path, document: str) -> dict[str, str]:
    return documented.run([PROJECT / "docs" / document], folder, {**snippets.env(folder), "DOCKER_HOST": engine.host})


def build(engine: Engine, context: Path, dockerfile: str) -> None:
    """Make the image `app` as docs/docker.md says."""
    (context / "Dockerfile").write_text(dockerfile)
    command = documented.line_of(DOCKER_MD, "docker build ")
    done = subprocess.run(command, shell=True, cwd=context, env=engine.env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_these_are_all() -> None:
    blocks = [snippet for document in documented.documents() for snippet in documented.snippets(document)]
    assert {block.document.name for block in blocks if block.needs_docker} == {"analyze.md", "doctor.md"}


def test_analyze(engine: Engine, bench: Path) -> None:
    build(engine, bench, PLAIN)
    (said,) = run(engine, bench, "analyze.md").values()
    assert said.count("verdict: ") == 3
    assert len(re.findall("^  pandas ", said, re.MULTILINE)) >= 2  # the base image may have a larger site-packages
    assert "/usr/local/lib/python3/site-packages" in said


def test_doctor(engine: Engine, python_images: None, context: Path, bench: Path) -> None:
    build(engine, context, documented.recipes()["The shortest"].dockerfile)
    here, there = run(engine, bench, "doctor.md").values()
    assert "A start here " in here
    assert " in /doctor\n" in there
    assert "A start here " in there
