"""The costs of one image: built, pushed, pulled, started and restarted, measured from outside."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.engine import Engine

_DRAWN = re.compile(r"^(\S+) .* bytes, drawn ")
_GET = """
import sys, time, urllib.request
while True:
    try:
        answer = urllib.request.urlopen("http://127.0.0.1:8000/")
    except OSError:
        time.sleep(0.1)
    else:
        sys.exit(not (answer.headers["Content-Type"] == "image/jpeg" and answer.read(3) == b"\\xff\\xd8\\xff"))
"""
_LOOK_EVERY = 0.004


@dataclass(frozen=True)
class Start:
    """A container that drew its picture: the seconds until then, and where it is."""

    container: str
    seconds: float


@dataclass(frozen=True)
class Memory:
    """The most that the cgroup of a container was charged with, in bytes."""

    charged: int
    """All of it, with the page cache for files that the container was the first to read or write."""
    anonymous: int
    """What cannot be dropped: the memory of processes. Looked at every few milliseconds."""


# --- the image -----------------------------------------------------------------------------------


def push(engine: Engine, image: str, address: str) -> float:
    """Push to the registry at `address`, and return the seconds that took."""
    engine.run("tag", image, f"{address}/{image}")
    return _timed(engine, "push", "--quiet", f"{address}/{image}")


def pull(engine: Engine, name: str) -> float:
    """Pull from a registry, and return the seconds that took."""
    return _timed(engine, "pull", "--quiet", name)


def _timed(engine: Engine, *command: str) -> float:
    begin = time.perf_counter()
    engine.run(*command)
    return time.perf_counter() - begin


def image_size(engine: Engine) -> int:
    """Return the bytes on disk of all layers that an engine has."""
    return used(engine.data / "overlay2", engine.data / "image")


def used(*roots: Path) -> int:
    """Return the bytes that files and directories take on disk."""
    done = subprocess.run(["du", "--summarize", "--total", "--block-size=1", "--one-file-system", *roots],
                          check=True, capture_output=True, text=True)  # fmt: skip
    return int(done.stdout.splitlines()[-1].split()[0])


# --- a container ---------------------------------------------------------------------------------


def first_start(engine: Engine, image: str, *options: str) -> Start:
    """Run a new container until its picture is drawn."""
    begin = time.time()
    container = _run(engine, image, options)
    return Start(container, _drawn(engine, container) - begin)


def restart(engine: Engine, container: str) -> Start:
    """Restart it, which draws another picture."""
    begin = time.time()
    engine.run("restart", "--time=0", container)
    return Start(container, _drawn(engine, container) - begin)


def _run(engine: Engine, image: str, options: Sequence[str] = (), command: Sequence[str] = ()) -> str:
    """Start a container, and return its name."""
    return engine.out("run", "--detach", *_with_defaults(options), image, *command)


def _with_defaults(options: Sequence[str]) -> Sequence[str]:
    """Return the options of a container: it has no network, if these do not name one."""
    network = () if any(option.startswith("--network=") for option in options) else ("--network=none",)
    return (*network, "--env=PYTHONUNBUFFERED=1", *options)


def _drawn(engine: Engine, container: str) -> float:
    """Wait for the container's end; return when the engine had its line about the picture, the latest one."""
    code = engine.out("wait", container)
    logs = engine.run("logs", "--timestamps", container)
    lines = [match for match in map(_DRAWN.match, logs.stdout.splitlines()) if match]
    if code != "0" or not lines:
        raise RuntimeError(f"{container} ended with {code}:\n{logs.stdout}{logs.stderr}")
    date, _, fraction = lines[-1].group(1).rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(date + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def check_picture(engine: Engine, container: str) -> None:
    """Fail unless the picture is a JPEG."""
    with tempfile.TemporaryFile() as copied:
        command = ["docker", "cp", f"{container}:/tmp/picture.jpg", "-"]
        subprocess.run(command, check=True, env=engine.env, stdout=copied)
        copied.seek(0)
        with tarfile.open(fileobj=copied) as tar:
            file = tar.extractfile("picture.jpg")
            if not file or file.read(3) != b"\xff\xd8\xff":
                raise RuntimeError(f"{container}: not a JPEG")


def check_route(engine: Engine, image: str, *options: str) -> None:
    """Fail unless the flask application of the image serves the picture."""
    container = _run(engine, image, options, ["python", "/srv/app.py", "--serve"])
    pid = engine.out("inspect", "--format={{.State.Pid}}", container)
    get = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _GET]
    try:
        subprocess.run(get, check=True, timeout=60)
    except subprocess.SubprocessError as error:
        logs = engine.run("logs", container)
        raise RuntimeError(f"{image} does not serve the picture ({error}):\n{logs.stdout}{logs.stderr}") from None
    finally:
        engine.run("rm", "--force", container)


