"""A registry on loopback: Debian's `docker-registry`, with nothing in it unless a directory has it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rig.environment import PATIENCE
from rig.kept import NotMade

PROGRAM = "docker-registry"


@contextlib.contextmanager
def running(data: Path | None = None, port: int = 0, **settings: object) -> Iterator[str]:
    """Run a registry, an empty one without `data`; yield its address. On loopback it needs no TLS.

    `settings` are sections of its configuration, such as `auth`. Raises `NotMade`.
    """
    if not shutil.which(PROGRAM):
        raise NotMade(f"{PROGRAM} is not installed")
    address = f"127.0.0.1:{port or free_port()}"
    with tempfile.TemporaryDirectory(prefix="registry-") as root:
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(data or Path(root, "data"))}},
            "http": {"addr": address},
            **settings,
        }
        file = Path(root, "config.json")  # JSON is YAML
        file.write_text(json.dumps(config))
        with open(Path(root, "log"), "wb") as log:
            command = ["setpriv", "--pdeathsig", "TERM", PROGRAM, "serve", str(file)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait(address, process, Path(root, "log"))
            yield address
        finally:
            process.send_signal(signal.SIGKILL)  # it has no state to save
            process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/v2/").close()
            return
        except urllib.error.HTTPError as error:  # it wants credentials
            error.close()
            return
        except urllib.error.URLError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotMade(f"{PROGRAM} does not answer ({error}):\n{log.read_text()}") from None
        time.sleep(0.05)
