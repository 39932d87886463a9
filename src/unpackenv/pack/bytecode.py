"""Compile the modules of a tree with the interpreter that will import them, without writing to the tree.

    sources -> batches in the order of their names -> one fresh interpreter a batch -> staging -> laid over the scan

CPython's bytecode depends on more than the source: the process writes a constant differently after
other sources that it has compiled. So batches follow the names of sources, never the number of
workers, and a fresh interpreter that imports nothing else compiles each batch. The same tree gives
the same bytes with any number of workers.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from unpackenv.archive import pooled
from unpackenv.errors import PackError, SettingError
from unpackenv.pack import kept_bytecode
from unpackenv.pack.entries import Entry, Tree
from unpackenv.pack.kept_bytecode import Kept
from unpackenv.pack.links import leads_to
from unpackenv.pack.scan import in_order, without
from unpackenv.pack.source import PackSource
from unpackenv.pack.temporary import FULL, Commands

MODES = ("unchecked-hash", "checked-hash", "timestamp", "keep", "none")
"""How an import checks bytecode (three ways of PEP 552); or keep bytecode as it is; or leave it out."""

LEVELS = (0, 1, 2)
"""Optimisation levels: of a plain interpreter, and with -O and -OO."""
_COMPILER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiler.py")
_BATCH = 200
_CACHE = "__pycache__"
_NAME_MAX = 255


class Data(NamedTuple):
    """Where the data of a member begins: a file, and an offset in it."""

    path: str
    offset: int


@dataclass(frozen=True)
class Bytecode:
    """A tree with its bytecode."""

    tree: Tree
    overlay: dict[str, Data]
    """The data of members that the source does not have, by path in the tree."""
    failed: list[tuple[str, str]]
    """Sources that do not compile: the path in the tree, and the compiler's reason."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about bytecode that is packed as it is."""


@dataclass(frozen=True)
class _Compilation:
    """One source to compile."""

    source: Entry
    bytecode: Entry
    """The member to make; its size is not known yet."""
    level: int


def compile_tree(
    tree: Tree,
    source: PackSource,
    mode: str,
    staging: str,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    levels: Sequence[int] = LEVELS[:1],
    without_source: AbstractSet[str] = frozenset(),
) -> Bytecode:
    """Return `tree` with bytecode for every module, compiled into the directory `staging`.

    `mode` is one of `MODES`. Bytecode in the tree is replaced, for whatever Python or optimisation level
    it is; "keep" changes nothing but the times of sources in it (see `kept`). There is one for each of `levels`.
    Modules are the sources below an import path, and those that have bytecode already. Those in `without_source` are
    replaced by their bytecode, if they compile. Bytecode names its source by the path in
    the tree; an import replaces that with the real path, at no measurable cost.
    `on_progress` gets the number of compiled sources and the total, in the calling thread.
    Raises `PackError` if the interpreter fails, `SettingError` for another mode, and `OSError` if `staging` is full.
    """
    if mode not in MODES:
        raise SettingError(f"{mode!r} is none of {', '.join(MODES)}", where="--bytecode")
    warnings = kept_bytecode.unusable_modules(tree, source)
    if mode == "keep":
        existing = kept_bytecode.examine(tree, source)
        return _retimed(tree, source, existing, staging, [*warnings, *existing.warnings(source)])
    jobs = [] if mode == "none" else _jobs(tree, source, levels, without_source)
    result = Bytecode(tree, {}, [], warnings)
    compiled, dropped = [], set()
    with closing(_compile_all(jobs, source, mode, staging, workers, on_progress)) as results:
        for job, place, size_or_reason in results:
            if isinstance(size_or_reason, str):
                if job.level == levels[0]:
                    result.failed.append((job.source.path, size_or_reason))
            else:
                result.overlay[job.bytecode.path] = place
                compiled.append(job.bytecode._replace(size=size_or_reason))
                dropped.update({job.source.path} & without_source)
    return replace(result, tree=_laid_over(_without_bytecode(tree, dropped), compiled))


def _retimed(tree: Tree, source: PackSource, existing: Kept, staging: str, warnings: list[str]) -> Bytecode:
    """Return the tree with its bytecode as it is, but for the headers that need another time."""
    result = Bytecode(tree, {}, [], warnings)
    if not existing.retimed:
        return result
    rewritten = []
    with open(os.path.join(staging, "kept"), "xb") as file:
        for entry in tree.entries:
            header = existing.retimed.get(entry.path)
            if header:
                result.overlay[entry.path] = Data(file.name, file.tell())
                with open(os.path.join(source.root, entry.path), "rb") as old:
                    size = file.write(header + old.read()[len(header) :])
                rewritten.append(entry._replace(kind="file", size=size, link=""))
    entries = in_order([*without(tree.entries, existing.retimed.keys()), *rewritten])
    return replace(result, tree=replace(tree, entries=entries))


# --- which sources, and where their bytecode goes ----------------------------------------------


def _jobs(
    tree: Tree, source: PackSource, levels: Sequence[int], without_source: AbstractSet[str]
) -> list[_Compilation]:
    """Return the modules of the tree, in its order."""
    by_path = {entry.path: entry for entry in tree.entries}
    jobs = []
    for entry in tree.entries:
        origin = _origin(entry, by_path) if entry.path.endswith(".py") else None
        if origin is None:
            continue
        tag = source.interpreter.cache_tag
        if not (_bytecode_path(entry.path, tag, 0) in by_path or _is_importable(entry.path, source)):
            continue
        for level in levels:
            path = f"{entry.path}c" if entry.path in without_source else _bytecode_path(entry.path, tag, level)
            if _can_exist(path, by_path):
                jobs.append(_Compilation(entry, Entry(path, "file", origin.mode & 0o666, origin.mtime), level))
    return jobs


