"""Whether a start would find a tree that is there already."""

from __future__ import annotations

import os
from collections.abc import Iterator

from unpackenv.errors import UnpackenvError
from unpackenv.report import counted
from unpackenv.report.findings import NOTE, OK, WARNING, Finding, of_error
from unpackenv.start import bootstrap, stamp
from unpackenv.start.places import Place
from unpackenv.start.settings import Settings


def examine(candidates: list[Place], key: str, settings: Settings) -> tuple[list[Finding], str]:
    """Return what there is to say of trees at these places, and the path of the one that a start would take, if any.

    One that was unpacked before the machine restarted is counted, and then its stamp is renewed: that is how a
    start finds out.
    """
    doubtful = [place.path for place in candidates if _is_doubtful(place.path)]
    try:
        done = bootstrap.find_tree(candidates, key, settings)
    except UnpackenvError as error:
        return [of_error("tree", error)], ""
    if not done:
        return list(_not_to_be_used(candidates)), ""
    text = f"{done.target}: complete, {counted(done.files, 'file')}"
    found = [Finding("tree", OK, text, facts={"path": done.target})]
    if done.target in doubtful:
        found.append(_counted_again(done.target))
    return found, done.target


def _is_doubtful(tree: str) -> bool:
    """Whether a start counts the files of a tree, because the machine restarted after it was unpacked."""
    stamped = stamp.read(tree)
    if not stamped:
        return False
    os.close(stamped[1])
    return not stamp.is_certain(stamped[0])


def _counted_again(tree: str) -> Finding:
    text = f"{tree}: the machine restarted since it was unpacked, so its files were counted"
    if not _is_doubtful(tree):
        return Finding("tree", NOTE, f"{text}; its stamp tells the next start, which need not count them again")
    text += ", and its stamp cannot be renewed: every start counts them"
    return Finding("tree", WARNING, text, "Mount it writable for one start, or unpack it with UNPACKENV_SYNC=yes")


def _not_to_be_used(candidates: list[Place]) -> Iterator[Finding]:
    for place in candidates:
        stamped = stamp.read(place.path)
        if stamped:
            os.close(stamped[1])
            text = f"{place.path}: has a tree of another archive, or one that cannot be used"
            yield Finding("tree", NOTE, text)
