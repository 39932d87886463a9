"""Compare unpackenv with its alternatives: `make bench`.

Prints Markdown; the raw figures go to build/bench/results.json.

    make bench                                  everything, 5 rounds
    make bench ARGS="-n 9 --only cold"          one part, 9 rounds
    make bench ARGS="-n 9 --write"              everything, into docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cache
import measure
import peers
from parts import PARTS
from parts.common import Options, Part
from renderer import install
from rig import freshfs
from tables import claims_table
from workload import Renderer

DOCUMENT = install.PROJECT / "docs" / "benchmarks.md"
RESULTS = cache.CACHE / "results.json"
TITLE = """\
# Benchmarks

unpackenv beside its alternatives: the same packages, one run, whole processes. Measured with

    {command}
"""
CAVEATS = """\
- Seconds vary from machine to machine; ratios within one run hold better. Nothing else should be running.
- {cpus} CPUs for every command, ours and the others', and every sample a fresh process. File system, where nothing else
  is said: {file_system}.
- The page cache is warm, but for the part *caches*: the archive or tree is read once before each sample.
- The commands take turns (A B C, C B A, A B C, …). Figures are medians with the least and the most, of {rounds} rounds
  where nothing else is said; ratios are taken within a round, and their median is given.
- All archives hold the same files: the tree that our default archive unpacks to, with its unchecked-hash bytecode.
  Peers that install from wheels, and those that leave bytecode out, unpack fewer; *files* is how many were there in the
  end, with those of a cache and of an interpreter.
- Every command runs until the first line of an application would: peers that are a launcher start an application that
  does nothing.
- unpackenv compares the sha256 of everything that it unpacks; xz and zip compare a CRC, cp and unsquashfs nothing.
- Nobody syncs to the disk: like everybody's, our files are in the page cache when the command ends.
- Memory comes from runs of its own, as the most of several. "All processes" is the sum of PSS over the process and its
  descendants, looked at every 5 ms: memory that forked workers share counts once, and a peak between two looks is
  missed. "Sum of RSS" counts it for each. "Largest process" is the kernel's own peak (VmHWM) of the one process that
  had most, which misses nothing but the last 5 ms. The page cache is in none, but for files that are mapped. 1 MB is
  1,000,000 bytes.
"""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is unmounted
    _alone()
    if options.repack:
        cache.forget()
    cpus = _use_cpus(options.cpus)
    try:
        _measure(options, cpus)
    except (cache.Unavailable, measure.Failed) as error:
        raise SystemExit(f"bench: {error}") from None


def _measure(options: argparse.Namespace, cpus: int) -> None:
    file_system = freshfs.choose(options.fs)
    renderer = Renderer()
    facts: dict[str, Any] = {
        "command": _command(),
        "commit": peers.first_line("git", "-C", str(install.PROJECT), "describe", "--always", "--dirty"),
        "machine": _machine(renderer.python),
        "cpus": cpus,
        "rounds": options.rounds,
        "file_system": file_system.name,
    }
    print(_introduction(facts, file_system), flush=True)
    started = time.monotonic()
    found: dict[str, Part] = {}
    sections = []
    for name in options.only or PARTS:
        found[name] = PARTS[name](renderer, Options(options.rounds, file_system))
        sections.append("\n\n".join([f"## {name}", PARTS[name].__doc__ or "", *found[name].text]))
        print(f"\n{sections[-1]}", flush=True)
        facts["machine"] = _machine(renderer.python)  # with what has been installed meanwhile
        _save({**facts, "seconds": time.monotonic() - started}, found)
        shown = [claim for part in found.values() for claim in part.claims]
        claims = f"## Must show\n\n{claims_table(shown) if shown else 'Nothing, of what was measured.'}"
        if options.write:  # as far as it has come
            DOCUMENT.write_text("\n\n".join([_introduction(facts, file_system).rstrip(), claims, *sections]) + "\n")
    print(f"\n{claims}\n\nRaw figures: {RESULTS}")
    if options.write:
        print(f"Written: {DOCUMENT}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure unpackenv beside its alternatives.")
    parser.add_argument("-n", "--rounds", type=int, default=5, help="samples of each command (default: 5)")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for every command; 0: all (default: 2)")
    places = [kind.name for kind in freshfs.KINDS if not kind.is_merged]
    parser.add_argument("--fs", choices=["auto", *places], default="auto", help="where to unpack")
    parser.add_argument("--repack", action="store_true", help="make all trees and archives anew")
    parser.add_argument("--write", action="store_true", help="write what was found to docs/benchmarks.md, too")
    return parser.parse_args()


def _alone() -> None:
    """Two runs at once would measure each other."""
    lock = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit("bench: another run is under way") from None


def _use_cpus(count: int) -> int:
    """Keep this process and its children to the first `count` CPUs, and return how many there are."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[: count or None])
    return len(os.sched_getaffinity(0))


def _command() -> str:
    """Return the command that measures this again."""
    return f'make bench ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else "make bench"


def _machine(python: str) -> dict[str, str]:
    return {
        "processor": next(
            (line.split(": ")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
        ),
        "memory": next(line.split(":")[1].strip() for line in _lines("/proc/meminfo")),
        "kernel": platform.release(),
        "python": peers.first_line(python, "-VV"),
        **peers.versions(python),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _introduction(facts: Mapping[str, Any], file_system: freshfs.FileSystem) -> str:
    """Return what comes first: how to measure it again, and what to keep in mind."""
    caveats = CAVEATS.format(cpus=facts["cpus"], rounds=facts["rounds"], file_system=file_system.what)
    if file_system.caveat:
        caveats += f"- {file_system.caveat}\n"
    machine = {"commit": facts["commit"], **facts["machine"]}
    listed = "\n".join(f"    {name}: {value}" for name, value in machine.items())
    return f"{TITLE.format(command=facts['command'])}\n{caveats}\n{listed}\n"


def _save(facts: dict[str, object], found: dict[str, Part]) -> None:
    """Write the raw figures; after each part, so that a run that is stopped has not been for nothing."""
    claims = [
        {"what": claim.what, "limit": claim.limit, "measured": claim.measured, "holds": claim.holds}
        for part in found.values()
        for claim in part.claims
    ]
    content = {**facts, "claims": claims, "parts": {name: part.data for name, part in found.items()}}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
