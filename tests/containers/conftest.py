"""A Docker engine for the run, its base images, and the images of the documents built on them."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import docker_client, documented, offline
from helpers.docker_client import Docker
from helpers.documented import REMOTE_RECIPES, SERVERLESS_MD
from rig import base_image, kept
from rig import engine as engines
from rig.engine import Engine
from rig.kept import NotMade
from rig.packages import PIP
from rig.sites import TAG, members_of, pack, pack_tree

HERE = Path(__file__).parent
# A Python and its libraries, and nothing else: no shell.
DISTROLESS = """
FROM scratch
COPY --from=python:3.12-slim /usr/local /usr/local
COPY --from=python:3.12-slim /etc/ld.so.cache /etc/ld.so.cache
COPY --from=python:3.12-slim /lib64 /lib64
COPY --from=python:3.12-slim /lib/x86_64-linux-gnu /lib/x86_64-linux-gnu
COPY --from=python:3.12-slim /usr/lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu
ENV PATH=/usr/local/bin
"""


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs them, on one engine."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("containers"))
            item.add_marker("containers")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine with `python:3.12` and `python:3.12-slim`, which install from a directory."""
    try:
        with engines.fresh() as running:
            base_image.load("base", env=running.env)
            yield running
    except (engines.Unavailable, base_image.Unavailable) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def python_images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The two images that the Dockerfiles are `FROM`: of this machine, and configured for builds without a network."""
    context = tmp_path_factory.mktemp("python")
    offline.fill(context / "offline", HERE / "requirements.txt")
    slim = f"FROM base\nCOPY offline {offline.PLACE}\nRUN {offline.CONFIGURE}\n"
    docker_client.build(engine, "python:3.12-slim", slim, context)
    tools = "FROM python:3.12-slim\nRUN apt-get update -qq && apt-get install -qq binutils\n"
    docker_client.build(engine, "python:3.12", tools, context)
    docker_client.build(engine, "distroless", DISTROLESS, context)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the application. Shared: never write to it."""
    path = tmp_path_factory.mktemp("plain") / "site-packages"
    kept.run(*PIP, "install", "--target", path, "-r", HERE / "requirements.txt")
    return path


@pytest.fixture(scope="session")
def packed(site: Path) -> Path:
    """An archive of them."""
    path = site.parent / "app.tar.zst"
    pack_tree(path, site)
    return path


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    """What lies beside the Dockerfiles of the documentation."""
    path = tmp_path_factory.mktemp("context")
    for name in ("app.py", "requirements.txt"):
        shutil.copy(HERE / name, path)
    (path / "handler.py").write_text(documented.file(SERVERLESS_MD, "handler.py"))
    subprocess.run(["tar", "-C", site.parent, "-Jcf", path / "packages.tar.xz", site.name], check=True)
    return path


@pytest.fixture(scope="session")
def image(engine: Engine, python_images: None, context: Path) -> Callable[[str], str]:
    """A function that returns the image of a section of a document, built when it is first asked for."""
    recipes = {**documented.recipes(), **documented.recipes(REMOTE_RECIPES), **documented.recipes(SERVERLESS_MD)}
    built: dict[str, str | NotMade] = {}

    def build(heading: str) -> str:
        if heading not in built:
            tag = f"documented-{len(built)}"
            try:
                built[heading] = docker_client.build(engine, tag, recipes[heading].dockerfile, context)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                built[heading] = NotMade(f"the image of {heading!r} could not be built: {error}")
        tag_or_error = built[heading]
        if isinstance(tag_or_error, NotMade):
            raise tag_or_error
        return tag_or_error

    return build


@pytest.fixture(scope="session")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of `docker run` that put an archive of 400 MB in the place of the image's: to unpack it takes a while."""
    folder = tmp_path_factory.mktemp("heavy")
    noise = random.Random(1).randbytes(8 << 20)
    for number in range(400):
        file = folder / "tree" / str(number % 20) / str(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(noise[number << 14 :][: 1 << 20])
    (folder / "tree/app.py").write_text("")
    archive = folder / "archive"
    pack(archive, members_of(folder / "tree"), frame_size=12 << 20, workers=2, facts={"python": [str(TAG)]})
    return ["--volume", f"{archive}:/opt/unpackenv/site-packages.tar.zst:ro"]


@pytest.fixture
def docker(engine: Engine) -> Iterator[Docker]:
    """The engine for one test: its containers and volumes are gone afterwards."""
    used = Docker(engine)
    yield used
    used.close()
