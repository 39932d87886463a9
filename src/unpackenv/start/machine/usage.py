"""What a start used of the machine: CPU time, throttled time, memory; and the age of this process."""

from __future__ import annotations

from unpackenv.unpatched import os, time

# Windows has none, and an application's `mark()` must not fail there.
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class Usage:
    """CPU time, throttled time and peak memory, measured from its creation on."""

    __slots__ = ("_child_cpu_ms", "_child_rss", "_children", "_cpu", "_stat", "_throttled")

    def __init__(self) -> None:
        self._stat, self._throttled = find_throttled()
        self._cpu = time.process_time()
        self._children = _children_ms()
        self._child_cpu_ms = 0.0
        self._child_rss = 0

    def add_child(self, cpu_ms: float, peak_rss: int) -> None:
        """Add what a child measured with `usage_with_children`."""
        self._child_cpu_ms += cpu_ms
        self._child_rss = max(self._child_rss, peak_rss)

    def add_lost_child(self) -> None:
        """Add a child that ended without a result: its peak is taken to be that of the largest child so far."""
        self.add_child(0.0, _used_by_children()[1])

    def so_far(self) -> tuple[float, float | None, int | None]:
        """Return the CPU time, the throttled time (both in milliseconds) and the peak of memory (bytes).

        The CPU time is that of this process and its children, the throttled one None where the kernel
        counts none; the memory is that of the largest process, None where /proc is missing.
        """
        cpu_ms = (time.process_time() - self._cpu) * 1e3
        # The kernel counts all children, but in steps of 10 ms, and not at all if the program ignores SIGCHLD.
        cpu_ms += max(self._child_cpu_ms, _children_ms() - self._children)
        throttled = _throttled_ms(self._stat) if self._throttled is not None else None
        if throttled is not None and self._throttled is not None:
            throttled -= self._throttled
        return cpu_ms, throttled, max(_peak_rss(), self._child_rss) or None


def usage_with_children() -> tuple[float, int]:
    """Return the CPU time in milliseconds of this process and its children, and the peak of the largest in bytes."""
    cpu_ms, peak_rss = _used_by_children()
    return time.process_time() * 1e3 + cpu_ms, max(_peak_rss(), peak_rss)


def age_of_process(pid: int = 0) -> float | None:
    """Return the milliseconds since a process started, this one by default; None if unknown.

    The kernel counts them in steps of 10.
    """
    fields = _read(f"/proc/{pid or 'self'}/stat").rpartition(b")")[2].split()
    if not fields:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round(max(0.0, age) * 1e3, 1)


def _children_ms() -> float:
    times = os.times()
    return (times.children_user + times.children_system) * 1e3


def _peak_rss() -> int:
    """Return the peak of this process; `getrusage` would count the program that it was before an exec, too."""
    kilobytes = _read("/proc/self/status").partition(b"\nVmHWM:")[2].split(None, 1)
    return int(kilobytes[0]) << 10 if kilobytes else 0


def _used_by_children() -> tuple[float, int]:
    """Return CPU time in milliseconds and the largest peak in bytes, of all children that ended, and of theirs."""
    try:
        import resource
    except ImportError:  # some interpreters lack it
        return _children_ms(), 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e3, used.ru_maxrss << 10


# --- throttling ----------------------------------------------------------------------------------


def find_throttled(root: str = "/") -> tuple[str, float | None]:
    """Return the cpu.stat of the own cgroup, and the milliseconds in it so far; "" and None if there is none.

    Cgroups are looked for at their usual mount points: reading the list of mounts, as `limits` does, would take longer
    than all else here. Inside a container the path may be the host's; then the own cgroup is the root.
    """
    for line in _read(f"{root}proc/self/cgroup").splitlines():
        number, controllers, path = os.fsdecode(line).split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            mount = f"{root}sys/fs/cgroup" + ("" if number == "0" else "/cpu")
            for directory in (mount + path, mount):
                stat = os.path.join(directory, "cpu.stat")
                count = _throttled_ms(stat)
                if count is not None:
                    return stat, count
    return "", None


def _throttled_ms(stat: str) -> float | None:
    """Return the milliseconds, over all CPUs, for which the cgroup of a cpu.stat was throttled; None if unknown."""
    for line in _read(stat).splitlines():
        name, _, count = line.partition(b" ")
        if name == b"throttled_usec":  # cgroups v2
            return int(count) / 1e3
        if name == b"throttled_time":  # v1: nanoseconds
            return int(count) / 1e6
    return None


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | _CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 1 << 14)
    except OSError:
        return b""
    finally:
        os.close(fd)
