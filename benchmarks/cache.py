"""Things that take long to make: made once, and kept in build/bench."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from renderer import install

CACHE = install.PROJECT / "build" / "bench"


class Unavailable(Exception):
    """Something cannot be had here: a tool is missing, or failed; the text says which and why."""


def once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the file or directory `name` of the cache; a run that was killed while making it left nothing of it."""
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"bench: making {place}", file=sys.stderr, flush=True)
        partial = CACHE / f"partial-{name}"
        for leftover in CACHE.glob(f"{partial.name}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        make(partial)
        partial.rename(place)
    return place


def forget() -> None:
    """Remove what was made, so that it is made anew."""
    shutil.rmtree(CACHE, ignore_errors=True)


def execute(words: Sequence[object], env: Mapping[str, str] | None = None) -> None:
    """Run a command that makes something; raises `Unavailable` if it cannot."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(command, check=False, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}{done.stderr}".rstrip())


def key(*options: object) -> str:
    """Return what tells things apart that were made with other options."""
    return hashlib.sha256(repr(options).encode()).hexdigest()[:12]
