"""The documents for newcomers work as they stand: every block, in order, in an empty directory."""

from __future__ import annotations

import re

import pytest

from helpers import documented, snippets
from helpers.documented import PROJECT
from helpers.processes import quickly
from rig.environment import environment

DOCUMENTS = [PROJECT / "docs" / name for name in ("five-minutes.md", "recipes.md")]


@pytest.fixture(scope="session")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the blocks of each section print, by its heading."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "unpackenv").symlink_to(PROJECT)
    env = environment(PATH=snippets.PATH, HOME=folder, PIP_DISABLE_PIP_VERSION_CHECK=1, **quickly())
    return documented.run(DOCUMENTS, folder, env)


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("snippets")]


def test_the_first_start_unpacks_and_the_second_one_does_not(said: dict[str, str]) -> None:
    assert re.findall(r"^unpackenv: (unpacked|reused) ", said["Start"], re.MULTILINE) == ["unpacked", "reused"]
    assert said["Start"].count("/unpacked/flask/__init__.py") == 2


def test_the_wrapper_uses_the_tree(said: dict[str, str]) -> None:
    assert "/unpacked/flask/__init__.py" in said["Without changing the application"]


def test_a_cut_archive_is_refused(said: dict[str, str]) -> None:
    text = said["When something is wrong"]
    assert "exit 125" in text
    assert "cut.tar.zst" in text
    assert "site-packages.tar.zst: sound" in text


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Moving from `tar Jxf`", "/from-tar/site-packages/itsdangerous/__init__.py"),
        ("Moving from `tar Jxf`", "/from-pack/itsdangerous/__init__.py"),
        ("Leave out what nobody imports", "verdict: "),
        ("The smallest archive", "best.tar.xz: "),
        ("Start while the files arrive", "/behind/flask/__init__.py"),
        ("Start while the files arrive", "; filling them behind the application"),
        ("Start while the files arrive", "behind: has all of its files"),
        ("Accept one archive only", "unpackenv: unpacked "),
        ("Accept one archive only", "another one: exit 125"),
        ("On a laptop: do nothing", "as if it were not there"),
        ("Is a tree still what was packed?", "ci-packages: complete and unaltered"),
        ("Why is it slow here?", "workers"),
        ("Remove trees that nobody uses", "usage: unpackenv prune"),
    ],
)
def test_a_recipe_prints_what_it_promises(said: dict[str, str], heading: str, words: str) -> None:
    assert words in said[heading]


def test_four_processes_of_a_node_unpack_once(said: dict[str, str]) -> None:
    text = said["On a cluster: one archive, a tree on each node"]
    outcomes = re.findall(r"^unpackenv: (unpacked|waited|reused) ", text, re.MULTILINE)
    assert outcomes.count("unpacked") == 1
    assert len(outcomes) == 4


def test_many_starts_are_read_together(said: dict[str, str]) -> None:
    text = said["Read many starts together"]
    assert re.search(r"\b5 starts\b", text)
    assert "unpacked" in text
