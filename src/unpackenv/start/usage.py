"""What a start uses beside time: CPU, CPU that its cgroup was denied, and memory."""

from __future__ import annotations

import os
import time

from unpackenv.start import limits


class Usage:
    """CPU time, throttling and peak memory, from when this is made."""

    __slots__ = ("_child_cpu_ms", "_child_rss", "_children", "_cpu", "_directories", "_throttled")

    def __init__(self) -> None:
        self._directories = list(limits.cgroup_directories("/proc/self", "cpu"))
        self._throttled = limits.throttled_ms(self._directories)
        self._cpu = time.process_time()
        self._children = _children_ms()
        self._child_cpu_ms = 0.0
        self._child_rss = 0

    def add_child(self, cpu_ms: float, peak_rss: int) -> None:
        """Add what a child said of itself with `of_tree`."""
        self._child_cpu_ms += cpu_ms
        self._child_rss = max(self._child_rss, peak_rss)

    def add_lost_child(self) -> None:
        """Add what is known of a child that ended without a word: the largest that this process ever had."""
        import resource

        self.add_child(0.0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)

    def so_far(self) -> tuple[float, float | None, int | None]:
        """Return the CPU time, the throttled time (both in milliseconds) and the peak of memory (bytes).

        The CPU time is that of this process and its children, the throttled one None where the kernel
        counts none; the memory is that of the largest process, None where /proc is missing.
        """
        cpu_ms = (time.process_time() - self._cpu) * 1e3
        # Of all children the kernel's count has steps of 10 ms, and none where the program ignores SIGCHLD.
        cpu_ms += max(self._child_cpu_ms, _children_ms() - self._children)
        throttled = limits.throttled_ms(self._directories) if self._throttled is not None else None
        if throttled is not None and self._throttled is not None:
            throttled -= self._throttled
        return cpu_ms, throttled, max(_peak_rss(), self._child_rss) or None


def of_tree() -> tuple[float, int]:
    """Return the CPU time in milliseconds of this process and its children, and the peak of the largest in bytes."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used) * 1e3, max(each.ru_maxrss for each in used) << 10


def _children_ms() -> float:
    times = os.times()
    return (times.children_user + times.children_system) * 1e3


def _peak_rss() -> int:
    """Return the peak of this process; `getrusage` would count the program that it was before an exec, too."""
    try:
        with open("/proc/self/status", "rb") as file:
            _, _, rest = file.read().partition(b"\nVmHWM:")
        return int(rest.split(None, 1)[0]) << 10
    except (OSError, ValueError, IndexError):
        return 0
