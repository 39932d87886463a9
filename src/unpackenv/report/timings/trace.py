"""The trace of one start: what each worker did and when, from a file of Chrome's trace events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unpackenv.errors import TimingLogUnreadable


@dataclass(frozen=True)
class Span:
    """Something that took from `start` for `duration`, both in milliseconds since the trace began."""

    category: str
    name: str
    start: float
    duration: float


@dataclass(frozen=True)
class Trace:
    """The spans of one start by worker, in the order of their begin."""

    path: str
    workers: dict[str, list[Span]]

    @property
    def categories(self) -> list[str]:
        """What was done, in the order in which it was first done."""
        spans = sorted((span for spans in self.workers.values() for span in spans), key=lambda span: span.start)
        return list(dict.fromkeys(span.category for span in spans))

    @property
    def end(self) -> float:
        """Milliseconds from the begin of the first span to the end of the last."""
        return max(span.start + span.duration for spans in self.workers.values() for span in spans)


def read(path: str) -> Trace:
    """Read a trace. Raises `TimingLogUnreadable`, or `OSError`."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        events = content["traceEvents"] if isinstance(content, dict) else content
        complete = [event for event in events if event["ph"] == "X"]
        began = min(event["ts"] for event in complete)
        names = {(event["pid"], event.get("tid")): event["args"]["name"] for event in events if _names(event)}
        workers: dict[str, list[Span]] = {}
        for event in sorted(complete, key=lambda event: event["ts"]):
            worker = names.get((event["pid"], event.get("tid"))) or f"{event['pid']}/{event.get('tid')}"
            workers.setdefault(str(worker), []).append(_span(event, began))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TimingLogUnreadable(
            "is no trace of a start",
            where=path,
            hint="UNPACKENV_TRACE names the file that a start writes its trace to",
        ) from error
    return Trace(path, workers)


def _names(event: Mapping[str, Any]) -> bool:
    return bool(event["ph"] == "M" and event["name"] == "thread_name")


def _span(event: Mapping[str, Any], began: float) -> Span:
    detail = ", ".join(f"{name} {value}" for name, value in event.get("args", {}).items())
    return Span(
        category=str(event.get("cat") or event["name"]),
        name=str(event["name"]) + (f" ({detail})" if detail else ""),
        start=(event["ts"] - began) / 1e3,
        duration=event["dur"] / 1e3,
    )
