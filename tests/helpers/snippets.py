"""Files for the commands of a document: small packages, archives, and logs of real starts."""

from __future__ import annotations

import shutil
import sys
import venv
from pathlib import Path

from helpers.documented import PROJECT
from helpers.processes import run, wrapper
from rig.environment import environment
from rig.sites import write_tree

BIN = Path(sys.executable).parent  # the first has a python3 that can make a virtual environment
PATH = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
MODULE = "".join(f"def function_{number}():\n    return {number}\n\n\n" for number in range(200))


def env(folder: Path, **variables: object) -> dict[str, str]:
    """Return an environment with what is in `folder`; `make` only says what it would do."""
    own = {"UNPACKENV_ARCHIVE": folder / "site-packages.tar.zst", "UNPACKENV_TARGET": folder / "tree"}
    return environment(PATH=PATH, HOME=folder, TMPDIR=folder, MAKEFLAGS="n", **own, **variables)


def fill(folder: Path) -> Path:
    """Make there what the commands of the documents take."""
    names = ["__init__", *(f"module_{number}" for number in range(20))]
    write_tree(folder / "site-packages", {f"pandas/{name}.py": MODULE for name in names})
    venv.create(folder / ".venv", symlinks=True)
    (packages,) = folder.glob(".venv/lib/python*/site-packages")
    shutil.copytree(folder / "site-packages", packages, dirs_exist_ok=True)
    for name in ("Makefile", "pyproject.toml"):
        (folder / name).symlink_to(PROJECT / name)
    _run(folder, "pack", "site-packages", "-o", "site-packages.tar.zst")
    for log in ("before.log", "after.log"):
        for number in range(6):
            _run(folder, "--log-file", log, "--target", f"started-{number // 3}", "--", "true")
    shutil.copy(folder / "before.log", folder / "starts.log")
    _run(folder, "--trace", "trace.json", "--target", "traced", "--", "true")
    return folder


def _run(folder: Path, *arguments: object) -> None:
    done = run(wrapper(*arguments), env(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
