"""The work of a cold start, in a child where that is possible: open, check, unpack, publish."""

from __future__ import annotations

import gc
import sys

from unpackenv.archive.facts import first, is_environment
from unpackenv.archive.trailer import Identity
from unpackenv.errors import UnpackFailed
from unpackenv.start import stamp
from unpackenv.start.cold import notice
from unpackenv.start.machine import child, limits, usage, workers
from unpackenv.start.report import NAMES, OPEN, PUBLISH, UNPACK, Attempt, Clock
from unpackenv.start.settings import BEFORE, FILLS, Log, Settings
from unpackenv.start.tree import reboot_check
from unpackenv.start.tree.staging import InPlace, Left, Staging
from unpackenv.start.tree.writer import TreeWriter, target_error
from unpackenv.start.unpack.source import Observer
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.start.fill.names_first import Fill
    from unpackenv.start.unpack.source import Source
    from unpackenv.start.unpack.trace import Trace


def unpack(staging: Staging, settings: Settings, identity: Identity, attempt: Attempt) -> dict[str, Any]:
    """Unpack and publish, in a child where possible; on failure nothing is left.

    Returns the workers, the milliseconds of each phase, what the child has used, and warnings.
    """
    trace = _trace_to(settings.trace) if settings.trace else None
    job = Job(staging, settings, identity, trace, attempt.log)
    try:
        return _run(job, attempt)
    except OSError as error:
        discard(staging)
        raise target_error(error, str(error.filename or staging.target)) from error
    except BaseException:
        discard(staging)
        raise
    finally:
        if trace:
            trace.end(attempt, forked=job.isolated)


def discard(staging: Staging) -> None:
    """Remove the unfinished tree; what cannot be removed now, the next start removes."""
    try:
        staging.discard()
    except OSError:  # the error before this one is reported
        pass


def _trace_to(path: str) -> Trace:
    from unpackenv.start.unpack.trace import Trace

    return Trace(path)


def _run(job: Job, attempt: Attempt) -> dict[str, Any]:
    """Run the job in a child, or in this process if a fork is not safe, or refused."""
    with_notice = notice.is_wanted(attempt)
    text, delay = notice.unpacking(job.identity, job.staging.target), notice.AFTER_MS - attempt.milliseconds

    def work() -> dict[str, Any]:
        return notice.run(job.run, text, delay, isolated=job.isolated) if with_notice else job.run()

    if child.is_single_threaded():
        try:
            return child.run(work, job.fill if job.fills_behind and not job.why_not else None)
        except child.ForkRefused as refused:
            attempt.warnings.append(f"no process could be started ({refused}): this one unpacked by itself")
    job.isolated = False
    if job.fills_behind:
        job.why_not = job.why_not or "the application has several threads, or may start no process"
    return work()


