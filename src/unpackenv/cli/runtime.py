"""`unpackenv runtime`: write what a final image needs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from unpackenv.archive import codecs
from unpackenv.cli.common import add_json, path, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    without = ", ".join(codec.name for codec in codecs.every() if not codec.needs_extension)
    parser = commands.add_parser(
        "runtime",
        help="write what the final image needs, without pip",
        description="Write what a final image needs to start an archive: this package without the parts that only a "
        "build needs, and zstandard's C extension. It is for the Python version that runs this command.",
    )
    parser.add_argument(
        "directory", type=path, metavar="DIR", help="absent or empty; on PYTHONPATH, or /opt/unpackenv/runtime"
    )
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        choices=codecs.names(),
        default=codecs.DEFAULT,
        help=f"the archive's codec, {' or '.join(codecs.names())}; {without} needs no extension "
        f"(default: {codecs.DEFAULT})",
    )
    add_json(parser, "its path and size")
    # Accepted and ignored: earlier versions left the doctor out without it.
    parser.add_argument("--doctor", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.pack import runtime
    from unpackenv.report import amount

    written = runtime.write(options.directory, options.codec)
    if not written.stripped:
        print("warning: symbols are not stripped; install binutils to save 11 MB", file=sys.stderr)
    say(options, asdict(written), [f"{written.path}: {amount(written.size)} on disk"])
    return 0
