"""What a start waited for, in a few words.

The rules, in their order; "the whole" is `milliseconds`:

1. Half of the whole or more went into waiting for the lock: another start was unpacking the same target.
2. A quarter of the whole or more the CPU quota held it back. Throttling is counted by the kernel for each
   CPU, so two workers may add up to more than the whole.
3. Else the largest phase. If that is the unpack, and the CPUs that its workers had were used for less than
   half of it, then the disk or other processes on these CPUs were what it waited for.
"""

from __future__ import annotations

from unpackenv.report.timings.log import Start
from unpackenv.report.timings.words import ANOTHER_START, CPU_QUOTA, IDLE_CPUS, LOCK, UNPACK

_OF_LOCK, _OF_QUOTA, _OF_CPUS = 0.5, 0.25, 0.5


def waited_for(start: Start) -> str:
    """Return what a start waited for, with its figures."""
    whole, steps = start.milliseconds, start.steps
    throttled = start.throttled_ms or 0.0
    if not whole or not steps:
        return ""
    if start.lock_wait_ms >= _OF_LOCK * whole:
        return f"{ANOTHER_START.name}: {_part(start.lock_wait_ms, whole)}"
    if throttled >= _OF_QUOTA * whole:
        return f"{CPU_QUOTA.name} for {throttled:,.0f} ms, summed over CPUs"
    name = max(steps, key=lambda phase: steps[phase])
    text = f"{name}: {_part(steps[name], whole)}"
    if name == LOCK.name and start.lock_wait_ms:
        text += f", {start.lock_wait_ms:,.0f} ms of it for another start"
    had = steps[name] * start.workers
    if name == UNPACK.name and start.cpu_ms is not None and had:
        used = start.cpu_ms / had
        if used < _OF_CPUS:
            text += f", {IDLE_CPUS.name.replace('…', f'{used:.0%}')}"
    return text


def _part(milliseconds: float, whole: float) -> str:
    return f"{milliseconds:,.0f} ms ({min(1.0, milliseconds / whole):.0%})"
