"""Containers without an engine, from their parts: namespaces, an own root, mounts, users, cgroups."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from helpers.processes import IS_ROOT, PATHS, run, wait_for
from rig.environment import SOURCE
from unpackenv.start.machine import mounts

_NUMBERS = itertools.count()
SOMEBODY = 12345  # a user without a name
MB = 1 << 20

# Prints a fingerprint of the tree that the application comes from.
FINGERPRINT = (
    f"import sys; sys.path += {PATHS!r}; import app, os; from pathlib import Path\n"
    "from helpers.support import fingerprint; print(fingerprint(Path(os.path.dirname(app.__file__))))"
)


def log_line(stderr: str) -> dict[str, Any]:
    """Return the one JSON line of unpackenv in what a process wrote to stderr."""
    lines = [line for line in stderr.splitlines() if line.startswith('{"unpackenv"')]
    assert len(lines) == 1, stderr
    fields: dict[str, Any] = json.loads(lines[0])
    return fields


class Group:
    """A cgroup with a limit; `join` makes the calling process a member."""

    def __init__(self, controller: str, version_1: dict[str, int], version_2: dict[str, str]) -> None:
        """Make it, with these files written; skips the test where that is not possible."""
        point, settings = _hierarchy(controller, version_1, version_2)
        self._path = Path(point) / f"unpackenv-test-{os.getpid()}-{next(_NUMBERS)}"
        try:
            self._path.mkdir()
            for name, value in settings.items():
                (self._path / name).write_text(str(value))
        except OSError as error:
            self.remove()
            pytest.skip(f"no limit on {controller} can be set here: {error}")

    def join(self) -> None:
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def add(self, pids: Iterable[int]) -> None:
        """Make processes members; some of them may have ended."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self._path / "cgroup.procs").write_text(str(pid))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze its processes, as `docker pause` does."""
        state, (freeze, thaw) = self._path / "freezer.state", ("FROZEN", "THAWED")
        if not state.exists():
            state, (freeze, thaw) = self._path / "cgroup.freeze", ("1", "0")
        state.write_text(freeze)
        try:
            yield
        finally:
            state.write_text(thaw)

    def killed(self) -> int:
        """Return how many processes the kernel has killed because of the memory limit."""
        events = [self._path / name for name in ("memory.oom_control", "memory.events")]
        lines = next(path for path in events if path.exists()).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def remove(self) -> None:
        if self._path.exists():
            wait_for(lambda: not (self._path / "cgroup.procs").read_text(), "the processes of the group to end")
            self._path.rmdir()


def memory_group(limit: int) -> Group:
    """Return a cgroup whose processes may have `limit` bytes of memory, and no swap."""
    return Group("memory", {"memory.limit_in_bytes": limit}, {"memory.max": str(limit), "memory.swap.max": "0"})


def cpu_group(share: float) -> Group:
    """Return a cgroup whose processes may have so many CPUs."""
    quota = int(share * 100_000)
    return Group("cpu", {"cpu.cfs_period_us": 100_000, "cpu.cfs_quota_us": quota}, {"cpu.max": f"{quota} 100000"})


def freezer_group() -> Group:
    """Return a cgroup whose processes can be frozen."""
    return Group("freezer", {}, {})


def _hierarchy(controller: str, version_1: dict[str, int], version_2: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return where cgroups with that controller can be made, and what is to be written there."""
    if not IS_ROOT:
        pytest.skip("only root can make cgroups")
    seen = mounts.read()
    for mount in seen:
        if mount.kind == "cgroup" and controller in mount.options:
            return mount.point, version_1
    for mount in seen:
        if mount.kind == "cgroup2" and controller == "freezer":  # every group has it
            return mount.point, version_2
        if mount.kind == "cgroup2" and controller in (Path(mount.point) / "cgroup.controllers").read_text().split():
            try:
                (Path(mount.point) / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as error:
                pytest.skip(f"the controller {controller} cannot be handed down here: {error}")
            return mount.point, version_2
    pytest.skip(f"no cgroup hierarchy with the controller {controller} here")


class Container:
    """A process namespace and a read-only root with an interpreter and unpackenv, made anew for every run.

    What else is in it, `tmpfs`, `bind` and `shell` say, in their order.
    """

    def __init__(self, root: Path, *, proc: bool = True) -> None:
        """`root` is an empty directory. Without `proc`, /proc is there and empty."""
        if not IS_ROOT or not shutil.which("unshare"):
            pytest.skip("only root can make namespaces, with unshare")
        if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
            pytest.skip("namespaces cannot be made here")
        self._root = root
        self._steps: list[str] = []
        self.shell("mount -t tmpfs -o mode=755 none {}", "/")
        self.shell("mkdir {}", "/proc")
        if proc:
            self.shell("mount -t proc proc {}", "/proc")
        shown: list[str] = []
        for path in self._system():
            if os.path.islink(path):
                self.shell(f"ln -s {shlex.quote(os.readlink(path))} {{}}", path)
            elif not any((path + "/").startswith(above + "/") for above in shown):
                self.bind(path, path, read_only=True)
                shown.append(path)

    def _system(self) -> list[str]:
        top = [f"/{name}" for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")]
        libraries = [str(Path(zstandard.__file__).parents[1]), SOURCE, *PATHS]
        return [path for path in [*top, sys.base_prefix, sys.prefix, *libraries] if os.path.lexists(path)]

    def shell(self, command: str, path: str) -> None:
        """Run a command of the shell when the container is made; `{}` stands for `path`, as it is seen from outside."""
        self._steps.append(command.format(shlex.quote(f"{self._root}{path}")))

    def tmpfs(self, path: str, options: str = "mode=1777") -> None:
        """Mount a tmpfs."""
        self.shell("mkdir -p {}", path)
        self.shell(f"mount -t tmpfs -o {options} none {{}}", path)

    def bind(self, source: Path | str, path: str, *, read_only: bool = False) -> None:
        """Show a file or directory of this machine."""
        make = "mkdir -p {}" if os.path.isdir(source) else 'mkdir -p "$(dirname {0})"; touch {0}'
        self.shell(make, path)
        self.shell(f"mount --bind {shlex.quote(str(source))} {{}}", path)
        if read_only:
            self.shell("mount -o remount,ro,bind {}", path)

    def run(
        self,
        command: Sequence[object],
        env: dict[str, str],
        *,
        user: int = 0,
        setup: str = ":",
        group: Group | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as `user`, after `setup`, a line of shell such as `umask 077`."""
        root = shlex.quote(str(self._root))
        enter = f"{setup}; exec chroot --userspec={user}:{user} --groups= {root} env PATH=/usr/bin:/bin"
        script = "\n".join(["set -e", *self._steps, f"mount -o remount,ro {root}", f'{enter} "$@"'])
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        # The temporary directory of this run is not in there.
        inside = {name: value for name, value in env.items() if (name, value) != ("TMPDIR", tempfile.gettempdir())}
        outer = {**inside, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return run([*unshare, "sh", "-c", script, "sh", *command], outer, before=group.join if group else None)
