"""Find the place of a cold start: the first candidate that can be used. Lock it, and let `job` unpack there."""

from __future__ import annotations

import sys

from unpackenv.archive.facts import is_environment
from unpackenv.archive.trailer import Identity
from unpackenv.errors import (
    NoSpace,
    TargetInMemory,
    TargetNoExec,
    TargetNotWritable,
    TargetRefused,
    TargetUntrusted,
    UnpackenvError,
    UnpackFailed,
)
from unpackenv.start import published
from unpackenv.start.cold import checks, job, notice
from unpackenv.start.locations import TargetCandidate
from unpackenv.start.machine import child
from unpackenv.start.machine.usage import Usage
from unpackenv.start.python import bytecode
from unpackenv.start.report import FORK, JOINED, LOCK, NAMED, PUBLISH, REUSED, UNPACKED, WAITED, Attempt, Report
from unpackenv.start.settings import BEFORE, Settings
from unpackenv.start.tree import lock
from unpackenv.start.tree.staging import Sibling, Staging, choose_staging
from unpackenv.start.tree.writer import target_error
from unpackenv.unpatched import os, time

# Errors after which the next default place is tried.
NEXT_PLACE = (TargetNotWritable, TargetUntrusted, TargetNoExec, TargetInMemory, TargetRefused, NoSpace)


def unpack(settings: Settings, identity: Identity, attempt: Attempt) -> Report:
    """Unpack the archive `identity` at the first of the candidates of `attempt` that can be used."""
    attempt.usage = attempt.usage or Usage()
    if settings.command and not is_environment(identity.facts):
        settings.command.interpreter("")  # once, and not again in the child
    return child.with_stop_signals(lambda: _unpack_somewhere(settings, identity, attempt))


def _unpack_somewhere(settings: Settings, identity: Identity, attempt: Attempt) -> Report:
    for candidate in attempt.candidates:
        attempt.candidate = candidate
        try:
            return _unpack_at(candidate, settings, identity, attempt)
        except NEXT_PLACE as error:
            if not candidate.is_default:
                error.hint = f"{checks.who_named(candidate)}. {error.hint}"
                raise
            attempt.tried.append(f"{candidate.path} ({error.reason})")
    attempt.candidate = None
    raise TargetNotWritable(
        "no default place can be used",
        where=", ".join(attempt.tried),
        hint="Name a writable directory with UNPACKENV_TARGET, such as a volume or a tmpfs that is mounted exec",
    )


def _unpack_at(candidate: TargetCandidate, settings: Settings, identity: Identity, attempt: Attempt) -> Report:
    lock_fd, waited, in_place = _prepare(candidate, settings, attempt)
    try:
        began = time.perf_counter()
        report = published.find_tree([candidate], identity.key, settings)
        if report and report.outcome == WAITED:  # until another start had filled it
            attempt.lock_wait_ms += (time.perf_counter() - began) * 1e3
        attempt.end_phase(LOCK)
        if report:  # another start has published it meanwhile
            if report.outcome not in (JOINED, WAITED):
                report.outcome = WAITED if waited else REUSED
            return report
        result = job.unpack(_staging(candidate, in_place), settings, identity, attempt)
        report = published.find_tree([candidate], identity.key, settings, is_own=True)
        if report is None:
            raise UnpackFailed("disappeared as soon as it was complete", where=candidate.path)
    finally:
        os.close(lock_fd)
    report.outcome = UNPACKED if result["fill"] == BEFORE else NAMED
    doubts = [] if candidate.is_default else checks.doubts(candidate.path)
    # What is not filled yet cannot be looked at: that would wait.
    stale = bytecode.warnings(settings, report, identity) if report.outcome == UNPACKED else []
    report.warnings = [*doubts, *result["warnings"], *stale]
    report.fill, report.fill_why = result["fill"], result["fill_why"]
    report.workers, report.workers_why = result["workers"], result["workers_why"]
    if attempt.usage:
        attempt.usage.add_child(*result["used"])
    # The time that the phases of the job leave is the cost of its process, if it had its own.
    attempt.end_phase(FORK if result["isolated"] else PUBLISH, result["phases"])
    return report


def _prepare(candidate: TargetCandidate, settings: Settings, attempt: Attempt) -> tuple[int, bool, bool]:
    """Make the parents of a place, and lock it; return lock, whether it had to wait, and whether it is in place."""
    try:
        checks.check_writable(candidate.path)
        if candidate.is_default:
            checks.prepare_default(candidate)
        else:
            os.makedirs(os.path.dirname(candidate.path), exist_ok=True)
        in_place = settings.in_place or is_site_directory(candidate.path)
        return (*_lock(candidate, in_place, settings, attempt), in_place)
    except (FileExistsError, NotADirectoryError) as error:
        raise TargetNotWritable(
            "is in the way, and is no directory",
            where=str(error.filename or candidate.path),
            hint="Name another target with UNPACKENV_TARGET",
        ) from error
    except OSError as error:
        raise target_error(error, str(error.filename or candidate.path)) from error


def _lock(candidate: TargetCandidate, in_place: bool, settings: Settings, attempt: Attempt) -> tuple[int, bool]:
    """Lock the target, and check under the lock that it is the right one: another start may have made a directory."""

    def on_wait(fd: int) -> None:
        notice.waiting(attempt, lambda: lock.holder_of(fd), candidate.path)

    ever_waited = False
    while True:
        path = choose_staging(candidate.path, in_place, candidate.is_default).lock
        began, waited = time.perf_counter(), True
        try:
            fd, waited = lock.acquire(path, settings.lock_timeout, on_wait)
        finally:
            if waited:
                attempt.lock_wait_ms += (time.perf_counter() - began) * 1e3
        ever_waited = ever_waited or waited
        try:
            if choose_staging(candidate.path, in_place, candidate.is_default).lock == path:
                return fd, ever_waited
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _staging(candidate: TargetCandidate, in_place: bool) -> Staging:
    try:
        return choose_staging(candidate.path, in_place, candidate.is_default)
    except OSError as error:
        raise target_error(error, str(error.filename or candidate.path)) from error


def is_site_directory(path: str) -> bool:
    """Whether the target is a directory that this interpreter imports from, and so in use."""
    return any(entry and os.path.realpath(entry) == path for entry in sys.path)


def tidy(tree: str) -> None:
    """Remove the unfinished tree that another start left next to this one, unless that start is still at work."""
    child.with_stop_signals(lambda: _tidy(tree))


def _tidy(tree: str) -> None:
    staging = Sibling(tree, False)
    try:
        lock_fd, _ = lock.acquire(staging.lock, 0)
    except (OSError, UnpackenvError):
        return
    job.discard(staging)
    os.close(lock_fd)
