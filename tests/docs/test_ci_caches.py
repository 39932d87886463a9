"""The jobs of docs/ci-caches.md: their commands run with an empty cache, and again with what the first job kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import snippets
from helpers.documented import PROJECT
from helpers.processes import run
from rig.environment import environment
from rig.sites import write_tree

DEPLOY = PROJECT / "docs/deploy"
INSTALL = "pip install 'unpackenv[build]'"
ARCHIVE = "packages.tar.zst"


def of_github(job: dict[str, Any]) -> Iterator[str]:
    steps = job["jobs"]["test"]["steps"]
    (cache,) = [step["with"] for step in steps if step.get("uses", "").startswith("actions/cache@")]
    assert cache["path"] == ARCHIVE
    yield from (step["run"] for step in steps if "run" in step)


def of_gitlab(job: dict[str, Any]) -> Iterator[str]:
    assert job["test"]["cache"]["paths"] == [ARCHIVE]
    yield from job["test"]["script"]


@pytest.mark.parametrize(("name", "commands"), [("ci-github.yml", of_github), ("ci-gitlab.yml", of_gitlab)])
def test_a_job_runs(tmp_path: Path, name: str, commands: Callable[[dict[str, Any]], Iterator[str]]) -> None:
    steps = list(commands(yaml.safe_load((DEPLOY / name).read_text())))
    assert steps[0].strip() == INSTALL  # here it is installed already
    files = {"requirements.txt": "itsdangerous\n", "test.py": "import itsdangerous; print(itsdangerous.__file__)\n"}
    for job in "first", "second":
        folder = write_tree(tmp_path / job, files)
        if job == "second":
            shutil.copy(tmp_path / "first" / ARCHIVE, folder)
        env = environment(PATH=snippets.PATH, HOME=folder, PIP_DISABLE_PIP_VERSION_CHECK=1)
        done = run(["sh", "-ec", "\n".join(steps[1:])], env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(folder / "packages/itsdangerous/__init__.py")
        assert (folder / "site-packages").exists() == (job == "first")
