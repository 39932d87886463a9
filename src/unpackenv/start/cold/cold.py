"""A cold start: lock, verify, preflight, unpack, publish. Imported only when no tree is there."""

from __future__ import annotations

import gc
import sys

from unpackenv.archive.facts import first
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
from unpackenv.start import bootstrap, report
from unpackenv.start.cold import isolation, lock, notice, preflight
from unpackenv.start.log import detail
from unpackenv.start.machine import limits
from unpackenv.start.places import Place
from unpackenv.start.python import bytecode
from unpackenv.start.report import Attempt, Clock, Report
from unpackenv.start.settings import Settings
from unpackenv.start.tree import durable, target
from unpackenv.start.tree.tree import Tree, translated
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.start.unpack.foreign import ForeignSource
    from unpackenv.start.unpack.native import NativeSource
    from unpackenv.start.unpack.trace import Trace


# What makes a default place unusable and the next one worth a try.
NEXT_PLACE = (TargetNotWritable, TargetUntrusted, TargetNoExec, TargetInMemory, TargetRefused, NoSpace)


def start(settings: Settings, identity: Identity, attempt: Attempt) -> Report:
    """Unpack the archive `identity` at the first of the candidates of `attempt` that can be used."""
    attempt.measure_usage()
    if settings.command and first(identity.facts, "kind") != "venv":
        settings.command.interpreter("")  # once, and not again in the child
    return isolation.stoppable(lambda: _start(settings, identity, attempt))


def _start(settings: Settings, identity: Identity, attempt: Attempt) -> Report:
    for place in attempt.candidates:
        attempt.place = place
        try:
            return _start_at(place, settings, identity, attempt)
        except NEXT_PLACE as error:
            if not place.is_default:
                error.hint = f"{preflight.whence(place)}. {error.hint}"
                raise
            attempt.tried.append(f"{place.path} ({error.reason})")
    attempt.place = None
    raise TargetNotWritable(
        "no default place can be used",
        where=", ".join(attempt.tried),
        hint="Name a writable directory with UNPACKENV_TARGET, such as a volume or a tmpfs that is mounted exec",
    )


def _start_at(place: Place, settings: Settings, identity: Identity, attempt: Attempt) -> Report:
    try:
        preflight.check_writable(place.path)
        if place.is_default:
            preflight.prepare_default(place)
        else:
            os.makedirs(os.path.dirname(place.path), exist_ok=True)
        in_place = settings.in_place or is_site_directory(place.path)
        lock_fd, waited = _lock(place, in_place, settings, attempt)
    except (FileExistsError, NotADirectoryError) as error:
        raise TargetNotWritable(
            "is in the way, and is no directory",
            where=str(error.filename or place.path),
            hint="Name another target with UNPACKENV_TARGET",
        ) from error
    except OSError as error:
        raise translated(error, str(error.filename or place.path)) from error
    try:
        attempt.lap(report.LOCK)
        done = bootstrap.find_tree([place], identity.key, settings)
        if done:  # another start has published it since we looked
            done.outcome = report.WAITED if waited else report.REUSED
            return done
        result = _unpack(_arrange(place, in_place), settings, identity, attempt)
        done = bootstrap.find_tree([place], identity.key, settings)
        if done is None:
            raise UnpackFailed("vanished as soon as it was complete", where=place.path)
    finally:
        os.close(lock_fd)
    done.outcome = report.UNPACKED
    doubts = [] if place.is_default else preflight.doubts(place.path)
    done.warnings = [*doubts, *result["warnings"], *bytecode.warnings(settings, done, identity)]
    done.workers, done.workers_why = result["workers"], result["workers_why"]
    if done.workers_why == limits.PROCESSES:
        done.warnings.append("the system refused to start more workers")
    attempt.measure_usage().add_child(*result["used"])
    # What the phases of the job leave is what the process of its own cost, if there was one.
    attempt.lap(report.FORK if result["isolated"] else report.PUBLISH, result["phases"])
    return done


