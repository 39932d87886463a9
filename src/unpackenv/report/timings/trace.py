"""Read the trace of one start: what each worker did and when, from a file of Chrome's trace events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from unpackenv.errors import TimingLogUnreadable
from unpackenv.report.timings.words import WAIT

# Milliseconds by which rounding may let a step begin before the end of the previous one.
_ROUNDING = 0.001


@dataclass(frozen=True)
class Span:
    """A step: its name, a detail such as its frame, its start in milliseconds since the trace began, its duration."""

    step: str
    detail: str
    start: float
    duration: float


@dataclass(frozen=True)
class Timeline:
    """The steps of one start by process or thread (`workers`), one after the other, and the opens that waited.

    Opens that waited at the same time are in several rows.
    """

    path: str
    workers: dict[str, list[Span]]

    @property
    def steps(self) -> list[str]:
        """The names of the steps, in the order in which they first begin."""
        spans = sorted((span for spans in self.workers.values() for span in spans), key=lambda span: span.start)
        return list(dict.fromkeys(span.step for span in spans))

    @property
    def end(self) -> float:
        """Milliseconds from the beginning of the first step to the end of the last."""
        return max(span.start + span.duration for spans in self.workers.values() for span in spans)


def read(path: str) -> Timeline:
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
        waits = _waits(events, began)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise TimingLogUnreadable(
            "is not a trace of a start",
            where=path,
            hint="UNPACKENV_TRACE names the file to which a start writes its trace",
        ) from error
    workers: dict[str, list[Span]] = {}
    for worker, all_spans in spans.items():
        name = names.get(worker, worker).replace("unpackenv ", "")
        workers[f"{name} ({worker})" if name in workers else name] = _leaves(all_spans)
    for number, row in enumerate(_side_by_side(waits)):
        workers[f"opens that wait ({number})" if number else "opens that wait"] = row
    return Timeline(path, workers)


def _waits(events: list[dict[str, Any]], began: float) -> list[Span]:
    """Return the opens that waited, by their beginning; each is a pair of events with one `id`."""
    begun = {event["id"]: event for event in events if event["ph"] == "b" and event["name"] == WAIT.name}
    waits = []
    for event in events:
        if event["ph"] == "e" and event["id"] in begun:
            first = begun[event["id"]]
            waits.append(_span({**first, "dur": event["ts"] - first["ts"]}, began))
    return sorted(waits, key=lambda wait: wait.start)


def _side_by_side(spans: list[Span]) -> list[list[Span]]:
    """Return spans in rows: each in the first one where it overlaps with none; `spans` are in their order."""
    rows: list[list[Span]] = []
    for span in spans:
        free = (row for row in rows if row[-1].start + row[-1].duration <= span.start)
        row = next(free, None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def _worker(event: Mapping[str, Any]) -> str:
    return f"{event['pid']}/{event.get('tid', event['pid'])}"


def _names(event: Mapping[str, Any]) -> bool:
    return bool(event["ph"] == "M" and event["name"] == "thread_name")


def _span(event: Mapping[str, Any], began: float) -> Span:
    detail = ", ".join(f"{name} {value}" for name, value in event.get("args", {}).items())
    return Span(str(event["name"]), detail, (event["ts"] - began) / 1e3, event["dur"] / 1e3)


def _leaves(spans: list[Span]) -> list[Span]:
    """Leave out spans that contain others, such as the phase `unpack`; `spans` has outer ones before inner ones."""
    return [
        span
        for span, following in zip_longest(spans, spans[1:])
        if following is None or following.start >= span.start + span.duration - _ROUNDING
    ]
