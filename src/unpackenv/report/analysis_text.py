"""An analysis as text, for people."""

from __future__ import annotations

from collections.abc import Iterator

from unpackenv.report import advice, counted
from unpackenv.report.analyze import Analysis
from unpackenv.report.contents import Package

_MOST_PACKAGES, _MOST_DUPLICATES, _MOST_ENDINGS = 12, 5, 4
_WORTH_A_LINE = 50_000  # bytes
_MANY = 10  # containers, for the figures of a node that has more than one


def text(analysis: Analysis) -> str:
    """Return an analysis as lines of text."""
    parts = (_head, _packages, _kinds, _needless, _measured, _verdict)
    return "\n".join(line for part in parts for line in part(analysis))


def _head(analysis: Analysis) -> Iterator[str]:
    subject = analysis.subject
    files = sum(kind.files for kind in analysis.kinds)
    size = sum(kind.size for kind in analysis.kinds)
    yield f"{subject.path}: {counted(files, 'file')}, {_megabytes(size)}, {counted(len(analysis.packages), 'package')}"
    if subject.kind == "image":
        facts = subject.facts
        layers = counted(facts["layers"], "layer")
        yield f"  of {facts['site']}, in an image of {layers} and {_megabytes(facts['size'])}"
        for site, site_size in facts["sites"].items():
            if site != facts["site"]:
                yield f"  not looked at (--site {site}): {_megabytes(site_size)}"
    elif "unpack_seconds" in subject.facts:
        facts = subject.facts
        seconds = _seconds(facts["unpack_seconds"])
        yield f"  from {_megabytes(facts['size'])} that tar made, and that a start unpacks in {seconds}"


def _packages(analysis: Analysis) -> Iterator[str]:
    yield ""
    yield f"{'packages':32}{'installed':>12}{'in the archive':>16}{'files':>9}"
    shown, rest = analysis.packages[:_MOST_PACKAGES], analysis.packages[_MOST_PACKAGES:]
    if rest:
        files, size = sum(package.files for package in rest), sum(package.size for package in rest)
        shown = [*shown, Package(f"{len(rest)} more", files, size, sum(package.stored for package in rest))]
    for package in shown:
        sizes = f"{_megabytes(package.size):>12}{_megabytes(package.stored):>16}"
        yield f"  {package.name:30.30}{sizes}{package.files:>9,}"


def _kinds(analysis: Analysis) -> Iterator[str]:
    whole = max(1, sum(kind.size for kind in analysis.kinds))
    yield ""
    yield "kinds of files"
    for kind in analysis.kinds:
        endings = list(kind.endings.items())[:_MOST_ENDINGS]
        mostly = "  " + ", ".join(f"{ending} {_megabytes(size)}" for ending, size in endings) if endings else ""
        yield f"  {kind.name:30}{_megabytes(kind.size):>12}{kind.size / whole:>16.0%}{kind.files:>9,}{mostly}"


def _needless(analysis: Analysis) -> Iterator[str]:
    yield ""
    yield "not needed at run time, as a rule (nothing was left out)"
    shown = [one for one in analysis.needless if one.size >= _WORTH_A_LINE]
    for one in shown:
        yield f"  {one.name:46}{_megabytes(one.size):>12} in {counted(one.files, 'file')}"
        if one.exclude:
            yield "      " + " ".join(f"--exclude {_quoted(glob)}" for glob in one.exclude)
        if one.hint:
            yield f"      {one.hint}"
    if analysis.duplicates:
        wasted = sum(one.wasted for one in analysis.duplicates)
        files = sum(len(one.paths) for one in analysis.duplicates)
        yield f"  {'files that are there twice or more':46}{_megabytes(wasted):>12} in {files:,} files"
    if not shown and not analysis.duplicates:
        yield f"  nothing of more than {_kilobytes(_WORTH_A_LINE)}"
    for duplicate in analysis.duplicates[:_MOST_DUPLICATES]:
        first, *others = duplicate.paths
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield f"      {_kilobytes(duplicate.size)} x {len(duplicate.paths)}  {first} = {others[0]}{more}"


def _measured(analysis: Analysis) -> Iterator[str]:
    measured, machine = analysis.measured, analysis.machine
    plain, packed, link = measured.plain, measured.packed, analysis.circumstances
    how = (
        f"compression estimated by {_megabytes(measured.sample)}, the rest measured" if measured.sample else "measured"
    )
    yield ""
    place = f"{machine['file_system']} at {machine['directory']}"
    yield f"{how} here, with {machine['cpus']} CPUs, {machine['machine']}, on {place}"
    yield f"  {'':44}{'plain':>12}{'packed':>12}"

    def row(name: str, first: str, second: str) -> str:
        return f"  {name:44}{first:>12}{second:>12}"

    yield row("in the registry (gzip)", _megabytes(plain.gzip), _megabytes(packed.gzip))
    yield row("in the registry (zstd)", _megabytes(plain.zstd), _megabytes(packed.zstd))
    yield row("image on disk", _megabytes(plain.disk), _megabytes(packed.disk))
    counts = sorted({1, link.containers, _MANY})
    for count in counts:
        name = f"  with {counted(count, 'container')} on the node"
        yield row(name, _megabytes(plain.disk), _megabytes(packed.disk + count * plain.disk))
    pulls = [advice.transfer(layer.gzip, link) + layer.seconds for layer in (plain, packed)]
    yield row(f"pull at {link.link:g} Mbit/s, with unpacking the layer", *map(_seconds, pulls))
    yield row("unpack at the start of each new container", _seconds(0), _seconds(measured.start))
    for count in counts:
        name = f"  pull and {count} container{'s, one by one' if count > 1 else ''}"
        yield row(name, _seconds(pulls[0]), _seconds(pulls[1] + count * measured.start))
    runtime = f"of {_megabytes(measured.runtime)}" if measured.runtime else "that could not be made here (2 MB)"
    yield f"  packed is an archive of {_megabytes(measured.archive)} and a runtime {runtime};"
    runs = f"{min(measured.unpack):.2f} to {max(measured.unpack):.2f} s"
    workers = counted(measured.workers, "worker")
    yield f"  unpacked by {workers} ({counted(len(measured.unpack), 'run')}, {runs}); all times are wall time"
    if machine["slow"]:
        micros = machine["seconds_a_file"] * 1e6
        yield f"  warning: to make a file takes {micros:.0f} µs here, where 25 are usual, so the times say little."
        yield "  On ext4 that is so for minutes after many files were removed. TMPDIR can name another directory"


def _verdict(analysis: Analysis) -> Iterator[str]:
    yield ""
    estimate = " (an estimate: measure without --quick before you decide)" if analysis.measured.sample else ""
    yield f"verdict: {analysis.advice.verdict}{estimate}"
    for reason in analysis.advice.reasons:
        yield f"  - {reason}"


def _quoted(glob: str) -> str:
    return f"'{glob}'" if "*" in glob else glob


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _kilobytes(size: int) -> str:
    return f"{size / 1e3:,.0f} kB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"
