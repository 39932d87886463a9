"""`unpackenv doctor`: in a container, why a start is slow or fails.

interpreter -> limits -> archive -> does it fit -> is there a tree -> where would one be -> how many workers

It calls the code of a start, step by step, and goes on where a start would fail. It works in a runtime, too, and
without psutil.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import cache_from_source
from typing import TYPE_CHECKING

import unpackenv
from unpackenv.archive import codecs, interpreter, trailer
from unpackenv.archive.codecs import zstd_extension, zstd_stdlib
from unpackenv.archive.facts import first, is_environment
from unpackenv.errors import ArchiveNotFound, ArchiveUnsupported, DigestMismatch, UnpackenvError
from unpackenv.report import amount, counted
from unpackenv.report.doctor import cache as doctor_cache
from unpackenv.report.doctor import files as doctor_files
from unpackenv.report.doctor import limits as doctor_limits
from unpackenv.report.doctor import places as doctor_places
from unpackenv.report.doctor import python as doctor_python
from unpackenv.report.doctor import remote as doctor_remote
from unpackenv.report.doctor import tree as doctor_tree
from unpackenv.report.doctor.findings import NOTE, OK, PROBLEM, WARNING, Diagnosis, Finding, of_error
from unpackenv.start import locations
from unpackenv.start.cold import job, remote
from unpackenv.start.machine import mounts
from unpackenv.start.python import hook_file
from unpackenv.start.settings import PREFIX, VARIABLES, Settings, is_off, nearest_variable
from unpackenv.start.unpack.native import NativeSource

if TYPE_CHECKING:
    from unpackenv.archive.trailer import Identity
    from unpackenv.start.unpack.source import Source

_READ_AT_MOST = 64 << 20
_SLOW_READ = 1.0  # seconds for the whole archive
_TAKES = "takes the tree that is at "
_ENOUGH_COMPILED = 0.5  # the part of the standard library with bytecode


def examine(arguments: Mapping[str, object]) -> Diagnosis:
    """Check everything that a start with these settings depends on; errors of a start become findings."""
    findings: list[Finding] = []
    outcome = "would fail"
    findings += _interpreter()
    findings += _standard_library()
    findings += doctor_limits.examine()
    findings += _unknown_settings(os.environ)
    try:
        settings = Settings(arguments)
        findings += doctor_files.examine(settings)
        outcome = _start(settings, findings)
    except UnpackenvError as error:
        findings.append(of_error("settings", error))
    problems, warnings = (sum(finding.level == level for finding in findings) for level in (PROBLEM, WARNING))
    if problems and outcome.startswith(_TAKES):
        outcome += ", and finds it damaged"
    elif problems:
        outcome = "would fail"
    elif _is_off():
        outcome = "does nothing, as UNPACKENV=off says; without that it " + outcome
    counts = f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}"
    return Diagnosis(findings, f"A start here {outcome}: {counts}")


# --- the interpreter ---------------------------------------------------------------------------


def _interpreter() -> Iterator[Finding]:
    facts: dict[str, object] = {**interpreter.describe(), "executable": sys.executable}
    version = ".".join(map(str, sys.version_info[:3]))
    about = f"{sys.implementation.name} {version} ({facts['libc']}, {facts['machine']}) at {sys.executable}"
    home = os.path.dirname(os.path.dirname(os.path.abspath(unpackenv.__file__)))
    yield Finding("interpreter", OK, f"{about}; unpackenv {unpackenv.__version__} in {home}", facts=facts)
    path = hook_file.hook_path()
    if os.path.exists(path):
        with open(path, encoding="ascii", errors="replace") as file:
            auto = "auto=True" in file.read()
        does = "the first interpreter to start unpacks" if auto else "interpreters import from a tree that is there"
        yield Finding("hook", OK, f"{path}: {does}", facts={"path": path, "auto": auto})
    else:
        yield Finding("hook", NOTE, f"no hook at {path}: only programs that bootstrap can import the packages")


def _standard_library() -> Iterator[Finding]:
    """Whether the standard library has bytecode: official images have none, and a start may be unable to write it."""
    library = sysconfig.get_path("stdlib")
    compiled = modules = 0
    writable = False
    for directory, below, names in os.walk(library):
        below[:] = [name for name in below if name not in ("site-packages", "dist-packages", "test", "__pycache__")]
        sources = [os.path.join(directory, name) for name in names if name.endswith(".py")]
        modules += len(sources)
        compiled += sum(os.path.exists(cache_from_source(path)) for path in sources)
    if modules:
        cache = os.path.dirname(cache_from_source(os.path.join(library, "os.py")))
        writable = os.access(cache if os.path.isdir(cache) else os.path.dirname(cache), os.W_OK)
    facts = {"modules": modules, "compiled": compiled, "writable": writable, "writes": not sys.dont_write_bytecode}
    text = f"{compiled:,} of {modules:,} modules of {library} have bytecode"
    if not modules or compiled >= modules * _ENOUGH_COMPILED:
        yield Finding("stdlib", OK, text, facts=facts)
        return
    kept = writable and not sys.dont_write_bytecode
    text += (
        ": the first start of each container compiles what it imports"
        if kept
        else ": every start compiles what it imports"
    )
    hint = f"Compile it when the image is built: RUN python -m compileall -q {library}"
    yield Finding("stdlib", WARNING, text, hint, facts=facts)


def _unknown_settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each variable that is no setting; a start warns only of those that resemble one."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in VARIABLES:
            meant = nearest_variable(name)
            hint = f"Did you mean {meant}?" if meant else "See python -m unpackenv --help"
            yield Finding("settings", WARNING if meant else NOTE, f"{name} is not a setting", hint)


# --- the start ---------------------------------------------------------------------------------


def _start(settings: Settings, findings: list[Finding]) -> str:
    """Go through the steps of a start, add to `findings`, and return what the start would do."""
    try:
        path = locations.find_archive(settings)
    except ArchiveNotFound as error:
        return _without_archive(settings, error, findings)
    try:
        identity = _identify_remote(settings, findings) if settings.is_remote else trailer.identify(path)
    except UnpackenvError as error:
        findings.append(of_error("archive", error))
        identity = None
    if identity is None:
        return _without_server(settings, findings) if settings.is_remote else "would fail"
    findings.append(_archive(identity))
    if settings.digest and identity.digest and settings.digest.lower() != identity.digest:
        findings.append(of_error("archive", DigestMismatch(f"its digest is {identity.digest}", where=identity.path)))
    elif settings.is_remote:
        findings.append(_pinned(identity))
    findings += _backend(identity)
    matches = list(_match(identity, settings))
    findings += matches
    candidates = locations.candidates(settings, identity)
    source = _open(identity, settings, findings)
    tree_findings, report = doctor_tree.examine(candidates, identity.key, settings, "" if settings.is_remote else path)
    tree = report.target if report else ""
    import_paths = report.import_paths if report else []
    if not any(match.reason for match in matches):
        tree_findings += doctor_python.bytecode_used(first(identity.facts, "bytecode"), import_paths)
    use = "a start would unpack here, if there were no tree" if tree else "a start unpacks here"
    try:
        place_findings, target = doctor_places.examine(candidates, source.check if source else None, settings, use)
        reasons = {finding.reason for finding in findings if finding.level == PROBLEM}
        place_findings = [finding for finding in place_findings if not finding.reason or finding.reason not in reasons]
        if isinstance(source, NativeSource) and is_environment(identity.facts) and (tree or target):
            tree_findings += doctor_python.environment(source.archive, tree or target, settings.relocate)
        if tree:
            _nothing_is_needed(findings)
            findings += [*tree_findings, *(finding for finding in place_findings if finding.level != PROBLEM)]
            return f"{_TAKES}{tree}"
        findings += [*tree_findings, *place_findings]
        findings += () if settings.is_remote else _reading(identity)
        findings += _workers(source) if source else ()
    finally:
        if source:
            source.close()
    return f"unpacks to {target}"


def _nothing_is_needed(findings: list[Finding]) -> None:
    """Make warnings of problems: there is a tree, so nothing has to be fetched, read or written."""
    findings[:] = [replace(one, level=WARNING) if one.level == PROBLEM else one for one in findings]


def _identify_remote(settings: Settings, findings: list[Finding]) -> Identity | None:
    """Add what is found out on the way to a remote archive; return its identity, None after a problem.

    The server is asked, and not a cache: that would hide what is wrong with the server, and would be changed. Raises
    `UnpackenvError`.
    """
    directory, settings.cache = settings.cache, ""
    found = list(doctor_remote.examine(settings))
    findings += found
    has_failed = any(one.level == PROBLEM for one in found)
    if directory:
        size = next((one.facts["size"] for one in found if "size" in one.facts), None)
        findings += doctor_cache.examine(directory, settings.cache_size, size or 0, is_needed=has_failed)
    return None if has_failed else remote.identify(settings)


def _without_server(settings: Settings, findings: list[Finding]) -> str:
    """Return what a start would do that cannot fetch its archive: it asks nobody if there is a tree."""
    identity = locations.identify(settings.archive, settings)
    tree_findings, report = doctor_tree.examine(locations.candidates(settings, identity), identity.key, settings)
    if not report:
        findings += tree_findings
        return "would fail"
    _nothing_is_needed(findings)
    findings += tree_findings
    return f"{_TAKES}{report.target}"


def _pinned(identity: Identity) -> Finding:
    """Return that the archive of a server is the one that was pinned; for one of plain tar, when that is known."""
    if identity.footer:
        return Finding("digest", OK, "is the one that was pinned")
    return Finding("digest", NOTE, "is compared when all of the archive is there: plain tar made it")


def _without_archive(settings: Settings, error: ArchiveNotFound, findings: list[Finding]) -> str:
    """Return what a start without an archive would do: a named target may hold a tree."""
    named = [locations.named(settings)] if settings.target else []
    tree_findings, report = doctor_tree.examine(named, "", settings)
    findings += tree_findings
    if report:
        return f"{_TAKES}{report.target}"
    if settings.missing == "ignore":
        findings.append(of_error("archive", error, NOTE))
        return "does nothing, as there is no archive"
    findings.append(of_error("archive", error))
    return "would fail"


def _archive(identity: Identity) -> Finding:
    facts = {"path": identity.path, "size": identity.size, "digest": identity.digest, "facts": identity.facts}
    text = f"{identity.path}: {amount(identity.size)}"
    if not identity.footer:
        return Finding(
            "archive", NOTE, f"{text}, made by tar: its content is not known until it is unpacked", facts=facts
        )
    files, size = (int(identity.facts[key][0]) for key in ("files", "unpacked-size"))
    text += f" ({identity.footer.codec}), {counted(files, 'file')} of {amount(size)}"
    text += f", digest {identity.digest[:12]}…"
    return Finding("archive", OK, text, facts=facts)


def _backend(identity: Identity) -> Iterator[Finding]:
    """Yield what decodes the archive, unless the standard library alone does."""
    codec = identity.footer.codec if identity.footer else codecs.of_file_name(identity.path)
    if not codec or not codecs.get(codec).needs_extension:
        return
    try:
        module = zstd_extension.load()
    except ArchiveUnsupported as error:
        yield _without_zstandard(error)
        return
    backend = zstd_extension.find()
    if backend:
        yield Finding("zstandard", OK, f"its C extension, {backend.origin}", facts={"origin": backend.origin})
    else:
        text = (
            f"{module.__file__}: not its C extension; a cold start takes 15 ms more for imports and may decode slowly"
        )
        yield Finding("zstandard", WARNING, text, "Install the wheel of zstandard", facts={"origin": module.__file__})


def _without_zstandard(error: ArchiveUnsupported) -> Finding:
    """Return what decodes zstd instead of zstandard."""
    module = zstd_stdlib.find()
    if module is None:
        return of_error("zstandard", error)
    text = f"missing: {module.__name__} decodes instead, and each worker takes more memory by the size of a frame"
    return Finding("zstandard", OK, text, facts={"origin": module.__file__})


def _match(identity: Identity, settings: Settings) -> Iterator[Finding]:
    mismatch = interpreter.mismatch(identity.facts)
    if not mismatch:
        if identity.facts.get("python"):
            yield Finding("match", OK, f"packed for {' '.join(identity.facts['python'])}, which this interpreter is")
        return
    fact, packed, running = mismatch
    text = f"packed for {fact} {packed}, and this interpreter has {running}"
    hint = "Run it with the interpreter and on the base image that it was packed for, or pack it for these"
    facts = {"fact": fact, "packed": packed, "found": running}
    yield Finding("match", WARNING if settings.force else PROBLEM, text, hint, "interpreter-mismatch", facts)


def _open(identity: Identity, settings: Settings, findings: list[Finding]) -> Source | None:
    """Open the archive as a start does; that checks everything but its frames."""
    try:
        return job.open_source(identity, settings)
    except UnpackenvError as error:
        if not any(finding.reason == error.reason for finding in findings):
            findings.append(of_error("archive", error))
        return None


def _reading(identity: Identity) -> Iterator[Finding]:
    """Yield how long it takes to read the archive; parts that were read before come from memory."""
    began = time.perf_counter()
    size_read = 0
    with open(identity.path, "rb", buffering=0) as file:
        while size_read < _READ_AT_MOST and (data := file.read(1 << 20)):
            size_read += len(data)
    seconds = (time.perf_counter() - began) * identity.size / max(1, size_read)
    mount = mounts.holding(os.path.dirname(os.path.realpath(identity.path)))
    text = f"reading the archive takes {seconds:.2f} s, from {mount.kind if mount else 'unknown file system'}"
    slow = seconds > _SLOW_READ
    hint = "Keep it in the image or on a disk of the node" if slow else ""
    yield Finding("reading", WARNING if slow else OK, text, hint, facts={"seconds": seconds})


def _workers(source: Source) -> Iterator[Finding]:
    bounds = source.worker_bounds()
    least = min(bounds.values())
    by = ", ".join(name for name, bound in bounds.items() if bound == least)
    others = ", ".join(f"{name} {bound}" for name, bound in bounds.items() if least < bound < 1 << 16)
    why = f"bounded by {by}" + (f"; {others} would allow more" if others else "")
    if source.workers != max(1, least):
        why = f"as UNPACKENV_WORKERS or --workers says; {by} would make it {max(1, least)}"
    yield Finding("workers", OK, f"{source.workers} ({why})", facts={"workers": source.workers, "bounds": bounds})


def _is_off() -> bool:
    """Whether starts are turned off, other than by the hook, which turns them off for tools such as this one."""
    if not is_off():
        return False
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [entry.partition(b"=") for entry in file.read().split(b"\0")]
    except OSError:
        return True
    return is_off({os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs})
