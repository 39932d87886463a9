"""`unpackenv launcher`: write an executable that looks like a Python."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from unpackenv.archive import codecs
from unpackenv.cli.common import add_json, add_settings, path, say
from unpackenv.start.settings import TABLE, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "launcher",
        help="write an executable that looks like a Python, for Spark, Ray, Jupyter, cron",
        description="Write one executable that unpacks the archive if it is not there yet, and becomes Python, with "
        "all its options: for everything that takes the path of a Python. unpackenv need not be installed where it "
        "runs, only the Python. The settings are kept in it and win over the environment. Relative paths are beside "
        "it; variables, as in '$TMPDIR/app', are those of its start.",
        epilog="example:\n  unpackenv launcher -o python --archive app.tar.zst\n  PYSPARK_PYTHON=./python",
    )
    parser.add_argument("-o", "--output", required=True, type=path, metavar="FILE", help="the executable")
    parser.add_argument(
        "--python", default="", metavar="PYTHON",
        help="what it becomes: a path, or a name on PATH where it starts. An environment with a Python of its own "
        "brings that one (default: the one that runs this command, whose version any other must have)",
    )  # fmt: skip
    parser.add_argument(
        "--codec", metavar="CODEC", choices=codecs.names(), default=codecs.DEFAULT,
        help=f"the archive's codec, {' or '.join(codecs.names())} (default: {codecs.DEFAULT})",
    )  # fmt: skip
    add_json(parser, "its path, its size and its Python")
    add_settings(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.pack import launcher
    from unpackenv.report import amount

    given = {name: value for name in (setting.name for setting in TABLE) if (value := getattr(options, name))}
    # It raises for what a start would refuse. Variables such as $SLURM_TMPDIR are known where the start is.
    Settings({name: value for name, value in given.items() if "$" not in str(value)}, {})
    written = launcher.write(options.output, given, options.python, options.codec)
    if not options.python and sys.prefix != sys.base_prefix:
        print(
            f"warning: {written.python} is of a virtual environment. If that is not there where the launcher starts, "
            "name another Python with --python",
            file=sys.stderr,
        )
    say(options, asdict(written), [f"{written.path}: {amount(written.size)}, becomes {written.python}"])
    return 0
