"""Whether a start would find a tree that is there already, and whether its files are.

A start takes the stamp's word for that. Here each file is looked for, under the name and with the size that the
archive says; without an archive that lists them they are counted, as after a restart of the machine. None is read.
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
from unpackenv.start.settings import Settings
from unpackenv.start.tree import reboot_check


def examine(
    candidates: list[TargetCandidate], key: str, settings: Settings, archive: str = ""
) -> tuple[list[Finding], Report | None]:
    """Return what there is to say of trees at these places, and the one that a start would take, if any.

    `archive` is the path of the one that lists their files, if there is one. A tree that was unpacked before the
    machine restarted is counted as a start counts it, and then its stamp is renewed.
    """
    doubtful = [place.path for place in candidates if _is_doubtful(place.path)]
    try:
        done = published.find_tree(candidates, key, settings)
    except UnpackenvError as error:
        return [of_error("tree", error)], None
    if not done:
        return list(_not_to_be_used(candidates)), None
    found = [_looked_at(done, archive)]
    if done.target in doubtful:
        found.append(_counted_again(done.target))
    return found, done


def _is_doubtful(tree: str) -> bool:
    """Whether a start counts the files of a tree, because the machine restarted after it was unpacked."""
    stamped = stamp.read(tree)
    if not stamped:
        return False
    os.close(stamped[1])
    return not stamp.is_certain(stamped[0])


def _looked_at(done: Report, archive: str) -> Finding:
    """Say whether the files of a tree are there; of one that was filled in place only where the archive lists them."""
    tree = done.target
    said = f"{counted(done.files, 'file')} of {amount(done.size)}"
    try:
        listed = _listed(archive)
        if listed:
            toc = listed.toc
            gone = list(_gone(tree, toc, _rewritten(tree, listed.facts)))
            some = f"{len(gone):,} of its {toc.member_count:,} members are missing or cut off"
            problem = f"{some}, such as {gone[0]}" if gone else ""
            text = f"all {said} are there, with their sizes; their content was not compared"
        elif stamp.is_shared(tree):
            text = f"its stamp says {said}, which were not counted, as others have files there, too"
            return Finding("tree", NOTE, f"{tree}: {text}", facts={"path": tree})
        else:
            files, size = reboot_check.count(tree)
            problem = f"{counted(files, 'file')} of {amount(size)}, and its stamp says {said}"
            problem = problem if files < done.files or size < done.size else ""
            text = f"{counted(files, 'file')} of {amount(size)}, no fewer than the {said} of its stamp; none was read"
    except OSError as error:
        text = f"its stamp says {said}, which could not be looked at ({error.strerror}: {error.filename})"
        return Finding("tree", NOTE, f"{tree}: {text}", facts={"path": tree})
    if not problem:
        return Finding("tree", OK, f"{tree}: {text}", facts={"path": tree})
    remove = os.path.join(tree, stamp.NAME) if stamp.is_shared(tree) else "it"
    hint = f"A start takes it all the same. Remove {remove}, and the next start unpacks again"
    return Finding("tree", PROBLEM, f"{tree}: {problem}", hint, TreeMismatch.reason, {"path": tree})


def _listed(archive: str) -> Archive | None:
    try:
        with reader.open_archive(archive) as opened:
            return opened
    except UnpackenvError:  # of plain tar, or damaged, or not there
        return None


def _rewritten(tree: str, facts: dict[str, list[str]]) -> bytes:
    """Return the directory of the tree whose scripts a start has written for its place; b"" if none did."""
    place = relocation.place_of_scripts(tree)
    return os.fsencode(first(facts, "bin")) if place not in ("", relocation.made_at(facts)) else b""


def _gone(tree: str, toc: Toc, rewritten: bytes) -> Iterator[str]:
    """Yield the members of an archive that a tree has not, or not of that size; scripts were perhaps `rewritten`."""
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


def _counted_again(tree: str) -> Finding:
    text = f"{tree}: the machine restarted since it was unpacked, so its files were counted"
    if not _is_doubtful(tree):
        return Finding("tree", NOTE, f"{text}; its stamp tells the next start, which need not count them again")
    text += ", and its stamp cannot be renewed: every start counts them"
    return Finding("tree", WARNING, text, "Mount it writable for one start, or unpack it with UNPACKENV_SYNC=yes")


def _not_to_be_used(candidates: list[TargetCandidate]) -> Iterator[Finding]:
    for place in candidates:
        stamped = stamp.read(place.path)
        if stamped:
            os.close(stamped[1])
            text = f"{place.path}: has a tree of another archive, or one that cannot be used"
            yield Finding("tree", NOTE, text)
