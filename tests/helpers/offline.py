"""Packages for a `docker build` without a network: wheels for pip and packages for apt, in one directory.

In an image that has run `CONFIGURE`, the Dockerfiles of the documentation build as they are written, only faster: pip
compiles nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from helpers.documented import PROJECT
from rig import kept
from rig.packages import PIP

PLACE = "/offline"
CONFIGURE = f"""\
printf '[global]\\nno-index = true\\nfind-links = {PLACE}/wheels\\nno-compile = true\\n' > /etc/pip.conf && \
rm -rf /etc/apt/sources.list.d/* && \
echo 'deb [trusted=yes] file:{PLACE}/debian ./' > /etc/apt/sources.list"""

_DEBIAN = ("binutils", "nginx-light", "tini")
_OTHERS = ("awslambdaric", "hatchling>=1.26", "itsdangerous==2.2.0", "pdm", "poetry", "poetry-plugin-export", "uv")


def fill(directory: Path, requirements: Path) -> None:
    """Put there what installs `requirements`, unpackenv as it is here, and the tools of a build stage."""
    wheels, debian = directory / "wheels", directory / "debian"
    wheels.mkdir(parents=True)
    debian.mkdir()
    for source, to in ((_wheels(requirements), wheels), (_debian(), debian)):
        for file in source.iterdir():
            shutil.copy(file, to)
    kept.run(*PIP, "wheel", "--no-deps", "--wheel-dir", wheels, PROJECT)
    for path in (directory, *directory.rglob("*")):  # apt reads as a user of its own
        path.chmod(0o755 if path.is_dir() else 0o644)


def _wheels(requirements: Path) -> Path:
    """Return a directory with the wheels of all that is not ours."""
    python = f"{sys.version}\n"
    key = f"{python}with {_OTHERS}\n" + requirements.read_text() + (PROJECT / "pyproject.toml").read_text()

    def download(to: Path) -> None:
        wanted = [f"{PROJECT}[build]", *_OTHERS, "--requirement", requirements]
        kept.run(*PIP, "wheel", "--wheel-dir", to, *wanted)
        for own in to.glob("unpackenv-*"):
            own.unlink()

    return kept.made("wheels", key, download)


def _debian() -> Path:
    """Return a repository for apt with the packages of `_DEBIAN` and all that they depend on."""

    def download(to: Path) -> None:
        to.mkdir(mode=0o755)
        only = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
        kept.run("apt-get", "update", "-qq")
        listed = kept.run("apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in only), *_DEBIAN)
        names = [line for line in listed.splitlines() if line[0].isalnum()]
        kept.run("apt-get", "-o", "APT::Sandbox::User=root", "download", *names, cwd=to)
        (to / "Packages").write_text("\n".join(map(_described, sorted(to.glob("*.deb")))))

    return kept.made("debian", " ".join(_DEBIAN) + Path("/etc/os-release").read_text(), download)


def _described(package: Path) -> str:
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    fields = [f"Filename: ./{package.name}", f"Size: {package.stat().st_size}", f"SHA256: {digest}"]
    return "\n".join([kept.run("dpkg-deb", "--field", package).strip(), *fields, ""])
