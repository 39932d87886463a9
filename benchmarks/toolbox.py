"""Peers that are Python packages: the `bench` extra, each installed on first use into its own directory."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path

from cache import CACHE, execute, key, once

TOOLS = ("shiv", "pex", "pyinstaller", "uv")


def installed(python: str, name: str) -> Path:
    """Return a directory with the package `name` for the interpreter `python`; raises `Unavailable`."""
    requirement = _requirement(name)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--target"]
    return once(_directory(python, name), lambda place: execute([*pip, place, requirement]))


def versions(python: str) -> dict[str, str]:
    """Return the version of each that is installed by now."""
    found: dict[str, str] = {}
    for name in TOOLS:
        place = str(CACHE / _directory(python, name))
        for package in importlib.metadata.distributions(name=name, path=[place]):
            found[name] = package.version
    return found


def _directory(python: str, name: str) -> str:
    return f"tool-{name}-{key(python, _requirement(name))}"


def run(python: str, name: str, arguments: Sequence[object], module: str = "") -> None:
    """Run `python -m name`; raises `Unavailable` if that fails."""
    execute([python, "-m", module or name, *arguments], {"PYTHONPATH": str(installed(python, name))})


def _requirement(name: str) -> str:
    lines = [line for line in importlib.metadata.requires("unpackenv") or [] if re.search(r"extra == .bench.", line)]
    return next(line.partition(";")[0].strip() for line in lines if re.match(rf"{name}\b", line))
