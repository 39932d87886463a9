"""The alternatives: how to make the archive of each, once, and the command that unpacks it.

The command of each peer runs to the point where the first line of an application would run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import toolbox
from cache import Unavailable, execute, key, once
from measure import Command
from workload import Renderer, Workload

_SQUASHFS = {
    "zstd": ("-comp", "zstd", "-Xcompression-level", "19"),
    "xz": ("-comp", "xz"),
    "lz4": ("-comp", "lz4", "-Xhc"),
}
_MULTI_BLOCK = {"XZ_OPT": "-T 0"}
# At its first line the application of PyInstaller ends the loader, which would go on to remove the tree.
_ENDS_THE_LOADER = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n"


@dataclass(frozen=True)
class Peer:
    """An alternative; `command` makes its archive first, and raises `Unavailable` where that cannot be."""

    name: str
    command: Callable[[str, Workload], Command]
    note: str = ""
    """What has to be known to compare it."""


# --- archives ------------------------------------------------------------------------------------


def tar(workload: Workload) -> Path:
    """Return a tar of the tree that is not compressed."""
    return _tarred(workload, "tar", [])


def tar_xz(workload: Workload) -> Path:
    """Return what `XZ_OPT="-T 0" tar -Jcf` makes of the tree."""
    return _tarred(workload, "tar.xz", ["-J"], _MULTI_BLOCK)


def tar_zstd(workload: Workload) -> Path:
    """Return what `tar --zstd -cf` makes of the tree at level 19."""
    return _tarred(workload, "tar.zst", ["--zstd"], zstd_19())


def zstd_19() -> Mapping[str, str]:
    """Return the environment in which tar compresses with zstd level 19 on all CPUs."""
    return {"ZSTD_CLEVEL": "19", "ZSTD_NBTHREADS": str(len(os.sched_getaffinity(0)))}


def squashfs(workload: Workload, codec: str) -> Path:
    """Return a squashfs image of the tree with blocks of 1 MB."""
    _need("mksquashfs", "unsquashfs")
    name = f"peer-{key(str(workload.tree), _SQUASHFS[codec])}.squashfs"
    return once(name, lambda place: execute(squash(workload, codec, place)))


def squash(workload: Workload, codec: str, output: Path) -> Sequence[object]:
    """Return the command that makes a squashfs image."""
    words = ["mksquashfs", workload.tree, output, "-noappend", "-quiet", "-no-progress", "-b", "1M"]
    return [*words, *_SQUASHFS[codec]]


def _zip(workload: Workload) -> Path:
    name = f"peer-{key(str(workload.tree))}.zip"
    command = [workload.python, "-m", "zipfile", "-c"]
    return once(name, lambda place: execute([*command, place, *sorted(workload.tree.iterdir())]))


def _tarred(workload: Workload, suffix: str, options: Sequence[str], env: Mapping[str, str] | None = None) -> Path:
    tree = workload.tree
    name = f"peer-{key(str(tree), options, *(env or {}).values())}.{suffix}"
    command = ["tar", "-C", tree.parent, *options, "-cf"]
    return once(name, lambda place: execute([*command, place, tree.name], env))


# --- commands ------------------------------------------------------------------------------------


def _tar(
    archive: Callable[[Workload], Path], *flags: str, tool: str = "tar", **env: str
) -> Callable[[str, Workload], Command]:
    def command(name: str, workload: Workload) -> Command:
        _need(tool)
        path = archive(workload)
        return Command(name, lambda at: [tool, *flags, "-xf", path, "-C", at], env, path)

    return command


def _unsquashfs(codec: str) -> Callable[[str, Workload], Command]:
    words = ["unsquashfs", "-no-progress", "-quiet", "-force", "-dest"]

    def command(name: str, workload: Workload) -> Command:
        image = squashfs(workload, codec)
        return Command(name, lambda at: [*words, at, image], reads=image)

    return command


def _copy(name: str, workload: Workload) -> Command:
    return Command(name, lambda at: ["cp", "-a", f"{workload.tree}/.", at], reads=workload.tree)


def _unzip(name: str, workload: Workload) -> Command:
    _need("unzip")
    path = _zip(workload)
    return Command(name, lambda at: ["unzip", "-q", path, "-d", at], reads=path)


def _python_module(module: str, archive: Callable[[Workload], Path]) -> Callable[[str, Workload], Command]:
    def command(name: str, workload: Workload) -> Command:
        path = archive(workload)
        return Command(name, lambda at: [workload.python, "-m", module, "-e", path, at], reads=path)

    return command


def _shiv(name: str, workload: Workload) -> Command:
    python, tree = workload.python, workload.tree
    # The entry point stands for the application: it returns at once.
    arguments = ["--site-packages", tree, "--entry-point", "gc:enable", "--python", python, "--output-file"]
    path = once(f"peer-{key(str(tree))}.shiv", lambda place: toolbox.run(python, "shiv", [*arguments, place], "shiv"))
    return Command(name, lambda at: ["env", f"SHIV_ROOT={at}", python, path], reads=path)


def _pex(*options: str) -> Callable[[str, Workload], Command]:
    def command(name: str, workload: Workload) -> Command:
        renderer, python = _with_wheels(workload), workload.python
        wheels = renderer.wheels()
        words = ["--no-pypi", "--find-links", wheels, "--requirement", renderer.requirements, *options]

        def make(place: Path) -> None:
            root = place.with_name(f"{place.name}.root")
            toolbox.run(python, "pex", [*words, "--pex-root", root, "--output-file", place])
            shutil.rmtree(root)

        path = once(f"peer-{key(str(wheels), options)}.pex", make)
        # Without an entry point it is an interpreter that imports from its packages.
        return Command(name, lambda at: ["env", f"PEX_ROOT={at}", python, path, "-c", "pass"], reads=path)

    return command


def _pyinstaller(name: str, workload: Workload) -> Command:
    python, tree = workload.python, workload.tree

    def make(place: Path) -> None:
        work = place.with_name(f"{place.name}.work")
        work.mkdir()
        (work / "app.py").write_text(_ENDS_THE_LOADER)
        directories = ["--distpath", place.parent, "--workpath", work, "--specpath", work]
        options = ["--onefile", "--log-level", "WARN", "--name", place.name, "--add-data", f"{tree}:site-packages"]
        toolbox.run(python, "pyinstaller", [*options, *directories, work / "app.py"], "PyInstaller")
        shutil.rmtree(work)

    path = once(f"peer-{key(str(tree), 'onefile')}.pyinstaller", make)
    return Command(name, lambda at: ["env", f"TMPDIR={at}", path], reads=path, ends=-signal.SIGKILL)


def _uv(*options: str) -> Callable[[str, Workload], Command]:
    def command(name: str, workload: Workload) -> Command:
        renderer, python = _with_wheels(workload), workload.python
        wheels, uv = renderer.wheels(), toolbox.installed(python, "uv") / "bin" / "uv"
        words = [uv, "pip", "install", "--quiet", "--no-config", "--offline", "--no-index", "--find-links", wheels]
        words += ["--python", python, "--requirements", renderer.requirements, *options]
        return Command(name, lambda at: [*words, "--cache-dir", at / "cache", "--target", at / "site"], reads=wheels)

    return command


def _with_wheels(workload: Workload) -> Renderer:
    if not isinstance(workload, Renderer):
        raise Unavailable(f"there are no wheels of {workload.name}")
    return workload


def _need(*tools: str) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"{', '.join(missing)} is not installed")


# --- all of them ---------------------------------------------------------------------------------

TAR_XZ, TAR_XZ_ONE = "tar -Jxf, XZ_OPT=-T0", "tar -Jxf, XZ_OPT=-T1"
TAR_ZSTD, TAR = "tar --zstd -xf", "tar -xf, uncompressed"
CP, UNSQUASHFS = "cp -a of the tree", "unsquashfs, zstd 19"
_SOURCES_ONLY = "unpacks sources and no bytecode"
_FROM_WHEELS = f"{_SOURCES_ONLY}: what is in the wheels"
PEERS = (
    Peer(TAR_XZ, _tar(tar_xz, "-J", XZ_OPT="-T 0"), "the archive of `XZ_OPT=-T0 tar -Jcf`"),
    Peer(TAR_XZ_ONE, _tar(tar_xz, "-J", XZ_OPT="-T 1"), "the same archive, decoded in one thread, as before xz 5.4"),
    Peer(TAR_ZSTD, _tar(tar_zstd, "--zstd"), "level 19"),
    Peer("bsdtar -xf, zstd", _tar(tar_zstd, tool="bsdtar"), "the same archive"),
    Peer("bsdtar -xf, xz", _tar(tar_xz, tool="bsdtar"), "the archive of `XZ_OPT=-T0 tar -Jcf`"),
    Peer(TAR, _tar(tar)),
    Peer(CP, _copy, "not compressed, no archive"),
    Peer(UNSQUASHFS, _unsquashfs("zstd"), "blocks of 1 MB"),
    Peer("unsquashfs, xz", _unsquashfs("xz"), "blocks of 1 MB"),
    Peer("unsquashfs, lz4", _unsquashfs("lz4"), "high compression, blocks of 1 MB"),
    Peer("unzip", _unzip, "deflate level 6"),
    Peer("python -m zipfile -e", _python_module("zipfile", _zip), "the same archive; modes and times are lost"),
    Peer("python -m tarfile -e, xz", _python_module("tarfile", tar_xz), "the archive of `XZ_OPT=-T0 tar -Jcf`"),
    Peer("shiv", _shiv, _SOURCES_ONLY),
    Peer("pex", _pex(), _FROM_WHEELS),
    Peer("pex --venv", _pex("--venv"), _FROM_WHEELS),
    Peer("PyInstaller, onefile", _pyinstaller, "the tree as its data; with the interpreter's own files"),
    Peer("uv pip install", _uv(), f"{_FROM_WHEELS}; cache and target on the new file system, hard-linked"),
    Peer("uv pip install --compile-bytecode", _uv("--compile-bytecode"), "the same, and compiles"),
)
MAIN = (TAR_XZ, TAR_ZSTD, UNSQUASHFS, TAR, CP)


def commands(workload: Workload, names: Iterable[str] | None = None) -> tuple[list[Command], dict[str, str]]:
    """Return the commands of the peers named, by default of all; and those that cannot be had here, with the reason."""
    found, missing = [], {}
    for peer in PEERS:
        if names is None or peer.name in names:
            try:
                found.append(peer.command(peer.name, workload))
            except Unavailable as error:
                missing[peer.name] = last_line(str(error))
    return found, missing


def notes() -> dict[str, str]:
    """Return what has to be known of each peer."""
    return {peer.name: peer.note for peer in PEERS if peer.note}


def last_line(text: str) -> str:
    """Return the line in which a tool says what went wrong."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def versions(python: str) -> dict[str, str]:
    """Return the version of each tool that is there; those that are installed on first use are there after it."""
    flags = {"bsdtar": "--version", "unsquashfs": "-version", "unzip": "-v"}
    tools = {tool: flags.get(tool, "--version") for tool in ("tar", "xz", "zstd", "cp", *flags)}
    found = {tool: first_line(tool, flag) for tool, flag in tools.items() if shutil.which(tool)}
    return {**found, **toolbox.versions(python)}


def first_line(*command: str) -> str:
    """Return the first line that a command writes."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return next(iter(done.stdout.splitlines()), "")