def _lock(place: Place, in_place: bool, settings: Settings, attempt: Attempt) -> tuple[int, bool]:
    """Lock what the target is, and still is when the lock is ours: another start may have made it a directory."""

    def on_wait(fd: int) -> None:
        notice.waiting(attempt, lambda: lock.holder_of(fd), place.path)

    ever_waited = False
    while True:
        path = target.arrange(place.path, in_place, place.is_default).lock
        began, waited = time.perf_counter(), True
        try:
            fd, waited = lock.acquire(path, settings.lock_timeout, on_wait)
        finally:
            if waited:
                attempt.lock_wait_ms += (time.perf_counter() - began) * 1e3
        ever_waited = ever_waited or waited
        try:
            if target.arrange(place.path, in_place, place.is_default).lock == path:
                return fd, ever_waited
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _arrange(place: Place, in_place: bool) -> target.Staging:
    try:
        return target.arrange(place.path, in_place, place.is_default)
    except OSError as error:
        raise translated(error, str(error.filename or place.path)) from error


def tidy(tree: str) -> None:
    """Remove what a start of another version left beside a tree when it was killed, unless it is still at work."""
    isolation.stoppable(lambda: _tidy(tree))


def _tidy(tree: str) -> None:
    staging = target.Sibling(tree, False)
    try:
        lock_fd, _ = lock.acquire(staging.lock, 0)
    except (OSError, UnpackenvError):
        return
    _discard(staging)
    os.close(lock_fd)


def is_site_directory(path: str) -> bool:
    """Whether the target is a directory that this interpreter imports from, and so in use."""
    return any(entry and os.path.realpath(entry) == path for entry in sys.path)


def _unpack(staging: target.Staging, settings: Settings, identity: Identity, attempt: Attempt) -> dict[str, Any]:
    """Unpack and publish, in a child where possible; on failure nothing is left."""
    trace = _trace_to(settings.trace) if settings.trace else None
    job = _Job(staging, settings, identity, trace)
    try:
        return _run(job, attempt)
    except OSError as error:
        _discard(staging)
        raise translated(error, str(error.filename or staging.target)) from error
    except BaseException:
        _discard(staging)
        raise
    finally:
        if trace:
            trace.end(attempt, forked=job.isolated)


def _run(job: _Job, attempt: Attempt) -> dict[str, Any]:
    """Run the job in a child, or here where a fork is not safe, or refused."""
    says = notice.is_wanted(attempt)
    text, delay = notice.unpacking(job.identity, job.staging.target), notice.AFTER_MS - attempt.milliseconds

    def work() -> dict[str, Any]:
        return notice.run(job.run, text, delay, isolated=job.isolated) if says else job.run()

    if isolation.is_single_threaded():
        try:
            return isolation.run(work)
        except isolation.ForkRefused as refused:
            attempt.warnings.append(f"no process could be started ({refused}), so that this one unpacked by itself")
    job.isolated = False
    return work()


def _trace_to(path: str) -> Trace:
    from unpackenv.start.unpack.trace import Trace

    return Trace(path)


def _discard(staging: target.Staging) -> None:
    """Remove what was begun; what cannot be removed now, the next start removes."""
    try:
        staging.discard()
    except OSError:  # what went wrong before is the news
        pass


