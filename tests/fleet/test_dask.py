"""Dask: workers unpack before their first task, by a preload, a plugin, or a launcher."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.processes import run, start
from rig import fleet
from rig.environment import SOURCE
from rig.packages import packages

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fleet")]

JOB = """
import json, sys
from distributed import Client

def where(number):
    import os, pandas, sys
    return os.getpid(), pandas.__file__, int(pandas.Series([number]).sum())

scheduler, workers, archive = sys.argv[1:]
with Client(scheduler) as client:
    client.wait_for_workers(int(workers))
    if archive:
        from unpackenv.contrib.dask import UnpackenvPlugin
        client.register_plugin(UnpackenvPlugin(archive))
    found = client.gather(client.map(where, range(8)))
    logs = [text for worker in client.get_worker_logs().values() for _, text in worker]
    print(json.dumps([found, logs]))
"""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has unpackenv, too, and its dependencies."""
    sites = packages(fleet.ENGINES), Path(SOURCE), fleet.SITE
    return fleet.make_interpreter(tmp_path_factory.mktemp("dask") / "venv", *sites)


@pytest.fixture
def scheduler(python: Path, tmp_path: Path) -> Iterator[str]:
    with running([python, "-m", "distributed.cli.dask_scheduler", *LOCAL, "--port", 0], tmp_path) as process:
        yield said_by(process, r"Scheduler at: +(tcp://\S+)")


LOCAL = ("--host", "127.0.0.1", "--no-dashboard")


@contextmanager
def running(command: list[object], folder: Path, **variables: object) -> Iterator[subprocess.Popen[str]]:
    process = start(command, fleet.bare(HOME=folder, DASK_TEMPORARY_DIRECTORY=folder / "dask", **variables))
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def said_by(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(said)


def worker(python: Path, scheduler: str, *options: object) -> list[object]:
    return [python, "-m", "distributed.cli.dask_worker", scheduler, *LOCAL, "--nthreads", 2, *options]


def check(done: subprocess.CompletedProcess[str], tree: Path, workers: int = 2) -> list[str]:
    """See that all tasks have found their packages, and return what is in the logs of the workers."""
    assert done.returncode == 0, done.stderr
    found, logs = json.loads(done.stdout)
    assert [number for _, _, number in found] == list(range(8))
    assert {path for _, path, _ in found} == {str(tree / "pandas/__init__.py")}
    assert len({process for process, _, _ in found}) <= workers
    return [line for line in logs if " at " + str(tree) in line]


def test_a_preload(python: Path, scheduler: str, application: Path, tmp_path: Path) -> None:
    """Two nannies with a worker each."""
    settings = {"UNPACKENV_ARCHIVE": application, "UNPACKENV_TARGET": tmp_path / "tree"}
    with ExitStack() as stack:
        for _ in range(2):
            command = worker(python, scheduler, "--preload", "unpackenv.contrib.dask")
            stack.enter_context(running(command, tmp_path, UNPACKENV_LOG_FILE=tmp_path / "log", **settings))
        logged = check(run([python, "-c", JOB, scheduler, 2, ""], fleet.bare()), tmp_path / "tree")
    assert len(logged) == 2
    assert fleet.outcomes(tmp_path / "log").count("unpacked") == 1


@pytest.mark.parametrize("nanny", [True, False])
def test_a_preload_that_fails(python: Path, scheduler: str, tmp_path: Path, nanny: bool) -> None:
    command = worker(python, scheduler, f"--{'' if nanny else 'no-'}nanny", "--preload", "unpackenv.contrib.dask")
    with running(command, tmp_path, UNPACKENV_ARCHIVE=tmp_path / "none") as process:
        _, said = process.communicate()
    assert process.returncode == (1 if nanny else 125)
    assert f"unpackenv: error: {tmp_path}/none" in said


def test_a_plugin(python: Path, scheduler: str, application: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            command = worker(python, scheduler, "--no-nanny")
            stack.enter_context(running(command, tmp_path, UNPACKENV_TARGET=tmp_path / "tree"))
        logged = check(run([python, "-c", JOB, scheduler, 2, application], fleet.bare()), tmp_path / "tree")
    assert len(logged) == 2


def test_a_plugin_that_fails(python: Path, scheduler: str, tmp_path: Path) -> None:
    with running(worker(python, scheduler, "--no-nanny"), tmp_path):
        done = run([python, "-c", JOB, scheduler, 1, tmp_path / "none"], fleet.bare())
    assert done.returncode == 1
    assert f"{tmp_path}/none" in done.stderr.splitlines()[-1]


def test_a_plugin_that_is_registered_again(python: Path, scheduler: str, application: Path, tmp_path: Path) -> None:
    """After one that failed, the right one counts."""
    with running(worker(python, scheduler, "--no-nanny"), tmp_path, UNPACKENV_TARGET=tmp_path / "tree"):
        assert run([python, "-c", JOB, scheduler, 1, tmp_path / "none"], fleet.bare()).returncode == 1
        check(run([python, "-c", JOB, scheduler, 1, application], fleet.bare()), tmp_path / "tree", workers=1)


def test_a_launcher(python: Path, scheduler: str, application: Path, tmp_path: Path) -> None:
    """The nanny starts its worker with `sys.executable`, which finds the tree."""
    launcher = fleet.make_launcher(tmp_path / "python", python, archive=application, target=tmp_path / "tree")
    with running(worker(launcher, scheduler, "--nworkers", 2), tmp_path):
        check(run([python, "-c", JOB, scheduler, 2, ""], fleet.bare()), tmp_path / "tree")
