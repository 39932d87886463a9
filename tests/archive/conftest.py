"""One tree, and one archive of it per codec, for tests that do not change them."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.support import CODECS, make_tree
from rig.sites import members_of, pack


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with every kind of member. Shared: never write to it."""
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    """Each codec in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def _packed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packed")
    paths = {codec: folder / f"tree.tar.{codec}" for codec in CODECS}
    for codec, path in paths.items():
        pack(path, members_of(tree), codec)
    return paths


@pytest.fixture
def packed(_packed: dict[str, Path], codec: str) -> Path:
    """An archive of `tree` in `codec`, of several frames. Shared: never write to it."""
    return _packed[codec]
