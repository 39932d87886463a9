"""The runtime in an image: small, without pip, and apart from the application's packages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import docker_client
from helpers.docker_client import Docker
from rig.engine import Engine

LIMIT = 2_200_000
OWN = """
FROM python:3.12 AS build
RUN pip install 'unpackenv[build]'
RUN pip install --target /site-packages zstandard
RUN unpackenv runtime /own/zstd && unpackenv runtime --codec xz /own/xz && \\
    unpackenv pack --level 1 /site-packages -o /own/site-packages.tar.zst && \\
    unpackenv pack --level 0 /site-packages -o /own/site-packages.tar.xz

FROM python:3.12-slim
RUN pip uninstall --yes pip
COPY --from=build /own /own
"""
# Uses the application's zstandard, and says where all of it comes from.
USE = """
import json, sys, zstandard
assert zstandard.ZstdDecompressor().decompress(zstandard.ZstdCompressor().compress(b"data")) == b"data"
print(json.dumps([zstandard.__file__, zstandard.backend_c.__file__]))
"""


@pytest.fixture(scope="module")
def own(engine: Engine, python_images: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image without pip, with archives of an application that has a zstandard of its own, and runtimes."""
    return docker_client.build(engine, "own-zstandard", OWN, tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize(("codec", "limit"), [("zstd", LIMIT), ("xz", LIMIT - 950_000)])
def test_size_on_disk(docker: Docker, own: str, codec: str, limit: int) -> None:
    done = docker.run(own, "du", "-s", "--block-size=1", f"/own/{codec}")
    assert 100_000 < int(done.stdout.split()[0]) <= limit


@pytest.mark.parametrize("codec", ["zstd", "xz"])
@pytest.mark.parametrize("way", ["entrypoint", "hook", "bootstrap"])
def test_the_application_has_its_own_zstandard(docker: Docker, own: str, codec: str, way: str) -> None:
    archive = "/own/site-packages.tar." + {"zstd": "zst", "xz": "xz"}[codec]
    path = f"PYTHONPATH=/own/{codec}"
    unpackenv = f"{path} python -m unpackenv"
    python = {"entrypoint": f"{unpackenv} -- python", "bootstrap": f"{path} python", "hook": "python -I"}[way]
    code = "import unpackenv; unpackenv.bootstrap()\n" + USE if way == "bootstrap" else USE
    start = f"{python} -c {docker_client.shell(code)}"
    before = f"{unpackenv} hook --auto --archive {archive}" if way == "hook" else ":"
    script = f"set -e; {before} >&2; {start}; {start}"
    done = docker.run(own, "sh", "-c", script, options=[f"--env=UNPACKENV_ARCHIVE={archive}"])
    assert done.returncode == 0, done.stderr
    cold, warm = map(json.loads, done.stdout.splitlines())
    assert cold == warm
    assert all(file.startswith("/opt/unpackenv/env/") for file in cold)
    assert done.stderr.count("unpackenv: unpacked") == 1


def test_nothing_of_it_is_installed(docker: Docker, image: Callable[[str], str]) -> None:
    code = "import importlib.util as u; print([n for n in ('unpackenv', 'zstandard', 'psutil') if u.find_spec(n)])"
    done = docker.run(image("As entrypoint"), "python", "-I", "-c", code, options=["--env=UNPACKENV=off"])
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_an_archive_of_tar_needs_no_zstandard(docker: Docker, image: Callable[[str], str]) -> None:
    tar = image("An archive that `tar` made")
    code = "import flask, sys; print(sorted(name for name in sys.modules if 'zstandard' in name), flask.__file__)"
    done = docker.run(tar, "sh", "-c", f"find /opt/unpackenv -name '*.so' && python -c {docker_client.shell(code)}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[] /opt/unpackenv/env/")


def test_all_its_bytecode_is_there(docker: Docker, image: Callable[[str], str]) -> None:
    """A user who may not write to it compiles nothing of it, at no start; empty files need no bytecode."""
    script = "touch /opt/unpackenv/runtime/x; python -v -c 'import flask'; python -v -c 'import flask'"
    script += "; find /opt/unpackenv/runtime -name '*.py' -empty"
    done = docker.run(image("Not as root"), "sh", "-c", script)
    assert "touch: cannot touch '/opt/unpackenv/runtime/x': Permission denied" in done.stderr
    loaded = re.findall(r"code object from '?(/opt/unpackenv/runtime/[^\s']+)", done.stderr)
    assert len(loaded) > 20
    assert {path for path in loaded if not path.endswith(".pyc")} <= {*done.stdout.split()}


def test_context_has_no_runtime(context: Path) -> None:
    """What the images have of unpackenv comes from their build stage."""
    assert not list(context.rglob("unpackenv"))
