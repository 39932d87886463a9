"""The real renderer on CPython 3.9 from an archive: every way to start gives a real picture, without recompilation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from rig import kept
from rig.environment import PATIENCE, SOURCE

pytestmark = pytest.mark.renderer
GROUP = pytest.mark.xdist_group("renderer")  # one process has the tree


class Booting(NamedTuple):
    """A command that bootstraps, and what came of its first start."""

    command: list[object]
    env: dict[str, str]
    tree: Path
    first: str


# What makes an archive: the other modules read it.
PACKERS = ("archive", "pack")


def cached(renderer_site: Path, name: str, command: list[str], env: dict[str, str], packers: Sequence[str]) -> Path:
    """Return a file that `command` with `{}` for its name makes; made again when the packers or the packages change."""
    sources = [path for part in packers for path in sorted((Path(SOURCE) / "unpackenv" / part).rglob("*.py"))]
    assert bool(sources) == bool(packers)
    made_of = "\n".join([str(renderer_site), *command, *(path.read_text() for path in sources)])

    def make(to: Path) -> None:
        kept.run(*(word.replace("{}", str(to)) for word in command), env={**os.environ, **env})

    stem, _, suffix = name.partition(".")
    return kept.made(stem, made_of, make, suffix=f".{suffix}", latest=True)


@pytest.fixture(scope="session")
def renderer_environment(renderer_runtime: Path) -> dict[str, str]:
    """What `renderer_env` is, for fixtures of a session; bytecode may be written, so that a test sees if it is."""
    return {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join([SOURCE, str(renderer_runtime)])}


@pytest.fixture(scope="session")
def renderer_archive(renderer_python: str, renderer_site: Path, renderer_environment: dict[str, str]) -> Path:
    """The renderer's packages, packed as they are."""
    env = {**renderer_environment, "PYTHONDONTWRITEBYTECODE": "1"}
    pack = [
        renderer_python,
        "-m",
        "unpackenv",
        "pack",
        str(renderer_site),
        "-o",
        "{}",
        "--level",
        "3",
        "--codec",
        "zstd",
    ]
    return cached(renderer_site, "renderer-keep.tar.zst", [*pack, "--bytecode", "keep"], env, PACKERS)


@pytest.fixture(scope="session")
def renderer_xz(renderer_site: Path) -> Path:
    """The same by plain tar, in many blocks."""
    command = ["tar", "-C", str(renderer_site), "-cJf", "{}", "."]
    return cached(renderer_site, "renderer-packages.tar.xz", command, {"XZ_OPT": "-T0 -1"}, ())


@pytest.fixture(scope="session")
def booting(
    renderer_python: str,
    renderer_app: Path,
    renderer_environment: dict[str, str],
    renderer_archive: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Booting:
    """The renderer that calls bootstrap(): its command, its environment, its tree, and what its first start says."""
    folder = tmp_path_factory.mktemp("renderer")
    target, picture = folder / "tree", folder / "picture.jpg"
    env = {
        **renderer_environment,
        "RENDERER_BOOTSTRAP": "1",
        "UNPACKENV_ARCHIVE": str(renderer_archive),
        "UNPACKENV_TARGET": str(target),
    }
    command: list[object] = [renderer_python, renderer_app]
    return Booting(command, env, target, draw([*command, picture], env, picture))


@pytest.fixture(scope="session")
def tree(booting: Booting) -> Path:
    """The tree out of the archive. Shared: tests look whether anybody writes to it."""
    return booting.tree


def state_of(tree: Path) -> dict[str, tuple[int, int]]:
    """Return size and mtime of every file."""
    return {
        os.path.join(where, name): (status.st_size, status.st_mtime_ns)
        for where, _, names in os.walk(tree)
        for name in names
        for status in [os.lstat(os.path.join(where, name))]
    }


def check_picture(picture: Path) -> None:
    data = picture.read_bytes()
    assert (data[:3], data[-2:]) == (b"\xff\xd8\xff", b"\xff\xd9")
    assert len(data) > 20_000


def draw(command: list[object], env: dict[str, str], picture: Path, tree: Path | None = None) -> str:
    """Draw a picture, check it and that no file of the tree was written, and return stderr."""
    before = state_of(tree) if tree else {}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [str(word) for word in command], env=env, capture_output=True, text=True, cwd="/", timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    check_picture(picture)
    if tree:
        assert state_of(tree) == before
    return done.stderr


@GROUP
def test_the_tree_is_the_one_that_was_packed(renderer_site: Path, renderer_archive: Path, tree: Path) -> None:
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", "--exclude=.unpackenv.stamp", renderer_site, tree],
        capture_output=True,
        text=True,
    )
    of_kaleido = [f"Only in {tree}/kaleido/executable/bin: locales"]  # an empty directory that it makes when it runs
    assert compared.stdout.splitlines() in ([], of_kaleido)
    compared = subprocess.run(["tar", "--zstd", "-df", renderer_archive, "-C", renderer_site], capture_output=True)
    differ = [line for line in compared.stdout.splitlines() if not line.endswith((b": Uid differs", b": Gid differs"))]
    assert (differ, compared.stderr) == ([], b"")
    for name in ("pandas/__init__.py", "numpy/__init__.py", "flask/app.py"):
        assert int((tree / name).stat().st_mtime) == int((renderer_site / name).stat().st_mtime)


