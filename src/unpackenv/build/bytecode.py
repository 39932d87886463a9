"""Bytecode for a tree, made by the interpreter that will import it, without writing to the tree.

    sources -> batches in the order of their names -> one fresh interpreter a batch -> staging -> laid over the scan

CPython's bytecode is not a function of the source alone: constants are written according to what
else the compiling process has seen. Here every process sees the same: a batch is cut by names,
never by the number of workers, and is compiled by an interpreter of its own that imports nothing
else. The same tree gives the same bytes with any number of workers.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from unpackenv.build.scan import Entry, Tree, in_order, without
from unpackenv.build.source import Source
from unpackenv.errors import PackError, SettingError

MODES = ("unchecked-hash", "checked-hash", "timestamp", "keep", "none")
"""How bytecode is told to be valid: three ways of PEP 552, or left as it is, or left out."""

_COMPILER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiler.py")
_BATCH = 200
_CACHE = "__pycache__"
_NAME_MAX = 255


@dataclass(frozen=True)
class Bytecode:
    """A tree with its bytecode."""

    tree: Tree
    overlay: dict[str, str]
    """Where the data of a member is that is not in the source: its path in the tree to a path on disk."""
    failed: list[tuple[str, str]]
    """Sources that do not compile, by their path in the tree, each with the compiler's reason."""


@dataclass(frozen=True)
class _Job:
    """One source that is to be compiled."""

    source: Entry
    bytecode: Entry
    """Its size is not known yet."""


