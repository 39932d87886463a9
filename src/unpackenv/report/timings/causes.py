"""What a start waited for, in a few words.

The rules, in their order; "the whole" is `milliseconds`:

1. The lock, if it took half of the whole or more: another start was unpacking the same target.
2. The CPU quota, if it held the start back for a quarter of the whole or more. The kernel counts throttling
   for each CPU, so two workers may add up to more than the whole.
3. The network, if it took half of the whole or more. The log has how long the workers waited together. They may have
   waited at the same time, so what counts is the shortest time in which they could have waited for so long.
4. Else the largest phase. If that is the unpack, and its workers used their CPUs for less than half of it,
   the start waited for the disk, or for other processes on these CPUs. What bounded its workers is said, too, if that
   was a setting, the memory or the CPU quota.
"""

from __future__ import annotations

from unpackenv.report import amount, counted
from unpackenv.report.timings.log import Fetched, StartLine
from unpackenv.report.timings.words import ANOTHER_START, CPU_QUOTA, IDLE_CPUS, LOCK, NAMES, NETWORK, UNPACK

# What bounds the workers, and may be changed.
_BOUNDS = {
    "setting": "as UNPACKENV_WORKERS says", "memory": "as memory allows", "quota": "as the CPU quota allows",
}  # fmt: skip
_LOCK_SHARE, _QUOTA_SHARE, _NETWORK_SHARE, _IDLE_SHARE = 0.5, 0.25, 0.5, 0.5


def waited_for(start: StartLine) -> str:
    """Return what a start waited for, with its figures."""
    whole, steps = start.milliseconds, start.steps
    throttled = start.throttled_ms or 0.0
    if not whole or not steps:
        return ""
    if start.lock_wait_ms >= _LOCK_SHARE * whole:
        return f"{ANOTHER_START.name}: {_part(start.lock_wait_ms, whole)}"
    if throttled >= _QUOTA_SHARE * whole:
        return f"{CPU_QUOTA.name} for {throttled:,.0f} ms, summed over CPUs"
    network_ms = _network_ms(start)
    if start.fetched and network_ms >= _NETWORK_SHARE * whole:
        return f"{NETWORK.name}: {_part(network_ms, whole)}, for {fetched_text(start.fetched)}"
    name = max(steps, key=lambda phase: steps[phase])
    text = f"{name}: {_part(steps[name], whole)}"
    if name in (NAMES.name, UNPACK.name) and start.workers_why in _BOUNDS:
        text += f", by {counted(start.workers, 'worker')}, {_BOUNDS[start.workers_why]}"
    if name == LOCK.name and start.lock_wait_ms:
        text += f", {start.lock_wait_ms:,.0f} ms of it for another start"
    available_ms = steps[name] * start.workers
    if name == UNPACK.name and start.cpu_ms is not None and available_ms:
        used = start.cpu_ms / available_ms
        if used < _IDLE_SHARE:
            text += f", {IDLE_CPUS.name.replace('…', f'{used:.0%}')}"
    return text


def _network_ms(start: StartLine) -> float:
    """Return for how many milliseconds a start waited for the network, at least."""
    together = start.fetched.wait_ms if start.fetched else 0.0
    workers = max(1, start.workers)
    while_all_work = sum(start.steps.get(phase.name, 0.0) for phase in (NAMES, UNPACK))
    return max(together / workers, together - (workers - 1) * while_all_work)


def fetched_text(fetched: Fetched) -> str:
    """Return how much was fetched, in a few words."""
    text = f"{amount(fetched.bytes)} in {counted(fetched.requests, 'request')}"
    text += f", {fetched.retries:,} of them tried again" if fetched.retries else ""
    return text + (f", and {amount(fetched.cached)} from the cache" if fetched.cached else "")


def _part(milliseconds: float, whole: float) -> str:
    return f"{milliseconds:,.0f} ms ({min(1.0, milliseconds / whole):.0%})"
