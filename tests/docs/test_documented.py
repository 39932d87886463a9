"""Every block of a document is tested: it runs, or one list names it with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import documented, snippets
from helpers.documented import ELSEWHERE, NOT_RUN, PROJECT, SHOWN

USED = ("bash", "dockerfile", "nginx")
NEWCOMER = ("five-minutes.md", "recipes.md")  # from an empty directory, in test_snippets.py
BLOCKS = [snippet for document in documented.documents() for snippet in documented.snippets(document)]
COMMANDS = [snippet for snippet in BLOCKS if snippet.language == "sh"]
RUN = sorted(
    {snippet.document for snippet in BLOCKS if snippet.runs and snippet.language in ("sh", "python")}
    - {snippet.document for snippet in COMMANDS if snippet.needs_docker}
)


def test_every_block_says_what_it_is() -> None:
    assert {snippet.language for snippet in BLOCKS} <= {"sh", "python", *USED, *SHOWN}
    for document in documented.documents():
        fences = len(re.findall(r"^\s*```", document.read_text(), re.MULTILINE))
        assert fences == 2 * sum(snippet.fenced for snippet in BLOCKS if snippet.document == document), document


def test_what_is_shown_has_no_commands() -> None:
    programs = {line.split()[0] for snippet in COMMANDS for line in snippet.lines if line.strip()} - {"}"}
    for snippet in BLOCKS:
        if snippet.language in SHOWN:
            first = {line.split()[0] for line in snippet.text.splitlines() if line.strip()}
            assert not first & {*programs, "$", "#"}, snippet


def test_what_other_programs_read_is_used_elsewhere() -> None:
    assert [snippet.text for snippet in BLOCKS if snippet.language in USED and snippet.runs] == []


@pytest.mark.parametrize(("name", "beginning"), [*ELSEWHERE, *NOT_RUN])
def test_what_is_named_is_there(name: str, beginning: str) -> None:
    lines = [line for snippet in BLOCKS if snippet.document.name == name for line in snippet.lines]
    assert any(line.startswith(beginning) for line in lines)
    test = ELSEWHERE.get((name, beginning))
    assert test is None or (PROJECT / test).exists()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snippets.fill(tmp_path_factory.mktemp("documents"))


@pytest.mark.slow
@pytest.mark.xdist_group("documents")
@pytest.mark.parametrize("document", [path for path in RUN if path.name not in NEWCOMER], ids=lambda path: path.name)
def test_the_commands_of_a_document_run(bench: Path, document: Path) -> None:
    said = documented.run([document], bench, snippets.env(bench))
    if document.name == "README.md":
        assert "docs/demo/demo.sh" in said["See it work"]
        outcomes = re.findall(r"^unpackenv: (unpacked|reused) ", said["Use it"], re.MULTILINE)
        assert outcomes == ["unpacked", "reused", "reused"]  # Python, the wrapper and what it starts
    if document.name == "reference.md":
        assert re.findall(r"^unpackenv: (unpacked|reused) ", said["Commands"], re.MULTILINE) == ["unpacked"]  # `-C`
        assert "verdict: don't" in said["Commands"]


def test_the_readme_takes_two_minutes() -> None:
    assert len((PROJECT / "README.md").read_text().split()) <= 900


def test_every_document_has_its_place_in_the_site() -> None:
    named = set(re.findall(r": ([\w-]+\.md)$", (PROJECT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.name for path in PROJECT.glob("docs/*.md")} <= named


def test_a_test_that_is_said_to_hold_a_promise_is_there() -> None:
    """And what is said to be in a directory of tests."""
    text = (PROJECT / "docs/reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py|tests/\w+)`", text))
    there = {path.name for path in PROJECT.glob("tests/**/test_*.py")}
    there |= {f"tests/{path.name}" for path in (PROJECT / "tests").iterdir()}
    assert len(named) > 15
    assert named <= there
