"""The pictures of a page, drawn by matplotlib (extra `report`) as SVG that needs no script and no network."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from html import escape
from itertools import cycle

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from unpackenv.report import counted
from unpackenv.report.timings.log import StartLine
from unpackenv.report.timings.summary import Group, Summary
from unpackenv.report.timings.tables import milliseconds
from unpackenv.report.timings.trace import Timeline
from unpackenv.report.timings.words import BEFORE, STEPS, WAIT, outcome, outcome_label, phase_colours, phase_meaning

# For names that are not in `words`: Okabe and Ito's colours, which people with any colour vision can tell apart.
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#b8a800")
_STYLE = {
    "svg.fonttype": "none",  # text stays text: smaller, and can be searched
    "svg.hashsalt": "unpackenv",  # the same log, the same page
    # Verdana has the widths of DejaVu Sans, with which matplotlib lays out the text.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "text.parse_math": False,  # a name from a log may hold a $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid.axis": "x",
    "axes.grid": True,
    "grid.color": "#e5e5e5",
}
_WIDTH = 9.4  # inches, of 72 points each
# A log may have any names, and they must leave room for the picture.
_LONGEST_NAME, _LONGEST_LEGEND = 30, 16
_MANY = 3000  # more dots are smaller as a bitmap
_LOGARITHMIC = 30  # ratio of the longest to the shortest, above which a linear scale hides the shortest


class _Chart:
    """A figure, and the texts that appear when the mouse points at its bars."""

    def __init__(self, rows: int, height: float) -> None:
        self.figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        self.axes: list[Axes] = list(self.figure.subplots(rows, 1, squeeze=False)[:, 0])
        self._texts: list[str] = []

    def bar(self, axes: Axes, row: float, left: float, width: float, colour: str, text: str) -> None:
        """Draw a bar that shows a text when the mouse points at it."""
        (patch,) = axes.barh(row, width, left=left, height=0.7, color=colour)
        patch.set_gid(f"text-{len(self._texts)}")
        self._texts.append(text)

    def svg(self, name: str) -> str:
        """Return the picture as an element of HTML, with identifiers that begin with `name`."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        svg = file.getvalue()
        svg = svg[svg.index("<svg") :]

        def with_title(match: re.Match[str]) -> str:
            return f"{match[0]}<title>{escape(self._texts[int(match[1])])}</title>"

        svg = re.sub(r'<g id="text-(\d+)">', with_title, svg)
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def draw(summary: Summary, trace: Timeline | None = None) -> dict[str, str]:
    """Return the pictures of a summary by name: distribution, history, phases, timeline, trace; "" if one is empty."""
    timed = [group for group in summary.groups if group.whole.largest > 0]
    makers: dict[str, Callable[[], _Chart | None]] = {
        "distribution": lambda: _distribution(timed),
        "history": lambda: _history(timed, summary),
        "phases": lambda: _phases(timed),
        "timeline": lambda: _timeline(summary.slowest[0]),
        "trace": lambda: _trace(trace) if trace else None,
    }
    with mpl.rc_context(_STYLE):
        charts = {name: make() for name, make in makers.items()}
        return {name: chart.svg(name) if chart else "" for name, chart in charts.items()}


def _distribution(groups: Sequence[Group]) -> _Chart | None:
    """Draw each start as a dot, in the row of its outcome."""
    if not groups:
        return None
    chart = _Chart(1, 0.7 + 0.75 * len(groups))
    (axes,) = chart.axes
    scatter = random.Random(0)
    for row, group in enumerate(groups):
        durations = [start.milliseconds for start in group.starts]
        heights = [row + scatter.uniform(-0.22, 0.22) for _ in durations]
        axes.scatter(
            durations, heights, s=12, alpha=0.5, linewidths=0, color=outcome(group.outcome).colour,
            rasterized=len(durations) > _MANY,
        )  # fmt: skip
        axes.vlines(group.whole.p50, row - 0.36, row + 0.36, color="black")
        label = f"half within {milliseconds(group.whole.p50)} ms"
        axes.annotate(label, (group.whole.p50, row - 0.36), (3, 0), textcoords="offset points", va="top")
    _name_rows(axes, [f"{outcome_label(group.outcome)}\n{counted(len(group.starts), 'start')}" for group in groups])
    _durations_on(axes.xaxis, axes, [start.milliseconds for group in groups for start in group.starts])
    axes.set_xlabel("duration of the start in milliseconds")
    return chart


def _history(groups: Sequence[Group], summary: Summary) -> _Chart | None:
    """Draw the same dots by the time of the start."""
    if not groups or summary.first == summary.last:
        return None
    chart = _Chart(1, 2.4)
    (axes,) = chart.axes
    for group in groups:
        dated = [(start.time, start.milliseconds) for start in group.starts if start.time is not None]
        times = [datetime.fromtimestamp(time, timezone.utc) for time, _ in dated]
        axes.scatter(
            times, [duration for _, duration in dated], s=12, alpha=0.5, linewidths=0,
            color=outcome(group.outcome).colour, label=_label(outcome_label(group.outcome)),
            rasterized=len(dated) > _MANY,
        )  # fmt: skip
    axes.grid(visible=True, axis="y")
    _durations_on(axes.yaxis, axes, [start.milliseconds for group in groups for start in group.starts])
    axes.set_ylabel("milliseconds")
    axes.set_xlabel("time of the start (UTC)")
    chart.figure.legend(loc="outside upper right", ncols=len(groups), frameon=False, markerscale=2)
    return chart


