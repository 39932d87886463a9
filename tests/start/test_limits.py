"""The number of workers: by CPU affinity, the quotas of the own cgroup and those above it, and the memory budget."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rig.sites import write_tree
from unpackenv.start.machine import limits

UNLIMITED = 1 << 16


def system(root: Path, cgroup: str, mounts: dict[str, str], files: dict[str, str]) -> str:
    """Make what /proc/self and /sys/fs/cgroup would show; `{}` in a mount stands for a directory here."""
    write_tree(root / "sys", files)
    lines = ["22 28 0:20 / /proc rw,nosuid - proc proc rw"]
    for number, (mount, kind) in enumerate(mounts.items()):
        at, _, below = mount.partition(" ")
        lines.append(f"{30 + number} 25 0:{number} {below or '/'} {root}/sys{at} rw,nosuid shared:4 - {kind}")
    write_tree(root / "proc", {"cgroup": cgroup, "mountinfo": "\n".join(lines) + "\n"})
    return str(root / "proc")


V2 = {"/": "cgroup2 cgroup rw,nsdelegate"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("200000 100000", 2), ("150000 100000", 2), ("100000 100000", 1), ("25000 100000", 1), ("1000 100000", 1),
        ("100001 100000", 2), ("max 100000", UNLIMITED), ("", UNLIMITED), ("nonsense", UNLIMITED), ("5 0", UNLIMITED),
    ],
)  # fmt: skip
def test_the_quota_of_cgroups_version_2_counts(tmp_path: Path, limit: str, expected: int) -> None:
    proc = system(tmp_path, "0::/\n", V2, {"cpu.max": limit + "\n"})
    assert limits.cpu_quota(proc) == expected


@pytest.mark.parametrize(
    ("outer", "middle", "inner", "expected"),
    [("max", "300000", "800000", 3), ("400000", "max", "max", 4), ("900000", "800000", "150000", 2)],
)
def test_the_tightest_of_nested_groups(tmp_path: Path, outer: str, middle: str, inner: str, expected: int) -> None:
    files = {
        f"{path}cpu.max": f"{quota} 100000" for path, quota in {"a/": outer, "a/b/": middle, "a/b/c/": inner}.items()
    }
    assert limits.cpu_quota(system(tmp_path, "0::/a/b/c\n", V2, files)) == expected


def test_groups_of_others_do_not_count(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/other/cpu.max": "100000 100000", "cpu.max": "max 100000"}
    assert limits.cpu_quota(system(tmp_path, "0::/a\n", V2, files)) == 3


V1 = "12:memory:/x\n4:cpu,cpuacct:{}\n1:name=systemd:/x\n0::/x\n"


@pytest.mark.parametrize(("quota", "expected"), [("250000", 3), ("-1", UNLIMITED), ("50000", 1)])
def test_the_quota_of_cgroups_version_1_counts(tmp_path: Path, quota: str, expected: int) -> None:
    mounts = {"/cpu,cpuacct": "cgroup cgroup rw,cpu,cpuacct", "/memory": "cgroup cgroup rw,memory"}
    files = {
        "cpu,cpuacct/docker/1/cpu.cfs_quota_us": quota,
        "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
        "memory/x/cpu.cfs_quota_us": "100000",
        "memory/x/cpu.cfs_period_us": "100000",
    }
    assert limits.cpu_quota(system(tmp_path, V1.format("/docker/1"), mounts, files)) == expected


def test_version_1_as_a_container_sees_it(tmp_path: Path) -> None:
    """Without a namespace of its own, the path is the host's, and the mount begins below it."""
    mounts = {"/cpu /docker/1": "cgroup cgroup rw,cpuacct,cpu"}
    files = {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}
    assert limits.cpu_quota(system(tmp_path, V1.format("/docker/1"), mounts, files)) == 3
    files = {"cpu/inner/cpu.cfs_quota_us": "200000", "cpu/inner/cpu.cfs_period_us": "100000"}
    assert limits.cpu_quota(system(tmp_path, V1.format("/docker/1/inner"), mounts, files)) == 2


def test_a_path_outside_of_the_namespace(tmp_path: Path) -> None:
    files = {"cpu.max": "200000 100000"}
    assert limits.cpu_quota(system(tmp_path, "0::/../../elsewhere\n", V2, files)) == 2


