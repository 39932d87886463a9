"""Engines that distribute work: Spark, Dask, Ray; and an application's packages, which they do not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from rig.environment import environment
from rig.packages import packages

ENGINES = ("dask-jobqueue>=0.9", "distributed>=2024.8", "pyspark>=4,<5", "ray>=2.40")
APPLICATION = ("pandas>=2.2", "pyarrow>=17")
BASE = os.path.realpath(sys.executable)
"""An interpreter without either."""
SITE = Path(zstandard.__file__).parents[1]
"""Where the dependencies of unpackenv are."""


def make_interpreter(folder: Path, *sites: Path) -> Path:
    """Return the Python of a new virtual environment that has the packages of these directories."""
    venv.create(folder, symlinks=True, with_pip=False)
    (packages_of,) = folder.glob("lib/python*/site-packages")
    (packages_of / "sites.pth").write_text("".join(f"{site}\n" for site in sites))
    return folder / "bin/python"


def pack_application(output: Path) -> Path:
    """Pack the packages of the application."""
    options = ("--fast", "--bytecode", "keep", "--no-sbom")
    command = [sys.executable, "-m", "unpackenv", "pack", str(packages(APPLICATION)), "-o", str(output), *options]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    return output


def make_launcher(output: Path, python: Path | str, **settings: object) -> Path:
    """Write a launcher for `python`."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command: Sequence[object] = [sys.executable, "-m", "unpackenv", "launcher", "-o", output, "--python", python]
    subprocess.run(list(map(str, [*command, *options])), env=environment(), check=True, capture_output=True)
    return output


def bare(**variables: object) -> dict[str, str]:
    """Return the environment of a machine where unpackenv is not installed."""
    return {name: value for name, value in environment(**variables).items() if not name.startswith("PYTHON")}


def outcomes(log: Path) -> list[str]:
    """Return what the starts that wrote a log did."""
    lines: list[dict[str, Any]] = list(map(json.loads, log.read_text().splitlines()))
    return sorted(line["outcome"] for line in lines if "outcome" in line)
