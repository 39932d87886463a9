"""The table of words: it has those of a start and no other, and pictures and pages use its words."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

import unpackenv
from helpers.documented import PROJECT
from unpackenv.archive.traffic import Traffic
from unpackenv.report.timings import comparison, words
from unpackenv.start import report
from unpackenv.start.bootstrap import Start
from unpackenv.start.fill import joining
from unpackenv.start.report import Clock, Report

START = Path(unpackenv.__file__).parent / "start"


def named(method: str, attribute: str = "") -> Iterator[ast.expr]:
    """Yield the first arguments of all calls of `method` in a start, and what is assigned to an `attribute`."""
    for path in START.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == method:
                    yield from branches(node.args[0])
            elif isinstance(node, ast.Assign) and attribute in [getattr(each, "attr", None) for each in node.targets]:
                yield from branches(node.value)


def returned(function: Callable[..., str]) -> Iterator[ast.expr]:
    """Yield what a function returns, but for texts as they are."""
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Return) and node.value:
            yield from (each for each in branches(node.value) if not isinstance(each, ast.Constant))


def branches(expression: ast.expr) -> Iterator[ast.expr]:
    """Yield the values that an expression may have."""
    if isinstance(expression, ast.IfExp):
        yield from branches(expression.body)
        yield from branches(expression.orelse)
    else:
        yield expression


@pytest.mark.parametrize(
    ("names", "constants", "table"),
    [
        (named(Clock.end_phase.__name__), report.PHASES, words.PHASES),
        (
            chain(named(Report.__name__, "outcome"), named(Start.do_nothing.__name__), returned(joining.join)),
            report.OUTCOMES,
            words.OUTCOMES,
        ),
    ],
    ids=["phases", "outcomes"],
)
def test_all_that_a_start_can_log_and_nothing_else(
    names: Iterator[ast.expr], constants: tuple[str, ...], table: dict[str, words.Word]
) -> None:
    logged = set()
    for name in names:
        assert isinstance(name, ast.Name), f"{ast.unparse(name)} is no constant of start/report.py"
        if name.id.isupper():  # else a parameter
            logged.add(getattr(report, name.id))
    assert logged == set(constants)
    assert logged == set(table)


def test_phases_are_in_the_order_of_a_start() -> None:
    assert tuple(words.PHASES) == report.PHASES


def test_every_word_says_what_it_means() -> None:
    tables = words.OUTCOMES, words.PHASES, words.STEPS, words.FETCHED
    for word in (*(word for table in tables for word in table.values()), *words.CAUSES, words.BEFORE):
        assert word.meaning, word
        assert "`" not in words.phase_meaning(word.name), "a terminal shows it as it is"


def test_what_is_fetched_is_counted_so() -> None:
    traffic = Traffic()
    assert set(words.FETCHED) == set(traffic.total())
    traffic.close()
    assert all(word.label for word in words.FETCHED.values())


@pytest.mark.parametrize("table", [words.PHASES, words.STEPS], ids=["phases", "steps"])
def test_colours_tell_them_apart(table: dict[str, words.Word]) -> None:
    assert len({word.colour for word in table.values()}) == len(table)


def test_words_of_a_later_version() -> None:
    assert words.outcome("frozen").meaning == words.phase_meaning("thaw") == ""
    assert words.outcome_label("frozen") == "frozen"


def test_the_picture_of_a_start_is_of_its_phases() -> None:
    picture = (PROJECT / "docs/pictures/build-and-start.svg").read_text()
    cold, warm = picture.split("First start of a container: cold")[1].split("Every later start: warm")
    for part, described in (cold, "first start: ([^;]+);"), (warm, r"later starts: ([^\]]+)\]"):
        shown = re.findall(r'fill="#123">([^<]+)<', part)
        assert shown == [name for name in words.PHASES if name in shown], "phases, in their order"
        (description,) = re.findall(described, (PROJECT / "docs/how-it-works.md").read_text())
        assert description.split(", ") == shown


def test_what_the_page_explains_are_words() -> None:
    page = (Path(words.__file__).parent / "page.html").read_text()
    known = {comparison.SLOWER, comparison.FASTER, *map(words.outcome_label, words.OUTCOMES), *words.PHASES}
    assert set(re.findall(r"<em>([^<]+)</em>", page)) <= known
