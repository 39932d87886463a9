"""`unpackenv analyze`: what is in an environment, what it costs plain and packed, and whether packing is worth it.

subject -> contents -> measure -> advice -> proposal, each in a module of its own; here is their order.
`analysis_text` shows the result.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unpackenv.pack import layout, links, progress, scan
from unpackenv.pack.temporary import Directory, room
from unpackenv.report.analyze import advice, contents, measure, proposal, scratch
from unpackenv.report.analyze.advice import Advice, Circumstances
from unpackenv.report.analyze.contents import Duplicate, Kind, Needless, Package
from unpackenv.report.analyze.measure import Measured
from unpackenv.report.analyze.proposal import Proposal
from unpackenv.report.analyze.subject import Subject, open_subject
from unpackenv.start.machine import mounts


@dataclass(frozen=True)
class Analysis:
    """Everything that `analyze` finds out."""

    subject: Subject
    packages: list[Package]
    kinds: list[Kind]
    needless: list[Needless]
    duplicates: list[Duplicate]
    measured: Measured
    advice: Advice
    circumstances: Circumstances
    machine: dict[str, Any]
    """Facts about the machine that measured it."""
    command: list[str]
    """The command that packs it as it was measured; [] for what is no folder."""
    proposal: Proposal | None
    """The command that packs it best, if that was asked for."""


def analyze(
    path: str,
    circumstances: Circumstances,
    *,
    site: str = "",
    exclude: Sequence[str] = (),
    follow: str = links.MODES[0],
    quick: bool = False,
    propose: bool = False,
) -> Analysis:
    """Analyse the tree, archive or image at `path`, without the members that globs in `exclude` match.

    `follow` is one of `links.MODES`, for a tree. With `quick`, compression is estimated from a sample. With
    `propose`, the options of `pack` are tried. Raises `UnpackenvError`.
    """
    with Directory() as work, Directory() as measuring, Directory() as trying:
        subject = open_subject(path, site, work.make())
        if propose:
            proposal.check(subject)
        source = subject.source
        # Links that lead out of an image or an archive have no target on this machine.
        mode = follow if subject.kind == "directory" else "keep"
        with progress.bar("scan", None) as show_size:
            tree = scan.scan(source, exclude, links=mode, on_progress=show_size)
        layout.check(source, tree)
        # An archive of all members says nothing about fewer: measure a new one.
        archive = "" if exclude else subject.archive
        size = measure.on_disk(tree.entries)
        needed = measure.scratch_needed(size) + (proposal.scratch_needed(size) if propose else 0)
        place = scratch.choose(needed)
        with room(place.directory, f"measuring takes {needed / 1e6:.0f} MB"):
            measured = measure.measure(source, tree, archive, measuring.make(place.directory), quick=quick)
            proposed = (
                proposal.propose(subject, measured, exclude, mode, trying.make(place.directory)) if propose else None
            )
        with progress.bar("look for needless files", 2) as show:
            needless = contents.needless(source, tree)
            show(1)
            duplicates = contents.duplicates(source, tree)
            show(2)
        return Analysis(
            subject=subject,
            packages=contents.packages(source, tree, measured.toc, measured.archive_factor),
            kinds=contents.kinds(source, tree),
            needless=needless,
            duplicates=duplicates,
            measured=measured,
            advice=advice.advise(measured, circumstances),
            circumstances=circumstances,
            machine=_machine(place),
            command=proposal.command(path, exclude, follow) if subject.kind == "directory" else [],
            proposal=proposed,
        )


def _machine(place: scratch.ScratchDirectory) -> dict[str, Any]:
    mount = mounts.holding(os.path.realpath(place.directory))
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "file_system": mount.kind if mount else "",
        "directory": place.directory,
        "seconds_a_file": place.seconds_a_file,
        "slow": place.is_slow,
    }


def fields(analysis: Analysis) -> dict[str, Any]:
    """Return everything as plain values; sizes are in bytes, times in seconds."""
    subject, measured = analysis.subject, analysis.measured
    return {
        "path": subject.path,
        "kind": subject.kind,
        **({"image": subject.facts} if subject.kind == "image" else {"given": subject.facts} if subject.facts else {}),
        "packages": [asdict(package) for package in analysis.packages],
        "kinds": [asdict(kind) for kind in analysis.kinds],
        "needless": [asdict(needless) for needless in analysis.needless],
        "duplicates": [{**asdict(duplicate), "wasted": duplicate.wasted} for duplicate in analysis.duplicates],
        "measured": {
            "estimate": bool(measured.sample),
            "sample": measured.sample,
            "plain": asdict(measured.plain),
            "packed": asdict(measured.packed),
            "archive": measured.archive,
            "runtime": measured.runtime,
            "unpack": measured.unpack,
            "workers": measured.workers,
            "machine": analysis.machine,
        },
        "circumstances": asdict(analysis.circumstances),
        "advice": asdict(analysis.advice),
        "proposal": asdict(analysis.proposal) if analysis.proposal else None,
    }
