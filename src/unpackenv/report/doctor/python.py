"""Whether the interpreter can use the packed bytecode, and a virtual environment its Python and its scripts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from unpackenv.archive.reader import Archive
from unpackenv.report.doctor.findings import OK, WARNING, Finding
from unpackenv.start.python import bytecode, relocation, treepython

_COMPILED = 20  # modules, to see how long that takes


def bytecode_used(mode: str, import_paths: list[str]) -> Iterator[Finding]:
    """Yield whether this interpreter uses the packed bytecode, and what it costs if it does not."""
    tag, prefix = sys.implementation.cache_tag, sys.pycache_prefix or ""
    why, hint = bytecode.unused(mode, import_paths, tag, sys.flags.optimize, prefix)
    facts: dict[str, object] = {"mode": mode, "optimize": sys.flags.optimize, "prefix": prefix}
    if not why:
        if mode:
            yield Finding("bytecode", OK, f"was packed ({mode}) for this interpreter", facts=facts)
        return
    seconds = _seconds_to_compile()
    often = " at every start" if sys.dont_write_bytecode else ""
    text = f"{why}: modules are compiled when they are imported{often}, about {seconds * 1e3:.1f} ms each"
    yield Finding("bytecode", WARNING, text, hint, facts={**facts, "seconds_a_module": seconds})


def _seconds_to_compile() -> float:
    """Return how long it takes to compile a module, measured with some of the standard library."""
    sources = [source for source, _ in zip(sorted(Path(os.__file__).parent.glob("*.py")), range(_COMPILED))]
    began = time.perf_counter()
    for source in sources:
        compile(source.read_bytes(), str(source), "exec", dont_inherit=True)
    return (time.perf_counter() - began) / max(1, len(sources))


def environment(archive: Archive, target: str, relocate: bool) -> Iterator[Finding]:
    """Yield what a virtual environment lacks: the Python that it links to, or the place that its scripts name."""
    missing = treepython.missing_python(archive, target)
    if missing:
        yield Finding("environment", WARNING, f"{archive.path}: {missing}", treepython.HINT)
    made_at = relocation.made_at(archive.facts)
    relocate = relocate or relocation.place_of_scripts(target) == target
    if os.path.realpath(made_at) != target and not relocate:
        text = f"{target}: scripts of the environment name {made_at}, where it was made"
        hint = f"Use `python -m NAME`, unpack to {made_at} (--target), or rewrite them (--relocate)"
        yield Finding("environment", WARNING, text, hint)
