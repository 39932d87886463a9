"""`unpackenv analyze`: whether packing is worth it."""

from __future__ import annotations

import argparse
import json

from unpackenv.cli.common import path, positive
from unpackenv.pack import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "analyze",
        help="what is in an environment, and whether packing it is worth it",
        description="Say what is large in an environment and what is not needed at run time; then make a plain layer "
        "and an archive of it here, compare what both cost, and say whether packing is worth it. Nothing is changed. "
        "It takes as long as packing, and needs room for five copies of the tree in the temporary directory (TMPDIR), "
        "six for an archive or an image.",
    )
    parser.add_argument(
        "subject", metavar="DIR|ARCHIVE|IMAGE.tar",
        help="a folder to pack, an archive, or an image as `docker save` or an OCI image layout in a tar has it",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="estimate from a sample how well it compresses")
    parser.add_argument(
        "--propose", action="store_true",
        help="also try the options of `pack` that save files or bytes, and print the command that is best; takes room "
        "for eight more copies",
    )  # fmt: skip
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave these files and folders out, as for `pack`; may be repeated (default: nothing)",
    )
    parser.add_argument(
        "--links", metavar="MODE", choices=links.MODES, default=links.MODES[0],
        help=f"links that lead out of DIR, as for `pack`: follow, keep or refuse (default: {links.MODES[0]})",
    )  # fmt: skip
    parser.add_argument("--site", default="", metavar="PATH", help="the packages of an image (default: the largest)")
    parser.add_argument(
        "--containers", type=positive, default=1, metavar="N",
        help="new containers that a node starts for each pull of the image (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--link", type=positive, default=1000, metavar="MBIT",
        help="speed between registry and node, in Mbit/s (default: 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--html", default="", type=path, metavar="OUT",
        help="write one page with a map of what is large, and print the verdict; needs pip install "
        "'unpackenv[report]' (default: no page)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.report.analyze import analysis_text, analyze
    from unpackenv.report.analyze.advice import Circumstances
    from unpackenv.start.machine import child

    circumstances = Circumstances(options.containers, options.link)
    analysis = child.with_stop_signals(
        lambda: analyze.analyze(
            options.subject,
            circumstances,
            site=options.site,
            exclude=options.exclude,
            follow=options.links,
            quick=options.quick,
            propose=options.propose,
        )
    )
    if options.html:
        from unpackenv.report.analyze import page

        page.write(options.html, analysis)
        print(*analysis_text.verdict(analysis), f"wrote {options.html}", sep="\n")
    elif options.json:
        print(json.dumps(analyze.fields(analysis)))
    else:
        analysis_text.show(analysis)
    return 0
