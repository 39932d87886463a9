"""`make dist`: sdist and wheel have what they should, twice the same bytes, and install where there is nothing else."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import unpackenv
from helpers.documented import PROJECT
from helpers.processes import run
from rig.environment import environment
from rig.packages import packages
from rig.sites import write_tree

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("distribution")]

VERSION = unpackenv.__version__
WHEEL, SDIST = f"unpackenv-{VERSION}-py3-none-any.whl", f"unpackenv-{VERSION}.tar.gz"
LEFT_OUT = re.compile(r"__pycache__|\.pyc$|\.egg-info|/build/|/dist/|\.git|\.venv|_cache/")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `make dist` has run."""
    clone = tmp_path_factory.mktemp("distribution") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, check=True,
        capture_output=True,
    ).stdout.split(b"\0")  # fmt: skip
    for name in filter(None, map(os.fsdecode, listed)):
        if (PROJECT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, clone / name)
    _make(clone)
    return clone


def _make(clone: Path) -> None:
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = run(["make", "dist", f"PYTHON={os.path.realpath(sys.executable)}"], env, cwd=clone)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(clone: Path) -> Path:
    assert sorted(path.name for path in (clone / "dist").iterdir()) == [WHEEL, SDIST]
    return clone / "dist"


def test_the_same_source_makes_the_same_bytes(clone: Path, dist: Path) -> None:
    before = {path.name: path.read_bytes() for path in dist.iterdir()}
    for path in (clone / "src").rglob("*.py"):
        os.utime(path)
    _make(clone)
    assert {path.name: path.read_bytes() for path in dist.iterdir()} == before


def test_the_wheel_has_the_package_and_its_manual(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
        metadata = email.message_from_bytes(wheel.read(f"unpackenv-{VERSION}.dist-info/METADATA"))
    manual = f"unpackenv-{VERSION}.data/data/share/man/man1/unpackenv.1"
    sources = PROJECT / "src"
    package = {str(path.relative_to(sources)) for path in (sources / "unpackenv").rglob("*") if path.is_file()}
    assert sorted(names) == sorted([manual, *(name for name in package if not LEFT_OUT.search(name))])
    assert "unpackenv/py.typed" in names
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split(r"[<>=]", line)[0] for line in needed) == ["psutil", "zstandard"]
    assert metadata["Version"] == VERSION


def test_the_sdist_builds_tests_and_explains(dist: Path) -> None:
    with tarfile.open(dist / SDIST) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    top = {name.partition("/")[0] for name in names}
    assert top == {
        ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "SECURITY.md",
        "benchmarks", "docs", "mkdocs.yml", "pyproject.toml", "src", "tests",
    }  # fmt: skip
    assert {"tests/conftest.py", "benchmarks/bench.py", "docs/format.md", "src/unpackenv/__init__.py"} <= names
    assert not [name for name in names if LEFT_OUT.search(name) and name != ".gitignore"]


def _interpreters() -> dict[str, str]:
    """Return every CPython here that unpackenv is for, by its version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(9, 21):
        for python in [shutil.which(f"python3.{minor}"), *map(str, pyenv.glob(f"3.{minor}.*/bin/python"))]:
            call = [python or "", "-c", "import venv"]
            if python and subprocess.run(call, capture_output=True).returncode == 0:
                found[f"3.{minor}"] = python
                break
    return found


@pytest.mark.parametrize("name", [WHEEL, SDIST])
@pytest.mark.parametrize("version", _interpreters())
def test_it_installs_without_a_compiler(dist: Path, tmp_path: Path, version: str, name: str) -> None:
    """Into an empty environment, with nothing but its dependencies."""
    made = tmp_path / "environment"
    done = run([_interpreters()[version], "-m", "venv", "--without-pip", made])
    assert done.returncode == 0, done.stderr
    python = made / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    env = {**os.environ, "CC": "false", "CXX": "false"}
    done = run([*pip, "install", "--quiet", "--only-binary", "psutil,zstandard", dist / name], env)
    assert done.returncode == 0, done.stderr
    listed = run([*pip, "list", "--format", "freeze"], env).stdout.split()
    assert [each.partition("==")[0] for each in listed] == ["psutil", "unpackenv", "zstandard"]
    site = write_tree(tmp_path / "site", {"app.py": "print('started')\n"})
    bare = {"PATH": os.defpath, "HOME": str(tmp_path)}
    archive, target = tmp_path / "site-packages.tar.zst", tmp_path / "target"
    done = run([made / "bin/unpackenv", "pack", site, "-o", archive, "--python", python], bare)
    assert done.returncode == 0, done.stderr
    start = ["-m", "unpackenv", "--archive", archive, "--target", target, "--", "python", "-m", "app"]
    done = run([python, *start], {**bare, "PATH": f"{made}/bin:{os.defpath}"})
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert (made / "share/man/man1/unpackenv.1").is_file()


USER = """
import unpackenv

report = unpackenv.bootstrap("site-packages.tar.zst", workers=2)
files: int = report.files
unpackenv.mark("ready")
"""


def test_its_types_are_there_for_users(dist: Path, tmp_path: Path) -> None:
    made = tmp_path / "environment"
    venv.create(made, with_pip=False)
    (site,) = made.glob("lib/python*/site-packages")
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        wheel.extractall(site)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    env = environment(PYTHONPATH=packages(("mypy>=1.19,<1.20",)))
    (tmp_path / "app.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(USER.replace("workers=2", "workers=[]"))
    done = run([*mypy, "--python-executable", made / "bin/python", "app.py"], env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    done = run([*mypy, "--python-executable", made / "bin/python", "wrong.py"], env, cwd=tmp_path)
    assert done.returncode == 1
    assert 'has incompatible type "list[' in done.stdout
