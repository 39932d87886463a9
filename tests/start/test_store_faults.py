"""An object store that misbehaves: a start tries again, within its time, and never waits for ever."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import services
from helpers.file_server import FileServer
from helpers.fills import wrong_files
from helpers.processes import run, wrapper
from unpackenv.archive import trailer

pytestmark = pytest.mark.usefixtures("no_fill_left")

TRIED = 6  # seconds; enough for some attempts


@pytest.fixture(scope="session")
def made(large: tuple[Path, dict[str, int]]) -> tuple[Path, dict[str, int]]:
    return large


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


@pytest.fixture
def start(
    server: FileServer, made: tuple[Path, dict[str, int]], target: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that starts a command, `true` unless another is given, with an archive from the server."""

    def run_it(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
        own = {
            "UNPACKENV_ARCHIVE": f"s3://bucket/app.tar.zst#sha256={trailer.identify(str(made[0])).digest}",
            "UNPACKENV_TARGET": target,
            "UNPACKENV_FETCH_TIMEOUT": TRIED,
            "UNPACKENV_WORKERS": 1,
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "SECRET",
        }
        return run(wrapper("--", *(command or ["true"])), services.with_packages(**{**own, **more}))

    return run_it


FAULTS = {
    "busy": lambda handler: handler.answer(503),
    "cut": lambda handler: handler.serve(cut=1) or True,
    "stalled": lambda handler: time.sleep(3 * TRIED) or True,
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_over_soon_is_tried_again(
    server: FileServer, start: Callable[..., Any], target: Path, made: tuple[Path, dict[str, int]], what: str
) -> None:
    server.fault = lambda handler, number: number in (1, 3) and FAULTS[what](handler)
    done = start(UNPACKENV_LOG="json")
    assert done.returncode == 0, done.stderr
    assert wrong_files(target, made[1]) == []
    assert json.loads(done.stderr)["fetched"]["retries"] == 2


@pytest.mark.parametrize(
    ("what", "says"),
    [("busy", "(503)"), ("cut", "(ClientPayloadError)"), ("stalled", "(no answer in time)")],
)
def test_what_stays_wrong_is_said(server: FileServer, start: Callable[..., Any], what: str, says: str) -> None:
    server.fault = lambda handler, number: number > 1 and FAULTS[what](handler)
    done = start()
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert f"s3://bucket/app.tar.zst: cannot be fetched within {TRIED} s {says}" in line
    assert "SECRET" not in line


def test_wrong_bytes_are_an_error_at_once(server: FileServer, start: Callable[..., Any]) -> None:
    server.fault = lambda handler, number: number > 1 and (handler.serve(flip=True) or True)
    done = start()
    assert (done.returncode, "is damaged" in done.stderr) == (125, True), done.stderr


def test_while_the_application_runs_it_ends(server: FileServer, start: Callable[..., Any], target: Path) -> None:
    server.fault = lambda handler, number: number > 1 and FAULTS["stalled"](handler)
    done = start("cat", target / "large/spans.bin", UNPACKENV_FILL="on-demand")
    assert (done.returncode, done.stdout) == (-9, ""), done.stderr
    assert f"cannot be fetched within {TRIED} s (no answer in time)" in done.stderr