def compile_tree(
    tree: Tree,
    source: Source,
    mode: str,
    staging: str,
    workers: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Bytecode:
    """Return `tree` with bytecode for every module, compiled into the directory `staging`.

    `mode` is one of `MODES`. Bytecode in the tree is replaced, whichever Python or optimisation it is
    for; "keep" leaves all as it is. Modules are the sources below an import path, and those that
    had bytecode already. Bytecode names its source by its path in the tree; an import puts the real one
    there, at no cost that could be measured.
    `on_progress` gets the number of sources that are done and that of all, in the calling thread.
    Raises `PackError` if the interpreter fails, and `SettingError` for another mode.
    """
    if mode not in MODES:
        raise SettingError(f"{mode!r} is none of {', '.join(MODES)}", where="--bytecode")
    if mode == "keep":
        return Bytecode(tree, {}, [])
    jobs = [] if mode == "none" else _jobs(tree, source)
    _make_directories(staging, jobs)
    failed = _compile(jobs, source, mode, staging, workers, on_progress or (lambda done, total: None))
    unchanged = {path for path, _ in failed}
    compiled = [job.bytecode for job in jobs if job.source.path not in unchanged]
    overlay = {entry.path: os.path.join(staging, entry.path) for entry in compiled}
    sized = [entry._replace(size=os.path.getsize(overlay[entry.path])) for entry in compiled]
    return Bytecode(_laid_over(_without_bytecode(tree), sized), overlay, failed)


# --- which sources, and where their bytecode goes ----------------------------------------------


def _jobs(tree: Tree, source: Source) -> list[_Job]:
    """Return the modules of the tree, in its order."""
    by_path = {entry.path: entry for entry in tree.entries}
    jobs = []
    for entry in tree.entries:
        origin = _origin(entry, source, by_path) if entry.path.endswith(".py") else None
        if origin is None:
            continue
        path = _bytecode_path(entry.path, source.interpreter.cache_tag)
        if (path in by_path or _is_importable(entry.path, source)) and _can_exist(path, by_path):
            jobs.append(_Job(entry, Entry(path, "file", origin.mode & 0o666, origin.mtime)))
    return jobs


def _bytecode_path(path: str, cache_tag: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, _CACHE, f"{os.path.splitext(name)[0]}.{cache_tag}.pyc")


def _is_importable(path: str, source: Source) -> bool:
    is_script = source.bin and path.startswith(f"{source.bin}/")
    return not is_script and any(not top or path.startswith(f"{top}/") for top in source.import_paths)


def _can_exist(path: str, by_path: dict[str, Entry]) -> bool:
    cache, name = os.path.split(path)
    return len(os.fsencode(name)) <= _NAME_MAX and (cache not in by_path or by_path[cache].kind == "dir")


def _origin(entry: Entry, source: Source, by_path: dict[str, Entry]) -> Entry | None:
    """Return the entry whose data a source has: itself, or what a symlink leads to within the tree."""
    if entry.kind != "symlink":
        return entry if entry.kind in ("file", "hardlink") else None
    real = os.path.realpath(os.path.join(source.root, entry.path))
    origin = by_path.get(os.path.relpath(real, os.path.realpath(source.root)))
    return origin if origin and origin.kind in ("file", "hardlink") else None


# --- compiling ---------------------------------------------------------------------------------


def _make_directories(staging: str, jobs: list[_Job]) -> None:
    for directory in {os.path.dirname(job.bytecode.path) for job in jobs}:
        os.makedirs(os.path.join(staging, directory), exist_ok=True)


def _compile(
    jobs: list[_Job],
    source: Source,
    mode: str,
    staging: str,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> list[tuple[str, str]]:
    """Compile all jobs and return the sources that do not compile, each with the reason."""
    failed: list[tuple[str, str]] = []
    done = 0
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda batch: _compile_batch(batch, source, mode, staging), batches)
        for batch, reasons in zip(batches, results):
            failed += [(job.source.path, reason) for job, reason in zip(batch, reasons) if reason]
            done += len(batch)
            on_progress(done, len(jobs))
    return failed


def _compile_batch(batch: list[_Job], source: Source, mode: str, staging: str) -> list[str]:
    """Compile a batch in a new interpreter; returns for each source why it does not compile, or ""."""
    # Not -I: it would make the interpreter ignore PYTHONHASHSEED.
    run = subprocess.run(
        [source.interpreter.path, "-s", "-S", "-B", "-W", "ignore", _COMPILER, mode],
        input=json.dumps([_order(job, source.root, staging) for job in batch]),
        env=_environment(),
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="backslashreplace",
    )
    reasons = [json.loads(line) for line in run.stdout.splitlines()]
    if len(reasons) < len(batch):
        raise PackError(
            f"{source.interpreter.path} died while it compiled this ({_last_words(run)})",
            where=os.path.join(source.root, batch[len(reasons)].source.path),
            hint="Leave the file out with --exclude, or keep the bytecode that there is with --bytecode keep",
            exit_status=run.returncode,
        )
    return reasons


def _order(job: _Job, root: str, staging: str) -> tuple[str, str, str, int]:
    """Return what the compiler needs to know of a job; it reads paths as UTF-8 whatever our own encoding is."""
    paths = (
        os.path.join(root, job.source.path),
        os.path.join(staging, job.bytecode.path),
        job.source.path,
    )
    read, written, shown = (os.fsencode(path).decode("utf-8", "surrogateescape") for path in paths)
    return read, written, shown, job.bytecode.mtime


def _environment() -> dict[str, str]:
    """Return our environment with nothing in it that changes how Python runs, or what it compiles to."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**inherited, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


def _last_words(run: subprocess.CompletedProcess[str]) -> str:
    if run.returncode < 0:
        return f"signal {-run.returncode}"
    return (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]


# --- laying over -------------------------------------------------------------------------------


def _without_bytecode(tree: Tree) -> Tree:
    """Return the tree less the bytecode files in `__pycache__`; one elsewhere is a module without source, and stays."""
    dropped = {e.path for e in tree.entries if e.path.endswith(".pyc") and f"/{_CACHE}/" in f"/{e.path}"}
    return Tree(tuple(without(tree.entries, dropped)), tree.root_mtime, tree.unused)


def _laid_over(tree: Tree, added: list[Entry]) -> Tree:
    """Return the tree with `added`, the `__pycache__` directories that these need, and none that is empty."""
    mtimes = {entry.path: entry.mtime for entry in tree.entries}
    mtimes[""] = tree.root_mtime
    needed = {os.path.dirname(entry.path) for entry in added}
    used = needed | {os.path.dirname(entry.path) for entry in tree.entries}
    kept = [entry for entry in tree.entries if entry.path in used or not _is_cache(entry)]
    made = [Entry(path, "dir", 0o755, mtimes[os.path.dirname(path)]) for path in needed if path not in mtimes]
    return Tree(in_order([*kept, *made, *added]), tree.root_mtime, tree.unused)


def _is_cache(entry: Entry) -> bool:
    return entry.kind == "dir" and os.path.basename(entry.path) == _CACHE
