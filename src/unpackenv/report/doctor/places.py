"""Where a start would unpack: each place is tried as a start tries it, up to the first byte of the tree.

A directory of small files is written there, to see whether that works and how long it takes, and removed again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

from unpackenv.archive import RESERVED
from unpackenv.errors import TargetNotWritable, UnpackenvError
from unpackenv.report.doctor.findings import NOTE, OK, PROBLEM, WARNING, Finding, of_error
from unpackenv.start import stamp
from unpackenv.start.cold import checks
from unpackenv.start.cold.place import NEXT_PLACE, is_site_directory
from unpackenv.start.locations import TargetCandidate
from unpackenv.start.machine import limits, mounts
from unpackenv.start.settings import Settings
from unpackenv.start.tree.staging import choose_staging
from unpackenv.start.tree.writer import target_error

Check = Callable[[str, tuple[int, int]], None]

_FILES = 100
_SLOW_FILE = 500e-6  # seconds: ext4 takes 25 µs, overlayfs twice that, a network some milliseconds
_NETWORKS = ("9p", "afs", "ceph", "cifs", "fuse", "glusterfs", "gpfs", "lustre", "nfs", "smb", "virtiofs")


def examine(
    candidates: list[TargetCandidate], check: Check | None, settings: Settings, use: str = "a start unpacks here"
) -> tuple[list[Finding], str]:
    """Return the findings on the places for a tree, in their order, and the place that a start would take.

    `use` is the text for that place. `check` is the opened archive's check of room, memory, mount and interpreter, if
    the archive could be opened.
    """
    findings: list[Finding] = []
    chosen = ""
    for candidate in candidates:
        try:
            facts = _try(candidate, check, settings)
        except NEXT_PLACE as error:
            findings.append(_of_refused(candidate, error))
        except UnpackenvError as error:  # no other place would help
            return [*findings, of_error("target", error)], ""
        else:
            findings.append(_of_usable(candidate, facts, "" if chosen else use))
            findings += _doubts(candidate, facts) if not chosen else []
            chosen = chosen or candidate.path
        findings += _other_starts(candidate)
    if not chosen and len(candidates) > 1:
        hint = "Name a writable directory with UNPACKENV_TARGET, such as a volume or a tmpfs that is mounted exec"
        findings.append(Finding("target", PROBLEM, "no default place can be used", hint, TargetNotWritable.reason))
    return findings, chosen


def _try(candidate: TargetCandidate, check: Check | None, settings: Settings) -> dict[str, Any]:
    """Do what a start does before it unpacks, and return facts about the place; raises the errors of the start."""
    checks.check_writable(candidate.path)
    if candidate.is_default:
        checks.check_trusted(candidate)
    in_place = settings.in_place or is_site_directory(candidate.path)
    try:
        staging = choose_staging(candidate.path, in_place, candidate.is_default)
        directory = _nearest(os.path.dirname(staging.lock))
        seconds = _write_files(directory)
    except OSError as error:
        raise target_error(error, str(error.filename or candidate.path)) from error
    if check:
        check(directory, staging.space_freed_first())
    return {**_mounted(directory), "seconds_a_file": seconds, "in_place": in_place}


def _nearest(directory: str) -> str:
    """Return the directory, or the nearest one above it that exists."""
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise TargetNotWritable(
            "is in the way, and is no directory", where=directory, hint="Name another target with UNPACKENV_TARGET"
        )
    return directory


def _write_files(directory: str) -> float:
    """Return how many seconds it takes to make a small file."""
    work = tempfile.mkdtemp(prefix=f"{RESERVED}doctor-", dir=directory)
    try:
        began = time.perf_counter()
        for number in range(_FILES):
            with open(os.path.join(work, str(number)), "wb") as file:
                file.write(bytes(1024))
        return (time.perf_counter() - began) / _FILES
    finally:
        shutil.rmtree(work)


def _mounted(directory: str) -> dict[str, Any]:
    mount = mounts.holding(os.path.realpath(directory))
    status = os.statvfs(directory)
    return {
        "mount": mount.point if mount else "",
        "file_system": mount.kind if mount else "",
        "noexec": bool(status.f_flag & os.ST_NOEXEC),
        "read_only": bool(status.f_flag & os.ST_RDONLY),
        "free": status.f_bavail * status.f_frsize,
        "free_inodes": status.f_favail if status.f_files else limits.UNLIMITED,
    }


def _of_refused(candidate: TargetCandidate, error: UnpackenvError) -> Finding:
    """Return the finding on a place that cannot be used; a start goes on to the next default place."""
    level = NOTE if candidate.is_default else PROBLEM
    if not candidate.is_default:
        error.hint = f"{checks.who_named(candidate)}. {error.hint}"
    return of_error("place", error, level, path=candidate.path, usable=False)


def _of_usable(candidate: TargetCandidate, facts: dict[str, Any], use: str) -> Finding:
    inodes = facts["free_inodes"]
    room = (
        f"{facts['free'] / 1e6:,.0f} MB" + ("" if inodes == limits.UNLIMITED else f" and {inodes:,} inodes") + " free"
    )
    options = ", noexec" if facts["noexec"] else ""
    where = f"{facts['file_system'] or 'unknown file system'}{options}, {room}"
    text = f"{candidate.path}: {use or 'could be used, too'} ({where})"
    return Finding("place", OK, text, facts={"path": candidate.path, "usable": True, **facts})


def _doubts(candidate: TargetCandidate, facts: dict[str, Any]) -> list[Finding]:
    """Return what makes a start at a usable place slow, or its result doubtful."""
    findings = []
    if facts["seconds_a_file"] > _SLOW_FILE:
        text = f"{candidate.path}: making a small file takes {facts['seconds_a_file'] * 1e3:.1f} ms"
        findings.append(Finding("writing", WARNING, text, "Unpack to a disk of the node, or to a tmpfs"))
    if facts["file_system"].startswith(_NETWORKS):
        kind = f"{facts['file_system']} is a network file system"
        text = f"{candidate.path}: {kind}: it is slow, and its locks may not work"
        findings.append(Finding("place", WARNING, text, "Unpack to a disk of the node"))
    if facts["in_place"]:
        text = f"{candidate.path}: is filled in place, which takes about twice as long on overlayfs"
        findings.append(Finding("place", NOTE, text))
    if not candidate.is_default:
        doubts = checks.doubts(candidate.path)
        findings += [Finding("place", WARNING, f"{candidate.path}: {doubt}") for doubt in doubts]
    return findings


def _other_starts(candidate: TargetCandidate) -> list[Finding]:
    """Return a finding if another start is unpacking to a place, or was killed there."""
    for lock in (stamp.beside(candidate.path, "lock"), os.path.join(candidate.path, stamp.LOCK)):
        holder = _holder(lock)
        if holder:
            text = f"{candidate.path}: {holder} is unpacking there; a start waits for it"
            return [Finding("place", WARNING, text, "If it does not end, find out what that process waits for")]
    if os.path.lexists(stamp.beside(candidate.path, "work")):
        return [
            Finding("place", NOTE, f"{candidate.path}: a start was killed there; the next one removes what it left")
        ]
    return []


def _holder(lock: str) -> str:
    """Return the holder of a lock, as the lock file names it; "" if the lock is free."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 300, 0).decode("utf-8", "replace").strip() or "another process"
    except OSError:  # no locks here: a start reports that
        return ""
    finally:
        os.close(fd)
    return ""
