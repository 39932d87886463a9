"""Places where a container may write: read-only roots, tmpfs, users without a name or without capabilities."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from helpers.containers_by_hand import log_line
from helpers.docker_client import Docker

JSON = "--env=UNPACKENV_LOG=json"


@pytest.fixture
def automatic(image: Callable[[str], str]) -> str:
    return image("The shortest")


@pytest.fixture
def unprivileged(image: Callable[[str], str]) -> str:
    return image("Not as root")


def started(done: subprocess.CompletedProcess[str], uid: int = 0) -> dict[str, Any]:
    """The application came up as `uid`, its packages from the tree; return the log line."""
    assert done.returncode == 0, done.stderr
    line, where = log_line(done.stderr), json.loads(done.stdout)
    assert line["outcome"] == "unpacked"
    assert where["uid"] == uid
    assert where["native"].startswith(line["target"] + "/")
    return line


def refused(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    return log_line(done.stderr)


def reasons(line: dict[str, Any]) -> list[str]:
    return [place.rpartition("(")[2].rstrip(")") for place in line.get("tried") or line["where"].split(", ")]


def test_nothing_writable_is_an_error_with_every_place_tried(docker: Docker, image: Callable[[str], str]) -> None:
    error = refused(docker.run(image("As entrypoint"), options=["--read-only", JSON]))
    assert error["reason"] == "target-not-writable"
    assert reasons(error) == ["target-read-only"] * 3


def test_read_only_with_a_tmpfs(docker: Docker, automatic: str) -> None:
    line = started(docker.run(automatic, options=["--read-only", "--tmpfs=/tmp:exec", JSON]))
    assert line["target"].startswith("/tmp/unpackenv-0/env/")
    assert reasons(line) == ["target-read-only"] * 2


def test_tmpfs_without_exec(docker: Docker, image: Callable[[str], str]) -> None:
    """As Docker mounts it."""
    image_ = image("As entrypoint")
    error = refused(docker.run(image_, options=["--read-only", "--tmpfs=/tmp", JSON]))
    assert reasons(error) == ["target-read-only", "target-read-only", "target-noexec"]
    error = refused(docker.run(image_, options=["--tmpfs=/packages", "--env=UNPACKENV_TARGET=/packages", JSON]))
    assert (error["reason"], error["where"]) == ("target-noexec", "/packages")


def test_tmpfs_as_the_named_target(docker: Docker, automatic: str) -> None:
    options = ["--read-only", "--tmpfs=/packages:exec", "--env=UNPACKENV_TARGET=/packages", JSON]
    assert started(docker.run(automatic, options=options))["target"] == "/packages"


def test_tmpfs_that_all_may_write_to(docker: Docker, automatic: str) -> None:
    """Over the default place, with the mode that Docker gives it: passed over, and said so."""
    line = started(docker.run(automatic, options=["--tmpfs=/opt/unpackenv/env:exec", JSON]))
    assert line["target"].startswith("/root/.cache/unpackenv/env/")
    assert reasons(line) == ["target-untrusted"]


def test_a_user_unpacks_to_a_directory_of_its_own(docker: Docker, unprivileged: str) -> None:
    line = started(docker.run(unprivileged, options=[JSON]), uid=1000)
    assert line["target"].startswith("/opt/unpackenv/env/")


@pytest.mark.parametrize("heading", ["The shortest", "Not as root"])
def test_user_without_a_name(docker: Docker, image: Callable[[str], str], heading: str) -> None:
    line = started(docker.run(image(heading), options=["--user=12345:0", JSON]), uid=12345)
    assert line["target"].startswith("/tmp/unpackenv-12345/env/")


def test_user_without_a_name_read_only(docker: Docker, unprivileged: str) -> None:
    options = ["--user=12345:0", "--read-only", "--tmpfs=/tmp:exec", "--cap-drop=ALL", JSON]
    line = started(docker.run(unprivileged, options=options), uid=12345)
    assert line["target"].startswith("/tmp/unpackenv-12345/env/")


@pytest.mark.parametrize("user", [0, 1000])
def test_a_start_needs_no_capabilities(docker: Docker, unprivileged: str, user: int) -> None:
    options = [f"--user={user}", "--cap-drop=ALL", "--security-opt=no-new-privileges", JSON]
    line = started(docker.run(unprivileged, options=options), uid=user)
    assert line["target"].startswith("/root/.cache/" if user == 0 else "/opt/unpackenv/env/")


@pytest.mark.parametrize("heading", ["The shortest", "As entrypoint", "Not as root"])
def test_the_target_is_no_directory_of_a_lower_layer(docker: Docker, image: Callable[[str], str], heading: str) -> None:
    """Overlayfs copies such a directory up and looks into every layer for each file: it takes twice as long."""
    container = docker.start(image(heading), options=[JSON])
    assert container.wait() == 0, container.stderr
    target = log_line(container.stderr)["target"]
    changes = docker.engine.out("diff", container.name).splitlines()
    assert f"A {target}" in changes
    assert [change for change in changes if not change.startswith("A ") and "/env/" in change] == []


@pytest.mark.parametrize("heading", ["The shortest", "As entrypoint"])
def test_a_start_writes_nothing_else(docker: Docker, image: Callable[[str], str], heading: str) -> None:
    container = docker.start(image(heading), options=[JSON])
    assert container.wait() == 0, container.stderr
    changes = [line.split(" ", 1) for line in docker.engine.out("diff", container.name).splitlines()]
    written = [path for kind, path in changes if kind != "C" and "/__pycache__" not in path]  # of the standard library
    assert all(path.startswith("/opt/unpackenv/env") for path in written), written
