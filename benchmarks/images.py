"""Build the renderer's six images, measure them in real containers, and write docs/images.md: `make images`.

The raw figures go to build/images/results.json.

    make images                                     everything, 5 rounds
    make images ARGS="-n 1 --docs /tmp/images.md"   a look
    make images ARGS="--reuse"                      measure again what the last run has built
    make images ARGS="--render"                     write the document again, from the figures of the last run
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import containers
import imagesdoc
import registry
from renderer import install
from rig import base_image, engine
from rig.engine import Engine
from rig.kept import NotMade
from rig.registry import running
from rig.slow_server import Content, serving
from unpackenv.archive import trailer

RESULTS = install.PROJECT / "build" / "images" / "results.json"
STORE = RESULTS.with_name("registry")
IMAGES = ("full", "slim", "xz", "unpackenv", "fill", "remote")
COMPILED = ("slim", "unpackenv")
"""Measured with bytecode for the standard library, too."""

RATE, LATENCY = 1e9, 5
"""Of the line over which *remote* has its archive, and over which images are pulled for `line`."""
_ARCHIVE = "/site-packages.tar.zst"

REPLICAS = 4
_SHARED = ("--volume=unpacked:/opt/unpackenv/env",)
REPLICATED = {
    "slim": ("slim", ()),
    "unpackenv": ("unpackenv", ()),
    "shared": ("unpackenv", _SHARED),
    "fill": ("fill", ("--env=UNPACKENV_FILL=on-demand",)),
    "fill, shared": ("fill", _SHARED),
}
"""The image, and the options of its containers."""


@dataclass
class Image:
    """What was found of an image; a list has a figure a round."""

    disk: int = 0
    registry: int = 0
    push: list[float] = field(default_factory=list)
    pull: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    restart: list[float] = field(default_factory=list)
    charged: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    writable: list[int] = field(default_factory=list)
    line: list[float] = field(default_factory=list)
    """From `docker pull` to the first JPEG, all of it over the line."""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is unmounted
    if not options.render:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(_measure(options.rounds, options.reuse), indent=1) + "\n")
    document = imagesdoc.render(json.loads(RESULTS.read_text()))
    options.docs.parent.mkdir(parents=True, exist_ok=True)
    options.docs.write_text(document)
    print(document)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the renderer's six images, and measure them in containers.")
    parser.add_argument("-n", "--rounds", type=int, default=5, help="samples of each figure (default: 5)")
    parser.add_argument("--docs", type=Path, default=install.PROJECT / "docs" / "images.md", help="where to write")
    parser.add_argument("--reuse", action="store_true", help="measure the images that the last run has built")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the document again")
    return parser.parse_args()


def _measure(rounds: int, reuse: bool) -> dict[str, Any]:
    python = install.find_python()
    if python is None:
        raise SystemExit("images: no CPython 3.9 with pip here; UNPACKENV_PYTHON39 can name one")
    images = {name: Image() for name in IMAGES}
    compiled = {name: Image() for name in COMPILED}
    replicas: dict[str, list[containers.Replicas]] = {}
    if not reuse:
        shutil.rmtree(STORE, ignore_errors=True)
    try:
        with running(STORE) as store, engine.fresh() as builder, contextlib.ExitStack() as stack:
            facts = _machine(builder)
            names = [*map(_tag, IMAGES), *map(_compiled_tag, COMPILED)]
            if reuse:
                for name in names:
                    containers.pull(builder, f"{store}/{name}")
                    builder.run("tag", f"{store}/{name}", name)
            else:
                _build(builder, python)
                for name in names:
                    containers.push(builder, name, store)
            line, options = stack.enter_context(_line(builder))
            for name in IMAGES:
                _say(f"checking the route of {name}")
                containers.check_route(builder, _tag(name), *options[name])
            for number in range(rounds):
                for name, image in images.items():
                    _say(f"round {number + 1} of {rounds}: {name}")
                    with running() as empty:
                        image.push.append(containers.push(builder, _tag(name), empty))
                    _sample(image, f"{store}/{_tag(name)}", options[name])
                    image.line.append(_over_line(f"{line}/{_tag(name)}", options[name]))
                for name, image in compiled.items():
                    _say(f"round {number + 1} of {rounds}: {name}, with bytecode")
                    _sample(image, f"{store}/{_compiled_tag(name)}")
                for name, (replicated, more) in REPLICATED.items():
                    _say(f"round {number + 1} of {rounds}: {REPLICAS} replicas of {name}")
                    image_name = f"{store}/{_tag(replicated)}"
                    with _pulled(image_name) as (docker, _):
                        found = containers.replicas(docker, image_name, REPLICAS, *more)
                    replicas.setdefault(name, []).append(found)
    except (engine.Unavailable, base_image.Unavailable, NotMade) as error:
        raise SystemExit(f"images: {error}") from None
    return {
        "machine": facts,
        "rounds": rounds,
        "replica_count": REPLICAS,
        "line": {"rate": RATE, "latency": LATENCY},
        "images": {name: dataclasses.asdict(image) for name, image in images.items()},
        "compiled": {name: dataclasses.asdict(image) for name, image in compiled.items()},
        "replicas": {name: [dataclasses.asdict(one) for one in found] for name, found in replicas.items()},
    }


@contextlib.contextmanager
def _line(builder: Engine) -> Iterator[tuple[str, dict[str, Sequence[str]]]]:
    """Run a registry of all images as slow as a network; yield its address, and the options of an image's containers.

    It also has the archive of *fill*, for *remote*.
    """
    with tempfile.TemporaryDirectory(prefix="images-") as name:
        archive = Path(name, "site-packages.tar.zst")
        containers.copy_from(builder, _tag("fill"), "/opt/unpackenv/site-packages.tar.zst", archive)
        contents = {_ARCHIVE: Content(archive)}
        for image in IMAGES:
            contents.update(registry.contents(STORE, _tag(image)))
        with serving(contents, RATE, LATENCY) as server:
            url = f"{server.url(_ARCHIVE)}#sha256={trailer.identify(str(archive)).digest}"
            yield (
                server.address,
                {**dict.fromkeys(IMAGES, ()), "remote": ("--network=host", f"--env=UNPACKENV_ARCHIVE={url}")},
            )


def _sample(image: Image, name: str, options: Sequence[str] = ()) -> None:
    """One of each figure, on a new file system."""
    image.registry = registry.size(name)
    with _pulled(name) as (docker, seconds):
        image.pull.append(seconds)
        image.disk = containers.image_size(docker)
        first = containers.first_start(docker, name, *options)
        image.start.append(first.seconds)
        containers.check_picture(docker, first.container)
        image.writable.append(containers.writable(docker, first.container))
        image.restart.append(containers.restart(docker, first.container).seconds)
        peak = containers.memory(docker, name, *options)
        image.charged.append(peak.charged)
        image.anonymous.append(peak.anonymous)


def _over_line(name: str, options: Sequence[str]) -> float:
    """Return the seconds from `docker pull` to the first JPEG, for an engine that has nothing."""
    with engine.fresh() as docker:
        return containers.pull(docker, name) + containers.first_start(docker, name, *options).seconds


@contextlib.contextmanager
def _pulled(name: str) -> Iterator[tuple[Engine, float]]:
    """Run an engine that has nothing but this image, on its disk, and say how long it took to pull."""
    with engine.fresh() as docker:
        seconds = containers.pull(docker, name)
        subprocess.run(["sync", "--file-system", docker.data], check=True)
        yield docker, seconds


def _build(builder: Engine, python: str) -> None:
    for tag, build_tools in (("python:3.9", True), ("python:3.9-slim", False)):
        _say(f"making {tag}")
        base_image.load(tag, python, build_tools=build_tools, env=builder.env)
    with tempfile.TemporaryDirectory(prefix="images-") as name:
        context, served = Path(name, "context"), Path(name, "wheels")
        shutil.copytree(install.HERE, context, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(install.wheels(python), served)
        _wheel_of_unpackenv(served)
        with registry.wheels(served) as links:
            # On the host's network for the wheels on loopback; they are all that there is.
            options = ["--network=host", "--build-arg=PIP_NO_INDEX=1", f"--build-arg=PIP_FIND_LINKS={links}"]
            for image in IMAGES:
                _say(f"building {image}")
                builder.run("build", *options, f"--file={context}/Dockerfile.{image}", f"--tag={_tag(image)}", context)
        for image in COMPILED:
            argument = f"--build-arg=IMAGE={_tag(image)}"
            file = f"--file={context}/Dockerfile.bytecode"
            builder.run("build", "--network=none", argument, file, f"--tag={_compiled_tag(image)}", context)


def _wheel_of_unpackenv(to: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", to, install.PROJECT], check=True)


def _tag(image: str) -> str:
    return f"renderer-{image}"


def _compiled_tag(image: str) -> str:
    return f"renderer-{image}-bytecode"


def _machine(docker: Engine) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?"),
        "CPUs": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "engine": docker.out("version", "--format={{.Server.Version}}"),
        "cgroups": docker.out("info", "--format={{.CgroupVersion}}"),
    }


def _say(text: str) -> None:
    print(f"images: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
