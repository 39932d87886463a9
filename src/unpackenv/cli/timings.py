"""`unpackenv timings`: read many timing logs."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    from unpackenv.report.timings.log import STDIN

    parser = commands.add_parser(
        "timings",
        help="read the timing logs of many starts together",
        description="Read the timing logs of many starts together: how long they took and in which phases, which were "
        "slow and what they waited for, which failed. A start logs itself with UNPACKENV_LOG=json (or "
        "UNPACKENV_LOG_FILE). Its line may be anywhere in the output of containers; other lines are left out.",
        epilog="examples:\n"
        "  docker compose logs app | unpackenv timings -\n"
        "  unpackenv timings today.log --compare yesterday.log\n"
        "  unpackenv timings starts.log --html starts.html",
    )
    parser.add_argument(
        "logs", metavar="FILE", nargs="+", help=f"a log, or the output of containers; {STDIN} for stdin"
    )
    parser.add_argument(
        "--compare", metavar="FILE", action="append", default=[],
        help="an earlier log: say what became slower or faster since then, and whether that is more than noise; may "
        "be repeated (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--trace", metavar="FILE", help="the trace of one start: say what its workers did (default: none)"
    )
    parser.add_argument(
        "--html",
        metavar="OUT",
        help="write a page with pictures to one file, and print no tables; needs pip install 'unpackenv[report]' "
        "(default: none)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.report import terminal
    from unpackenv.report.timings import comparison, export, log, page, tables
    from unpackenv.report.timings import trace as traces
    from unpackenv.report.timings.summary import summarize

    summary = summarize(log.read(options.logs))
    changes = comparison.compare(summarize(log.read(options.compare)), summary) if options.compare else None
    trace = traces.read(options.trace) if options.trace else None
    if options.html:
        page.write(options.html, summary, changes, trace)
    if options.json:
        print(export.to_json(summary, changes, trace))
    elif options.html:
        print(f"wrote {options.html}: {tables.headline(summary)}")
    else:
        terminal.show(tables.headline(summary), tables.all_tables(summary, changes, trace))
    return 0