def _bytecode_path(path: str, cache_tag: str, level: int) -> str:
    directory, name = os.path.split(path)
    optimized = f".opt-{level}" if level else ""
    return os.path.join(directory, _CACHE, f"{os.path.splitext(name)[0]}.{cache_tag}{optimized}.pyc")


def _is_importable(path: str, source: PackSource) -> bool:
    is_script = source.bin and path.startswith(f"{source.bin}/")
    return not is_script and any(not top or path.startswith(f"{top}/") for top in source.import_paths)


def _can_exist(path: str, by_path: dict[str, Entry]) -> bool:
    cache, name = os.path.split(path)
    return len(os.fsencode(name)) <= _NAME_MAX and (cache not in by_path or by_path[cache].kind == "dir")


def _origin(entry: Entry, by_path: Mapping[str, Entry]) -> Entry | None:
    """Return the entry that holds the data of a source: itself, or the member that a symlink leads to."""
    origin = by_path.get(leads_to(entry, by_path) or "")
    return origin if origin and origin.kind in ("file", "hardlink") else None


# --- compiling ---------------------------------------------------------------------------------


def _compile_all(
    jobs: list[_Compilation],
    source: PackSource,
    mode: str,
    staging: str,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> Generator[tuple[_Compilation, Data, int | str], None, None]:
    """Yield all jobs, each with the place of its bytecode, and the size of it or why the source does not compile."""
    done = 0
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    with Commands() as commands:

        def compile_batch(number: int) -> list[int | str]:
            return _compile_batch(batches[number], source, mode, os.path.join(staging, str(number)), commands)

        results = pooled.in_order(
            compile_batch, range(len(batches)), workers, 2 * workers, lambda: on_progress(done, len(jobs))
        )
        for number, (batch, sizes) in enumerate(zip(batches, results)):
            offset = 0
            for job, size_or_reason in zip(batch, sizes):
                yield job, Data(os.path.join(staging, str(number)), offset), size_or_reason
                offset += size_or_reason if isinstance(size_or_reason, int) else 0
            done += len(batch)
            on_progress(done, len(jobs))


def _compile_batch(
    batch: list[_Compilation], source: PackSource, mode: str, to: str, commands: Commands
) -> list[int | str]:
    """Compile a batch in a new interpreter into the file `to`; return each size, or why a source does not compile."""
    # Not -I: it would make the interpreter ignore PYTHONHASHSEED.
    run = commands.run(
        [source.interpreter.path, "-s", "-S", "-B", "-W", "ignore", _COMPILER, mode, to],
        json.dumps([_request(job, source.root) for job in batch]),
        _environment(),
    )
    if run.returncode in FULL:
        raise OSError(run.returncode, os.strerror(run.returncode))
    sizes: list[int | str] = [json.loads(line) for line in run.stdout.splitlines()]
    if len(sizes) < len(batch):
        raise PackError(
            f"{source.interpreter.path} died while it compiled this ({_last_words(run)})",
            where=os.path.join(source.root, batch[len(sizes)].source.path),
            hint="Leave the file out with --exclude, or keep the existing bytecode with --bytecode keep",
            exit_status=run.returncode,
        )
    return sizes


def _request(job: _Compilation, root: str) -> tuple[str, str, int, int]:
    """Return a job as the compiler reads it: paths are UTF-8, whatever the encoding of this process is."""
    paths = os.path.join(root, job.source.path), job.source.path
    read, shown = (os.fsencode(path).decode("utf-8", "surrogateescape") for path in paths)
    return read, shown, job.bytecode.mtime, job.level


def _environment() -> dict[str, str]:
    """Return the environment without variables that change how Python runs or what it compiles."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**inherited, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


def _last_words(run: subprocess.CompletedProcess[str]) -> str:
    if run.returncode < 0:
        return f"signal {-run.returncode}"
    return (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]


# --- laying over -------------------------------------------------------------------------------


def _without_bytecode(tree: Tree, sources: AbstractSet[str]) -> Tree:
    """Return the tree without these sources, and without the bytecode in `__pycache__`.

    A .pyc elsewhere is a module without source, and stays.
    """
    cached = {e.path for e in tree.entries if e.path.endswith(".pyc") and f"/{_CACHE}/" in f"/{e.path}"}
    return replace(tree, entries=tuple(without(tree.entries, cached | sources)))


def _laid_over(tree: Tree, added: list[Entry]) -> Tree:
    """Return the tree with `added` and the `__pycache__` directories that they need, but no empty ones."""
    mtimes = {entry.path: entry.mtime for entry in tree.entries}
    mtimes[""] = tree.root_mtime
    needed = {os.path.dirname(entry.path) for entry in added}
    used = needed | {os.path.dirname(entry.path) for entry in tree.entries}
    remaining = [entry for entry in tree.entries if entry.path in used or not _is_cache(entry)]
    made = [Entry(path, "dir", 0o755, mtimes[os.path.dirname(path)]) for path in needed if path not in mtimes]
    return replace(tree, entries=in_order([*remaining, *made, *added]))


def _is_cache(entry: Entry) -> bool:
    return entry.kind == "dir" and os.path.basename(entry.path) == _CACHE
