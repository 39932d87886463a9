"""The start, step by step: settings, warm check, lock, verify, preflight, unpack, publish, import paths, report.

Only what a warm start needs is imported here; `cold` has the rest.
"""

from __future__ import annotations

import sys

from unpackenv.archive import interpreter, trailer
from unpackenv.archive.facts import first
from unpackenv.errors import ArchiveNotFound, DigestMismatch, PlatformUnsupported, TreeMismatch, UnpackenvError
from unpackenv.start import importpaths, places, report, stamp
from unpackenv.start.places import Place
from unpackenv.start.report import Attempt, Log, Report
from unpackenv.start.settings import UNKNOWN_INTERPRETER, Settings, is_off
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# The trees that this process uses: report and descriptor of the stamp, which is locked shared, by
# the real path of the tree. A descriptor is never closed: its lock tells that the tree is in use.
_in_use: dict[str, tuple[Report, int]] = {}
# The report of the first bootstrap of this process, for calls that name nothing.
_first: list[Report] = []
# The report of the first call that had nothing to do.
_nothing: list[Report] = []
# The import paths that `hook` has added in this and adds in every other interpreter.
hooked: list[str] = []


def bootstrap(arguments: Mapping[str, object], beside: str = "") -> Report:
    """See `unpackenv.bootstrap`; `arguments` are its arguments by name, `beside` the caller's directory."""
    attempt = Attempt(Log(arguments))
    try:
        return _bootstrap(arguments, beside, attempt)
    except UnpackenvError as error:
        attempt.failed(error)
        raise


def _bootstrap(arguments: Mapping[str, object], beside: str, attempt: Attempt) -> Report:
    if is_off():
        return nothing_done(Report(report.OFF), attempt.log)
    if _first and arguments.get("archive") is None and arguments.get("target") is None:
        wanted = Settings({"digest": arguments.get("digest")}, {}).digest
        if wanted:
            _check_digest(wanted, _first[0].digest, _first[0].archive or _first[0].target)
        return _first[0]
    settings = Settings(arguments, beside=beside)
    done = provide_tree(settings, attempt)
    if done.outcome == report.MISSING:
        return nothing_done(done, attempt.log)
    if not done.milliseconds:  # else an earlier call in this process has done the rest
        finish(settings, done, attempt)
    if not _first:
        _first.append(done)
    return done


def nothing_done(done: Report, log: Log) -> Report:
    """Log a start that had nothing to do; of several calls in one process, the first."""
    if not _nothing:
        Attempt(log).ended(done)
        report.bootstrap_ended(log, 0)
        _nothing.append(done)
    return done


def unpack(
    arguments: Mapping[str, object],
    attempt: Attempt | None = None,
    around: Callable[[Callable[[], Report]], Report] = lambda work: work(),
) -> Report:
    """Bring the tree to its place and log it; nothing is made importable.

    Who logs a failure brings the `attempt`. `around` runs the work in between.
    """
    logged = attempt or Attempt(Log(arguments))
    settings = Settings(arguments, interpreter=UNKNOWN_INTERPRETER)  # whoever will use it checks that
    done = around(lambda: provide_tree(settings, logged))
    logged.ended(done)
    return done


def provide_tree(settings: Settings, attempt: Attempt) -> Report:
    """Find the tree, or bring it to its place; what it is used for is the caller's."""
    attempt.warnings += settings.warnings
    if sys.platform != "linux":
        return _elsewhere(settings)
    try:
        archive = places.find_archive(settings)
    except ArchiveNotFound:
        done = _tree_without_archive(settings)
        if done is None and settings.missing == "ignore":
            return Report(report.MISSING)
        if done is None:
            raise
        return done
    attempt.identity = identity = trailer.identify(archive)
    if settings.digest:
        _check_digest(settings.digest, identity.digest, archive)
    attempt.candidates = places.candidates(settings, identity)
    done = find_tree(attempt.candidates, identity.key, settings)
    attempt.lap(report.CHECK)
    if done is None:
        from unpackenv.start.cold import cold

        done = cold.start(settings, identity, attempt)
    elif os.path.lexists(stamp.beside(done.target) + ".work"):
        from unpackenv.start.cold import cold

        cold.tidy(done.target)
    return done


def finish(settings: Settings, done: Report, attempt: Attempt, *, here: bool = True) -> None:
    """Make the tree importable in this process and its children, and its scripts callable; log the line of this start.

    A process that becomes another program needs nothing `here`.
    """
    if here:
        importpaths.for_this_process(done.import_paths, new=done.outcome != report.REUSED)
    if done.import_paths != hooked:
        # Forced on an interpreter that it was not packed for, it is that one which is to find it.
        python = _running(settings) if settings.force else done.python
        attempt.warnings += importpaths.for_children(done.import_paths, done.plain_paths, python, os.environ)
    if done.bin:
        attempt.warnings += importpaths.add_scripts(done.bin, os.environ)
    unusual = any(settings.command.flags()) if settings.command else sys.flags.optimize or sys.pycache_prefix
    if unusual and done.outcome != report.UNPACKED:  # else it has been said
        from unpackenv.start.python import bytecode

        attempt.warnings += bytecode.warnings(settings, done, attempt.identity)
    attempt.lap(report.IMPORT_PATHS)
    attempt.ended(done)
    report.bootstrap_ended(attempt.log, settings.imports)


