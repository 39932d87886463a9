"""A real environment of a few packages, and an archive of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.processes import IS_ROOT, run, wrapper
from rig import kept
from rig.packages import PIP

# Native code with notices of its own, pure Python, and a name to import that is not the distribution's.
REQUIREMENTS = "markupsafe==3.0.2\npyyaml==6.0.2\nclick==8.1.8\n"


@pytest.fixture(scope="session")
def small_site() -> Path:
    """A site-packages directory that pip has filled. Shared by all runs: never write to it."""

    def install(to: Path) -> None:
        kept.run(*PIP, "install", "--target", to / "site-packages", *REQUIREMENTS.split())

    return kept.made("analyze", f"{sys.version}\n{REQUIREMENTS}", install) / "site-packages"


@pytest.fixture(scope="session")
def small_archive(small_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of it. Shared: never write to it."""
    path = tmp_path_factory.mktemp("packed") / "site-packages.tar.zst"
    done = run(wrapper("pack", small_site, "-o", path, "--level", 3))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[object]:
    """A function that mounts something until the test ends: `mount("-t", "tmpfs", "none", path)`."""
    if not IS_ROOT:
        pytest.skip("only root can mount")
    mounted: list[str] = []

    def mount_at(*arguments: object) -> None:
        words = [str(word) for word in arguments]
        done = subprocess.run(["mount", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        mounted.append(words[-1])

    yield mount_at
    for path in reversed(mounted):
        subprocess.run(["umount", "--lazy", path], check=True)
