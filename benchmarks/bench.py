"""Measure unpackenv beside its alternatives on the renderer's packages: `make bench`.

Prints Markdown; the raw figures go to build/bench/results.json.

    make bench                                  everything, 5 rounds
    make bench ARGS="-n 9 --only cold"          one part, 9 rounds
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import freshfs
import workload
from parts import PARTS, Options, Part
from tables import claims_table

CAVEATS = """\
- Seconds vary from machine to machine; ratios within one run hold better. Nothing else should be running.
- {cpus} CPUs for every command, ours and the others', and every sample a fresh process. File system: {file_system}.
- The page cache is warm: the archive or tree is read once before each sample. With a cold one, small archives gain.
- The commands take turns (A B C, A B C, …). Figures are medians with the least and the most; ratios are taken within a
  round, and their median is given.
- All archives hold the same files: the tree that our zstd archive unpacks to, with its unchecked-hash bytecode.
- Nobody syncs to the disk: like everybody's, our files are in the page cache when the command ends.
- Memory comes from runs of its own, as the most of several. "All processes" is the sum of PSS over the process and its
  descendants, looked at every 5 ms: memory that forked workers share counts once, and a peak between two looks is
  missed. "Largest process" is the kernel's own peak (VmHWM) of the one process that had most, which misses nothing but
  the last 5 ms. The page cache is in neither, but for files that are mapped. 1 MB is 1,000,000 bytes.
"""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is unmounted
    _alone()
    if options.repack:
        workload.forget()
    cpus = _use_cpus(options.cpus)
    renderer = workload.Renderer()
    file_system = freshfs.choose(options.fs)
    machine = _machine(renderer.python)
    _introduce(machine, cpus, file_system)
    started = time.monotonic()
    found = {}
    for name in options.only or PARTS:
        found[name] = PARTS[name](renderer, Options(options.rounds, file_system))
        _show(name, found[name])
    print("\n## Must show\n")
    print(claims_table(claim for part in found.values() for claim in part.claims))
    facts = {"machine": machine, "cpus": cpus, "rounds": options.rounds, "file_system": file_system.name}
    _save(workload.CACHE / "results.json", {**facts, "seconds": time.monotonic() - started}, found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure unpackenv beside its alternatives on the renderer's packages."
    )
    parser.add_argument("-n", "--rounds", type=int, default=5, help="samples of each command (default: 5)")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs for every command; 0: all (default: 2)")
    parser.add_argument(
        "--fs", choices=["auto", *(kind.name for kind in freshfs.KINDS)], default="auto", help="where to unpack"
    )
    parser.add_argument("--repack", action="store_true", help="make all archives anew")
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


def _machine(python: str) -> dict[str, str]:
    tools = {tool: _first_line(tool, "--version") for tool in ("tar", "xz", "zstd", "cp") if shutil.which(tool)}
    if shutil.which("unsquashfs"):
        tools["unsquashfs"] = _first_line("unsquashfs", "-version")
    return {
        "processor": next(
            (line.split(": ")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
        ),
        "memory": next(line.split(":")[1].strip() for line in _lines("/proc/meminfo")),
        "kernel": platform.release(),
        "python": _first_line(python, "-VV"),
        **tools,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return next(iter(done.stdout.splitlines()), "")


def _introduce(machine: dict[str, str], cpus: int, file_system: freshfs.FileSystem) -> None:
    print("# Benchmarks\n")
    print(CAVEATS.format(cpus=cpus, file_system=file_system.what), end="")
    print(f"- {file_system.caveat}\n" if file_system.caveat else "")
    print("\n".join(f"    {name}: {value}" for name, value in machine.items()))


def _show(name: str, part: Part) -> None:
    question = PARTS[name].__doc__
    print(f"\n## {name}\n\n{question}\n\n" + "\n\n".join(part.text), flush=True)


def _save(path: Path, facts: dict[str, object], found: dict[str, Part]) -> None:
    claims = [
        {"what": claim.what, "limit": claim.limit, "measured": claim.measured, "holds": claim.holds}
        for part in found.values()
        for claim in part.claims
    ]
    content = {**facts, "claims": claims, "parts": {name: part.data for name, part in found.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nRaw figures: {path}")


if __name__ == "__main__":
    main()
