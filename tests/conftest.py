"""The real workload: the renderer's interpreter, its packages, and what unpackenv itself needs there."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

import broken
from renderer import install
from support import Tally
from temporary import Temporary

# Examples write to the disk: how long one takes says nothing.
hypothesis.settings.register_profile("unpackenv", deadline=None)
hypothesis.settings.load_profile("unpackenv")

# In the background of a script, and under nohup, these are ignored, and every process started here would inherit that.
for _signum, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _handler)


# Why a test may be left out where nothing is missing, or where an error says so.
NOT_FOR_WANT_OF_MEANS = (
    "this codec has none", "root may read everything", "since 3.12 ", "this tar knows no caches", broken.SKIPPED
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before pytest chooses a directory for those of the tests
def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(broken)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Temporary(config))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-means", action="store_true", help="fail if tests are skipped because something is missing"
    )


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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With `--require-means`, a promise that could not be tested is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--require-means") or reporter is None:
        return
    for test in reporter.stats.get("skipped", []):
        reason = str(test.longrepr[2] if isinstance(test.longrepr, tuple) else test.longrepr)
        if not any(known in reason for known in NOT_FOR_WANT_OF_MEANS):
            reporter.write_line(f"\nnot tested for want of means: {test.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