def _phases(groups: Sequence[Group]) -> _Chart | None:
    """Draw the phases, one after the other, of the starts that are p50, p90 and p99 of each outcome, or its slowest."""
    groups = [group for group in groups if any(start.steps for start in group.starts)]
    if not groups:
        return None
    chart = _Chart(len(groups), 0.5 + 1.15 * len(groups))
    colours = _Colours(phase_colours())
    for axes, group in zip(chart.axes, groups):
        for row, start in enumerate(group.examples.values()):
            left = 0.0
            for phase, duration in start.steps.items():
                text = f"{phase}: {milliseconds(duration)} ms of {milliseconds(start.milliseconds)} ms. "
                chart.bar(axes, row, left, duration, colours.of(phase), text + phase_meaning(phase))
                left += duration
            axes.annotate(
                f"{milliseconds(start.milliseconds)} ms", (left, row), (4, 0), textcoords="offset points", va="center"
            )
        _name_rows(axes, [*group.examples])
        axes.margins(x=0.1)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(_NUMBER)
        axes.set_title(f"{outcome_label(group.outcome)}: {counted(len(group.starts), 'start')}", loc="left", fontsize=9)
    chart.axes[-1].set_xlabel("milliseconds since the beginning of the start; each outcome has its own scale")
    colours.legend(chart.figure)
    return chart


def _timeline(start: StartLine) -> _Chart | None:
    """Draw one start, a row for each phase, from the beginning of its process if that is known."""
    steps = [*start.steps.items()]
    if not steps:
        return None
    before = max(0.0, (start.process_ms or 0.0) - start.milliseconds)
    chart = _Chart(1, 0.6 + 0.3 * (len(steps) + bool(before)))
    (axes,) = chart.axes
    colours = _Colours(phase_colours())
    names, left = [], 0.0
    if before:
        steps = [(BEFORE.name, before), *steps]
    for row, (name, duration) in enumerate(steps):
        text = f"{name}: {milliseconds(duration)} ms. {phase_meaning(name)}"
        chart.bar(axes, row, left, duration, colours.of(name), text)
        axes.annotate(
            f"{milliseconds(duration)} ms", (left + duration, row), (4, 0), textcoords="offset points", va="center"
        )
        left += duration
        names.append(name)
    _name_rows(axes, names)
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.set_xlabel(f"milliseconds since the beginning of {'the process' if before else 'the start'}")
    return chart


def _trace(trace: Timeline) -> _Chart:
    """Draw a row for each worker, with a bar for each of its steps."""
    chart = _Chart(1, 0.9 + 0.35 * len(trace.workers))
    (axes,) = chart.axes
    colours = _Colours({**phase_colours(), **{word.name: word.colour for word in (*STEPS.values(), WAIT)}})
    for row, spans in enumerate(trace.workers.values()):
        for span in spans:
            step = f"{span.step} ({span.detail})" if span.detail else span.step
            text = f"{step}: {milliseconds(span.duration)} ms, from {milliseconds(span.start)} ms"
            chart.bar(axes, row, span.start, span.duration, colours.of(span.step), text)
    _name_rows(axes, [*trace.workers])
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.set_xlabel("milliseconds since the beginning of the trace")
    colours.legend(chart.figure)
    return chart


class _Colours:
    """The colours of names, for bars and legend: given ones, and others for further names."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given
        self._spare: Iterator[str] = cycle(_PALETTE)
        self._used: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the colour of a name."""
        if name not in self._used:
            self._used[name] = self._given.get(name) or next(self._spare)
        return self._used[name]

    def legend(self, figure: Figure) -> None:
        """Explain the colours above the figure."""
        shown = list(self._used.items())[:_LONGEST_LEGEND]
        handles = [mpl.patches.Patch(color=colour, label=_label(name[:_LONGEST_NAME])) for name, colour in shown]
        figure.legend(handles=handles, loc="outside upper left", ncols=8, frameon=False, columnspacing=1.2)


_NUMBER = StrMethodFormatter("{x:,.10g}")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write the names of rows 0, 1, … next to them, from the top down."""
    axes.set_yticks(range(len(names)), [name[:_LONGEST_NAME] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)


def _durations_on(axis: mpl.axis.Axis, axes: Axes, values: Sequence[float]) -> None:
    """Choose a scale on which the shortest and the longest can be seen."""
    positive = [value for value in values if value > 0]
    if max(positive) > _LOGARITHMIC * min(positive):
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_formatter(_NUMBER)


def _label(name: str) -> str:
    """Return a label for a legend, which would leave out one that begins with an underscore."""
    return f" {name}" if name.startswith("_") else name
