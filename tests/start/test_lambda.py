"""A function on AWS Lambda, whose packages come by URL, run by Lambda's own client in a sandbox like Lambda's.

The API of the runtime is a stand-in (helpers/lambda_runtime.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from helpers import documented, services
from helpers.containers_by_hand import Container
from helpers.documented import SERVERLESS_MD
from helpers.file_server import FileServer, serving
from helpers.lambda_runtime import RuntimeApi, runtime_api
from rig.environment import SOURCE, environment
from rig.packages import packages
from rig.sites import pack_tree, write_tree

USER = 993  # as the users of Lambda's sandboxes, it has no name and no home
TASK, PACKAGES, OWN, NEEDED = "/var/task", "/opt/packages", "/opt/own", "/opt/needed"
FLASK = {"flask/__init__.py": "", "flask/data.txt": "much\n" * 2000}


@pytest.fixture
def digest(tmp_path: Path) -> str:
    """The digest of an archive with a package that has the name of the one in the document."""
    return pack_tree(tmp_path / "app.tar.zst", write_tree(tmp_path / "site", FLASK))


@pytest.fixture
def sandbox(tmp_path: Path) -> Container:
    """A file system of which only /tmp may be written to."""
    write_tree(tmp_path / "task", {"handler.py": documented.file(SERVERLESS_MD, "handler.py")})
    (tmp_path / "root").mkdir()
    made = Container(tmp_path / "root")
    made.bind(tmp_path / "task", TASK, read_only=True)
    made.bind(packages(services.LAMBDA), PACKAGES, read_only=True)
    made.bind("/dev/null", "/dev/null")
    made.tmpfs("/tmp")
    made.bind(SOURCE, OWN, read_only=True)
    made.bind(Path(zstandard.__file__).parents[1], NEEDED, read_only=True)
    return made


def run(
    sandbox: Container, api: RuntimeApi, server: FileServer, digest: str, **more: object
) -> subprocess.CompletedProcess[str]:
    """Run the function until there are no more events."""
    own = {"UNPACKENV_ARCHIVE": f"{server.url}/app.tar.zst?SECRET#sha256={digest}", "NO_PROXY": "*"}
    env = environment(**{**own, **api.variables, **more})
    env["PYTHONPATH"] = f"{OWN}:{PACKAGES}:{NEEDED}"
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")  # this one may be below /tmp
    client = [python, "-m", "awslambdaric", "handler.handler"]
    return sandbox.run(["sh", "-c", f'cd {TASK}; exec "$@"', "sh", *client], env, user=USER)


@pytest.mark.parametrize("fill", ["before", "behind"])
def test_events_are_answered(tmp_path: Path, sandbox: Container, digest: str, fill: str) -> None:
    """The archive is fetched once, for all events."""
    data = (tmp_path / "app.tar.zst").read_bytes()
    with serving(data) as server, runtime_api({"name": "Ada"}, {"name": "Grace"}) as api:
        done = run(sandbox, api, server, digest, UNPACKENV_FILL=fill)
        where = f"/tmp/unpackenv-{USER}/env/{digest[:16]}"
        assert [(path, said.get("greeting")) for path, said in api.said] == [
            ("invocation/request-1/response", "Hello, Ada"),
            ("invocation/request-2/response", "Hello, Grace"),
        ], done.stderr
        assert all(said["flask"].startswith(where) for _, said in api.said), api.said
        assert done.stderr.count(f"unpackenv: {'unpacked' if fill == 'before' else 'named'} ") == 1, done.stderr
        assert "SECRET" not in done.stderr


def test_a_start_that_fails_is_told_to_lambda(tmp_path: Path, sandbox: Container, digest: str) -> None:
    data = (tmp_path / "app.tar.zst").read_bytes()
    with serving(data) as server, runtime_api({"name": "Ada"}) as api:
        done = run(sandbox, api, server, "0" * 64)
        ((path, said),) = api.said
        assert (path, said["errorType"]) == ("init/error", "DigestMismatch"), done.stderr
        assert f"but {'0' * 64} is required" in said["errorMessage"]
        assert done.returncode == 1
        assert "SECRET" not in done.stdout + done.stderr + str(said)
