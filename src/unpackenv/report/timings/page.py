"""One page of HTML with all figures and pictures. It needs no script and no network, so it opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unpackenv.report import amount, counted, pages
from unpackenv.report.timings import tables
from unpackenv.report.timings.causes import fetched_text, waited_for
from unpackenv.report.timings.comparison import Change
from unpackenv.report.timings.log import StartLine
from unpackenv.report.timings.summary import Summary
from unpackenv.report.timings.trace import Timeline

_TEMPLATE = Path(__file__).with_name("page.html")


def write(path: str, summary: Summary, changes: Sequence[Change] | None = None, trace: Timeline | None = None) -> None:
    """Write the page to a file. Raises `ExtraMissing`, or `OSError`."""
    try:
        from unpackenv.report.timings import charts
    except ImportError as error:
        raise pages.missing(error) from error
    pages.write(path, _TEMPLATE, charts=charts.draw(summary, trace), **_content(summary, changes, trace))


def _content(summary: Summary, changes: Sequence[Change] | None, trace: Timeline | None) -> dict[str, Any]:
    slowest = summary.slowest[0]
    return {
        "headline": tables.headline(summary),
        "logs": ", ".join(summary.log.names),
        "durations": tables.durations(summary),
        "phases": tables.phases(summary),
        "slowest": tables.slowest(summary),
        "failures": tables.failures(summary),
        "fetched": tables.fetched(summary),
        "fetched_comparison": tables.comparison_of_fetched(changes or ()),
        "filled": tables.filled(summary),
        "slowest_files": tables.slowest_files(summary),
        "filled_before": tables.filled_before(summary),
        "readiness": tables.readiness(summary),
        "imports": tables.imports(summary),
        "comparison": tables.comparison(changes) if changes is not None else None,
        "workers": tables.workers(trace) if trace else None,
        "trace_path": trace.path if trace else "",
        "start": {
            "where": slowest.where,
            "outcome": slowest.outcome,
            "milliseconds": tables.milliseconds(slowest.milliseconds),
            "waited_for": waited_for(slowest),
            "facts": _facts(slowest),
        },
    }


def _facts(start: StartLine) -> str:
    """Return further facts about a start, as a sentence."""
    facts = [
        f"{counted(start.files, 'file')}, {amount(start.size)}" if start.files else "",
        f"{counted(start.workers, 'worker')} (decided by {start.workers_why})" if start.workers else "",
        f"{start.cpu_ms:,.0f} ms of CPU time" if start.cpu_ms is not None else "",
        f"throttled for {start.throttled_ms:,.0f} ms" if start.throttled_ms else "",
        f"fetched {fetched_text(start.fetched)}" if start.fetched else "",
        f"filled before the start, and not behind: {start.fill_why}" if start.fill_why else "",
        f"target {start.target}" if start.target else "",
    ]
    return "; ".join(fact for fact in facts if fact)
