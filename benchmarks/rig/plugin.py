"""A plugin of pytest for all tests: checks for leftovers, for fixtures that cannot be made, and for skipped tests."""

from __future__ import annotations

import signal

import hypothesis
import pytest

from rig import broken
from rig.temporary import Temporary

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
