"""A base image like `python:X.Y-slim`, without a registry: Debian's packages and an interpreter of this machine.

    python -m rig.base_image TAG                          for the CPython that runs this
    python -m rig.base_image TAG --python PATH            for another one
    python -m rig.base_image TAG --build-tools            with gcc and its like, as `python:X.Y` has them
    BASE_IMAGE=python:3.12-slim python -m rig.base_image TAG       pulled instead

It loads the image into the engine of DOCKER_HOST. Like the official ones it has pip, and a standard library without
bytecode and tests. What is made is kept under ~/.cache/unpackenv-tests.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rig import kept
from rig.kept import NotMade

# As python:X.Y-slim has them. The renderer needs nothing else of Debian: kaleido brings its libraries and fonts.
_PACKAGES = ("ca-certificates", "netbase", "tzdata", "usr-is-merged")
_BUILD_TOOLS = ("build-essential", "git", "pkg-config", "libffi-dev", "libssl-dev", "zlib1g-dev")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
# What is tests, documentation, a tool with a window, or is not in the official images either.
_NOT_OF_LIB = ("__pycache__", "test", "tests", "idlelib", "turtledemo", "tkinter", "site-packages", "pydoc_data", "*.a")
_PROBE = """
import ensurepip, json, sys, sysconfig
print(json.dumps([sys.version, sys.base_prefix, "%d.%d" % sys.version_info[:2], sysconfig.get_path("stdlib")]))
"""
_VARIABLES = ("PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")


class Unavailable(Exception):
    """What a base image is made with is not here; the message says what."""


class Interpreter:
    """A CPython that is here, with a directory tree of its own such as pyenv or `make install` make it."""

    def __init__(self, python: str) -> None:
        probe = subprocess.run([python, "-I", "-c", _PROBE], check=False, capture_output=True, text=True)
        if probe.returncode:
            raise Unavailable(f"{python} has no pip to bring along")
        self.build, prefix, self.version, library = json.loads(probe.stdout)
        self.prefix, self.library = Path(prefix), Path(library)
        if self.prefix == Path("/usr"):
            raise Unavailable(f"{python} is the system's own: its files cannot be told from others")

    @property
    def binary(self) -> Path:
        return self.prefix / "bin" / f"python{self.version}"

    def copy(self, to: Path) -> None:
        """Write what goes to /usr/local."""
        (to / "bin").mkdir(parents=True)
        (to / "lib").mkdir()
        shutil.copy2(self.binary, to / "bin")
        for name, target in (("python3", f"python{self.version}"), ("python", "python3")):
            (to / "bin" / name).symlink_to(target)
        for file in self.prefix.glob("lib/libpython*.so*"):
            shutil.copy2(file, to / "lib", follow_symlinks=False)
        ignored = shutil.ignore_patterns(*_NOT_OF_LIB, "_tkinter*.so", "_test*.so")
        shutil.copytree(self.library, to / "lib" / self.library.name, symlinks=True, ignore=ignored)
        shutil.copytree(self.prefix / "include", to / "include", symlinks=True)
        (to / "lib" / self.library.name / "site-packages").mkdir()
        if shutil.which("strip"):
            binaries = [path for path in (*to.glob("lib/**/*.so*"), *to.glob("bin/*")) if not path.is_symlink()]
            subprocess.run(["strip", "--strip-unneeded", *binaries], check=True, capture_output=True)

    def packages(self) -> list[str]:
        """Return the Debian packages that its shared objects need."""
        modules = [path for path in self.library.glob("lib-dynload/*.so") if not path.name.startswith("_tkinter")]
        listed = kept.run("ldd", self.binary, *modules)
        found = {line.split()[2] for line in listed.splitlines() if " => /" in line}
        paths = {os.path.realpath(path) for path in found if not Path(path).resolve().is_relative_to(self.prefix)}
        # A package may list its files from before /lib became a link to /usr/lib.
        names = sorted(paths | {path[len("/usr") :] for path in paths if path.startswith("/usr/")})
        owners = subprocess.run(["dpkg-query", "--search", *names], check=False, capture_output=True, text=True).stdout
        return sorted({line.split(": ")[0].partition(":")[0] for line in owners.splitlines()})


def load(
    tag: str, python: str = sys.executable, *, build_tools: bool = False, env: dict[str, str] | None = None
) -> str:
    """Bring the base image into the engine of `env` (DOCKER_HOST) as `tag`, and return `tag`.

    Raises `Unavailable`, or `NotMade` if something fails.
    """
    environment = env or {**os.environ}
    pulled = os.environ.get("BASE_IMAGE")
    if pulled:
        name = pulled.replace("-slim", "") if build_tools else pulled
        kept.run("docker", "pull", "--quiet", name, env=environment)
        kept.run("docker", "tag", name, tag, env=environment)
    else:
        changes = [*(f"--change=ENV {variable}" for variable in _VARIABLES), '--change=CMD ["python3"]']
        kept.run("docker", "import", *changes, archive(python, build_tools=build_tools), tag, env=environment)
    return tag


def archive(python: str, *, build_tools: bool = False) -> Path:
    """Return the tar of the root file system. Raises `Unavailable`, or `NotMade` if something fails."""
    release = _debian()
    interpreter = Interpreter(python)
    packages = [*_PACKAGES, *interpreter.packages(), *(_BUILD_TOOLS if build_tools else ())]
    made_of = [Path(__file__).read_text(), release, interpreter.build, str(interpreter.prefix), *packages]

    def make(to: Path) -> None:
        local = to.with_name("local")
        interpreter.copy(local)
        _bootstrap(release, packages, local, to)

    return kept.made(f"base-{interpreter.version}", "\n".join(made_of), make, suffix=".tar")


def _debian() -> str:
    """Return the release here: an interpreter needs the C library that it was built with, or a newer one."""
    try:
        facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().split("\n") if "=" in line)
    except OSError:
        facts = {}
    if facts.get("ID") != "debian" or os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        raise Unavailable("a base image is made on Debian, by root, with mmdebstrap; BASE_IMAGE can name another one")
    return facts["VERSION_CODENAME"]


def _bootstrap(release: str, packages: Sequence[str], local: Path, to: Path) -> None:
    install = [
        'cp -R --no-dereference --preserve=mode,timestamps,links "$UNPACKENV_LOCAL"/. "$1/usr/local"',
        'chroot "$1" ldconfig',
        'chroot "$1" /usr/local/bin/python3 -m ensurepip',
        'ln -s pip3 "$1/usr/local/bin/pip"',
        'find "$1/usr/local" -name __pycache__ -prune -exec rm -r {} +',
    ]
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--format=tar", "--variant=minbase", f"--hook-dir={_MERGED_USR}"),
        *("--aptopt=Acquire::Languages none", f"--include={','.join(packages)}"),
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        *(f"--customize-hook={line}" for line in install),
        *(release, str(to)),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept.run(*command, env={**environment, "UNPACKENV_LOCAL": str(local)})


def main() -> None:
    parser = argparse.ArgumentParser(description="Load a base image like python:X.Y-slim into a Docker engine.")
    parser.add_argument("tag")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to bring along (default: this one)")
    parser.add_argument("--build-tools", action="store_true", help="with compilers and headers")
    options = parser.parse_args()
    try:
        print(load(options.tag, options.python, build_tools=options.build_tools))
    except (Unavailable, NotMade) as error:
        raise SystemExit(f"base_image: {error}") from None


if __name__ == "__main__":
    main()
