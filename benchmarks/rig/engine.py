"""A separate Docker engine for tests and benchmarks: it leaves nothing, and touches no other engine.

    with engine.fresh() as docker:
        docker.run("build", "--tag", "app", ".")

Containers have no network here: `--network=none` for each of them, at build time too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig import freshfs
from rig.environment import PATIENCE
from rig.kept import NotMade

_SECONDS_TO_STOP = 30  # then it is killed
# What containerd makes, wherever else its files are.
_PLUGINS = ("/opt/containerd/bin", "/opt/containerd/lib", "/opt/containerd")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class Unavailable(Exception):
    """There is no engine here; the message says why."""


@dataclass(frozen=True)
class Engine:
    """An engine that runs: where it listens, and where its images and containers are."""

    host: str
    data: Path
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """What a client needs. The classic builder is the one that every version has."""
        return {"PATH": _PATH, "HOME": str(self.data), "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0"}

    def run(
        self, *arguments: object, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS…` to its end; if it fails, what it said is in the error."""
        command = ["docker", *map(str, arguments)]
        done = subprocess.run(command, check=False, env=self.env, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            text = f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            raise RuntimeError(text)
        return done

    def out(self, *arguments: object) -> str:
        """Return what `docker ARGUMENTS…` prints."""
        return self.run(*arguments).stdout.strip()


@contextlib.contextmanager
def fresh() -> Iterator[Engine]:
    """Run an engine on a new ext4 file system, which is gone afterwards. Raises `Unavailable`, `NotMade`."""
    _look()
    kind = next(kind for kind in freshfs.KINDS if kind.name == "ext4")
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(kind.fresh())
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"no file system can be made for a Docker engine: {error}") from error
        yield stack.enter_context(running(directory))


@contextlib.contextmanager
def running(data: Path) -> Iterator[Engine]:
    """Run an engine with its images and containers in `data`, which is not to be on an overlayfs.

    Raises `Unavailable`, or `NotMade` if it does not answer.

    What is in `data` may be of an earlier run. Afterwards every container is gone, and every mount.
    """
    _look()
    data = data.resolve()  # dockerd never ends on a relative path
    # Paths of sockets are short by law of the kernel, those of tests are not.
    with tempfile.TemporaryDirectory(prefix="dockerd-") as name:
        state = Path(name)
        new = [path for path in _PLUGINS if not os.path.exists(path)]
        process = _start(data, state)
        try:
            found = Engine(f"unix://{state}/socket", data, process.pid)
            _wait(found, process, state / "log")
            yield found
        finally:
            _stop(process, state)
            _unmount(data, state)
            for path in new:
                with contextlib.suppress(OSError):
                    os.rmdir(path)


def _look() -> None:
    if os.geteuid() != 0:
        raise Unavailable("only root can run a Docker engine")
    missing = [tool for tool in ("dockerd", "docker", "containerd", "runc") if not shutil.which(tool, path=_PATH)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")


def _start(data: Path, state: Path) -> subprocess.Popen[bytes]:
    options = [
        *("--data-root", data, "--exec-root", state / "exec", "--pidfile", state / "pid"),
        *("--host", f"unix://{state}/socket", "--config-file", _file(state / "config.json", "{}")),
        *("--storage-driver", "overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false"),
    ]
    # It ends with the process that started it, whatever ends that.
    command = ["setpriv", "--pdeathsig", "TERM", "dockerd", *map(str, options)]
    with open(state / "log", "wb") as log:
        return subprocess.Popen(
            command,
            env={**os.environ, "PATH": _PATH},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _wait(found: Engine, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        if found.run("version", check=False).returncode == 0:
            return
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        if process.poll() is not None:
            raise Unavailable(f"the Docker engine ended with {process.poll()}:\n{tail}")
        if time.monotonic() > deadline:
            raise NotMade(f"the Docker engine does not answer after {PATIENCE:.0f} s:\n{tail}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], state: Path) -> None:
    """End the containers, then the engine and the containerd that it has started."""
    client = Engine(f"unix://{state}/socket", state, process.pid)
    if process.poll() is None:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            containers = client.run("ps", "--all", "--quiet", timeout=_SECONDS_TO_STOP).stdout.split()
            if containers:
                client.run("rm", "--force", *containers, timeout=_SECONDS_TO_STOP)
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        containerd = (state / "exec" / "containerd" / "containerd.pid").read_text()
        process.kill()
        process.wait()
        os.kill(int(containerd), signal.SIGKILL)


def _unmount(*roots: Path) -> None:
    """Take off what lies below `roots`, the last one mounted first."""
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4] for line in file]
    for point in reversed(points):
        if any(point.startswith(f"{root}/") for root in roots):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
