"""The figures as JSON, for programs: durations are in milliseconds, sizes in bytes, unknown values are null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from unpackenv.report.timings.causes import waited_for
from unpackenv.report.timings.comparison import Change, FetchedChange
from unpackenv.report.timings.log import KilledLine, StartLine
from unpackenv.report.timings.summary import Summary
from unpackenv.report.timings.trace import Timeline


def to_json(summary: Summary, changes: Sequence[Change] | None = None, trace: Timeline | None = None) -> str:
    """Return all figures as one JSON object."""
    log = summary.log
    figures: dict[str, Any] = {
        "logs": log.names,
        "lines_left_out": {
            "other": log.other, "cut_off": log.cut_off, "unclear": log.unclear, "later_version": log.later,
        },
        "starts": len(log.starts),
        "first": summary.first,
        "last": summary.last,
        "percentiles": "nearest rank",
        "outcomes": {
            group.outcome: {
                **asdict(group.whole),
                "phases": {name: asdict(spread) for name, spread in group.phases.items()},
                "fetched": {name: asdict(spread) for name, spread in group.fetched.items()},
            }
            for group in summary.groups
        },
        "slowest": [{**asdict(start), "waited_for": waited_for(start)} for start in summary.slowest],
        "failures": [
            {"reason": group.reason, "count": group.count, "last": _failure(group.last)} for group in summary.failures
        ],
        "killed": len(log.killed),
        "filled": asdict(summary.filled) if summary.filled else None,
        "filled_before": [asdict(each) for each in summary.filled_before],
        "marks": [asdict(each) for each in summary.readiness],
        "imports": [asdict(each) for each in summary.imports],
    }  # fmt: skip
    if changes is not None:
        of_fetched = [change for change in changes if isinstance(change, FetchedChange)]
        figures["changes"] = [_change(change) for change in changes if change not in of_fetched]
        figures["fetched_changes"] = [{**_change(change), "phase": None, "part": change.phase} for change in of_fetched]
    if trace is not None:
        figures["trace"] = {worker: [asdict(span) for span in spans] for worker, spans in trace.workers.items()}
    return json.dumps(figures, indent=2)


def _failure(start: StartLine | KilledLine) -> dict[str, Any]:
    assert start.error is not None
    return {**asdict(start.error), "time": start.time, "line": start.where}


def _change(change: Change) -> dict[str, Any]:
    return {
        "outcome": change.outcome,
        "phase": change.phase or None,
        "before": asdict(change.before),
        "after": asdict(change.after),
        "difference": change.difference,
        "verdict": change.verdict,
    }
