"""Engines, an archive of an application's packages, and a place for the tree of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import fleet
from rig.packages import packages


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the application's packages. Shared: never write to it."""
    return fleet.pack_application(tmp_path_factory.mktemp("application") / "app.tar.zst")


@pytest.fixture(scope="session")
def with_engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the engines, as the image of a cluster has."""
    return fleet.make_interpreter(tmp_path_factory.mktemp("engines") / "venv", packages(fleet.ENGINES))
