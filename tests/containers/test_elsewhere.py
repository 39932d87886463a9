"""Containers whose image has no packages, as docs/remote-recipes.md and docs/serverless.md make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from helpers import documented
from helpers.docker_client import Docker
from helpers.documented import REMOTE_RECIPES, SERVERLESS_MD, adapted
from helpers.file_server import serving
from helpers.lambda_runtime import runtime_api
from unpackenv.archive import trailer

RECIPES = {**documented.recipes(REMOTE_RECIPES), **documented.recipes(SERVERLESS_MD)}
HOST = "--network=host"  # the servers are on loopback


def test_every_dockerfile_has_its_test() -> None:
    assert set(RECIPES) == {"An image without its packages", "AWS Lambda"}


def test_an_application(docker: Docker, image: Callable[[str], str], packed: Path) -> None:
    recipe = RECIPES["An image without its packages"]
    (words,) = recipe.runs
    at = words.index("app")
    with serving(packed.read_bytes()) as server:
        here = {"https://files.example": server.url, "DIGEST": trailer.identify(str(packed)).digest}
        options = adapted(" ".join(words[:at]), here).split()
        done = docker.run(image(recipe.heading), *words[at + 1 :], options=[*options, HOST])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unpackenv: unpacked ") == 1
    where = json.loads(done.stdout)
    assert where["uid"] == 1000
    assert where["flask"].startswith("/opt/unpackenv/env/")


def test_a_function_on_aws_lambda(docker: Docker, image: Callable[[str], str], packed: Path) -> None:
    """With a user, and places to write to, as Lambda has them; its API is a stand-in."""
    with serving(packed.read_bytes()) as server, runtime_api({"name": "Ada"}) as api:
        archive = f"{server.url}/app.tar.zst#sha256={trailer.identify(str(packed)).digest}"
        variables = {"UNPACKENV_ARCHIVE": archive, "UNPACKENV_FILL": "behind", **api.variables}
        options = [f"--env={name}={value}" for name, value in variables.items()]
        like_lambda = ["--read-only", "--tmpfs=/tmp:exec", "--user=993:990", "--cap-drop=ALL", HOST]
        done = docker.run(image("AWS Lambda"), options=[*options, *like_lambda])
    ((path, said),) = api.said
    assert (path, said["greeting"]) == ("invocation/request-1/response", "Hello, Ada"), done.stderr
    assert said["flask"].startswith("/tmp/unpackenv-993/env/")