class Job:
    """The work of one cold start, as it runs in the child."""

    def __init__(
        self,
        staging: Staging,
        settings: Settings,
        identity: Identity,
        trace: Trace | None,
        log: Log,
    ) -> None:
        self.staging = staging
        self.settings = settings
        self.identity = identity
        self.isolated = True
        """Whether it runs in a process of its own."""
        self.trace = trace
        self._pid = os.getpid()
        self._log = log
        self._inherited: list[int] = []
        self._fill_when = fill_of(settings, identity)
        self.fills_behind = self._fill_when != BEFORE
        """Whether files are to be filled behind the application."""
        self.why_not = self._why_not_behind() if self.fills_behind else ""
        """Why they are not."""
        self._fill: Fill | None = None

    def fill(self) -> None:
        """Fill the files of a tree that the application uses already."""
        if self._fill:
            self._fill.run()

    def run(self) -> dict[str, Any]:
        """Unpack and publish; return the workers, the milliseconds of each phase, and what the child has used."""
        clock = Clock()
        if self.fills_behind:
            self._inherited = self._descriptors_of_application()
        umask, effective = self._prepare_process()
        imported_before = set(sys.modules)
        try:
            count, why, warnings = self._unpack(clock, effective, 0o755 & ~umask)
        except OSError as error:
            raise target_error(error, str(error.filename or self.staging.target)) from error
        finally:
            if self.trace:
                self.trace.add_phases(clock)
            if not self.isolated:
                _forget_codecs(imported_before)
        used = usage.usage_with_children() if self.isolated else (0.0, 0)  # else it counts as used by this process
        return {
            "workers": count,
            "workers_why": why,
            "warnings": warnings,
            "phases": clock.phases,
            "isolated": self.isolated,
            "used": used,
            "fill": self._fill_when if self._fill else BEFORE,
            "fill_why": self.why_not,
        }

    def _descriptors_of_application(self) -> list[int]:
        """Return the descriptors that are open here, but for those of a remote archive."""
        own = self.settings.blob.descriptors() if self.settings.blob else []
        return [fd for fd in child.open_descriptors() if fd not in own]

    def _prepare_process(self) -> tuple[int, int]:
        """Return the umask of the application, and the one that is in effect during the work."""
        if self.isolated:
            gc.disable()
            return os.umask(0), 0
        umask = _read_umask()
        return umask, umask

    def _why_not_behind(self) -> str:
        """Return why files cannot be filled behind the application, as far as that is known by now."""
        reasons = {
            "the target is filled in place": isinstance(self.staging, InPlace),
            "the tree is to be synced first": self.settings.sync,
            "workers are to be threads": not self._processes,
            "scripts are to be rewritten": self.settings.relocate,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    @property
    def _processes(self) -> bool:
        has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        return (
            self.isolated and self.settings.parallel != "threads" and (has_gil or self.settings.parallel == "processes")
        )

    def _unpack(self, clock: Clock, umask: int, root_mode: int) -> tuple[int, str, list[str]]:
        settings = self.settings
        source = open_source(self.identity, settings)
        try:
            clock.end_phase(OPEN)
            if source.key != self.identity.key:
                raise UnpackFailed(
                    "was replaced by another archive since this start began",
                    where=self.identity.path,
                    hint="Start again",
                )
            if self.fills_behind and not self.why_not and stamp.is_left(self.staging.target, self.identity.key):
                self.staging = Left(self.staging)
            fd, writer = self._open(source, umask)
            try:
                self._write(source, writer, clock)
                facts = {"key": [self.identity.key], **source.stamp_facts()}
                if is_environment(self.identity.facts):
                    source.warnings += self._settle(writer, facts)
                facts["plain"] = [path for path in facts["import"] if not _shadows_standard_library(fd, path)]
                facts.update(reboot_check.facts(fd, settings.sync))
                if self._fill:
                    facts[stamp.FILL] = [stamp.ON_DEMAND if self._fill.is_on_demand else stamp.BEHIND]
                    self._fill.expect_readers()
                self.staging.publish(fd, facts, root_mode)
                if self._fill:
                    self._fill.application_starts()
                clock.end_phase(PUBLISH)
            except BaseException:
                if self._fill:
                    self._fill.give_up()
                raise
            finally:
                os.close(fd)
            return source.workers, source.workers_why, source.warnings
        finally:
            if not self._fill:
                source.close()

    def _open(self, source: Source, umask: int) -> tuple[int, TreeWriter]:
        """Open the directory to write in; make all names there if files are to be filled behind the application."""
        staging = self.staging
        staging.discard()  # what a killed start left takes space
        source.check(os.path.dirname(staging.lock), staging.space_freed_first())
        fd = staging.open()
        writer = staging.writer(fd, umask)
        if self.fills_behind and not self.why_not:
            from unpackenv.start.fill import names_first
            from unpackenv.start.fill.family import Application
            from unpackenv.start.fill.names import Refused

            if self.trace:
                self.trace.keep_open()
            application = Application(
                self._pid,
                self._log,
                self._inherited,
                self._fill_when,
                self.settings.record,
                self.trace or Observer(),
            )
            try:
                self._fill = names_first.names_first(source, writer, staging, fd, application)
            except Refused as refused:
                os.close(fd)
                if isinstance(staging, Left):
                    self.staging = staging.anew
                    return self._open(source, umask)
                self.why_not = str(refused)
                fd = staging.open()  # empty again
                writer = staging.writer(fd, umask)
        return fd, writer

    def _write(self, source: Source, writer: TreeWriter, clock: Clock) -> None:
        """Write the tree, if not all of its names are there by now."""
        if self._fill:
            clock.end_phase(NAMES)
            return
        source.unpack(writer, self._processes, self.trace or Observer())
        if source.workers_why == limits.PROCESSES:
            source.warnings.append(workers.why_fewer(self._processes))
        clock.end_phase(UNPACK)

    def _settle(self, writer: TreeWriter, facts: dict[str, list[str]]) -> list[str]:
        """Rewrite or check the scripts of an environment; add facts for its stamp, and return warnings."""
        from unpackenv.start.python import conda_unpack, relocation

        packed, settings, target = self.identity.facts, self.settings, self.staging.target
        grown = conda_unpack.run(writer.root_fd, target) if settings.relocate else 0
        stamped, warnings, files, size = relocation.settle(writer, target, packed, settings.relocate)
        facts.update(stamped)
        for key, more in (("files", files), ("unpacked-size", size + grown)):
            facts[key] = [str(int(facts[key][0]) + more)]
        return warnings


def fill_of(settings: Settings, identity: Identity) -> str:
    """Return when files are to be filled: as the settings say, else as the archive recorded."""
    recorded = first(identity.facts, "fill")
    return recorded if recorded in FILLS and not settings.fill_is_named else settings.fill


def open_source(identity: Identity, settings: Settings) -> Source:
    """Open an archive and check all but its contents; raises `UnpackenvError`."""
    if identity.footer:
        from unpackenv.start.unpack.native import NativeSource

        return NativeSource(identity.path, settings)
    from unpackenv.start.unpack.foreign import ForeignSource

    return ForeignSource(identity.path, settings)


def _shadows_standard_library(root_fd: int, path: str) -> bool:
    """Whether a directory of the tree would hide a module of the standard library, if it came first on `sys.path`.

    `test` does not count: only the interpreter's own tests import it.
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


def _forget_codecs(before: set[str]) -> None:
    """Undo the import of zstandard: the application may have its own."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "zstandard" and name not in before:
            del sys.modules[name]


def _read_umask() -> int:
    """Return the umask, or all bits if it is unknown; `os.umask` would change it for all threads."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration):
        return 0o777
