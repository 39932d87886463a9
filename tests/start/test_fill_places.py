"""Names first on the file systems that people have, in a group that is frozen, and in applications of many kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.containers_by_hand import freezer_group
from helpers.fills import (
    BEHIND,
    ON_DEMAND,
    Running,
    content,
    end_all,
    family,
    is_unfilled,
    wait_until_filled,
    wrong_files,
)
from helpers.processes import python
from helpers.starts import boot_code, end_of
from rig import freshfs
from rig.environment import environment

pytestmark = pytest.mark.usefixtures("no_fill_left")

SPANS = "large/spans.bin"
KINDS = [kind for kind in freshfs.KINDS if kind.name in ("ext4", "xfs", "tmpfs", "overlayfs")]


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


# --- file systems --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_on_each_file_system(archive: Path, sizes: dict[str, int], kind: freshfs.FileSystem) -> None:
    """On demand, left and gone on with, and behind the application."""
    problem = kind.problem()
    if problem:
        pytest.skip(f"no {kind.name} here: {problem}")
    with kind.fresh() as directory:
        target = directory / "tree"
        try:
            first = Running(archive, target, ON_DEMAND)
            assert (first.outcome, first.fill) == ("named", ON_DEMAND), first.end()
            assert (target / SPANS).read_bytes() == content(SPANS, sizes[SPANS])
            unfilled = [path for path in sizes if is_unfilled(target / path)]
            assert len(unfilled) > len(sizes) / 2
            end_all(target)
            first.process.communicate()
            again = Running(archive, target, BEHIND)
            assert (again.outcome, again.fill) == ("named", BEHIND), again.end()
            assert not is_unfilled(target / SPANS)
            assert wrong_files(target, sizes) == []
            again.end()
            wait_until_filled(target)
            assert end_of(archive, target).outcome == "reused"
        finally:
            end_all(target)


# --- frozen --------------------------------------------------------------------------------------


@pytest.fixture
def application(archive: Path, target: Path) -> Iterator[Running]:
    application = Running(archive, target, ON_DEMAND)
    assert (application.outcome, application.fill) == ("named", ON_DEMAND), application.end()
    yield application
    application.process.kill()
    application.process.communicate()


def test_all_that_fill_are_frozen_for_a_while(application: Running, target: Path, sizes: dict[str, int]) -> None:
    """Somebody else, whom nobody freezes, waits meanwhile."""
    group = freezer_group()
    group.add([application.process.pid, *family(target)])
    wrong = ["not read yet"]
    reader = threading.Thread(target=lambda: wrong.__setitem__(slice(None), wrong_files(target, sizes)))
    with group.frozen():
        reader.start()
        time.sleep(3)
        assert wrong == ["not read yet"]
    reader.join()
    assert wrong == []
    assert application.process.poll() is None
    application.end()
    wait_until_filled(target)
    group.remove()


# --- applications --------------------------------------------------------------------------------


def variables(archive: Path, target: Path, fill: str) -> dict[str, str]:
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_FILL=fill)
    env["PYTHONPATH"] += os.pathsep + os.pathsep.join(sys.path)
    return env


POOL = """
import functools, json, multiprocessing, sys
from helpers.fills import wrong_files
parts = json.load(sys.stdin)
context = multiprocessing.get_context({method!r})
with context.Pool(4) as pool:
    print(sum(pool.map(functools.partial(wrong_files, {target!r}), parts), []))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("fill", [BEHIND, ON_DEMAND])
def test_processes_of_an_application(
    archive: Path, target: Path, sizes: dict[str, int], method: str, fill: str
) -> None:
    parts = [dict(list(sizes.items())[part::8]) for part in range(8)]
    code = boot_code(rest=POOL.format(method=method, target=str(target)))
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables(archive, target, fill), input=json.dumps(parts),
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("fill", [BEHIND, ON_DEMAND])
def test_gevent(archive: Path, target: Path, sizes: dict[str, int], fill: str) -> None:
    rest = f"""
import gevent
from helpers.fills import wrong_files
paths = {list(sizes.items())!r}
readers = [gevent.spawn(wrong_files, {str(target)!r}, dict(paths[part::8])) for part in range(8)]
gevent.joinall(readers)
print(report.outcome, [reader.value for reader in readers])
"""
    done = python(
        "import gevent.monkey; gevent.monkey.patch_all()\n" + boot_code(rest=rest), variables(archive, target, fill)
    )
    assert (done.returncode, done.stdout) == (0, f"named {[[]] * 8}\n"), done.stderr
