"""The renderer's interpreter, its packages, and those of unpackenv itself, for tests and benchmarks."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

from rig import kept

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]


def find_python(version: str = "3.9") -> str | None:
    """Return a CPython of `version` with pip, whichever interpreter runs this; None where there is none.

    `UNPACKENV_PYTHON39` (or 311, …) names one; it raises `ValueError` if that is something else.
    """
    setting = f"UNPACKENV_PYTHON{version.replace('.', '')}"
    chosen = os.environ.get(setting)
    if chosen:
        if not _is_cpython(chosen, version):
            raise ValueError(f"{setting}={chosen} is not a CPython {version} with pip")
        return chosen
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    return next((str(candidate) for candidate in candidates if candidate and _is_cpython(candidate, version)), None)


def site(python: str) -> Path:
    """Return a directory with the renderer's packages and their bytecode. Shared by all runs: never write to it."""
    return packages(python, "renderer", HERE / "requirements.txt")


def packages(python: str, name: str, requirements: Path) -> Path:
    """Return a directory with the packages of a requirements file and their bytecode, as `site` does."""
    return _installed(python, name, requirements.read_text().split())


def runtime(python: str) -> Path:
    """Return a directory with what unpackenv needs: beside `src` on PYTHONPATH, `python` can import it."""
    requirements = importlib.metadata.requires("unpackenv") or []
    return _installed(python, "runtime", [line for line in requirements if "extra ==" not in line])


def wheels(python: str) -> Path:
    """Return a directory with wheels of the renderer's packages and of what `unpackenv[build]` needs, for `python`."""
    needed = importlib.metadata.requires("unpackenv") or []
    ours = [line.partition(";")[0].strip() for line in needed if "extra ==" not in line or "'build'" in line]
    return _filled(python, "wheels", [*_renderer(), *ours], ["download", "--only-binary", ":all:", "--dest"])


def _renderer() -> list[str]:
    return (HERE / "requirements.txt").read_text().split()


def _is_cpython(python: str | Path, version: str) -> bool:
    """A pyenv shim may be on PATH and not run; Debian's interpreter may lack pip."""
    probe = "import sys, pip; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        run = subprocess.run([str(python), "-I", "-c", probe], check=False, capture_output=True, text=True)
    except OSError:
        return False
    return run.returncode == 0 and run.stdout.split() == ["cpython", *version.split(".")]


def _installed(python: str, name: str, requirements: list[str]) -> Path:
    return _filled(python, name, requirements, ["install", "--compile", "--only-binary", ":all:", "--target"])


def _filled(python: str, name: str, requirements: list[str], command: list[str]) -> Path:
    """Return a directory that pip's `command` fills with `requirements` for `python`. Raises `kept.NotMade`."""
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout

    def fill(to: Path) -> None:
        kept.run(python, "-m", "pip", "--disable-pip-version-check", "--quiet", *command, to, *requirements)

    return kept.made(name, "\n".join([version, *requirements]), fill)
