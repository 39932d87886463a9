"""The real workload: the renderer's interpreter, its packages, and what unpackenv itself needs there."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

PROJECT = Path(__file__).resolve().parents[1]
RENDERER = PROJECT / "benchmarks" / "renderer"

# Examples write to the disk: how long one takes says nothing.
hypothesis.settings.register_profile("unpackenv", deadline=None)
hypothesis.settings.load_profile("unpackenv")


@pytest.fixture(scope="session")
def renderer_python() -> str:
    """A CPython 3.9 for the renderer, whichever interpreter runs the suite."""
    chosen = os.environ.get("UNPACKENV_PYTHON39")
    if chosen:
        assert _is_cpython39(chosen), f"UNPACKENV_PYTHON39={chosen} is not a CPython 3.9 with pip"
        return chosen
    if sys.platform != "linux":
        pytest.skip("the renderer runs on Linux")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for candidate in [shutil.which("python3.9"), *sorted(pyenv.glob("versions/3.9.*/bin/python"))]:
        if candidate and _is_cpython39(candidate):
            return str(candidate)
    pytest.skip("no CPython 3.9 with pip here; UNPACKENV_PYTHON39 can name one")


@pytest.fixture(scope="session")
def renderer_app() -> Path:
    """The renderer itself: `renderer_python renderer_app PICTURE.jpg` draws a picture."""
    return RENDERER / "app.py"


@pytest.fixture(scope="session")
def renderer_site(renderer_python: str) -> Path:
    """A directory with the renderer's packages and their bytecode. Shared by all runs: never write to it."""
    return _installed(renderer_python, "renderer", (RENDERER / "requirements.txt").read_text().split())


@pytest.fixture(scope="session")
def renderer_runtime(renderer_python: str) -> Path:
    """A directory with what unpackenv needs: beside `src` on PYTHONPATH, `renderer_python` can import it."""
    requirements = importlib.metadata.requires("unpackenv") or []
    return _installed(renderer_python, "runtime", [line for line in requirements if "extra ==" not in line])


@pytest.fixture
def renderer_env(renderer_runtime: Path) -> dict[str, str]:
    """An environment for `renderer_python` in which `import unpackenv` works, and nothing is set from outside."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(renderer_runtime)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _is_cpython39(python: str | Path) -> bool:
    """A pyenv shim may be on PATH and not run; Debian's python3.9 may lack pip."""
    probe = "import sys, pip; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        run = subprocess.run([str(python), "-I", "-c", probe], capture_output=True, text=True)
    except OSError:
        return False
    return run.returncode == 0 and run.stdout.split() == ["cpython", "3", "9"]


def _installed(python: str, name: str, requirements: list[str]) -> Path:
    """Return a directory with `requirements` installed for `python`, made by the first run that asks.

    It is installed beside its place and renamed, so that a killed run leaves no half of it; of two
    runs at once, the second waits for the first.
    """
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256("\n".join([version, *requirements]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unpackenv-tests"
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"{name}-{key}"
    with open(cache / f"{name}-{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            for leftover in cache.glob(f"{name}-{key}.tmp-*"):
                shutil.rmtree(leftover)
            work = tempfile.mkdtemp(prefix=f"{name}-{key}.tmp-", dir=cache)
            os.chmod(work, 0o755)
            pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--compile"]
            subprocess.run([*pip, "--only-binary", ":all:", "--target", work, *requirements], check=True)
            os.rename(work, place)
    return place
