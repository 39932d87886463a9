"""A tally of what a run has tried, and the real workload: the interpreter and the packages of the renderer."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.interpreters import EACH_INTERPRETER, NEWEST, ON_ONE
from helpers.support import Tally
from renderer import install


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is run on each interpreter; files with slow tests come first, lest one of them is left in the end."""
    here = Path(__file__).parent
    with_slow_tests = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in with_slow_tests)
    for item in items:
        if here in item.path.parents:
            name = f"{item.path.relative_to(here)}::{item.name}"
            is_chosen = name.startswith(EACH_INTERPRETER) and not name.startswith(ON_ONE)
            if is_chosen and not item.get_closest_marker("slow"):
                item.add_marker("interpreter")
                if name.startswith(NEWEST):
                    item.add_marker("newest")


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    """A function that counts what the tests have tried, for the end of the run."""
    return lambda what, number: record_property("tally", (what, number))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for test in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        for name, value in test.user_properties:
            if name == "tally":
                counts[value[0]] += value[1]
    if counts:
        terminalreporter.section("what was tried")
        for what, number in sorted(counts.items()):
            terminalreporter.write_line(f"{number:7,} {what}")


@pytest.fixture(scope="session")
def renderer_python() -> str:
    """A CPython 3.9 for the renderer, whichever interpreter runs the suite."""
    if sys.platform != "linux":
        pytest.skip("the renderer runs on Linux")
    return install.find_python() or pytest.skip("no CPython 3.9 with pip here; UNPACKENV_PYTHON39 can name one")


@pytest.fixture(scope="session")
def renderer_app() -> Path:
    """The renderer itself: `renderer_python renderer_app PICTURE.jpg` draws a picture."""
    return install.HERE / "app.py"


@pytest.fixture(scope="session")
def renderer_site(renderer_python: str) -> Path:
    """A directory with the renderer's packages and their bytecode. Shared by all runs: never write to it."""
    return install.site(renderer_python)


@pytest.fixture(scope="session")
def renderer_runtime(renderer_python: str) -> Path:
    """A directory with what unpackenv needs: beside `src` on PYTHONPATH, `renderer_python` can import it."""
    return install.runtime(renderer_python)


@pytest.fixture
def renderer_env(renderer_runtime: Path) -> dict[str, str]:
    """An environment for `renderer_python` in which `import unpackenv` works, and nothing is set from outside."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(install.PROJECT / "src"), str(renderer_runtime)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
