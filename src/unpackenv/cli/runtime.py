"""`unpackenv runtime`: what a final image needs."""

from __future__ import annotations

import argparse
import sys

from unpackenv.archive import codecs
from unpackenv.cli.common import path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    without = ", ".join(codec.name for codec in codecs.every() if not codec.needs_extension)
    parser = commands.add_parser(
        "runtime",
        help="write what the final image needs, without pip",
        description="Write what a final image needs to start an archive: this package without what builds, and "
        "zstandard's C extension. For the Python version that runs this.",
    )
    parser.add_argument(
        "directory", type=path, metavar="DIR", help="absent or empty; for PYTHONPATH, or /opt/unpackenv/runtime"
    )
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        choices=codecs.names(),
        default=codecs.DEFAULT,
        help=f"of the archive: {' or '.join(codecs.names())}; no extension for {without} (default: {codecs.DEFAULT})",
    )
    # What once brought the doctor, which every runtime has now.
    parser.add_argument("--doctor", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.pack import runtime
    from unpackenv.report import amount

    written = runtime.write(options.directory, options.codec)
    if not written.stripped:
        print("warning: symbols are not stripped, which saves 11 MB: install binutils", file=sys.stderr)
    print(f"{written.path}: {amount(written.size)} on disk")
    return 0
