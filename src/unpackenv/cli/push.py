"""`unpackenv push`: publish archives in a registry."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from unpackenv.cli.common import bar, path
from unpackenv.start.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.cli.common import Commands
    from unpackenv.publish.push import Pushed

_VARIABLES = ("UNPACKENV_INSECURE", "UNPACKENV_FETCH_TIMEOUT")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "push",
        help="publish archives in a registry",
        description="Publish archives that `unpackenv pack` made as artifacts of a registry, and print the reference "
        "by which a start fetches them. Several archives, each for another platform or Python, get an index: a start "
        "takes the one for its own. Nothing is pushed unless each of them is sound.",
        epilog="example:\n  unpackenv push app.tar.zst oci://ghcr.io/me/app:1.0",
    )
    parser.add_argument("archives", metavar="ARCHIVE", type=path, nargs="+", help="what `unpackenv pack` wrote")
    parser.add_argument("reference", metavar="REFERENCE", help="where to: oci://HOST/NAME:TAG")
    parser.add_argument(
        "--add", action="store_true",
        help="keep what the tag has already, except for archives of the same platform and Python: for builds that "
        "push one platform each, one after the other",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true",
        help="push by http:// also to another machine, which encrypts nothing (or UNPACKENV_INSECURE=yes)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what was pushed as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it, and return its exit code."""
    from unpackenv.publish import push

    settings = Settings({}, {name: os.environ[name] for name in _VARIABLES if name in os.environ})
    pushed = push.push(
        options.archives,
        options.reference,
        bar,
        add=options.add,
        timeout=settings.fetch_timeout,
        insecure=options.insecure or settings.insecure,
    )
    if options.json:
        print(json.dumps(_fields(pushed)))
    else:
        for line in _summary(pushed):
            print(line)
    return 0


def _summary(pushed: Pushed) -> Iterator[str]:
    from unpackenv.publish.documents import in_words
    from unpackenv.report import amount, counted

    for parcel in pushed.parcels:
        there = ", was there already" if parcel.was_there else ""
        yield f"{parcel.path}: {amount(parcel.size)}, for {parcel.purpose}{there}"
        yield f"  digest {parcel.digest}"
    if pushed.entries:
        yield f"index of {counted(len(pushed.entries), 'archive')}"
        for entry in pushed.entries:
            yield f"  {in_words(entry)}"
        for entry in pushed.replaced:
            yield f"  no longer {entry['digest']}, for {in_words(entry)}"
    yield f"UNPACKENV_ARCHIVE={pushed.reference}"


def _fields(pushed: Pushed) -> dict[str, Any]:
    archives = [
        {
            "path": parcel.path,
            "size": parcel.size,
            "digest": parcel.digest,
            "blob": parcel.blob,
            "platform": parcel.platform,
            "python": parcel.python,
            "was_there": parcel.was_there,
        }
        for parcel in pushed.parcels
    ]
    return {"reference": pushed.reference, "archives": archives, "index": pushed.entries, "replaced": pushed.replaced}
