"""The Compose file and the Kubernetes manifests of the docs: valid, and their containers work as described."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from helpers.docker_client import Container, Docker
from helpers.documented import DOCKER_MD, PROJECT, line_of
from helpers.processes import run, wait_for, wrapper
from rig.engine import Engine
from rig.environment import PATIENCE

DEPLOY = PROJECT / "docs" / "deploy"
MANIFESTS = sorted(DEPLOY.glob("kubernetes*.yaml"))
ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').read().decode())"


def test_all_are_documented() -> None:
    assert set(re.findall(r"\(deploy/(.+?)\)", DOCKER_MD.read_text())) == {path.name for path in DEPLOY.iterdir()}


# --- Kubernetes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_is_valid(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


class Pod:
    """A pod of a manifest, of Docker containers that have what the kubelet gives to those of a pod."""

    def __init__(self, docker: Docker, manifest: Path, image: str, node: dict[str, str]) -> None:
        """`node` has the volume of each `hostPath` of the node, which is made when it is missing."""
        self._docker, self._image = docker, image
        self.spec = yaml.safe_load(manifest.read_text())["spec"]["template"]["spec"]
        self._volumes = {volume["name"]: self._volume(volume, node) for volume in self.spec["volumes"]}

    def _volume(self, volume: dict[str, Any], node: dict[str, str]) -> str:
        if "hostPath" in volume:
            return node.setdefault(volume["hostPath"]["path"], self._docker.volume())
        name = self._docker.volume()
        self._docker.run(self._image, "chmod", "0777", "/v", options=["--user=0", f"--volume={name}:/v"])
        return name

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
            mode = "ro" if mount.get("readOnly") else "rw"
            options.append(f"--volume={self._volumes[mount['name']]}:{mount['mountPath']}:{mode},nocopy")
        return options

    def initialise(self) -> str:
        """Run the init container and return what it says."""
        (container,) = self.spec["initContainers"]
        command = [*container["command"], *container.get("args", [])]
        done = self._docker.run(self._image, *command, options=self._options(container))
        assert done.returncode == 0, done.stderr
        return done.stderr + done.stdout

    def start(self) -> Container:
        """Start the application; the startup probe has to succeed."""
        (container,) = self.spec["containers"]
        started = self._docker.start(self._image, *container["command"], options=self._options(container))
        probe = container["startupProbe"]
        assert probe["httpGet"] == {"path": "/", "port": 8000}
        wait_for(lambda: started.exec("python", "-c", ASK, check=False) or not started.state["Running"], "the probe")
        assert started.state["Running"], started.stderr
        return started


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_pod_starts_with_what_its_init_container_unpacked(
    docker: Docker, image: Callable[[str], str], path: Path
) -> None:
    pod = Pod(docker, path, image("Not as root"), {})
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
    pods = [Pod(docker, DEPLOY / "kubernetes-node.yaml", image("Not as root"), node) for _ in range(3)]
    assert ["unpackenv: unpacked" in pod.initialise() for pod in pods] == [True, False, False]
    files = {json.loads(pod.start().exec("python", "-c", ASK))["flask"] for pod in pods}
    assert len(files) == 1


# --- Compose -------------------------------------------------------------------------------------


@pytest.fixture
def compose(engine: Engine, tmp_path: Path, image: Callable[[str], str]) -> Iterator[Callable[..., str]]:
    """A function that runs Compose on the file of the documentation, in a project that has its image."""
    plugin = engine.run("compose", "version", check=False).returncode == 0
    if not plugin and not shutil.which("docker-compose"):
        pytest.skip("Docker Compose is not installed")
    engine.run("tag", image("Not as root"), "app")
    shutil.copy(DEPLOY / "compose.yaml", tmp_path)
    here = {"network_mode": "none", "environment": {"UNPACKENV_LOG": "json"}}
    (tmp_path / "here.yaml").write_text(yaml.dump({"services": {"app": here}}))
    files = ["--project-name", "documented", "--file", "compose.yaml", "--file", "here.yaml"]

    def run_it(*words: str) -> str:
        command = [*(["docker", "compose"] if plugin else ["docker-compose"]), *files, *words]
        done = subprocess.run(command, env=engine.env, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run_it
    run_it("down", "--volumes")


def test_the_compose_file_unpacks_once(engine: Engine, compose: Callable[..., str]) -> None:
    services = yaml.safe_load(compose("config"))["services"]
    assert services["app"]["read_only"] is True
    compose("up", "--detach", "--scale", "app=3")
    containers = [Container(engine, name) for name in compose("ps", "--quiet").split()]
    assert len(containers) == 3
    for container in containers:
        wait_for(lambda at=container: at.exec("python", "-c", ASK, check=False), "gunicorn")  # type: ignore[misc]
    answers = [json.loads(container.exec("python", "-c", ASK)) for container in containers]
    assert len({answer["flask"] for answer in answers}) == 1
    assert all(answer["uid"] == 1000 for answer in answers)
    line = line_of(PROJECT / "docs" / "timings.md", "docker compose ")  # which Debian calls docker-compose
    logs, _, read = line.removeprefix("docker compose ").partition(" | unpackenv ")
    done = run(wrapper(*read.split()), stdin=compose(*logs.split()))
    assert done.returncode == 0, done.stderr
    assert re.search(r": 1 unpacked\b", done.stdout)
