"""An analysis as tables, for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from unpackenv.report import amount, counted, terminal
from unpackenv.report.analyze import advice, proposal
from unpackenv.report.analyze.analyze import Analysis
from unpackenv.report.analyze.contents import Package
from unpackenv.report.terminal import Cell, Table

_MOST_PACKAGES, _MOST_DUPLICATES, _MOST_ENDINGS = 12, 5, 4
_WORTH_A_LINE = 50_000  # bytes
_MANY = 10  # containers, for the figures of a node with more than one


def show(analysis: Analysis) -> None:
    """Write an analysis to stdout."""
    terminal.show("\n".join((*verdict(analysis), "", *head(analysis))), tables(analysis), "\n".join(_reasons(analysis)))


def tables(analysis: Analysis) -> list[Table]:
    """Return everything that was found."""
    parts = (_packages, _kinds, _needless, _duplicates, _measured, _proposal)
    return [table for part in parts for table in part(analysis)]


def head(analysis: Analysis) -> Iterator[str]:
    """Say what was analysed."""
    subject = analysis.subject
    files = sum(kind.files for kind in analysis.kinds)
    size = sum(kind.size for kind in analysis.kinds)
    yield f"{subject.path}: {counted(files, 'file')}, {amount(size)}, {counted(len(analysis.packages), 'package')}"
    if subject.kind == "image":
        facts = subject.facts
        layers = counted(facts["layers"], "layer")
        yield f"  of {facts['site']}, in an image of {layers} and {amount(facts['size'])}"
        for site, site_size in facts["sites"].items():
            if site != facts["site"]:
                yield f"  not looked at (--site {site}): {amount(site_size)}"
    elif "unpack_seconds" in subject.facts:
        facts = subject.facts
        seconds = _seconds(facts["unpack_seconds"])
        yield f"  from {amount(facts['size'])} that tar made, and that a start unpacks in {seconds}"


def _packages(analysis: Analysis) -> Iterator[Table]:
    shown, rest = analysis.packages[:_MOST_PACKAGES], analysis.packages[_MOST_PACKAGES:]
    if rest:
        files, size = sum(package.files for package in rest), sum(package.size for package in rest)
        shown = [*shown, Package(f"{len(rest)} more", files, size, sum(package.stored for package in rest))]
    rows = [(each.name, amount(each.size), amount(each.stored), f"{each.files:,}") for each in shown]
    yield _table("Packages", ("package", "installed", "in the archive", "files"), rows, text=("package",))


def _kinds(analysis: Analysis) -> Iterator[Table]:
    whole = max(1, sum(kind.size for kind in analysis.kinds))
    rows = []
    for kind in analysis.kinds:
        endings = list(kind.endings.items())[:_MOST_ENDINGS]
        mostly = ", ".join(f"{ending} {amount(size)}" for ending, size in endings)
        rows.append((kind.name, amount(kind.size), f"{kind.size / whole:.0%}", f"{kind.files:,}", mostly))
    yield _table("Kinds of files", ("kind", "size", "of all", "files", "mostly"), rows, text=("kind", "mostly"))


def _needless(analysis: Analysis) -> Iterator[Table]:
    rows = []
    for needless in analysis.needless:
        if needless.size >= _WORTH_A_LINE:
            globs = " ".join(f"--exclude {_quoted(glob)}" for glob in needless.exclude)
            how = "\n  ".join(filter(None, (globs, needless.hint))) if globs else needless.hint
            rows.append((needless.name, amount(needless.size), f"{needless.files:,}", how))
    if analysis.duplicates:
        wasted = sum(duplicate.wasted for duplicate in analysis.duplicates)
        files = sum(len(duplicate.paths) for duplicate in analysis.duplicates)
        rows.append(("files that are there twice or more", amount(wasted), f"{files:,}", "the largest are below"))
    note = "" if rows else f"Nothing of more than {amount(_WORTH_A_LINE)}."
    columns = ("what", "size", "files", "how to leave it out")
    title = "Not needed at run time, as a rule (nothing was left out)"
    yield _table(title, columns, rows, note, text=("what", "how to leave it out"))


def _duplicates(analysis: Analysis) -> Iterator[Table]:
    rows = []
    for duplicate in analysis.duplicates[:_MOST_DUPLICATES]:
        first, *others = duplicate.paths
        more = f"\nand {len(others) - 1} more" if len(others) > 1 else ""
        rows.append((amount(duplicate.size), f"{len(duplicate.paths):,}", f"{first}\n{others[0]}{more}"))
    if rows:
        yield _table("Files that are there twice or more", ("size", "times", "files"), rows, text=("files",))


def _measured(analysis: Analysis) -> Iterator[Table]:
    measured, machine = analysis.measured, analysis.machine
    plain, packed, link = measured.plain, measured.packed, analysis.circumstances
    how = f"Compression estimated from {amount(measured.sample)}, the rest measured" if measured.sample else "Measured"
    place = f"{machine['file_system']} at {machine['directory']}"
    title = f"{how} here, with {machine['cpus']} CPUs, {machine['machine']}, on {place}"
    rows = [
        ("in the registry (gzip)", amount(plain.gzip), amount(packed.gzip)),
        ("in the registry (zstd)", amount(plain.zstd), amount(packed.zstd)),
        ("image on disk", amount(plain.disk), amount(packed.disk)),
    ]
    counts = sorted({1, link.containers, _MANY})
    for count in counts:
        name = f"  with {counted(count, 'container')} on the node"
        rows.append((name, amount(plain.disk), amount(packed.disk + count * plain.disk)))
    pulls = [advice.transfer(layer.gzip, link) + layer.seconds for layer in (plain, packed)]
    rows.append((f"pull at {link.link:g} Mbit/s, with unpacking the layer", _seconds(pulls[0]), _seconds(pulls[1])))
    rows.append(("unpack at the start of each new container", _seconds(0), _seconds(measured.start)))
    for count in counts:
        name = f"  pull and {count} container{'s, one by one' if count > 1 else ''}"
        rows.append((name, _seconds(pulls[0]), _seconds(pulls[1] + count * measured.start)))
    yield _table(title, ("", "plain", "packed"), rows, "\n".join(_how_measured(analysis)), text=("",))


def _how_measured(analysis: Analysis) -> Iterator[str]:
    measured, machine = analysis.measured, analysis.machine
    runtime = f"of {amount(measured.runtime)}" if measured.runtime else "that could not be made here (2 MB)"
    runs = f"{min(measured.unpack):.2f} to {max(measured.unpack):.2f} s"
    workers = counted(measured.workers, "worker")
    yield (
        f"Packed is an archive of {amount(measured.archive)} and a runtime {runtime}; unpacked by {workers} "
        f"({counted(len(measured.unpack), 'run')}, {runs}). All times are wall time."
    )
    if machine["slow"]:
        micros = machine["seconds_a_file"] * 1e6
        yield (
            f"warning: making a file takes {micros:.0f} µs here instead of the usual 25, so the times say little. On "
            "ext4 that lasts for minutes after many files were removed. TMPDIR can name another directory."
        )


def _proposal(analysis: Analysis) -> Iterator[Table]:
    if not analysis.proposal:
        return
    rows, remarks = [], []
    for step in analysis.proposal.steps:
        name = f"and {step.option}" if step.option else "as it is"
        worth_it = "" if step.worth_it else "not worth it"
        rows.append((name, f"{step.files:,}", amount(step.archive), _seconds(step.start), worth_it))
        remarks += step.remarks
    note = f"Packed with --fast, sizes scaled to the usual level; the faster of {proposal.ROUNDS} unpacks."
    columns = ("packed", "files", "archive", "unpack", "")
    yield _table(
        "What options of pack save, one on top of the other",
        columns,
        rows,
        "\n".join([note, *remarks]),
        text=("packed", ""),
    )


def verdict(analysis: Analysis) -> Iterator[str]:
    """Say whether packing is worth it, why, and with which command."""
    yield f"verdict: {headline(analysis)}"
    for reason in main_reasons(analysis):
        yield f"  {reason}"
    if how := command(analysis):
        yield f"pack it with: {how}"


def headline(analysis: Analysis) -> str:
    """Return whether packing is worth it."""
    estimate = " (an estimate: measure without --quick before you decide)" if analysis.measured.sample else ""
    return f"{analysis.advice.verdict}{estimate}"


def main_reasons(analysis: Analysis) -> list[str]:
    """Return what packing saves, and what it costs."""
    return analysis.advice.reasons[:2]


def other_reasons(analysis: Analysis) -> list[str]:
    """Return what else the verdict rests on."""
    return analysis.advice.reasons[2:]


def command(analysis: Analysis) -> str:
    """Return the command to pack with; "" if packing is not worth it, unless a command was asked for."""
    if analysis.proposal:
        return shlex.join(analysis.proposal.command)
    return shlex.join(analysis.command) if analysis.advice.worth_it else ""


def _reasons(analysis: Analysis) -> Iterator[str]:
    yield "what else the verdict rests on"
    for reason in other_reasons(analysis):
        yield f"  - {reason}"
    if not analysis.proposal and analysis.subject.kind == "directory":
        yield "with --propose, analyze also tries the options of pack, and says which are worth it"


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "", *, text: Sequence[str]
) -> Table:
    """Return a table whose columns are figures, except those in `text`."""
    return Table(title, columns, rows, note, frozenset(columns) - {*text})


def _quoted(glob: str) -> str:
    return f"'{glob}'" if "*" in glob else glob


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"
