"""The Compose files and the Kubernetes manifests of the docs: valid, and their containers work as described."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from helpers import docker_client
from helpers.docker_client import Container, Docker
from helpers.documented import DOCKER_MD, KUBERNETES_MD, PROJECT, REMOTE_RECIPES, adapted, line_of
from helpers.processes import run, wait_for, wrapper
from helpers.registries import HTPASSWD, docker_config
from rig import registry
from rig.engine import Engine
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree
from unpackenv.archive import trailer

DEPLOY = PROJECT / "docs" / "deploy"
MANIFESTS = sorted(DEPLOY.glob("kubernetes*.yaml"))
ELSEWHERE = DEPLOY / "kubernetes-elsewhere.yaml"
IMAGE_VOLUME = DEPLOY / "kubernetes-image-volume.yaml"
DAEMON_SET = DEPLOY / "kubernetes-daemonset.yaml"
NODE = DEPLOY / "kubernetes-node.yaml"
OF_THE_IMAGE = [path for path in MANIFESTS if path not in (ELSEWHERE, IMAGE_VOLUME, DAEMON_SET)]
WITHOUT_PACKAGES = "An image without its packages"
ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').read().decode())"


def test_all_are_documented() -> None:
    caches = PROJECT / "docs/ci-caches.md"
    text = "".join(path.read_text() for path in (DOCKER_MD, KUBERNETES_MD, REMOTE_RECIPES, caches))
    assert set(re.findall(r"\(deploy/(.+?)\)", text)) == {path.name for path in DEPLOY.iterdir()}


# --- Kubernetes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_is_valid(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


class Pod:
    """A pod of a manifest, of Docker containers that have what the kubelet gives to those of a pod."""

    def __init__(
        self,
        docker: Docker,
        manifest: str,
        image: str,
        node: dict[str, str],
        secrets: Mapping[str, Path] | None = None,
        network: str = "none",
        images: Mapping[str, Path] | None = None,
    ) -> None:
        """`node` has the volume of each `hostPath` of the node, which is made when it is missing.

        `secrets` has a directory with the data of each Secret; `network` is that of the init container; `images` has a
        directory for each image that is mounted.
        """
        self._docker, self._image, self._network = docker, image, network
        self._secrets, self._images = secrets or {}, images or {}
        self.spec = yaml.safe_load(manifest)["spec"]["template"]["spec"]
        self._volumes = {volume["name"]: self._volume(volume, node) for volume in self.spec["volumes"]}

    def _volume(self, volume: dict[str, Any], node: dict[str, str]) -> str:
        if "hostPath" in volume:
            return node.setdefault(volume["hostPath"]["path"], self._docker.volume())
        if "secret" in volume:
            return str(self._shown(self._secrets[volume["secret"]["secretName"]], volume["secret"]["items"]))
        if "image" in volume:
            return str(self._images[volume["image"]["reference"]])
        name = self._docker.volume()
        self._docker.run(self._image, "0777", "/v", options=["--user=0", f"--volume={name}:/v", "--entrypoint=chmod"])
        return name

    @staticmethod
    def _shown(data: Path, items: list[dict[str, str]]) -> Path:
        """Return a directory with some data of a Secret, by the names that the pod wants."""
        shown = data.with_name(f"{data.name}-shown")
        shown.mkdir(exist_ok=True)
        for item in items:
            shutil.copy(data / item["key"], shown / item["path"])
        return shown

    def _run(self, container: dict[str, Any], *more: str) -> tuple[list[str], list[str]]:
        """Return the words of a container behind its image, and the options before it."""
        first, *rest = container.get("command") or [""]
        options = [f"--entrypoint={first}"] if first else []
        return [*rest, *container.get("args", [])], [*options, *self._options(container), *more]

    def _options(self, container: dict[str, Any]) -> list[str]:
        security = {**self.spec["securityContext"], **container["securityContext"]}
        limits = container.get("resources", {}).get("limits", {})
        options = [f"--user={security['runAsUser']}:{security['runAsGroup']}"]
        options += ["--read-only"] if security["readOnlyRootFilesystem"] else []
        options += [f"--cap-drop={name}" for name in security["capabilities"]["drop"]]
        options += [] if security["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
        options += [f"--env={variable['name']}={variable['value']}" for variable in container.get("env", [])]
        options += [f"--memory={limits['memory'].replace('Mi', 'm')}"] if "memory" in limits else []
        options += [f"--cpus={limits['cpu']}"] if "cpu" in limits else []
        for mount in container["volumeMounts"]:
            source = self._volumes[mount["name"]]
            is_read_only = mount.get("readOnly") and source not in map(str, self._images.values())
            # Docker's own `ro` would take `noexec` from the volume of an image, which is read-only as it is.
            mode = ("ro" if is_read_only else "rw") + ("" if os.path.isabs(source) else ",nocopy")
            options.append(f"--volume={source}:{mount['mountPath']}:{mode}")
        return options

    def initialise(self) -> str:
        """Run the init container and return what it says."""
        (container,) = self.spec["initContainers"]
        command, options = self._run(container, f"--network={self._network}")
        done = self._docker.run(self._image, *command, options=options)
        assert done.returncode == 0, done.stderr
        return done.stderr + done.stdout

    def start(self) -> Container:
        """Start the application; the startup probe has to succeed."""
        (container,) = self.spec["containers"]
        command, options = self._run(container)
        started = self._docker.start(self._image, *command, options=options)
        probe = container["startupProbe"]
        assert probe["httpGet"] == {"path": "/", "port": 8000}
        wait_for(lambda: started.exec("python", "-c", ASK, check=False) or not started.state["Running"], "the probe")
        assert started.state["Running"], started.stderr
        return started


@pytest.mark.parametrize("path", OF_THE_IMAGE, ids=lambda path: path.name)
def test_a_pod_starts_with_what_its_init_container_unpacked(
    docker: Docker, image: Callable[[str], str], path: Path
) -> None:
    pod = Pod(docker, path.read_text(), image("Not as root"), {})
    assert pod.initialise().count("unpackenv: unpacked") == 1
    for _ in "started", "started again":  # a new container, as the kubelet makes one
        container = pod.start()
        where = json.loads(container.exec("python", "-c", ASK))
        assert where["uid"] == 1000
        assert where["native"].startswith(("/unpacked/env/", "/opt/unpackenv/env/"))
        assert "unpackenv" not in container.stderr
        denied = container.exec("sh", "-c", f"touch {where['flask']} 2>&1; true")
        assert denied.startswith("touch: cannot touch")
        container.do("kill")


def test_pods_of_a_node_unpack_once(docker: Docker, image: Callable[[str], str]) -> None:
    node: dict[str, str] = {}
    pods = [Pod(docker, NODE.read_text(), image("Not as root"), node) for _ in range(3)]
    assert ["unpackenv: unpacked" in pod.initialise() for pod in pods] == [True, False, False]
    files = {json.loads(pod.start().exec("python", "-c", ASK))["flask"] for pod in pods}
    assert len(files) == 1


def test_two_versions_on_a_node(
    docker: Docker, engine: Engine, image: Callable[[str], str], site: Path, tmp_path: Path
) -> None:
    """A rolling update: a node has the new tree before its pods come, and keeps the old one while a pod uses it."""
    old = image("Not as root")
    node: dict[str, str] = {}
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site/new.py").write_text("")
    pack_tree(tmp_path / "new.tar.zst", tmp_path / "site")
    copy = f"FROM {old}\nCOPY new.tar.zst /opt/unpackenv/site-packages.tar.zst\n"
    new = docker_client.build(engine, "documented-new", copy, tmp_path)
    warming = adapted(DAEMON_SET.read_text(), {"--older-than 7d": "--older-than 0"})

    def pod(version: str) -> Pod:
        return Pod(docker, NODE.read_text(), version, node)

    def warm(version: str) -> bool:
        return "unpackenv: unpacked" in Pod(docker, warming, version, node).initialise()

    def left() -> list[str]:
        (volume,) = node.values()
        done = docker.run(old, "/v", options=["--entrypoint=ls", "--user=0", f"--volume={volume}:/v"])
        return [f"/opt/unpackenv/env/{name}" for name in done.stdout.split() if "." not in name]

    assert warm(old)
    assert "unpacked" not in pod(old).initialise()
    before = pod(old).start()
    assert warm(new)
    assert len(left()) == 2
    assert "unpacked" not in pod(new).initialise()
    after = pod(new).start()
    trees = [json.loads(each.exec("python", "-c", ASK))["flask"] for each in (before, after)]
    assert trees[0] != trees[1]
    before.do("kill")
    assert not warm(new)
    assert left() == [trees[1].rpartition("/flask/")[0]]


@pytest.fixture
def image_volume(tmp_path: Path, packed: Path, site: Path) -> Iterator[Path]:
    """A directory as the kubelet mounts that of an image, with an archive and with the packages themselves."""
    place = tmp_path / "volume"
    place.mkdir()
    shutil.copy(packed, place / "app.tar.zst")
    shutil.copytree(site, place / "site-packages")
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro,noexec", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_an_archive_in_an_image_volume(docker: Docker, image: Callable[[str], str], image_volume: Path) -> None:
    """Packages themselves would not do: their shared objects cannot be loaded from there."""
    images = {"registry.example/packages:1": image_volume}
    pod = Pod(docker, IMAGE_VOLUME.read_text(), image(WITHOUT_PACKAGES), {}, images=images)
    assert "unpackenv: unpacked" in pod.initialise()
    where = json.loads(pod.start().exec("python", "-c", ASK))
    assert where["native"].startswith("/unpacked/env/")
    code = "import sys; sys.path.insert(0, '/v/site-packages'); import markupsafe._speedups"
    options = ["--entrypoint=python", f"--volume={image_volume}:/v"]
    refused = docker.run(image(WITHOUT_PACKAGES), "-c", code, options=options)
    assert "failed to map segment" in refused.stderr


def test_pods_fetch_with_the_credentials_for_images(
    docker: Docker, image: Callable[[str], str], packed: Path, tmp_path: Path
) -> None:
    """The first pod of a node fetches; the second needs no network."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "registry").mkdir()  # the Secret
    auth = {"htpasswd": {"realm": "registry", "path": str(tmp_path / "htpasswd")}}
    push = line_of(KUBERNETES_MD, "unpackenv push ")
    with registry.running(auth=auth) as address:
        (tmp_path / "registry/.dockerconfigjson").write_text(docker_config(address))
        (tmp_path / "config.json").write_text(docker_config(address))
        words = adapted(push, {"app.tar.zst": packed, "registry.example": address}).split()
        pushed = run(wrapper(*words[1:]), environment(DOCKER_CONFIG=tmp_path))
        assert pushed.returncode == 0, pushed.stderr
        reference = pushed.stdout.split()[-1].partition("=")[2]
        manifest = adapted(ELSEWHERE.read_text(), {"oci://registry.example/packages@sha256:DIGEST": reference})
        node: dict[str, str] = {}
        pods = [
            Pod(docker, manifest, image(WITHOUT_PACKAGES), node, {"registry": tmp_path / "registry"}, network)
            for network in ("host", "none")
        ]
        assert pods[0].spec["imagePullSecrets"] == [{"name": "registry"}]
        assert ["unpackenv: unpacked" in pod.initialise() for pod in pods] == [True, False]
    (cache,) = [volume for path, volume in node.items() if "cache" in path]
    frames = ["-c", "find /v -name '*.frame' | wc -l"]
    found = docker.run(image(WITHOUT_PACKAGES), *frames, options=["--entrypoint=sh", f"--volume={cache}:/v"])
    assert int(found.stdout) > 0
    where = json.loads(pods[1].start().exec("python", "-c", ASK))
    assert where["uid"] == 1000
    assert where["flask"].startswith("/opt/unpackenv/env/")


