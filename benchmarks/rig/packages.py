"""Directories of packages for this interpreter, which stay from one run to the next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rig import kept

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def packages(requirements: Sequence[str]) -> Path:
    """Return a directory with packages and what they need. Shared by all runs: never write to it. Raises `NotMade`."""

    def install(to: Path) -> None:
        kept.run(*PIP, "install", "--target", to, *requirements)

    return kept.made("services", "\n".join([sys.version, *requirements]), install)


def wheels(requirements: Sequence[str]) -> Path:
    """Return a directory with wheels of packages and of what they need. Raises `NotMade`."""

    def download(to: Path) -> None:
        kept.run(*PIP, "download", "--only-binary", ":all:", "--dest", to, *requirements)

    return kept.made("wheels-of", "\n".join([sys.version, *requirements]), download)
