"""A pseudo-terminal for a command, and the text that the command shows there."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from helpers.processes import wait_for
from rig.environment import PATIENCE, environment

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass
class Shown:
    """How a command ended, what it wrote to stdout, and what a terminal at its stderr got."""

    returncode: int
    stdout: str
    raw: str = field(repr=False)

    @property
    def text(self) -> str:
        """What was on the screen at some time, without what moves the cursor."""
        return _CONTROL.sub("\n", self.raw)


def run(
    *arguments: object,
    meanwhile: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    shows: str = "",
    before: Sequence[str] = (),
    **variables: object,
) -> Shown:
    """Run `BEFORE… unpackenv ARGUMENTS…` at a terminal of its own, as `run_command` does."""
    command = [*before, sys.executable, "-m", "unpackenv", *map(str, arguments)]
    return run_command(command, meanwhile=meanwhile, shows=shows, **variables)


def run_command(
    command: Sequence[str],
    *,
    meanwhile: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    shows: str = "",
    **variables: object,
) -> Shown:
    """Run a command at a terminal of its own.

    While it runs, and once it `shows` something, call `meanwhile` with the process.
    """
    leader, follower = pty.openpty()
    env = environment(TERM="xterm", COLUMNS=100, LINES=30, **variables)
    screen: list[bytes] = []
    process = subprocess.Popen(
        command, env=env, cwd="/", stdin=follower, stdout=subprocess.PIPE, stderr=follower, text=True,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    reader = threading.Thread(target=_read, args=(leader, screen))
    reader.start()
    try:
        wait_for(lambda: shows.encode() in b"".join(screen), f"{shows!r} on the screen", process)
        meanwhile(process)
        stdout, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        reader.join()  # ends when the last process that has the terminal has ended
        os.close(leader)
    return Shown(process.returncode, stdout, b"".join(screen).decode("utf-8", "replace"))


def screen(*arguments: object, columns: int = 80, **variables: object) -> str:
    """Run `unpackenv ARGUMENTS…` with a terminal of so many columns as stdout, and return all that it wrote there."""
    leader, follower = pty.openpty()
    env = environment(**{"PYTHONUTF8": 1, "TERM": "xterm-256color", "COLUMNS": columns, **variables})
    command = [sys.executable, "-m", "unpackenv", *map(str, arguments)]
    with subprocess.Popen(
        command, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.DEVNULL
    ) as process:
        os.close(follower)
        written: list[bytes] = []
        _read(leader, written)
        os.close(leader)
    shown = b"".join(written).decode()
    assert process.returncode in (0, 1), shown
    return shown.replace("\r\n", "\n")


def _read(leader: int, screen: list[bytes]) -> None:
    while True:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:  # EIO: nobody is at the other end any more
            return
        if not data:
            return
        screen.append(data)
