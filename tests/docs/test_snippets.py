"""What the documents tell a newcomer to type works as it stands: every block, in its order, in an empty directory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from processes import environment

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("five-minutes.md", "recipes.md")
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the blocks of each section print, by its heading."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "unpackenv").symlink_to(PROJECT)
    lines = ["set -eu"]
    for document in DOCUMENTS:
        for section in re.split(r"^## ", (PROJECT / "docs" / document).read_text(), flags=re.MULTILINE):
            heading = section.partition("\n")[0]
            lines.append(f"printf '%s\\n' '\036{heading}'")
            for language, title, text in FENCE.findall(section):
                if language == "sh":
                    lines.append(text)
                elif title:
                    (folder / title).write_text(text)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"  # the first has a python3 that can make a venv
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines)],
        cwd=folder,
        env=environment(PATH=path, HOME=folder, PIP_DISABLE_PIP_VERSION_CHECK=1),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in done.stdout.split("\036")[1:]}


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
        ("Accept one archive only", "unpackenv: unpacked "),
        ("Accept one archive only", "another one: exit 125"),
        ("On a laptop: do nothing", "as if it were not there"),
        ("Is a tree still what was packed?", "ci-packages: complete and unaltered"),
        ("Why is it slow here?", "workers"),
        ("Remove trees that nobody uses", "usage: unpackenv prune"),
    ],
)
def test_a_recipe(said: dict[str, str], heading: str, words: str) -> None:
    assert words in said[heading]


def test_four_processes_of_a_node_unpack_once(said: dict[str, str]) -> None:
    outcomes = re.findall(r"^unpackenv: (\w+) ", said["On a cluster: one archive, a tree on each node"], re.MULTILINE)
    assert outcomes.count("unpacked") == 1
    assert len(outcomes) == 4


def test_many_starts_are_read_together(said: dict[str, str]) -> None:
    text = said["Read many starts together"]
    assert re.search(r"\b5 starts\b", text)
    assert "unpacked" in text
