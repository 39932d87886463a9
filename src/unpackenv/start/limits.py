"""What this process may use: CPUs by affinity and cgroup quota. A container's limits are in its cgroup files."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def worker_count(asked: int, memory: int, memory_each: int) -> int:
    """Return how many workers to start: `asked`, or the least of CPUs, CPU quota and memory budget.

    `memory` is the budget for all workers and `memory_each` what one needs, in bytes.
    """
    if asked:
        return asked
    return max(1, min(len(os.sched_getaffinity(0)), cpu_quota(), memory // max(1, memory_each)))


def cpu_quota(proc: str = "/proc/self") -> int:
    """Return the CPU quota of the own cgroup and those above it, rounded up; a large number without one."""
    quotas = [quota for quota in map(_quota, _cgroup_directories(proc)) if quota > 0]
    return max(1, -int(-min(quotas) // 1)) if quotas else 1 << 16


def _quota(directory: str) -> float:
    """Quota of one cgroup in CPUs, 0 without a limit (cgroup v2: cpu.max; v1: cpu.cfs_quota_us)."""
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


def _cgroup_directories(proc: str) -> Iterator[str]:
    """Yield the directories of the own cgroup that may limit CPUs, from the innermost outwards."""
    mounts = _cgroup_mounts(proc)
    for line in _read(os.path.join(proc, "cgroup")).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            root, mount = mounts.get("" if number == "0" else "cpu", ("", ""))
            if mount:
                # Seen from inside a container the path may be the host's; the mount shows its end.
                inside = path[len(root) :] if root != "/" and path.startswith(root) else path
                yield from _upwards(mount, inside)


def _upwards(mount: str, path: str) -> Iterator[str]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield os.path.join(mount, *parts[:count])


def _cgroup_mounts(proc: str) -> dict[str, tuple[str, str]]:
    """Return root and mount point of the v2 hierarchy ("") and of the v1 one that has "cpu"."""
    mounts = {}
    for line in _read(os.path.join(proc, "mountinfo")).splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        if kind == "cgroup2":
            mounts[""] = (fields[3], fields[4])
        elif kind == "cgroup" and "cpu" in fields[-1].split(","):
            mounts["cpu"] = (fields[3], fields[4])
    return mounts


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""
