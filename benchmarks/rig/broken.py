"""A shared fixture that cannot be made is one error, of the first test that needs it; the others skip and name it.

pytest itself would keep the exception, and show it with its traceback for every test that needs the fixture.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from rig.kept import NotMade

SKIPPED = "needs what could not be made, see"
_shown: dict[BaseException, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.excinfo is not None:
        error = call.excinfo.value
        first = getattr(error, "first", "") or _shown.setdefault(error, item.nodeid)
        if first != item.nodeid:
            report.outcome = "skipped"
            # Alike for all of them: pytest then says it once, with their number.
            report.longrepr = (first.partition("::")[0], None, f"Skipped: {SKIPPED} {first}")  # type: ignore[assignment]
        elif isinstance(error, NotMade):
            report.longrepr = str(error)
    return report
