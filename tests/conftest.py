"""A tally of what a run has tried, and the real workload: the interpreter and the packages of the renderer."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.support import Tally
from rig.renderer import install

# What another CPython can change, and so is run on each of them, with `-m interpreter`: files, or tests by how their
# names begin. How modules are found and loaded, and their byte code; what the standard library does for processes,
# threads, signals, locales, options, tracebacks, tars and codecs; a start through each door; a chart by the libraries
# of that Python. What it cannot change is run on one: formats byte by byte, faults of file systems, starts at once,
# what reports say, documents, containers, benchmarks.
EACH_INTERPRETER = (
    "archive/test_facts.py", "archive/test_tarstream.py", "archive/test_writer_reader.py", "archive/test_xz.py",
    "archive/test_zstd.py", "pack/test_bytecode.py", "pack/test_distributions.py", "pack/test_kept.py",
    "pack/test_pack.py::test_a_pack_that_is_told_to_stop[", "pack/test_runtime.py", "pack/test_source.py",
    "report/test_analyze.py::test_packages", "report/test_doctor.py::test_standard_library",
    "report/timings/test_page.py::test_what_is_on_it",
    "start/test_awkward_containers.py::test_names_that_are_not_ascii", "start/test_bootstrap.py",
    "start/test_bytecode_use.py", "start/test_cli.py", "start/test_entrypoint.py", "start/test_environment.py",
    "start/test_errors.py", "start/test_existing_paths.py", "start/test_foreign.py::test_the_tree_is_that_of_tar",
    "start/test_hook.py", "start/test_import_paths.py", "start/test_imports.py", "start/test_interpreters.py",
    "start/test_launchers.py", "start/test_limits.py", "start/test_log.py", "start/test_parallel.py",
    "start/test_process.py", "start/test_refused_processes.py", "start/test_relocate.py",
    "start/test_replaced_functions.py", "start/test_signals.py", "start/test_trace.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            name = f"{item.path.relative_to(here)}::{item.name}"
            if name.startswith(EACH_INTERPRETER) and not item.get_closest_marker("slow"):
                item.add_marker("interpreter")


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
