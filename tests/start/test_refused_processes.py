"""Starts that reach a limit on processes or threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.file_server import serving
from helpers.processes import IMPORT_ALL, IS_ROOT, run
from rig.environment import environment
from rig.sites import TAG, members_of, pack

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root can become a user who has no other process")
_UID = 54321  # the limit is on all processes of a user, and this one has no other

BOOT = """
import os, resource, sys
import encodings.ascii
{import_all}
os.chmod({folder!r}, 0o777)
os.setuid({uid})
resource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit}))
import unpackenv
report = unpackenv.bootstrap({archive!r}, {target!r}, workers=2, parallel={parallel!r})
import app
print(report.outcome, report.workers, report.workers_why, app.VERSION)
print(len(os.listdir("/proc/self/task")))
"""

# What a start by URL imports besides.
BY_URL = "import _queue, urllib.request, unpackenv.start.remote.httpfile, unpackenv.start.remote.tails"


@pytest.fixture(params=["native", "foreign"])
def any_archive(request: pytest.FixtureRequest, open_path: Path, site: Path) -> Path:
    """An archive of several frames, and one of several blocks that tar made, which everybody may read."""
    if request.param == "native":
        made = open_path / "archive.tar.zst"
        pack(made, members_of(site), frame_size=2000, facts={"python": [TAG]})
        return made
    made = open_path / "packages.tar.xz"
    with open(made, "wb") as file:
        tar = subprocess.run(["tar", "-C", site, "-c", "."], check=True, capture_output=True).stdout
        subprocess.run(["xz", "--block-size=4096", "-c"], input=tar, stdout=file, check=True)
    return made


@pytest.mark.parametrize(
    ("limit", "parallel", "said"),
    [
        (
            1,
            "auto",
            "no process could be started (Resource temporarily unavailable): this one unpacked by itself",
        ),
        (2, "auto", "the system refused to start more workers"),
        (1, "threads", "no process could be started"),
    ],
)
def test_a_limit_on_processes(any_archive: Path, open_path: Path, limit: int, parallel: str, said: str) -> None:
    code = BOOT.format(
        import_all=IMPORT_ALL, folder=str(open_path), uid=_UID, limit=limit, archive=str(any_archive),
        target=str(open_path / "tree"), parallel=parallel,
    )  # fmt: skip
    done = run([sys.executable, "-c", code], environment(), cwd=open_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "unpacked 1 processes 1\n1\n"
    assert f"warning: {said}" in done.stderr.replace(" and ", "; warning: ")
    assert "by 1 worker " in done.stderr
    assert os.listdir(open_path / "tree")


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_an_archive_by_url(site: Path, open_path: Path, limit: int) -> None:
    """What fetches ahead are threads, which count as processes."""
    (site / "noise").write_bytes(os.urandom(600_000))
    made = pack(open_path / "archive.tar.zst", members_of(site), facts={"python": [TAG]})
    with serving((open_path / "archive.tar.zst").read_bytes()) as server:
        code = BOOT.format(
            import_all=f"{IMPORT_ALL}{BY_URL}",
            folder=str(open_path), uid=_UID, limit=limit,
            archive=f"{server.url}/a#sha256={made.digest}", target=str(open_path / "tree"), parallel="auto",
        )  # fmt: skip
        done = run([sys.executable, "-c", code], environment(NO_PROXY="*"), cwd=open_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unpacked ")
    assert server.sent == len(server.data)
    assert (open_path / "tree/noise").read_bytes() == (site / "noise").read_bytes()


PACK = """
import locale, os, resource, sys
import encodings.ascii
import cyclonedx.output.json, unpackenv.cli, unpackenv.pack.pack
os.chmod({folder!r}, 0o777)
os.setuid({uid})
resource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit}))
unpackenv.cli.main(["pack", {site!r}, "-o", {output!r}, "--level", "1"])
"""


def test_a_pack_says_what_it_lacks(site: Path, open_path: Path) -> None:
    """It does not blame the interpreter that it cannot ask."""
    shutil.copytree(site, open_path / "site")
    output = open_path / "x.tar.zst"
    code = PACK.format(folder=str(open_path), uid=_UID, limit=1, site=str(open_path / "site"), output=str(output))
    done = run([sys.executable, "-c", code], environment(), cwd=open_path)
    assert done.returncode == 125
    said = "unpackenv: error: a limit allows no more processes (Resource temporarily unavailable). Raise the limit"
    assert done.stderr.startswith(said), done.stderr
    assert sorted(os.listdir(open_path)) == ["site"]