def find_tree(candidates: list[Place], key: str, settings: Settings) -> Report | None:
    """Return the report of the first place whose stamp says that it holds the tree of archive `key`.

    With an empty key any complete tree will do. Where a digest is asked for, the tree must have been
    unpacked from an archive that was checked against it: a foreign archive's key is no such check.
    The tree is in use from now on: its stamp stays open and locked. Raises `InterpreterMismatch` if
    it is for another interpreter.
    """
    digest = settings.digest.lower()
    for place in candidates:
        known = _in_use.get(place.path)
        if known and key in ("", known[0].key) and digest in ("", known[0].digest):
            return known[0]
        found = stamp.read(place.path)
        if found is None:
            continue
        facts, fd = found
        wanted = key in ("", first(facts, "key")) and digest in ("", first(facts, "digest"))
        if wanted and (not place.is_default or places.is_ours(place)):
            try:
                if settings.command:
                    scripts = first(facts, "bin")
                    settings.interpreter = settings.command.interpreter(scripts and os.path.join(place.path, scripts))
                if interpreter.mismatch(facts, settings.interpreter) and not settings.force:
                    _refuse_interpreter(facts, place.path, settings)
                whole = stamp.is_certain(facts) or _survived(place.path, facts, fd)
            except BaseException:
                os.close(fd)
                raise
            if whole:
                done = _use_tree(place, facts, fd)
                scripts = first(facts, "scripts")
                if settings.relocate and scripts not in ("", place.path):
                    done.warnings = [f"its scripts are for {scripts}: remove it, and the next start rewrites them"]
                return done
        os.close(fd)
    return None


def _refuse_interpreter(facts: dict[str, list[str]], tree: str, settings: Settings) -> None:
    from unpackenv.start.cold import preflight

    preflight.check_interpreter(facts, tree, settings.interpreter)


def _survived(tree: str, facts: dict[str, list[str]], stamp_fd: int) -> bool:
    from unpackenv.start.cold import isolation
    from unpackenv.start.tree import durable

    return isolation.stoppable(lambda: durable.survived(tree, facts, stamp_fd))


def stamps_in_use() -> list[int]:
    """Return the descriptors of the stamps of all trees that this process uses."""
    return [fd for _, fd in _in_use.values()]


def _use_tree(place: Place, facts: dict[str, list[str]], stamp_fd: int) -> Report:
    done = Report(report.REUSED)
    done.target = target = place.path
    done.target_why = place.why
    done.key = first(facts, "key")
    done.digest = first(facts, "digest")
    done.python = first(facts, "python")
    done.files = int(first(facts, "files", "0"))
    done.size = int(first(facts, "unpacked-size", "0"))
    done.import_paths = [os.path.join(target, path).rstrip("/") or "/" for path in facts.get("import", [])]
    done.plain_paths = [os.path.join(target, path).rstrip("/") or "/" for path in facts.get("plain", [])]
    done.bin = os.path.join(target, first(facts, "bin")) if first(facts, "bin") else ""
    _in_use[target] = (done, stamp_fd)
    return done


def _tree_without_archive(settings: Settings) -> Report | None:
    """A tree may have come without its archive, for example from an init container."""
    if not settings.target:
        return None
    place = places.named(settings)
    done = find_tree([place], "", settings)
    found = None if done else stamp.read(place.path)
    if found:
        os.close(found[1])
        if not stamp.is_certain(found[0]):
            raise TreeMismatch(
                "files are missing or cut off since the machine restarted, and there is no archive to unpack again",
                where=place.path,
                hint="Unpack it again, with --sync if a power loss is to leave it whole",
            )
    return done


def _elsewhere(settings: Settings) -> Report:
    """A laptop that has the packages installed, and no archive, may do without."""
    if settings.missing == "ignore":
        try:
            places.find_archive(settings)
        except ArchiveNotFound:
            return Report(report.MISSING)
    raise PlatformUnsupported(
        f"unpacks environments on Linux only, and this is {sys.platform}",
        where="unpackenv",
        hint="Install the packages as usual and set UNPACKENV=off",
    )


def _check_digest(wanted: str, found: str, where: str) -> None:
    """The digest of a foreign archive costs a read of it all, and is checked by who unpacks it."""
    if found and wanted.lower() != found:
        raise DigestMismatch(
            f"its digest is {found}, and {wanted} was asked for",
            where=where,
            hint="Deploy the archive that was pinned, or pin the one that is deployed",
        )


def _running(settings: Settings) -> str:
    """Return the cache tag of the interpreter that will import the tree."""
    return (settings.interpreter or {}).get("python", sys.implementation.cache_tag or "")