class _Job:
    """The work of one cold start, as it runs in the child."""

    def __init__(
        self,
        staging: target.Staging,
        settings: Settings,
        identity: Identity,
        trace: Trace | None,
    ) -> None:
        self.staging = staging
        self.settings = settings
        self.identity = identity
        self.isolated = True
        """Whether it runs in a process of its own."""
        self.trace = trace

    def run(self) -> dict[str, Any]:
        """Unpack and publish; return the workers, the milliseconds of each phase, and what the child has used."""
        clock = Clock()
        umask, effective = self._own_process()
        known = set(sys.modules)
        try:
            workers, why, warnings = self._unpack(clock, effective, 0o755 & ~umask)
        except OSError as error:
            raise translated(error, str(error.filename or self.staging.target)) from error
        finally:
            if self.trace:
                self.trace.add_phases(clock)
            if not self.isolated:
                _forget_codecs(known)
        used = detail.usage_of_tree() if self.isolated else (0.0, 0)  # else it is this process that has used it
        return {
            "workers": workers, "workers_why": why, "phases": clock.phases, "isolated": self.isolated, "used": used,
            "warnings": warnings,
        }  # fmt: skip

    def _own_process(self) -> tuple[int, int]:
        """Return the umask of the application and that under which the work is done."""
        if self.isolated:
            gc.disable()
            return os.umask(0), 0
        umask = _read_umask()
        return umask, umask

    @property
    def _processes(self) -> bool:
        has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        return (
            self.isolated and self.settings.parallel != "threads" and (has_gil or self.settings.parallel == "processes")
        )

    def _unpack(self, clock: Clock, umask: int, root_mode: int) -> tuple[int, str, list[str]]:
        settings, staging = self.settings, self.staging
        with open_source(self.identity, settings) as source:
            source.trace = self.trace
            clock.lap(report.OPEN)
            if source.key != self.identity.key:
                raise UnpackFailed(
                    "is another archive than the one that this start began with: it was replaced meanwhile",
                    where=self.identity.path,
                    hint="Start again",
                )
            staging.discard()  # what a killed start left takes room
            source.check(os.path.dirname(staging.lock), staging.reclaims())
            fd = staging.open()
            try:
                tree = Tree(fd, umask, staging.target, staging.journal)
                source.unpack(tree, self._processes)
                clock.lap(report.UNPACK)
                facts = {"key": [self.identity.key], **source.stamp_facts()}
                if first(self.identity.facts, "kind") == "venv":
                    source.warnings += self._settle(tree, facts)
                facts["plain"] = [path for path in facts["import"] if not _shadows_standard_library(fd, path)]
                staging.publish(fd, {**facts, **durable.facts(fd, settings.sync)}, root_mode)
                clock.lap(report.PUBLISH)
            finally:
                os.close(fd)
            return source.workers, source.workers_why, source.warnings

    def _settle(self, tree: Tree, facts: dict[str, list[str]]) -> list[str]:
        """See to the scripts of a virtual environment, add what its stamp has to say of them, and return warnings."""
        from unpackenv.start.python import relocation

        of_archive, settings = self.identity.facts, self.settings
        stamped, warnings, files, size = relocation.settle(tree, self.staging.target, of_archive, settings.relocate)
        facts.update(stamped)
        for key, more in (("files", files), ("unpacked-size", size)):
            facts[key] = [str(int(facts[key][0]) + more)]
        return warnings


def open_source(identity: Identity, settings: Settings) -> NativeSource | ForeignSource:
    """Open an archive, checked but for what it holds; raises `UnpackenvError`."""
    if identity.footer:
        from unpackenv.start.unpack.native import NativeSource

        return NativeSource(identity.path, settings)
    from unpackenv.start.unpack.foreign import ForeignSource

    return ForeignSource(identity.path, settings)


def _shadows_standard_library(root_fd: int, path: str) -> bool:
    """Whether a directory of the tree has a name of the standard library: before it, it would be imported instead.

    Nothing but the interpreter's own tests imports `test`.
    """
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        names = {name.partition(".")[0] for name in os.listdir(fd)}
    finally:
        os.close(fd)
    standard = getattr(sys, "stdlib_module_names", None)  # new in CPython 3.10
    if standard is None:
        try:
            library = os.listdir(os.path.dirname(os.__file__))
        except OSError:  # this user may not look into it
            return True
        standard = {*sys.builtin_module_names, *(name.partition(".")[0] for name in library)}
    return not names.isdisjoint(standard - {"test", "site-packages", "__pycache__"})


def _forget_codecs(known: set[str]) -> None:
    """Take back our import of zstandard, so that the application imports its own."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "zstandard" and name not in known:
            del sys.modules[name]


def _read_umask() -> int:
    """Return the umask without changing it, which would be seen by all threads; all bits if it is unknown."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration):
        return 0o777
