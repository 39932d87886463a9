"""CPU and memory limits of a container."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from helpers.containers_by_hand import log_line
from helpers.docker_client import Docker

JSON = "--env=UNPACKENV_LOG=json"


@pytest.fixture
def entrypoint(image: Callable[[str], str]) -> str:
    return image("As entrypoint")


@pytest.mark.parametrize(("cpus", "workers"), [("0.5", 1), ("1.5", 2)])
def test_as_many_workers_as_the_cpus_of_a_container(
    docker: Docker, entrypoint: str, heavy: list[str], cpus: str, workers: int
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one CPU only")
    done = docker.run(entrypoint, "true", options=[*heavy, f"--cpus={cpus}", JSON])
    assert (done.returncode, log_line(done.stderr)["workers"]) == (0, workers), done.stderr


@pytest.mark.parametrize("memory", [64, 128])
def test_a_container_of_little_memory_is_not_killed(
    docker: Docker, entrypoint: str, heavy: list[str], memory: int
) -> None:
    """400 MB are unpacked by a container that may have far less, and it is not killed."""
    os.sync()  # version 1 of cgroups does not slow down who writes faster than a busy disk: it kills
    container = docker.start(entrypoint, "echo", "started", options=[*heavy, f"--memory={memory}m", JSON])
    assert (container.wait(), container.stdout) == (0, "started\n"), container.stderr
    assert not container.state["OOMKilled"]


def test_too_little_memory(docker: Docker, entrypoint: str, heavy: list[str]) -> None:
    container = docker.start(entrypoint, "echo", "started", options=[*heavy, "--memory=24m", JSON])
    assert (container.wait(), container.stdout) == (125, ""), container.stderr
    assert not container.state["OOMKilled"]
    error = log_line(container.stderr)
    assert error["reason"] == "memory-limit"
    assert error["facts"]["have"] < error["facts"]["need"]


def test_a_tmpfs_counts_as_memory(docker: Docker, entrypoint: str, heavy: list[str]) -> None:
    target = ["--tmpfs=/packages:exec", "--env=UNPACKENV_TARGET=/packages"]
    container = docker.start(entrypoint, "echo", "started", options=[*heavy, *target, "--memory=128m", JSON])
    assert (container.wait(), container.stdout) == (125, ""), container.stderr
    assert not container.state["OOMKilled"]
    assert log_line(container.stderr)["reason"] == "target-in-memory"
