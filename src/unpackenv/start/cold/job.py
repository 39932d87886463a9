"""The work of a cold start, in a child where that is possible: open, check, unpack, publish."""

from __future__ import annotations

import gc
import sys

from unpackenv.archive.facts import first
from unpackenv.archive.trailer import Identity
from unpackenv.errors import UnpackFailed
from unpackenv.start.cold import notice
from unpackenv.start.machine import child, limits, usage, workers
from unpackenv.start.report import OPEN, PUBLISH, UNPACK, Attempt, Clock
from unpackenv.start.settings import Settings
from unpackenv.start.tree import reboot_check
from unpackenv.start.tree.staging import Staging
from unpackenv.start.tree.writer import TreeWriter, target_error
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unpackenv.start.unpack.source import Source
    from unpackenv.start.unpack.trace import Trace


def unpack(staging: Staging, settings: Settings, identity: Identity, attempt: Attempt) -> dict[str, Any]:
    """Unpack and publish, in a child where possible; on failure nothing is left.

    Returns the workers, the milliseconds of each phase, what the child has used, and warnings.
    """
    trace = _trace_to(settings.trace) if settings.trace else None
    job = _Job(staging, settings, identity, trace)
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


def _run(job: _Job, attempt: Attempt) -> dict[str, Any]:
    """Run the job in a child, or in this process if a fork is not safe, or refused."""
    with_notice = notice.is_wanted(attempt)
    text, delay = notice.unpacking(job.identity, job.staging.target), notice.AFTER_MS - attempt.milliseconds

    def work() -> dict[str, Any]:
        return notice.run(job.run, text, delay, isolated=job.isolated) if with_notice else job.run()

    if child.is_single_threaded():
        try:
            return child.run(work)
        except child.ForkRefused as refused:
            attempt.warnings.append(f"no process could be started ({refused}): this one unpacked by itself")
    job.isolated = False
    return work()


class _Job:
    """The work of one cold start, as it runs in the child."""

    def __init__(
        self,
        staging: Staging,
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
        }

    def _prepare_process(self) -> tuple[int, int]:
        """Return the umask of the application, and the one that is in effect during the work."""
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
            clock.end_phase(OPEN)
            if source.key != self.identity.key:
                raise UnpackFailed(
                    "was replaced by another archive since this start began",
                    where=self.identity.path,
                    hint="Start again",
                )
            staging.discard()  # what a killed start left takes space
            source.check(os.path.dirname(staging.lock), staging.space_freed_first())
            fd = staging.open()
            try:
                writer = staging.writer(fd, umask)
                source.unpack(writer, self._processes, self.trace)
                if source.workers_why == limits.PROCESSES:
                    source.warnings.append(workers.why_fewer(self._processes))
                clock.end_phase(UNPACK)
                facts = {"key": [self.identity.key], **source.stamp_facts()}
                if first(self.identity.facts, "kind") == "venv":
                    source.warnings += self._settle(writer, facts)
                facts["plain"] = [path for path in facts["import"] if not _shadows_standard_library(fd, path)]
                staging.publish(fd, {**facts, **reboot_check.facts(fd, settings.sync)}, root_mode)
                clock.end_phase(PUBLISH)
            finally:
                os.close(fd)
            return source.workers, source.workers_why, source.warnings

    def _settle(self, writer: TreeWriter, facts: dict[str, list[str]]) -> list[str]:
        """Rewrite or check the scripts of a virtual environment; add facts for its stamp, and return warnings."""
        from unpackenv.start.python import relocation

        packed, settings = self.identity.facts, self.settings
        stamped, warnings, files, size = relocation.settle(writer, self.staging.target, packed, settings.relocate)
        facts.update(stamped)
        for key, more in (("files", files), ("unpacked-size", size)):
            facts[key] = [str(int(facts[key][0]) + more)]
        return warnings


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