def copy_from(engine: Engine, image: str, path: str, to: Path) -> None:
    """Copy a file of an image."""
    container = engine.out("create", "--network=none", image)
    engine.run("cp", f"{container}:{path}", to)
    engine.run("rm", container)


def writable(engine: Engine, container: str) -> int:
    """Return the bytes on disk of a container's writable layer."""
    return used(Path(engine.out("inspect", "--format={{.GraphDriver.Data.UpperDir}}", container)))


def memory(engine: Engine, image: str, *options: str) -> Memory:
    """Return what a new container needs until it has ended."""
    container = _run(engine, image, options)
    group = _group(engine.out("inspect", "--format={{.State.Pid}}", container))
    charged = anonymous = 0
    with contextlib.suppress(OSError):  # it has ended, and the group is gone
        while True:
            charged = int(_read(group, "memory.max_usage_in_bytes", "memory.peak"))
            facts = dict(line.split() for line in _read(group, "memory.stat").splitlines())
            anonymous = max(anonymous, int(facts["total_rss" if "total_rss" in facts else "anon"]))
            time.sleep(_LOOK_EVERY)
    _drawn(engine, container)
    return Memory(charged, anonymous)


def _group(pid: str) -> Path:
    """Return the directory of the memory cgroup of a process."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path)
    return Path("/sys/fs/cgroup" + next(path for _, controllers, path in lines if not controllers))


def _read(group: Path, *names: str) -> str:
    """Return the content of the one of these files that this version of cgroups has."""
    name = next((name for name in names if (group / name).exists()), names[-1])
    return (group / name).read_text()


# --- replicas ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replicas:
    """Containers of one image on one node: what they take of it together, and when the last one was ready."""

    disk: int
    """Layers, writable layers and volumes."""
    cache_first: int
    """Page cache after their first start, of which they found none."""
    cache_later: int
    """The same after a restart of all."""
    first: float
    later: float


def replicas(engine: Engine, image: str, count: int, *options: str) -> Replicas:
    """Start `count` containers at once, and then again; before each time, nothing of theirs is in the page cache."""
    _forget(engine)
    begin = time.time()
    command = ["docker", "run", "--detach", *_with_defaults(options), image]
    starting = [subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    containers = [process.communicate()[0].strip() for process in starting]
    first = max(_drawn(engine, container) for container in containers) - begin
    cache_first = _cached(engine)
    _forget(engine)
    begin = time.time()
    engine.run("start", *containers)
    later = max(_drawn(engine, container) for container in containers) - begin
    return Replicas(used(*_stored(engine)), cache_first, _cached(engine), first, later)


def _stored(engine: Engine) -> Sequence[Path]:
    return [engine.data / name for name in ("overlay2", "image", "volumes")]


def _forget(engine: Engine) -> None:
    """Drop the files of layers and volumes from the page cache."""
    subprocess.run(["sync", "--file-system", engine.data], check=True)
    for path in _files(engine):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _cached(engine: Engine) -> int:
    """Return the bytes of the page cache that are of layers and volumes."""
    names = b"\0".join(os.fsencode(path) for path in _files(engine))
    count = ["xargs", "--null", "fincore", "--bytes", "--noheadings", "--raw", "--output=RES"]
    return sum(map(int, subprocess.run(count, check=True, input=names, capture_output=True).stdout.split()))


def _files(engine: Engine) -> list[Path]:
    found = []
    for root in _stored(engine):
        for directory, _, names in os.walk(root):
            paths = (Path(directory, name) for name in names)
            found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found
