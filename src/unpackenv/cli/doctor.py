"""`unpackenv doctor`: why a start is slow or fails."""

from __future__ import annotations

import argparse
import json

from unpackenv.cli.common import add_settings
from unpackenv.start.settings import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="in a container: why a start is slow or fails",
        description="Check all that a start in this container depends on: interpreter, archive, limits, mounts and "
        "the places for the tree. Nothing is unpacked. Exits with 1 if a start would fail, else with 0.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings, too")
    add_settings(parser, without=("log",))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.report import terminal
    from unpackenv.report.doctor import doctor

    diagnosis = doctor.examine({setting.name: getattr(options, setting.name, None) for setting in TABLE})
    if options.json:
        print(json.dumps(diagnosis.fields()))
    else:
        terminal.show("", [diagnosis.table()], diagnosis.summary)
    return diagnosis.exit_code(options.strict)
