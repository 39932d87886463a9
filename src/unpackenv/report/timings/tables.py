"""The figures as tables for people: the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone

from unpackenv.report import counted
from unpackenv.report.terminal import BOLD_GREEN, BOLD_RED, Bar, Cell, Table
from unpackenv.report.timings.causes import waited_for
from unpackenv.report.timings.comparison import FASTER, SLOWER, Change, FetchedChange, Median
from unpackenv.report.timings.summary import Distribution, Group, Summary, telling
from unpackenv.report.timings.trace import Timeline
from unpackenv.report.timings.words import FETCHED, outcome, outcome_label, outcome_styles, phase_meaning

_FIGURES = frozenset({"starts", "p50", "p90", "p99", "slowest", "ms"})
_STYLES = {**outcome_styles(), SLOWER: BOLD_RED, FASTER: BOLD_GREEN}
_RARE = ("cached", "retries")  # of words.FETCHED: no row says that there are none
PERCENTILES_NOTE = (
    "p50: half of the starts took no longer. p90: nine of ten, if there are 10 or more. p99: 99 of 100, if there are "
    "100 or more. Each is the time of a real start (nearest rank)."
)


def headline(summary: Summary) -> str:
    """Return a sentence on what was read."""
    counts = ", ".join(f"{len(group.starts):,} {outcome_label(group.outcome)}" for group in summary.groups)
    log = summary.log
    text = f"{counted(len(log.starts), 'start')}{_span(summary)}: {counts}."
    if log.killed:
        were = "application was" if len(log.killed) == 1 else "applications were"
        text += f" {len(log.killed):,} {were} killed, since files could not be filled."
    left_out = {
        "are of UNPACKENV_LOG=text": log.text_lines, "are not of unpackenv": log.other - log.text_lines,
        "are cut off": log.cut_off, "cannot be understood": log.unclear, "are of a later version": log.later,
    }  # fmt: skip
    reasons = [f"{count:,} {reason}" for reason, count in left_out.items() if count]
    return text + (f" Lines left out: {', '.join(reasons)}." if reasons else "")


def _span(summary: Summary) -> str:
    if summary.first is None or summary.last is None:
        return ""
    first, last = when(summary.first), when(summary.last)
    same_day = first[:10] == last[:10]
    return f", {first} to {last[11:] if same_day else last} UTC"


def when(seconds: float | None) -> str:
    """Return a time as people write it, in UTC."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def milliseconds(value: float) -> str:
    """Return a duration with as many digits as are worth showing."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def all_tables(summary: Summary, changes: Sequence[Change] | None = None, trace: Timeline | None = None) -> list[Table]:
    """Return all tables that have rows; `changes` are None if nothing is compared."""
    tables = [
        durations(summary),
        phases(summary),
        slowest(summary),
        failures(summary),
        fetched(summary),
        filled(summary),
        slowest_files(summary),
        filled_before(summary),
        readiness(summary),
        imports(summary),
    ]
    if trace is not None:
        tables.append(workers(trace))
    if changes is not None:
        tables.append(comparison_of_fetched(changes))
    tables = [table for table in tables if table.rows]
    return tables if changes is None else [*tables, comparison(changes)]


def durations(summary: Summary) -> Table:
    """Return how long starts took, by outcome."""
    longest = max((group.whole.p90 for group in summary.groups), default=0)
    shown = _shown(group.whole for group in summary.groups)
    rows: list[Sequence[Cell]] = [
        (
            outcome_label(group.outcome),
            f"{len(group.starts):,}",
            *_percentiles(group.whole, shown),
            milliseconds(group.whole.largest),
            _bar(group.whole.p50, longest),
            outcome(group.outcome).meaning,
        )
        for group in summary.groups
    ]
    columns = ("outcome", "starts", *_names(shown), "slowest", "p50 as a bar", "what it means")
    return Table("How long starts took, in milliseconds", columns, rows, PERCENTILES_NOTE, _FIGURES, _STYLES)


def phases(summary: Summary) -> Table:
    """Return what starts spent their time on, by outcome and phase."""
    shown = _shown(spread for group in summary.groups for spread in group.phases.values())
    rows = [row for group in summary.groups for row in _phase_rows(group, shown)]
    columns = ("outcome", "phase", *_names(shown), "p50 as a bar", "what happens in it")
    note = "Each phase has percentiles of its own, so they do not add up. The bar is the part of the whole start's p50."
    return Table("What they spent it on, in milliseconds", columns, rows, note, _FIGURES, _STYLES)


def _phase_rows(group: Group, shown: Sequence[int]) -> Iterable[Sequence[Cell]]:
    whole = group.whole.p50
    for name, spread in group.phases.items():
        bar = _bar(spread.p50, whole)
        yield outcome_label(group.outcome), name, *_percentiles(spread, shown), bar, phase_meaning(name)


def slowest(summary: Summary) -> Table:
    """Return the slowest starts and what each waited for."""
    rows = [
        (when(each.time), outcome_label(each.outcome), milliseconds(each.milliseconds), waited_for(each), each.where)
        for each in summary.slowest
    ]
    note = "The largest phase, unless the lock or the network took half of the start, or the CPU quota a quarter of it."
    columns = ("time (UTC)", "outcome", "ms", "what it waited for", "line of the log")
    return Table("The slowest starts", columns, rows, note, _FIGURES, _STYLES)


def failures(summary: Summary) -> Table:
    """Return the failed starts by reason."""
    rows = []
    for each in summary.failures:
        error = each.last.error
        assert error is not None
        rows.append((each.reason, f"{each.count:,}", f"{error.where}: {error.what}".strip(": "), error.hint))
    return Table(
        "Starts that failed, applications that were killed",
        ("reason", "starts", "the last one", "what to do"),
        rows,
        numbers=_FIGURES,
    )


def fetched(summary: Summary) -> Table:
    """Return what was fetched of remote archives, by outcome; nothing if all archives were there."""
    found = [(outcome_label(group.outcome), group.fetched) for group in summary.groups]
    found.append(("filled", summary.filled.fetched if summary.filled else {}))
    shown = _shown(spread for _, parts in found for spread in parts.values())
    rows: list[Sequence[Cell]] = []
    for name, parts in found:
        for part, spread in parts.items():
            if spread.largest or part not in _RARE:
                show = _shows(part)
                figures = (*_percentiles(spread, shown, show), show(spread.largest))
                rows.append((name, FETCHED[part].label, f"{spread.count:,}", *figures))
    columns = ("outcome", "what", "starts", *_names(shown), "largest")
    note = (
        "Until the end of the start; in the rows of filled, until the files behind the application were filled, with "
        "what their starts had fetched. Workers wait at the same time, so they may wait longer together than a start "
        "takes."
    )
    return Table("What was fetched of remote archives", columns, rows, note, frozenset(columns[2:]), _STYLES)


def _shows(part: str) -> Callable[[float], str]:
    """Return what writes the figures of a part as its label says: bytes as MB."""
    if part in ("bytes", "cached"):
        return _megabytes
    return milliseconds if part == "wait_ms" else _whole


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f}"


def filled(summary: Summary) -> Table:
    """Return how long it took to fill trees behind their applications, and how many opens waited."""
    spreads = summary.filled
    rows: list[Sequence[Cell]] = []
    shown: tuple[int, ...] = ()
    if spreads:
        shown = _shown([spreads.milliseconds])
        for name, spread, show in (
            ("until all files were filled, ms", spreads.milliseconds, milliseconds),
            ("opens that waited", spreads.waits, _whole),
            ("how long these waited together, ms", spreads.waited_ms, milliseconds),
        ):
            values = [show(value) for percent, value in spread.telling().items() if percent in shown]
            rows.append((name, f"{spread.count:,}", *values, show(spread.largest)))
    columns = ("what", "trees", *_names(shown), "largest")
    note = (
        "Behind the application: from the first name of a file to the last content. The kernel makes whoever opens a "
        "file wait until that file is filled; opens that wait at the same time count each."
    )
    return Table("Trees that were filled behind the application", columns, rows, note, frozenset(columns[1:]))


def slowest_files(summary: Summary) -> Table:
    """Return the files for which applications waited longest."""
    files = summary.filled.longest if summary.filled else []
    rows = [(each.path, f"{each.count:,}", milliseconds(each.ms)) for each in files]
    columns = ("file", "trees", "longest wait, ms")
    return Table("Files for which applications waited longest", columns, rows, numbers=frozenset(columns[1:]))


def filled_before(summary: Summary) -> Table:
    """Return why files were filled before applications although they were to be filled behind them."""
    rows = [(each.why, f"{each.count:,}") for each in summary.filled_before]
    return Table("Why files were filled before the start, and not behind", ("why", "starts"), rows, numbers=_FIGURES)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def readiness(summary: Summary) -> Table:
    """Return when applications reached the points that they marked."""
    kinds = {
        "process": [each.process for each in summary.readiness],
        "bootstrap": [each.bootstrap for each in summary.readiness],
        "imports": [each.imports for each in summary.readiness],
    }
    kinds = {kind: spreads for kind, spreads in kinds.items() if any(spreads)}
    shown = [percent for percent in _shown(spread for spreads in kinds.values() for spread in spreads) if percent < 99]
    rows: list[Sequence[Cell]] = []
    for number, each in enumerate(summary.readiness):
        spreads = [column[number] for column in kinds.values()]
        count = max((spread.count for spread in spreads if spread), default=0)
        figures = [figure for spread in spreads for figure in _percentiles(spread, shown)]
        rows.append((each.name, outcome_label(each.outcome) or "unknown", f"{count:,}", *figures))
    columns = ("point", "outcome", "starts", *(f"{kind} {name}" for kind in kinds for name in _names(shown)))
    note = (
        "The points that unpackenv.mark() logged. process: since the process began, which the kernel counts in steps "
        "of 10 ms. bootstrap: since the packages were there. imports: the part of that which went into imports, if "
        "UNPACKENV_IMPORTS is set."
    )
    return Table("When applications were ready, in milliseconds", columns, rows, note, frozenset(columns[2:]), _STYLES)


def imports(summary: Summary) -> Table:
    """Return the slowest imports of applications."""
    rows = [
        (each.module, f"{each.count:,}", milliseconds(each.self_ms), milliseconds(each.cumulative_ms))
        for each in summary.imports
    ]
    columns = ("module", "starts", "alone", "with what it imports")
    return Table("The slowest imports, medians in milliseconds", columns, rows, numbers=frozenset(columns[1:]))


def comparison(changes: Sequence[Change]) -> Table:
    """Return the medians before and after, and what became of them."""
    rows = [
        (
            outcome_label(change.outcome),
            change.phase or "the whole start",
            f"{change.before.count:,}, {change.after.count:,}",
            _median(change.before),
            _median(change.after),
            f"{change.difference:+,.1f}",
            *_in_percent_and_verdict(change),
        )
        for change in changes
        if not isinstance(change, FetchedChange)
    ]
    columns = ("outcome", "phase", "starts", "before", "after", *_ENDS_OF_CHANGES)
    note = (
        "Medians in milliseconds, each with the range that holds the true one with 95 % probability. The verdict is "
        "slower or faster only if the two ranges are apart. It says nothing about the cause: another machine, or a "
        "busy one, is enough."
    )
    if not changes:
        note = "No outcome is in both logs."
    return Table("Before and after", columns, rows, note, frozenset(columns[2:7]), _STYLES)


_ENDS_OF_CHANGES = ("difference", "in %", "verdict")


def comparison_of_fetched(changes: Sequence[Change]) -> Table:
    """Return the medians of what was fetched of remote archives before and after, and what became of them."""
    rows = []
    for change in changes:
        if isinstance(change, FetchedChange) and (change.before.value or change.after.value):
            show = _shows(change.phase)
            rows.append(
                (
                    outcome_label(change.outcome),
                    FETCHED[change.phase].label,
                    f"{change.before.count:,}, {change.after.count:,}",
                    _median(change.before, show),
                    _median(change.after, show),
                    ("-" if change.difference < 0 else "+") + show(abs(change.difference)),
                    *_in_percent_and_verdict(change),
                )
            )
    columns = ("outcome", "what", "starts", "before", "after", *_ENDS_OF_CHANGES)
    note = "As in the table of durations; more or less only if the two ranges are apart."
    return Table("What was fetched, before and after", columns, rows, note, frozenset(columns[2:7]), _STYLES)


def _in_percent_and_verdict(change: Change) -> tuple[str, str]:
    percent = f"{change.difference / change.before.value:+.0%}" if change.before.value else ""
    return percent, change.verdict


def _median(median: Median, show: Callable[[float], str] = milliseconds) -> str:
    spread = f" ({show(median.range[0])}–{show(median.range[1])})" if median.range else ""
    return show(median.value) + spread


def workers(trace: Timeline) -> Table:
    """Return what the workers of a traced start did."""
    steps = trace.steps
    rows: list[Sequence[Cell]] = []
    for worker, spans in trace.workers.items():
        sums = [sum(span.duration for span in spans if span.step == step) for step in steps]
        rows.append((worker, *(milliseconds(each) if each else "" for each in sums), _bar(sum(sums), trace.end)))
    columns = ("worker", *steps, "all of it, as a bar")
    note = (
        f"The trace lasts {milliseconds(trace.end)} ms: a full bar. In the rest of it a worker made "
        "directories, waited, or had nothing left to do. The process of the start is in fork while the others work."
    )
    return Table("What the workers did, in milliseconds", columns, rows, note, frozenset(steps))


def _shown(spreads: Iterable[Distribution | None]) -> tuple[int, ...]:
    """Return the percentiles that are worth showing for at least one of these: only those have columns."""
    return telling(max((spread.count for spread in spreads if spread), default=0))


def _names(percentiles: Iterable[int]) -> list[str]:
    return [f"p{percent}" for percent in percentiles]


def _percentiles(
    spread: Distribution | None, shown: Iterable[int], show: Callable[[float], str] = milliseconds
) -> list[str]:
    values = spread.telling() if spread else {}
    return [show(values[percent]) if percent in values else "" for percent in shown]


def _bar(value: float, longest: float) -> Bar:
    return Bar(min(1.0, value / longest) if longest else 0.0)
