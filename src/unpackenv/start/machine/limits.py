"""What this process may use: CPUs and memory. A container's limits are in its cgroup files (cgroups(7)).

Both versions of cgroups are read; a limit may be set on the own cgroup or on any above it.
"""

from __future__ import annotations

from unpackenv.start.machine import mounts
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UNLIMITED = 1 << 62
PROCESSES = "processes"
"""The reason for the number of workers if the system refused to start more of them."""
# What a start takes besides the buffers of its workers and what it already has (interpreter, codec,
# table of contents): memory for the paths of 30,000 files, and for each worker the pages that it
# changes after the fork. Measured as the lowest limit under which a start succeeds.
_OVERHEAD = 8 << 20
_WORKER_OVERHEAD = 4 << 20


def worker_count(requested: int, budget: int, left: int, memory_each: int, jobs: int) -> tuple[int, str]:
    """Return how many workers to start, and which bound decided.

    That is the number `requested` ("setting"), or if it is 0, what the CPUs ("cpus"), the CPU quota ("quota")
    and the memory ("memory") allow; never more than there are jobs ("frames"). `budget` is for the
    buffers of all workers, `left` is what the memory limit leaves, and `memory_each` what the buffers of
    one worker need, in bytes.
    """
    bounds = {"setting": requested} if requested else worker_bounds(budget, left, memory_each)
    bounds["frames"] = jobs
    decided = min(bounds, key=bounds.__getitem__)  # the first of those that are equal
    return bounds[decided], decided


def worker_bounds(budget: int, left: int, memory_each: int) -> dict[str, int]:
    """Return how many workers CPUs, CPU quota and memory allow, each at least one; see `worker_count`."""
    by_budget = budget // max(1, memory_each)
    by_limit = (left - _OVERHEAD) // (memory_each + _WORKER_OVERHEAD)
    cpus = len(os.sched_getaffinity(0))
    return {"cpus": cpus, "quota": cpu_quota(), "memory": max(1, min(by_budget, by_limit))}


def memory_needed(workers: int, memory_each: int) -> int:
    """Return the bytes that a start with so many workers is estimated to take from now on."""
    return _OVERHEAD + workers * (memory_each + _WORKER_OVERHEAD)


def cpu_quota(proc: str = "/proc/self") -> int:
    """Return the CPU quota of the own cgroup and those above it, rounded up; a large number without one."""
    quotas = [quota for quota in map(quota_of, cgroup_directories(proc, "cpu")) if quota > 0]
    return max(1, -int(-min(quotas) // 1)) if quotas else 1 << 16


def memory_left(proc: str = "/proc/self") -> int:
    """Return the bytes that the own cgroup and those above it may still take; `UNLIMITED` without a limit.

    The page cache counts as free: the kernel drops it before it runs out.
    """
    return min(map(_memory_left, cgroup_directories(proc, "memory")), default=UNLIMITED)


def quota_of(directory: str) -> float:
    """Return the quota of one cgroup in CPUs, 0 without a limit (v2: cpu.max; v1: cpu.cfs_quota_us)."""
    limit = _read(os.path.join(directory, "cpu.max"))
    if limit:
        quota, _, period = limit.partition(" ")
    else:
        quota = _read(os.path.join(directory, "cpu.cfs_quota_us"))
        period = _read(os.path.join(directory, "cpu.cfs_period_us"))
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return 0.0


def _memory_left(directory: str) -> int:
    """Bytes that one cgroup may still take (v2: memory.max; v1: memory.limit_in_bytes)."""
    limit = _read(os.path.join(directory, "memory.max")) or _read(os.path.join(directory, "memory.limit_in_bytes"))
    if not limit.isdigit() or int(limit) >= UNLIMITED:
        return UNLIMITED
    usage = _read(os.path.join(directory, "memory.current")) or _read(os.path.join(directory, "memory.usage_in_bytes"))
    lines = (line.partition(" ") for line in _read(os.path.join(directory, "memory.stat")).splitlines())
    counts = {name: int(count) for name, _, count in lines if count.isdigit()}
    # v1 has sums over the cgroups below as total_…, v2 has nothing else.
    cache = sum(counts.get(f"total_{name}", counts.get(name, 0)) for name in ("active_file", "inactive_file"))
    return max(0, int(limit) - int(usage or 0) + cache)


def cgroup_directories(proc: str, controller: str) -> Iterator[str]:
    """Yield the directories of the own cgroup that may limit by `controller`, from the innermost outwards."""
    points = _cgroup_mounts(proc, controller)
    for line in _read(os.path.join(proc, "cgroup")).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controller in controllers.split(","):
            root, mount = points.get("" if number == "0" else controller, ("", ""))
            if mount:
                # Seen from inside a container the path may be the host's; the mount shows its end.
                inside = path[len(root) :] if root != "/" and path.startswith(root) else path
                yield from _upwards(mount, inside)


def _upwards(mount: str, path: str) -> Iterator[str]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield os.path.join(mount, *parts[:count])


def _cgroup_mounts(proc: str, controller: str) -> dict[str, tuple[str, str]]:
    """Return root and mount point of the v2 hierarchy ("") and of the v1 one that has `controller`."""
    points = {}
    for mount in mounts.read(os.path.join(proc, "mountinfo")):
        if mount.kind == "cgroup2":
            points[""] = (mount.root, mount.point)
        elif mount.kind == "cgroup" and controller in mount.options:
            points[controller] = (mount.root, mount.point)
    return points


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""