@GROUP
def test_it_draws_after_bootstrap_cold_and_warm(booting: Booting, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    assert "unpackenv: unpacked" in booting.first
    assert "unpackenv: reused" in draw([*booting.command, picture], booting.env, picture, booting.tree)


@GROUP
def test_bytecode_is_accepted(renderer_python: str, renderer_environment: dict[str, str], tree: Path) -> None:
    code = f"import unpackenv; unpackenv.bootstrap('/nowhere', {str(tree)!r}); import pandas, plotly, flask"
    done = subprocess.run(
        [renderer_python, "-v", "-c", code], env=renderer_environment, capture_output=True, text=True, check=True
    )
    ours = [line for line in done.stderr.splitlines() if str(tree) in line]
    assert len([line for line in ours if " matches " in line]) > 300
    assert not [line for line in ours if "wrote" in line or "is stale" in line or line.startswith("# could not")]


@GROUP
def test_it_draws_behind_the_entrypoint(
    renderer_python: str,
    renderer_app: Path,
    renderer_environment: dict[str, str],
    renderer_archive: Path,
    tree: Path,
    tmp_path: Path,
) -> None:
    picture = tmp_path / "picture.jpg"
    command = [
        renderer_python,
        "-m",
        "unpackenv",
        "--archive",
        renderer_archive,
        "--target",
        tree,
        "--",
        renderer_python,
        renderer_app,
        picture,
    ]
    assert "unpackenv: reused" in draw(command, renderer_environment.copy(), picture, tree)


@GROUP
def test_it_draws_with_the_hook(
    renderer_python: str,
    renderer_app: Path,
    renderer_runtime: Path,
    renderer_environment: dict[str, str],
    renderer_archive: Path,
    tree: Path,
    tmp_path: Path,
) -> None:
    subprocess.run([renderer_python, "-m", "venv", "--without-pip", tmp_path / "image"], check=True)
    image = tmp_path / "image" / "bin" / "python"
    hook = [image, "-m", "unpackenv", "hook", "--auto", "--archive", renderer_archive, "--target", tree]
    subprocess.run(hook, env=renderer_environment, check=True, stdout=subprocess.DEVNULL)
    # The hook finds unpackenv by itself; the runtime is needed by who unpacks, and the tree is there.
    picture = tmp_path / "picture.jpg"
    assert "unpackenv" not in draw([image, "-I", renderer_app, picture], {"PATH": os.defpath}, picture, tree)


def test_it_draws_out_of_a_plain_tar(
    renderer_python: str, renderer_app: Path, renderer_environment: dict[str, str], renderer_xz: Path, tmp_path: Path
) -> None:
    shutil.copy(renderer_app, tmp_path / "app.py")
    (tmp_path / "packages.tar.xz").symlink_to(renderer_xz)
    target = tmp_path / "tree"
    picture = tmp_path / "picture.jpg"
    env = {**renderer_environment, "RENDERER_BOOTSTRAP": "1", "UNPACKENV_TARGET": str(target)}
    assert "unpackenv: unpacked" in draw([renderer_python, tmp_path / "app.py", picture], env, picture)
    before = state_of(target)
    picture.unlink()
    draw([renderer_python, tmp_path / "app.py", picture], env, picture, target)
    assert state_of(target) == before