def test_in_a_hybrid_hierarchy_the_smaller_quota_counts(tmp_path: Path) -> None:
    mounts = {"/unified": "cgroup2 cgroup2 rw", "/cpu": "cgroup cgroup rw,cpu"}
    files = {
        "unified/x/cpu.max": "max 100000",
        "cpu/y/cpu.cfs_quota_us": "400000",
        "cpu/y/cpu.cfs_period_us": "100000",
    }
    assert limits.cpu_quota(system(tmp_path, V1.format("/y"), mounts, files)) == 4


@pytest.mark.parametrize(
    ("limit", "usage", "expected"),
    [
        ("100000000", "30000000", 70_000_000 + 5_000),
        ("100000000", "100000000", 5_000),
        ("1000", "9000", 0),
        ("max", "30000000", limits.UNLIMITED),
        ("", "", limits.UNLIMITED),
    ],
)
def test_memory_of_version_2(tmp_path: Path, limit: str, usage: str, expected: int) -> None:
    files = {
        "a/memory.max": limit,
        "a/memory.current": usage,
        "a/memory.stat": "anon 7\nfile 9999\nactive_file 2000\ninactive_file 3000\nshmem 4000\n",
        "memory.max": "max",
    }
    assert limits.memory_left(system(tmp_path, "0::/a\n", V2, files)) == expected


def test_memory_of_the_tightest_group(tmp_path: Path) -> None:
    files = {"memory.max": "5000", "memory.current": "1000", "a/memory.max": "9000", "a/memory.current": "1000"}
    assert limits.memory_left(system(tmp_path, "0::/a\n", V2, files)) == 4000


@pytest.mark.parametrize(("limit", "expected"), [("64000000", 60_000_000 + 500), ("9223372036854771712", None)])
def test_memory_of_version_1(tmp_path: Path, limit: str, expected: int | None) -> None:
    mounts = {"/memory": "cgroup cgroup rw,memory", "/cpu": "cgroup cgroup rw,cpu"}
    files = {
        "memory/x/memory.limit_in_bytes": limit,
        "memory/x/memory.usage_in_bytes": "4000000",
        "memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200\n",
    }
    found = limits.memory_left(system(tmp_path, V1.format("/"), mounts, files))
    assert found == (limits.UNLIMITED if expected is None else expected)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert limits.cpu_quota(str(tmp_path / "nowhere")) == UNLIMITED
    assert limits.memory_left(str(tmp_path / "nowhere")) == limits.UNLIMITED


def test_a_quota_is_found_on_this_machine() -> None:
    assert 1 <= limits.cpu_quota() <= UNLIMITED


@pytest.mark.parametrize(
    ("cpus", "quota", "budget", "left", "each", "jobs", "expected", "why"),
    [
        (8, 99, 1 << 30, limits.UNLIMITED, 1 << 20, 40, 8, "cpus"),
        (8, 8, 1 << 30, limits.UNLIMITED, 1 << 20, 8, 8, "cpus"),
        (8, 3, 1 << 30, limits.UNLIMITED, 1 << 20, 40, 3, "quota"),
        (8, 99, 50, limits.UNLIMITED, 20, 40, 2, "memory"),
        (8, 99, 10, limits.UNLIMITED, 20, 40, 1, "memory"),
        (8, 99, 10, limits.UNLIMITED, 0, 40, 8, "cpus"),
        (8, 99, 1 << 30, 60 << 20, 16 << 20, 40, 2, "memory"),
        (8, 99, 1 << 30, 1 << 20, 16 << 20, 40, 1, "memory"),
        (8, 99, 1 << 30, limits.UNLIMITED, 1 << 20, 5, 5, "frames"),
    ],
)
def test_the_least_counts(
    monkeypatch: pytest.MonkeyPatch,
    cpus: int,
    quota: int,
    budget: int,
    left: int,
    each: int,
    jobs: int,
    expected: int,
    why: str,
) -> None:
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda pid: set(range(cpus)))
    monkeypatch.setattr(limits, "cpu_quota", lambda: quota)
    assert limits.worker_count(0, budget, left, each, jobs) == (expected, why)
    assert limits.worker_count(5, budget, left, each, 40) == (5, "setting")
    assert limits.worker_count(5, budget, left, each, 4) == (4, "frames")


def test_affinity_of_a_real_process() -> None:
    cpus = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cpus)})
        assert limits.worker_count(0, 1 << 30, limits.UNLIMITED, 1, 9) == (1, "cpus")
    finally:
        os.sched_setaffinity(0, cpus)
