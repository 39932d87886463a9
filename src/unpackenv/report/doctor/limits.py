"""What a start may use: CPUs and memory, and whether it gets them. With psutil, the machine's own figures, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from unpackenv.report.doctor.findings import NOTE, OK, WARNING, Finding
from unpackenv.start.machine import limits

_BUSY = 10.0  # percent of the last ten seconds in which a process had to wait
_BUSIEST = 3


def examine() -> Iterator[Finding]:
    """Yield the limits of this container, and what its processes wait for."""
    yield from _cpus()
    yield _memory()
    yield from _pressure()
    yield _machine()


def _cpus() -> Iterator[Finding]:
    groups = list(limits.cgroup_directories("/proc/self", "cpu"))
    quota = min((quota for quota in map(limits.quota_of, groups) if quota > 0), default=0.0)
    usable, there = len(os.sched_getaffinity(0)), os.cpu_count() or 0
    facts: dict[str, Any] = {"usable": usable, "machine": there, "quota": quota or None, "cgroups": _version(groups)}
    text = f"{usable} of {there} CPUs, " + (f"a quota of {quota:g}" if quota else "no quota")
    if 0 < quota < 1:
        hint = f"Unpacking takes about {1 / quota:.1f} times as long as with one; raise the limit (--cpus, limits.cpu)"
        yield Finding("CPU", WARNING, f"{text}: less than one", hint, facts=facts)
    else:
        yield Finding("CPU", OK, text, facts=facts)
    counts = _counts(groups)
    throttled = counts.get("nr_throttled", 0)
    if throttled:
        seconds = (
            counts["throttled_usec"] / 1e6 if "throttled_usec" in counts else counts.get("throttled_time", 0) / 1e9
        )
        text = f"throttled in {throttled} of {counts.get('nr_periods', 0)} periods, {seconds:.1f} s in all"
        yield Finding("CPU", NOTE, text, facts={"throttled": throttled, "seconds": seconds})


def _counts(groups: list[str]) -> dict[str, int]:
    """Return the counts of the innermost cgroup that has been throttled."""
    for group in groups:
        lines = (line.split() for line in _read(os.path.join(group, "cpu.stat")).splitlines())
        counts = {line[0]: int(line[1]) for line in lines if len(line) == 2}
        if counts.get("nr_throttled"):
            return counts
    return {}


def _version(groups: list[str]) -> str:
    """Return the version of cgroups that sets limits, "" for none."""
    if not groups:
        return ""
    return "v2" if os.path.exists(os.path.join(groups[-1], "cgroup.controllers")) else "v1"


def _memory() -> Finding:
    left = limits.memory_left()
    groups = list(limits.cgroup_directories("/proc/self", "memory"))
    facts = {"left": None if left == limits.UNLIMITED else left, "cgroups": _version(groups)}
    text = "no limit" if left == limits.UNLIMITED else f"the limit leaves {left / 1e6:,.0f} MB"
    return Finding("memory", OK, text, facts=facts)


def _pressure() -> Iterator[Finding]:
    """Yield what processes here wait for (PSI), if the kernel says so."""
    for what in ("cpu", "memory", "io"):
        line = next((line for line in _read(f"/proc/pressure/{what}").splitlines() if line.startswith("some")), "")
        values = dict(word.partition("=")[::2] for word in line.split()[1:])
        if values and float(values["avg10"]) > _BUSY:
            text = f"something waited for {what} in {float(values['avg10']):.0f} % of the last ten seconds"
            yield Finding("pressure", WARNING, text, "Other processes use it, too: the machine is busy", facts=values)


def _machine() -> Finding:
    try:
        import psutil
    except ImportError:
        return Finding("machine", NOTE, "psutil is not installed here: there are no figures of the machine as a whole")
    try:
        memory = psutil.virtual_memory()
        load = psutil.getloadavg()[0]
        busiest = sorted(_processes(psutil), key=lambda process: -process["seconds"])[:_BUSIEST]
    except (OSError, RuntimeError, LookupError, ValueError, psutil.Error) as error:
        # A sandbox may leave out any file of /proc, or leave it empty.
        text = f"psutil cannot read the machine's figures here ({type(error).__name__}: {error})"
        return Finding("machine", NOTE, text)
    facts = {"load": load, "memory": memory.total, "available": memory.available, "busiest": busiest}
    text = f"load {load:.1f}, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory available"
    shown = ", ".join(f"{each['name']} (pid {each['pid']}, {each['seconds']:.1f} s)" for each in busiest)
    return Finding("machine", OK, f"{text}; most CPU time here: {shown}", facts=facts)


def _processes(psutil: Any) -> Iterator[dict[str, Any]]:
    for process in psutil.process_iter(["pid", "name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times:  # else the process has just ended, or belongs to another user
            yield {"pid": process.info["pid"], "name": process.info["name"], "seconds": times.user + times.system}


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
