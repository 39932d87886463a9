"""The start, step by step: settings, warm check, lock, verify, preflight, unpack, publish, import paths, report.

Only what a warm start needs is imported here; `cold` has the rest.
"""

from __future__ import annotations

import sys

from unpackenv.archive import interpreter
from unpackenv.errors import ArchiveNotFound, DigestMismatch, PlatformUnsupported, TreeMismatch, UnpackenvError
from unpackenv.start import importpaths, locations, published, stamp
from unpackenv.start.process import this_process, write_line
from unpackenv.start.report import CHECK, IMPORT_PATHS, MISSING, NAMED, OFF, REUSED, UNPACKED, Attempt, Report
from unpackenv.start.settings import BEFORE, Log, Settings, is_off
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unpackenv.archive.trailer import Identity


def bootstrap(arguments: Mapping[str, object], caller_directory: str = "") -> Report:
    """See `unpackenv.bootstrap`; `arguments` are its arguments by name."""
    return Bootstrap(arguments, caller_directory).run()


def begin(log: Log) -> Attempt:
    """Begin a start; CPU and memory are measured for JSON lines only: that takes longer than a whole warm start."""
    attempt = Attempt(log)
    if log.is_json:
        from unpackenv.start.machine.usage import Usage

        attempt.usage = Usage()
    return attempt


class Start:
    """One start: `run` goes through its steps. Each kind of start overrides the steps in which it differs.

    `attempt` holds what is known of the start so far, `settings` its arguments and environment, resolved.
    """

    is_last_word = False
    """Whether the start itself must show an error to people, because no caller will."""

    settings: Settings

    def __init__(self, arguments: Mapping[str, object], log: Log | None = None) -> None:
        """`arguments` are those of `unpackenv.bootstrap()` by name; `log` follows from them by default."""
        self.arguments = arguments
        self.attempt = begin(log or Log(arguments))

    def run(self) -> Report:
        """Find or unpack the tree, make it importable, and log the result; raises `UnpackenvError`."""
        try:
            report = self.earlier_report()
            if report:
                return report
            self.settings = self.read_settings()
            report = self.provide_tree()
            if report.outcome == MISSING:
                return self.do_nothing(MISSING)
            if not report.milliseconds:  # else an earlier start of this process has done the rest
                self.finish(report)
            return report
        except UnpackenvError as error:
            self.log_error(error)
            raise

    # --- the steps ---

    def earlier_report(self) -> Report | None:
        """Return a report if this start has nothing to do, for example because starts are turned off."""
        return self.do_nothing(OFF) if is_off() else None

    def read_settings(self) -> Settings:
        """Return the settings of this start; raises `SettingError`."""
        return Settings(self.arguments)

    def provide_tree(self) -> Report:
        """Find the tree, or unpack it."""
        return provide_tree(self.settings, self.attempt, self.unpack)

    def unpack(self, identity: Identity) -> Report:
        """Unpack an archive whose tree is not there."""
        from unpackenv.start.cold import place

        return place.unpack(self.settings, identity, self.attempt)

    def finish(self, report: Report) -> None:
        """Make the tree importable, and log."""
        self.attempt.warnings += self.make_importable(report)
        self.attempt.end_phase(IMPORT_PATHS)
        self.log_end(report)
        this_process.bootstrap_ended(self.attempt.log, self.settings.imports)

    def make_importable(self, report: Report) -> list[str]:
        """Make the tree importable here and in child processes, and its scripts callable; return warnings."""
        importpaths.for_this_process(report.import_paths, new=report.outcome != REUSED)
        return self.make_importable_in_children(report)

    def make_importable_in_children(self, report: Report) -> list[str]:
        """Make the tree importable in child processes, and its scripts callable; return warnings."""
        settings, warnings = self.settings, []
        if report.import_paths != this_process.hooked:
            # With `force`, the tree may be for another Python than the one that will import it.
            python = report.python
            if settings.force:
                python = _running(settings)
                if python and report.python and python != report.python:
                    warnings.append(f"packed for {report.python}, and this interpreter is {python}, as force says")
            warnings += importpaths.for_children(report.import_paths, report.plain_paths, python, os.environ)
        if report.bin:
            warnings += importpaths.add_scripts(report.bin, os.environ)
        is_unusual = any(settings.command.flags()) if settings.command else sys.flags.optimize or sys.pycache_prefix
        if is_unusual and report.outcome not in (UNPACKED, NAMED):  # else a warning is there already
            from unpackenv.start.python import bytecode

            warnings += bytecode.warnings(settings, report, self.attempt.identity)
        return warnings

    # --- the log ---

    def do_nothing(self, outcome: str) -> Report:
        """Log a start that has nothing to do, once in a process."""
        if this_process.idle is None:
            this_process.idle = Report(outcome)
            self.log_end(this_process.idle)
            this_process.bootstrap_ended(self.attempt.log, 0)
        return this_process.idle

    def log_end(self, report: Report) -> None:
        """Complete the report, and write its line."""
        log = self.attempt.log
        self.attempt.complete(report)
        if log.is_json:
            from unpackenv.start.log import json_lines

            json_lines.write_start(log, report, this_process.log_warnings)
        if log.form == "text" and report.target:  # without an archive, people need no line
            write_line(report.text())

    def log_error(self, error: UnpackenvError) -> None:
        """Write the line of a start that failed."""
        log_error(error, self.attempt, is_last_word=self.is_last_word)


