"""The trace of one start: what each worker did and when, from a file of Chrome's trace events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from unpackenv.errors import TimingLogUnreadable

# Milliseconds by which a step may seem to begin before the one ahead of it has ended.
_ROUNDING = 0.001


@dataclass(frozen=True)
class Span:
    """A step: what it was, of which frame, and from when on and how long in milliseconds since the trace began."""

    step: str
    detail: str
    start: float
    duration: float


@dataclass(frozen=True)
class Trace:
    """The steps of one start by process or thread (`workers`), one after the other."""

    path: str
    workers: dict[str, list[Span]]

    @property
    def steps(self) -> list[str]:
        """What was done, in the order in which it was first done."""
        spans = sorted((span for spans in self.workers.values() for span in spans), key=lambda span: span.start)
        return list(dict.fromkeys(span.step for span in spans))

    @property
    def end(self) -> float:
        """Milliseconds from the begin of the first step to the end of the last."""
        return max(span.start + span.duration for spans in self.workers.values() for span in spans)


def read(path: str) -> Trace:
    """Read a trace. Raises `TimingLogUnreadable`, or `OSError`."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        events = content["traceEvents"] if isinstance(content, dict) else content
        names = {_worker(event): str(event["args"]["name"]) for event in events if _names(event)}
        complete = sorted(
            (event for event in events if event["ph"] == "X"), key=lambda each: (each["ts"], -each["dur"])
        )
        began = complete[0]["ts"]
        spans: dict[str, list[Span]] = {}
        for event in complete:
            spans.setdefault(_worker(event), []).append(_span(event, began))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise TimingLogUnreadable(
            "is no trace of a start",
            where=path,
            hint="UNPACKENV_TRACE names the file that a start writes its trace to",
        ) from error
    workers: dict[str, list[Span]] = {}
    for worker, found in spans.items():
        name = names.get(worker, worker).replace("unpackenv ", "")
        workers[f"{name} ({worker})" if name in workers else name] = _leaves(found)
    return Trace(path, workers)


def _worker(event: Mapping[str, Any]) -> str:
    return f"{event['pid']}/{event.get('tid', event['pid'])}"


def _names(event: Mapping[str, Any]) -> bool:
    return bool(event["ph"] == "M" and event["name"] == "thread_name")


def _span(event: Mapping[str, Any], began: float) -> Span:
    detail = ", ".join(f"{name} {value}" for name, value in event.get("args", {}).items())
    return Span(str(event["name"]), detail, (event["ts"] - began) / 1e3, event["dur"] / 1e3)


def _leaves(spans: list[Span]) -> list[Span]:
    """Leave out what consists of other spans, such as the phase `unpack`; outer ones come before inner ones here."""
    return [
        span
        for span, following in zip_longest(spans, spans[1:])
        if following is None or following.start >= span.start + span.duration - _ROUNDING
    ]
