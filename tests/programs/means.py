"""Say before the suite starts what it needs, makes and uses. With the standard library alone, for any Python 3.

make means                              what the suite needs, and what is missing here
python3 -m programs.means --packages    the Debian packages that provide what is missing
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import NamedTuple

from renderer import install
from rig import kept

MEGABYTES = {"virtual environment": 600, "cache": 2350}
MINUTES, FIRST_MINUTES = 20, 10
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_NOTHING = "nothing runs"


class Tool(NamedTuple):
    """A command, the Debian package that has it, and what is not tested without it."""

    command: str
    package: str
    without: str


_CONTAINERS = "containers"
_FILE_SYSTEMS = "starts on file systems of that kind"
_PEERS = "comparisons with that tool"
TOOLS = (
    Tool("tar", "tar", _NOTHING),
    Tool("xz", "xz-utils", _NOTHING),
    Tool("zstd", "zstd", _NOTHING),
    Tool("make", "make", "commands of the documents"),
    Tool("strip", "binutils", "what is said of symbols in shared objects"),
    Tool("bsdtar", "libarchive-tools", _PEERS),
    Tool("unsquashfs", "squashfs-tools", _PEERS),
    Tool("unzip", "unzip", _PEERS),
    Tool("strace", "strace", "which files an application opens"),
    Tool("mkfs.ext4", "e2fsprogs", _FILE_SYSTEMS),
    Tool("mkfs.xfs", "xfsprogs", _FILE_SYSTEMS),
    Tool("docker-registry", "docker-registry", "archives in a registry"),
    Tool("openssl", "openssl", "servers with certificates, and tokens"),
    Tool("chromium", "chromium", "the page of `timings` in a browser"),
    Tool("nginx", "nginx-light", "archives by URL from that server"),
    Tool("dockerd", "docker.io", _CONTAINERS),
    Tool("mmdebstrap", "mmdebstrap", _CONTAINERS),
    Tool("zsh", "zsh", "completion in that shell"),
    Tool("fish", "fish", "completion in that shell"),
    Tool("java", "openjdk-17-jre-headless", "Spark"),
    Tool("mpirun", "openmpi-bin", "MPI"),
    Tool("slurmctld", "slurm-wlm", "Slurm"),
    Tool("munged", "munge", "Slurm"),
    Tool("docker-compose", "docker-compose", "the Compose file"),
)


def missing() -> list[Tool]:
    """Return the tools that are not here; a Python that cannot make a virtual environment counts as one."""
    found = [tool for tool in TOOLS if not shutil.which(tool.command, path=_PATH)]
    if not importlib.util.find_spec("ensurepip"):
        found.insert(0, Tool("python3 -m venv", "python3-venv", _NOTHING))
    return found


def lines() -> list[str]:
    """Return what is said."""
    venv, cache = MEGABYTES.values()
    is_first = not kept.DIRECTORY.exists()
    said = [
        f"The suite takes about {MINUTES} minutes on 2 CPUs"
        + (f", and {FIRST_MINUTES} more this first time, for what it downloads and makes." if is_first else "."),
        f"It makes a virtual environment here ({venv} MB), and {kept.DIRECTORY} ({cache} MB), which stay.",
        "It leaves nothing in the temporary directory; what failed tests had there goes to build/failed-tests.",
    ]
    for command, package, without in missing():
        said.append(f"Not here: {command} (apt-get install {package}); without: {without}.")
    if os.geteuid() != 0:
        said.append("Not root; without: containers, mounts, other users, limits of cgroups.")
    if not install.find_python():
        said.append("Not here: a CPython 3.9 with pip, or UNPACKENV_PYTHON39; without: the renderer.")
    return said


if __name__ == "__main__":
    for line in [tool.package for tool in missing()] if "--packages" in sys.argv else lines():
        print(line)