class Bootstrap(Start):
    """The start of `unpackenv.bootstrap()`."""

    def __init__(self, arguments: Mapping[str, object], caller_directory: str) -> None:
        super().__init__(arguments)
        self._caller_directory = caller_directory

    def run(self) -> Report:
        report = super().run()
        if this_process.first is None and report.outcome not in (OFF, MISSING):
            this_process.first = report
        return report

    def earlier_report(self) -> Report | None:
        """Return the first report to a call that names neither archive nor target."""
        idle, first = super().earlier_report(), this_process.first
        if idle or first is None or any(self.arguments.get(name) is not None for name in ("archive", "target")):
            return idle
        digest = Settings({"digest": self.arguments.get("digest")}, {}).digest
        if digest:
            _check_digest(digest, first.digest, first.archive or first.target)
        return first

    def read_settings(self) -> Settings:
        return Settings(self.arguments, caller_directory=self._caller_directory)


class Unpack(Start):
    """The start that only unpacks a tree: for any interpreter, and even if starts are turned off."""

    def earlier_report(self) -> None:
        return None

    def read_settings(self) -> Settings:
        return Settings({**self.arguments, "fill": BEFORE}, interpreter=interpreter.UNKNOWN)

    def finish(self, report: Report) -> None:
        self.log_end(report)


def log_error(error: UnpackenvError, attempt: Attempt, *, is_last_word: bool) -> None:
    """Write the line of a start that failed; in text only if this `is_last_word`."""
    if attempt.log.is_json:
        from unpackenv.start.log import json_lines

        json_lines.write_error(attempt.log, error, attempt, this_process.log_warnings)
    if is_last_word and attempt.log.form != "json":  # even if the log is off: no start fails silently
        write_line(f"unpackenv: error: {error}")


# --- the tree ------------------------------------------------------------------------------------


def provide_tree(settings: Settings, attempt: Attempt, unpack: Callable[[Identity], Report]) -> Report:
    """Find the tree, or `unpack` the archive that has this identity."""
    attempt.warnings += settings.warnings
    if sys.platform != "linux":
        return _on_other_system(settings)
    try:
        archive = locations.find_archive(settings)
    except ArchiveNotFound:
        report = _find_tree_without_archive(settings)
        if report is None and settings.missing == "ignore":
            return Report(MISSING)
        if report is None:
            raise
        return report
    attempt.identity = identity = locations.identify(archive, settings)
    if settings.digest:
        _check_digest(settings.digest, identity.digest, archive)
    attempt.candidates = locations.candidates(settings, identity)
    report = published.find_tree(attempt.candidates, identity.key, settings)
    if report is None and settings.is_remote:
        return _provide_remote_tree(settings, attempt, unpack)
    attempt.end_phase(CHECK)
    if report is None:
        return unpack(identity)
    if os.path.lexists(stamp.beside(report.target, "work")):
        from unpackenv.start.cold import place

        place.tidy(report.target)
    return report


def _provide_remote_tree(settings: Settings, attempt: Attempt, unpack: Callable[[Identity], Report]) -> Report:
    """Ask the server for the end of the archive. Find its tree by that, or unpack it."""
    from unpackenv.start.cold import remote

    try:
        attempt.identity = identity = remote.identify(settings)
        _check_digest(settings.digest, identity.digest, identity.path)
        attempt.candidates = locations.candidates(settings, identity)  # it may have recorded one
        report = published.find_tree(attempt.candidates, "", settings)
        attempt.end_phase(CHECK)
        report = report or unpack(identity)
        if settings.blob and settings.blob.traffic:
            report.fetched = settings.blob.traffic.total()
        return report
    finally:
        remote.end(settings)


def _find_tree_without_archive(settings: Settings) -> Report | None:
    """Return the report of a tree whose archive is not here, as an init container may leave it; None without one."""
    if not settings.target:
        return None
    candidate = locations.named(settings)
    report = published.find_tree([candidate], "", settings)
    stamped = None if report else stamp.read(candidate.path)
    if stamped:
        os.close(stamped[1])
        if not stamp.is_certain(stamped[0]):
            raise TreeMismatch(
                "files are missing or cut off since the machine restarted, and there is no archive to unpack again",
                where=candidate.path,
                hint="Unpack it again, with --sync if it must survive a power loss",
            )
    return report


def _on_other_system(settings: Settings) -> Report:
    """Do nothing on a laptop that has the packages installed, and no archive; else raise `PlatformUnsupported`."""
    if settings.missing == "ignore":
        try:
            locations.find_archive(settings)
        except ArchiveNotFound:
            return Report(MISSING)
    raise PlatformUnsupported(
        f"unpacks environments on Linux only, and this is {sys.platform}",
        where="unpackenv",
        hint="Install the packages as usual and set UNPACKENV=off",
    )


def _check_digest(required: str, actual: str, where: str) -> None:
    """Raise `DigestMismatch` unless the digests agree.

    `actual` is "" for a foreign archive: its digest costs a read of the whole file, and is checked when it is unpacked.
    """
    if actual and required.lower() != actual:
        raise DigestMismatch(
            f"its digest is {actual}, but {required} is required",
            where=where,
            hint="Deploy the archive that was pinned, or pin the one that is deployed",
        )


def _running(settings: Settings) -> str:
    """Return the cache tag of the interpreter that will import the tree."""
    return (settings.interpreter or {}).get("python", sys.implementation.cache_tag or "")
