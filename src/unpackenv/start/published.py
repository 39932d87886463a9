"""Find a published tree that a start can use."""

from __future__ import annotations

from unpackenv.archive import interpreter
from unpackenv.archive.facts import first
from unpackenv.start import locations, stamp
from unpackenv.start.locations import TargetCandidate
from unpackenv.start.process import this_process
from unpackenv.start.report import REUSED, Report
from unpackenv.start.settings import Settings
from unpackenv.unpatched import os


def find_tree(
    candidates: list[TargetCandidate], key: str, settings: Settings, *, is_own: bool = False
) -> Report | None:
    """Return the report of the first candidate whose stamp says that it holds the tree of archive `key`.

    With an empty key any complete tree will do. If the settings have a digest, the tree must come from
    an archive that was checked against it: a foreign archive's key is no such check. The tree is in
    use from now on: its stamp stays open and locked. A tree that is being filled is joined, unless this start has begun
    to fill it itself (`is_own`). Raises `InterpreterMismatch` if it is for another
    interpreter.
    """
    digest = settings.digest.lower()
    for candidate in candidates:
        in_use = this_process.trees.get(candidate.path)
        if in_use and key in ("", in_use[0].key) and digest in ("", in_use[0].digest):
            return in_use[0]
        stamped = stamp.read(candidate.path)
        if stamped is None:
            continue
        facts, fd = stamped
        is_wanted = key in ("", first(facts, "key")) and digest in ("", first(facts, "digest"))
        if is_wanted and (not candidate.is_default or locations.is_private(candidate)):
            try:
                if settings.command:
                    scripts = first(facts, "bin")
                    scripts = scripts and os.path.join(candidate.path, scripts)
                    settings.interpreter = settings.command.interpreter(scripts)
                if interpreter.mismatch(facts, settings.interpreter) and not settings.force:
                    _refuse_interpreter(facts, candidate.path, settings)
                is_certain = is_own or stamp.is_certain(facts)
                outcome = REUSED if is_certain else _outcome(candidate.path, facts, fd, settings)
            except BaseException:
                os.close(fd)
                raise
            if outcome:
                return _use(candidate, facts, fd, settings, Report(outcome))
        os.close(fd)
    return None


def _use(
    candidate: TargetCandidate, facts: dict[str, list[str]], stamp_fd: int, settings: Settings, report: Report
) -> Report:
    report.target = target = candidate.path
    report.target_why = candidate.why
    report.key = first(facts, "key")
    report.digest = first(facts, "digest")
    report.python = first(facts, "python")
    report.files = int(first(facts, "files", "0"))
    report.size = int(first(facts, "unpacked-size", "0"))
    report.import_paths = [os.path.join(target, path).rstrip("/") or "/" for path in facts.get("import", [])]
    report.plain_paths = [os.path.join(target, path).rstrip("/") or "/" for path in facts.get("plain", [])]
    report.bin = os.path.join(target, first(facts, "bin")) if first(facts, "bin") else ""
    scripts = first(facts, "scripts")
    if settings.relocate and scripts not in ("", target):
        report.warnings = [f"its scripts are for {scripts}: remove the tree, and the next start rewrites them"]
    this_process.trees[target] = (report, stamp_fd)
    return report


def _refuse_interpreter(facts: dict[str, list[str]], tree: str, settings: Settings) -> None:
    from unpackenv.start.unpack import preflight

    preflight.check_interpreter(facts, tree, settings.interpreter)


def _outcome(tree: str, facts: dict[str, list[str]], stamp_fd: int, settings: Settings) -> str:
    """Return the outcome of a start with a tree that may not be whole; "" if it cannot use it."""
    if stamp.FILL in facts:
        from unpackenv.start.fill import joining

        return joining.join(tree, facts, stamp_fd, settings)
    from unpackenv.start.machine import child
    from unpackenv.start.tree import reboot_check

    return REUSED if child.with_stop_signals(lambda: reboot_check.survived(tree, facts, stamp_fd)) else ""
