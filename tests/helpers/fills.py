"""Trees that are filled behind an application: what is in them, the processes that fill them, and readers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.processes import is_gone, processes_with, wait_for
from helpers.starts import boot_code
from rig.environment import environment
from rig.sites import members_of, pack, write_tree

FRAME = 20_000
MTIME = 1_600_000_000
BEHIND, ON_DEMAND = "behind", "on-demand"
# An application that waits until its stdin ends, or is told to read files.
APP = boot_code(rest="print(report.outcome, report.fill, flush=True)\nimport sys\nfor line in sys.stdin: exec(line)")


class Running:
    """An application that uses a tree; it runs until it is told to end."""

    def __init__(self, archive: Path, target: Path, fill: str, before: str = "", **settings: object) -> None:
        self.env = environment(
            UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_FILL=fill, UNPACKENV_LOG="json", **settings
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + APP], env=self.env, cwd="/", text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout
        self.outcome, _, self.fill = self.process.stdout.readline().strip().partition(" ")

    def end(self) -> list[dict[str, Any]]:
        """End it; return the lines of its log."""
        _, said = self.process.communicate()
        return [json.loads(line) for line in said.splitlines()]


def content(path: str, size: int) -> bytes:
    """Return what belongs into a file: no two files have the same, and none has a block of zeros."""
    block = b"".join(hashlib.sha512(f"{path} {number}".encode()).digest() for number in range(8))
    return (block * (size // len(block) + 1))[:size]


def make_site(root: Path, files: int = 200) -> dict[str, int]:
    """Make a tree of many small files, empty ones, large ones, programs and links; return the sizes by path."""
    sizes = {f"package_{number % 12}/data_{number}.bin": 1 + number * 37 % 9000 for number in range(files)}
    sizes |= {"large/spans.bin": 30 * FRAME + 17, "large/spans_too.bin": 5 * FRAME, "package_1/empty.bin": 0}
    for path, size in sizes.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content(path, size))
    write_tree(root, {"module.py": "VALUE = 42\n", "other/__init__.py": "", "bin/script": "#!/bin/sh\necho a script\n"})
    (root / "bin" / "script").chmod(0o755)
    shutil.copy("/bin/true", root / "bin" / "program")  # in several frames
    os.link(root / "package_1" / "data_1.bin", root / "package_1" / "linked.bin")
    (root / "package_1" / "link.bin").symlink_to("data_13.bin")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)
    return sizes


def pack_site(archive: Path, root: Path, codec: str = "zstd", **facts: str) -> None:
    """Pack a tree into frames so small that there are many."""
    described = {"python": [sys.implementation.cache_tag], "import": [""], **{k: [v] for k, v in facts.items()}}
    pack(archive, members_of(root), codec, frame_size=FRAME, facts=described)


def family(target: Path | str) -> dict[int, str]:
    """Return the processes that fill the tree at `target`, or watch who uses it: their names, by number.

    They are known by the environment of the start, which has to name the target.
    """
    mark = os.fsencode(f"UNPACKENV_TARGET={target}")
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                name = Path(entry.path, "comm").read_text().strip()
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:
                continue
            if name.startswith("unpackenv-") and mark in environment.split(b"\0"):
                found[int(entry.name)] = name.partition("-")[2]
    return found


def wait_until_filled(target: Path | str) -> None:
    """Wait until nothing fills a tree any more; a whole one may not have been synced."""
    wait_for(lambda: {*family(target).values()} <= {"sync"}, f"{target} to be filled")


def wait_until_synced(target: Path | str) -> None:
    """Wait until nothing is done to a tree any more; its application must have ended."""
    wait_for(lambda: not family(target), f"{target} to be synced")


def kill(pids: list[int], how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            pass


def end_all(target: Path) -> None:
    """Kill every process of the starts at `target` at once, and wait until they have let go of their files.

    They are stopped first: else those that live a little longer would say in the tree that the others were killed.
    """
    stopped: set[int] = set()
    while new := set(processes_with(f"UNPACKENV_TARGET={target}")) - stopped:
        kill(sorted(new), signal.SIGSTOP)
        stopped |= new
    kill(sorted(stopped))
    wait_for(lambda: all(map(is_gone, stopped)), "the processes to end")
    wait_until_unused(target)


def wait_until_unused(target: Path) -> None:
    """Wait until no process has a file of a tree open: one that ends has no environment, and its files for a while."""
    wait_for(lambda: not list(_openers(target)), f"{target} to be unused")


def _openers(target: Path) -> Iterator[str]:
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(f"{target}/"):
                    yield pid
        except OSError:
            continue


def wrong_files(target: Path | str, sizes: dict[str, int]) -> list[str]:
    """Read every file of a tree; return those whose content is wrong."""
    return [path for path, size in sizes.items() if (Path(target) / path).read_bytes() != content(path, size)]


def is_unfilled(path: Path) -> bool:
    """Whether a file has no content yet; that does not open it."""
    return os.stat(path).st_blocks == 0 and os.stat(path).st_size > 0
