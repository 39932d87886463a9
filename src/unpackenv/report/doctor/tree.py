"""Whether a start would find a tree, and whether all files of that tree are there.

The doctor neither joins a tree that is being filled nor waits for it. A start trusts the stamp. Here each file is
looked for, with the name and the size that the archive lists. Without such an archive the files are counted, as a start
does after the machine restarted. No file is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from unpackenv.archive import reader
from unpackenv.archive.facts import first
from unpackenv.archive.reader import Archive
from unpackenv.archive.toc import Toc
from unpackenv.errors import TreeMismatch, UnpackenvError
from unpackenv.report import amount, counted
from unpackenv.report.doctor.findings import NOTE, OK, PROBLEM, WARNING, Finding, of_error
from unpackenv.start import published, stamp
from unpackenv.start.locations import TargetCandidate
from unpackenv.start.python import relocation
from unpackenv.start.report import Report
from unpackenv.start.settings import BEFORE, Settings
from unpackenv.start.tree import reboot_check


def examine(
    candidates: list[TargetCandidate], key: str, settings: Settings, archive: str = ""
) -> tuple[list[Finding], Report | None]:
    """Return the findings on trees at these places, and the report of a start that would take one, if any.

    `archive` is the path of the archive that lists their files, if there is one. If the machine restarted since a tree
    was unpacked, its files are counted and its stamp is renewed, as by a start.
    """
    report = None
    for place in candidates:
        is_filling, is_doubtful = stamp.state_of(place.path) == stamp.FILLING, _is_doubtful(place.path)
        try:
            report = published.find_tree([place], key, settings, is_own=is_filling)
        except UnpackenvError as error:
            return [of_error("tree", error)], None
        if report:
            break
    if not report:
        return list(_unusable_trees(candidates)), None
    findings = [_files_of(report, archive)]
    if is_filling:
        findings.append(_filling(report.target, settings))
    elif is_doubtful:
        findings.append(_after_restart(report.target))
    return findings, report


def _filling(tree: str, settings: Settings) -> Finding:
    does = "waits until it is whole" if settings.fill == BEFORE else "joins it"
    text = f"{tree}: its files are being filled behind an application; a start {does}, and each open waits for its file"
    return Finding("tree", NOTE, text, facts={"path": tree, "state": stamp.FILLING})


def _is_doubtful(tree: str) -> bool:
    """Whether a start counts the files of a tree, because the machine restarted since it was unpacked."""
    stamped = stamp.read(tree)
    if not stamped:
        return False
    os.close(stamped[1])
    return not stamp.is_certain(stamped[0])


def _files_of(report: Report, archive: str) -> Finding:
    """Return whether the files of a tree are there; if it was filled in place, only an archive can tell."""
    tree = report.target
    recorded = f"{counted(report.files, 'file')} of {amount(report.size)}"
    try:
        opened = _open(archive)
        if opened:
            toc = opened.toc
            missing = list(_missing(tree, toc, _rewritten(tree, opened.facts)))
            count = f"{len(missing):,} of its {toc.member_count:,} members are missing or cut off"
            problem = f"{count}, such as {missing[0]}" if missing else ""
            text = f"all {recorded} are there, with their sizes; their content was not compared"
        elif stamp.is_shared(tree):
            text = f"its stamp says {recorded}, which were not counted: the directory has other files, too"
            return Finding("tree", NOTE, f"{tree}: {text}", facts={"path": tree})
        else:
            files, size = reboot_check.count(tree)
            problem = f"{counted(files, 'file')} of {amount(size)}, but its stamp says {recorded}"
            problem = problem if files < report.files or size < report.size else ""
            count = f"{counted(files, 'file')} of {amount(size)}"
            text = f"{count}, no fewer than the {recorded} of its stamp; none was read"
    except OSError as error:
        text = f"its stamp says {recorded}, which could not be checked ({error.strerror}: {error.filename})"
        return Finding("tree", NOTE, f"{tree}: {text}", facts={"path": tree})
    if not problem:
        return Finding("tree", OK, f"{tree}: {text}", facts={"path": tree})
    remove = os.path.join(tree, stamp.NAME) if stamp.is_shared(tree) else "it"
    hint = f"A start takes it all the same. Remove {remove}, and the next start unpacks again"
    return Finding("tree", PROBLEM, f"{tree}: {problem}", hint, TreeMismatch.reason, {"path": tree})


def _open(archive: str) -> Archive | None:
    try:
        with reader.open_archive(archive) as opened:
            return opened
    except UnpackenvError:  # of plain tar, or damaged, or not there
        return None


def _rewritten(tree: str, facts: dict[str, list[str]]) -> bytes:
    """Return the directory of the scripts that a start has rewritten for their place; b"" if none has."""
    place = relocation.place_of_scripts(tree)
    return os.fsencode(first(facts, "bin")) if place not in ("", relocation.made_at(facts)) else b""


def _missing(tree: str, toc: Toc, rewritten: bytes) -> Iterator[str]:
    """Yield the members that a tree lacks or has in another size; scripts in `rewritten` may have any size."""
    for kind, path, row in toc.paths():
        try:
            status = os.lstat(os.path.join(os.fsencode(tree), path))
        except (FileNotFoundError, NotADirectoryError):
            yield os.fsdecode(path)
            continue
        is_file = stat.S_ISREG(status.st_mode)
        is_script = bool(rewritten) and path.rpartition(b"/")[0] == rewritten
        if kind == "file" and not (is_file and (is_script or status.st_size == toc.file_size[row])):
            yield os.fsdecode(path)


def _after_restart(tree: str) -> Finding:
    text = f"{tree}: the machine restarted since it was unpacked, so its files were counted"
    if not _is_doubtful(tree):
        return Finding("tree", NOTE, f"{text}; its stamp was renewed, and the next start need not count them again")
    text += ", and its stamp cannot be renewed: every start counts them"
    return Finding("tree", WARNING, text, "Mount it writable for one start, or unpack it with UNPACKENV_SYNC=yes")


def _unusable_trees(candidates: list[TargetCandidate]) -> Iterator[Finding]:
    for place in candidates:
        stamped = stamp.read(place.path)
        if stamped:
            os.close(stamped[1])
            text = f"{place.path}: has a tree of another archive, or one that cannot be used"
            if stamp.state_of(place.path) == stamp.UNFINISHED:
                text = f"{place.path}: the processes that filled its files have ended before the end"
                text += "; a start with fill=behind or on-demand goes on with it, another one unpacks it again"
            yield Finding("tree", NOTE, text, facts={"path": place.path, "state": stamp.state_of(place.path)})
        elif stamp.state_of(place.path) == stamp.UNFINISHED:
            text = f"{place.path}: is unfinished; a start unpacks it again"
            yield Finding("tree", NOTE, text, facts={"path": place.path, "state": stamp.UNFINISHED})
