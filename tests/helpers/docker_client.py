"""Containers of a real engine: run to their end, or started, inspected and stopped."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.processes import wait_for
from rig.engine import Engine
from rig.environment import PATIENCE

_NUMBERS = itertools.count()
# Of a health check: soon, and with time enough for every machine.
OFTEN = ("--health-interval=1s", f"--health-timeout={PATIENCE:.0f}s")


class Container:
    """A container that was started."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    def exec(self, *command: object, options: Sequence[object] = (), check: bool = True) -> str:
        """Run a command in it and return what it prints."""
        return self._engine.run("exec", *options, self.name, *command, check=check).stdout

    def do(self, action: str, *options: object) -> None:
        """`docker restart`, `kill` and the like."""
        self._engine.run(action, *options, self.name)

    def stop(self) -> None:
        """`docker stop`, with time enough for every machine: what does not stop is killed, and its exit code 137."""
        self.do("stop", f"--time={PATIENCE / 2:.0f}")

    @property
    def first_process(self) -> list[str]:
        """The words of its PID 1, without taking of its CPU."""
        return Path(f"/proc/{self.state['Pid']}/cmdline").read_text().split("\0")[:-1]

    def wait(self) -> int:
        """Return its exit code, when it has ended."""
        return int(self._engine.out("wait", self.name))

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self._engine.out("inspect", self.name))
        assert isinstance(found, dict)
        return found

    @property
    def state(self) -> dict[str, Any]:
        state = self.inspect()["State"]
        assert isinstance(state, dict)
        return state

    @property
    def stdout(self) -> str:
        """What it has written to stdout, over all of its starts."""
        return self._engine.run("logs", self.name).stdout

    @property
    def stderr(self) -> str:
        return self._engine.run("logs", self.name).stderr

    @property
    def written(self) -> Path:
        """The directory of this machine with what it has written over its image."""
        return Path(self.inspect()["GraphDriver"]["Data"]["UpperDir"])

    def wait_for_output(self, text: str) -> None:
        wait_for(lambda: text in self.stdout or not self.state["Running"], f"{text!r} of {self.name}")
        assert text in self.stdout, self.stderr


class Docker:
    """What a test does with the engine. Nothing has a network unless it asks; `close` removes all that was made."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._containers: list[str] = []
        self._volumes: list[str] = []

    def run(self, image: str, *command: object, options: Sequence[object] = ()) -> subprocess.CompletedProcess[str]:
        """Run a container to its end; whether it went well is for the test to say."""
        return self.engine.run(*self._command(image, command, options), check=False)

    def begin(self, image: str, *command: object, options: Sequence[object] = ()) -> subprocess.Popen[str]:
        """The same, without waiting for it."""
        words = ["docker", *map(str, self._command(image, command, options))]
        return subprocess.Popen(words, env=self.engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def start(self, image: str, *command: object, options: Sequence[object] = ()) -> Container:
        """Start a container in the background."""
        run, *words = self._command(image, command, options)
        self.engine.run(run, "--detach", *words)
        return Container(self.engine, self._containers[-1])

    def _command(self, image: str, command: Sequence[object], options: Sequence[object]) -> list[object]:
        self._containers.append(f"test-{next(_NUMBERS)}")
        own = [] if any(str(each).startswith("--network=") for each in options) else ["--network=none"]
        return ["run", "--name", self._containers[-1], *own, *options, image, *command]

    def volume(self) -> str:
        """Return the name of a new volume."""
        self._volumes.append(f"volume-{next(_NUMBERS)}")
        return self.engine.out("volume", "create", self._volumes[-1])

    def close(self) -> None:
        if self._containers:
            self.engine.run("rm", "--force", "--volumes", *self._containers, check=False)
        if self._volumes:
            self.engine.run("volume", "rm", "--force", *self._volumes)


def build(engine: Engine, tag: str, dockerfile: str, context: Path, *options: object) -> str:
    """Build an image and return its tag."""
    (context / "Dockerfile").write_text(dockerfile)
    engine.run("build", "--network=none", "--quiet", "--tag", tag, *options, context)
    return tag


def shell(*words: object) -> str:
    """Return a command as a line of shell."""
    return " ".join(shlex.quote(os.fspath(word) if isinstance(word, os.PathLike) else str(word)) for word in words)
