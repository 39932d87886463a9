"""The renderer without an archive, with which all its other tests compare."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.renderer


@pytest.fixture
def plain_env(renderer_site: Path, tmp_path: Path) -> dict[str, str]:
    shutil.copytree(renderer_site / "kaleido", tmp_path / "kaleido")  # it makes a directory beside its executable
    return {"PATH": os.defpath, "PYTHONPATH": f"{tmp_path}:{renderer_site}", "PYTHONDONTWRITEBYTECODE": "1"}


def test_draws_a_jpeg(renderer_python: str, renderer_app: Path, plain_env: dict[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    subprocess.run([renderer_python, renderer_app, picture], env=plain_env, check=True)
    data = picture.read_bytes()
    assert data[:3] == b"\xff\xd8\xff"
    assert data[-2:] == b"\xff\xd9"
    assert len(data) > 20_000


def test_serves_a_jpeg(renderer_python: str, renderer_app: Path, plain_env: dict[str, str]) -> None:
    code = "import app; r = app.create_app().test_client().get('/'); print(r.status, r.mimetype, r.data[:3])"
    command = [renderer_python, "-c", code]
    run = subprocess.run(command, env=plain_env, cwd=renderer_app.parent, check=True, capture_output=True, text=True)
    assert run.stdout == "200 OK image/jpeg b'\\xff\\xd8\\xff'\n"


def test_its_bytecode_is_valid(renderer_site: Path) -> None:
    checked = 0
    for bytecode in renderer_site.rglob("*.cpython-39.pyc"):
        source = bytecode.parent.parent / (bytecode.name.partition(".")[0] + ".py")
        flags, mtime, size = struct.unpack("<4xIII", bytecode.read_bytes()[:16])
        status = source.stat()
        assert (flags, mtime, size) == (0, int(status.st_mtime), status.st_size), bytecode
        checked += 1
    assert checked > 10_000


def test_unpackenv_can_be_imported_there(renderer_python: str, renderer_env: dict[str, str]) -> None:
    code = "import unpackenv, zstandard, psutil"
    subprocess.run([renderer_python, "-c", code], env=renderer_env, check=True)