# --- Compose -------------------------------------------------------------------------------------


class Project:
    """A Compose project of a file of the documentation, with more for its services: `here`."""

    def __init__(self, engine: Engine, folder: Path, name: str, here: dict[str, Any]) -> None:
        """Skips the test without Compose."""
        plugin = engine.run("compose", "version", check=False).returncode == 0
        if not plugin and not shutil.which("docker-compose"):
            pytest.skip("Docker Compose is not installed")
        shutil.copy(DEPLOY / name, folder)
        (folder / "here.yaml").write_text(yaml.dump({"services": here}))
        files = ["--project-name", "documented", "--file", name, "--file", "here.yaml"]
        self._command = [*(["docker", "compose"] if plugin else ["docker-compose"]), *files]
        self._engine, self._folder = engine, folder

    def run(self, *words: str, **variables: str) -> str:
        """Run Compose, and return what it prints."""
        done = subprocess.run(
            [*self._command, *words],
            env={**self._engine.env, **variables},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answers(self, service: str) -> list[dict[str, Any]]:
        """Return what the containers of a service answer, when all of them do."""
        containers = [Container(self._engine, name) for name in self.run("ps", "--quiet", service).split()]
        for container in containers:
            wait_for(lambda at=container: at.exec("python", "-c", ASK, check=False), "gunicorn")  # type: ignore[misc]
        return [json.loads(container.exec("python", "-c", ASK)) for container in containers]


@pytest.fixture
def compose(engine: Engine, tmp_path: Path, image: Callable[[str], str]) -> Iterator[Project]:
    """The Compose file of docs/docker.md, with its image."""
    here = {"app": {"network_mode": "none", "environment": {"UNPACKENV_LOG": "json"}}}
    project = Project(engine, tmp_path, "compose.yaml", here)
    engine.run("tag", image("Not as root"), "app")
    yield project
    project.run("down", "--volumes")


def test_the_compose_file_unpacks_once(compose: Project) -> None:
    services = yaml.safe_load(compose.run("config"))["services"]
    assert services["app"]["read_only"] is True
    compose.run("up", "--detach", "--scale", "app=3")
    answers = compose.answers("app")
    assert len(answers) == 3
    assert len({answer["flask"] for answer in answers}) == 1
    assert all(answer["uid"] == 1000 for answer in answers)
    line = line_of(PROJECT / "docs" / "timings.md", "docker compose ")  # which Debian calls docker-compose
    logs, _, read = line.removeprefix("docker compose ").partition(" | unpackenv ")
    done = run(wrapper(*read.split()), stdin=compose.run(*logs.split()))
    assert done.returncode == 0, done.stderr
    assert re.search(r": 1 unpacked\b", done.stdout)


# As the image of that name hands out files, of Debian's packages.
NGINX = """
FROM python:3.12-slim
RUN apt-get update -qq && apt-get install -qq --no-install-recommends nginx-light
RUN echo 'server { listen 80; root /usr/share/nginx/html; }' > /etc/nginx/sites-enabled/default
CMD ["nginx", "-g", "daemon off;"]
"""


@pytest.fixture
def elsewhere(
    engine: Engine, python_images: None, tmp_path: Path, image: Callable[[str], str], packed: Path
) -> Iterator[Project]:
    """The Compose file of docs/remote-recipes.md, with its images and an archive."""
    project = Project(engine, tmp_path, "compose-elsewhere.yaml", {"app": {"environment": {"UNPACKENV_LOG": "json"}}})
    engine.run("tag", image(WITHOUT_PACKAGES), "app")
    docker_client.build(engine, "nginx:1", NGINX, tmp_path)
    (tmp_path / "archives").mkdir(mode=0o755)
    shutil.copy(packed, tmp_path / "archives")
    yield project
    project.run("down", "--volumes", UNPACKENV_ARCHIVE="any")


def test_replicas_of_compose_fetch_once(elsewhere: Project, packed: Path) -> None:
    line = adapted(
        line_of(REMOTE_RECIPES, "UNPACKENV_ARCHIVE=http://"), {"DIGEST": trailer.identify(str(packed)).digest}
    )
    variable, *words = line.split()
    variables = {"UNPACKENV_ARCHIVE": variable.partition("=")[2]}
    assert words[:3] == ["docker", "compose", "up"]
    elsewhere.run("up", "--detach", *words[3:], **variables)
    answers = elsewhere.answers("app")
    assert len(answers) == 3
    assert all(answer["uid"] == 1000 for answer in answers)
    said = elsewhere.run("logs", "--no-color", "app", **variables).splitlines()
    starts = [json.loads(line[line.index("{") :]) for line in said if '{"unpackenv"' in line]
    assert [start["outcome"] for start in starts] == ["unpacked"] * 3
    assert sum(start["fetched"]["bytes"] for start in starts) <= 1.05 * packed.stat().st_size
