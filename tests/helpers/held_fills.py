"""Starts whose files are filled behind the application, at a time that a test chooses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import jsonschema

from helpers.documented import PROJECT
from helpers.processes import processes_with, start, wait_for, wrapper
from rig.environment import PATIENCE, environment
from rig.sites import write_tree
from unpackenv.start import stamp

SCHEMA = json.loads((PROJECT / "docs" / "timing-log.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# In every process of the start: once the names are there, no frame is decoded before there is a file `GO`. With
# FAILS=yes the disk is full then; with FAILS=late a file keeps the time of its write before there is a file `GO.on`.
HELD = """
import errno, os, sys, time
if sys.argv[0] in ("-c", "-m"):
    from unpackenv.start.fill import filling
    decode = filling.Filling.decode
    def held(self, frame):
        while self.board.is_expecting and not os.path.exists(os.environ["GO"]):
            time.sleep(0.005)
        if os.environ["FAILS"] == "yes":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        decode(self, frame)
    finish = filling.Filling._finish
    def written(self, row):  # between the content of a file and its time
        while os.environ["FAILS"] == "late" and not os.path.exists(os.environ["GO"] + ".on"):
            time.sleep(0.005)
        finish(self, row)
    filling.Filling._finish = written
    filling.Filling.decode = held
"""


class Held:
    """Starts whose files are filled when `go` is called, and not before; `log` is the file of their log."""

    def __init__(self, folder: Path, archive: Path | str, target: Path) -> None:
        self.archive = archive
        self.target = target
        self.log = folder / "log"
        self.said: list[str] = []
        """What each start has written to stderr, once all are killed, unless the test has read it before."""
        self._started: list[subprocess.Popen[str]] = []
        self._go = folder / "go"
        held = write_tree(folder / "held", {"sitecustomize.py": HELD})
        self.env = environment(
            GO=self._go, FAILS="no", UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_LOG_FILE=self.log
        )
        self.env["PYTHONPATH"] = f"{held}:{self.env['PYTHONPATH']}"

    def go(self) -> None:
        self._go.touch()

    def start(self, *command: object, **variables: object) -> subprocess.Popen[str]:
        """Start a command behind the wrapper, with fill=behind."""
        env = {**self.env, **{name: str(value) for name, value in variables.items()}}
        process = start(wrapper("--fill", "behind", "--", *command), env)
        self._started.append(process)
        return process

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of one kind in the log; all of them must be as the schema says."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        for line in lines:
            VALIDATOR.validate(line)
            assert set(line) == {*SCHEMA["properties"], *SCHEMA["$defs"][line["unpackenv"]]["properties"]}
        return [line for line in lines if line["unpackenv"] == kind]

    def named(self, *command: object, **variables: object) -> subprocess.Popen[str]:
        """Start a command, and return when it runs; nothing is filled."""
        process = self.start(*command, **variables)
        wait_for(lambda: self.lines("start"), "the start", process)
        assert [line["outcome"] for line in self.lines("start")] == ["named"]
        assert stamp.state_of(str(self.target)) == stamp.FILLING
        return process

    def processes(self) -> list[int]:
        """Return all processes that have begun with a start."""
        return processes_with(f"GO={self._go}")

    def kill_all(self) -> None:
        """Kill them, and wait until they have ended."""
        while found := self.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.said = [process.communicate(timeout=PATIENCE)[1] for process in self._started]


def is_awaited(file: Path) -> bool:
    """Whether somebody waits for a file, as the kernel's table of leases says."""
    inode = file.stat().st_ino
    return any(f":{inode} " in line and "BREAKING" in line for line in Path("/proc/locks").read_text().splitlines())
