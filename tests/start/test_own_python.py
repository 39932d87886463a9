"""Environments that bring an interpreter of their own, as those of conda: the wrapper runs it, and checks that one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import conda_pack
import pytest

from helpers.fills import wait_until_unused
from helpers.processes import other_python, python, run, wrapper
from rig.environment import environment
from rig.sites import write_tree

# Parts of the standard library that nobody needs here.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "site-packages", "test", "tests", "idlelib", "ensurepip", "lib2to3", "tkinter", "config-*", "*.a",
    "distutils", "pydoc_data", "unittest", "asyncio", "xml", "email", "multiprocessing", "concurrent",
)  # fmt: skip
WHERE = "import os, sys, package; print(sys.prefix, sys.version_info[1], package.__file__, os.environ.get({!r}))"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conda environment: a prefix with an interpreter of its own, which is another one than this. Shared."""
    code = "import json, sys; print(json.dumps([sys.base_prefix, sys.version_info[1]]))"
    base, minor = json.loads(subprocess.check_output([other_python(), "-c", code]))
    root = tmp_path_factory.mktemp("conda") / "opt" / "env"
    lib, name = f"lib/python3.{minor}", f"python3.{minor}"
    shutil.copytree(Path(base) / lib, root / lib, ignore=LEFT_OUT)
    (root / "bin").mkdir()
    shutil.copy2(Path(base) / "bin" / name, root / "bin" / name)
    for link in "python", "python3":
        (root / "bin" / link).symlink_to(name)
    write_tree(root, {
        f"{lib}/site-packages/package/__init__.py": "VALUE = 'packed'\n",
        "conda-meta/history": "==> 2026-01-01 00:00:00 <==\n",
        "bin/tool": f"#!{root}/bin/python\nimport package\nprint(package.VALUE)\n",
    })  # fmt: skip
    (root / "bin/tool").chmod(0o755)
    return root


@pytest.fixture(scope="module")
def packed(prefix: Path) -> Path:
    """An archive of it, made by this interpreter; the environment itself is elsewhere by now. Shared."""
    archive = prefix.parents[1] / "env.tar.zst"
    done = run(wrapper("pack", prefix, "-o", archive, "--level", 1, "--bytecode", "none"))
    assert done.returncode == 0, done.stderr
    assert f"target {prefix}: starts unpack it there" in done.stdout
    shutil.rmtree(prefix)
    return archive


@pytest.fixture(autouse=True)
def nothing_is_unpacked(packed: Path, prefix: Path) -> Iterator[None]:
    """Remove what a test has unpacked to where the environment was made."""
    yield
    shutil.rmtree(prefix, ignore_errors=True)


def test_the_wrapper_runs_its_interpreter(prefix: Path, packed: Path) -> None:
    code = WHERE.format("CONDA_PREFIX")
    for outcome in "unpacked", "reused":
        for command in ("python", prefix / "bin/python3"):
            done = run(wrapper("--archive", packed, "--", command, "-c", code))
            assert done.returncode == 0, done.stderr
            root, minor, file, conda = done.stdout.split()
            assert (root, conda) == (str(prefix), str(prefix))
            assert file.startswith(f"{prefix}/lib/python3.{minor}/site-packages/")
            assert int(minor) != sys.version_info[1]
        assert f"unpackenv: {'reused' if outcome == 'unpacked' else outcome} " in done.stderr
    assert run(wrapper("--archive", packed, "--", "tool")).stdout == "packed\n"


def test_another_interpreter_cannot_import_from_it(prefix: Path, packed: Path) -> None:
    done = python(f"import unpackenv; unpackenv.bootstrap({str(packed)!r})")
    assert done.returncode == 1
    assert re.search("was packed for python cpython-3[0-9]+, and this interpreter has cpython-3", done.stderr)
    assert not prefix.exists()


def test_another_machine_is_refused(prefix: Path, packed: Path) -> None:
    """The interpreter of the tree could not run here: that is said before anything is unpacked."""
    code = """
import os
real = os.uname()
os.uname = lambda: os.uname_result((*real[:4], "riscv64"))
import sys
from unpackenv.start import entrypoint
entrypoint.run(sys.argv[1:3], ["python", "-c", "print('ran')"])
"""
    done = run([sys.executable, "-c", code, "--archive", packed])
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert f"was packed for machine {os.uname().machine}, and this interpreter has riscv64" in done.stderr
    assert not prefix.exists()


def test_names_first(prefix: Path, packed: Path) -> None:
    """The interpreter is a program, and it and its library are filled when they are opened."""
    done = run(wrapper("--archive", packed, "--fill", "on-demand", "--", "tool"))
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr
    assert "unpackenv: named" in done.stderr
    wait_until_unused(prefix)


def test_elsewhere_scripts_name_the_old_place(packed: Path, prefix: Path, tmp_path: Path) -> None:
    options = ("--archive", packed, "--target", tmp_path / "tree")
    done = run(wrapper(*options, "--", "python", "-c", "import package; print(package.VALUE)"))
    assert (done.returncode, done.stdout) == (0, "packed\n")
    assert f"scripts in bin (1) run {prefix}/bin/python, which is not there" in done.stderr
    shutil.rmtree(tmp_path / "tree")
    done = run(wrapper(*options, "--relocate", "--", "tool"))
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr


@pytest.fixture
def conda_packed(prefix: Path, packed: Path, tmp_path: Path) -> Path:
    """An archive of what conda-pack makes of the environment: its prefix is in a text and in machine code."""
    assert run(wrapper("unpack", packed, "-C", prefix)).returncode == 0
    (prefix / ".unpackenv.stamp").unlink()
    old = str(prefix)
    texts = {"share/text": f"prefix={old}\n", "share/binary": f"\x7fELF\0{old}/lib\0rest"}
    paths = [
        {"_path": path, "path_type": "hardlink", "prefix_placeholder": old, "file_mode": path[6:]} for path in texts
    ]
    package = {"info/paths.json": json.dumps({"paths": paths, "paths_version": 1}), **texts}
    write_tree(tmp_path / "package", package)
    record = {"name": "thing", "version": "1", "build": "0", "files": list(texts)}
    record["link"] = {"source": str(tmp_path / "package"), "type": 1}
    write_tree(prefix, {**texts, "conda-meta/thing-1-0.json": json.dumps(record)})
    (tmp_path / "made").mkdir()
    conda_pack.pack(prefix=old, output=str(tmp_path / "made.tar"), ignore_missing_files=True)
    subprocess.run(["tar", "-C", tmp_path / "made", "-xf", tmp_path / "made.tar"], check=True)
    archive = tmp_path / "env.tar.zst"
    done = run(wrapper("pack", tmp_path / "made", "-o", archive, "--level", 1, "--bytecode", "none"))
    assert done.returncode == 0, done.stderr
    return archive


def test_what_conda_pack_has_made_is_adapted_to_its_place(conda_packed: Path, prefix: Path, tmp_path: Path) -> None:
    command = ("--", "python", "-c", "import package; print(package.VALUE)")
    target = prefix.with_name("e")
    for options in ("--relocate",), ():  # the second is a start of the same tree, as it is there
        done = run(wrapper("--archive", conda_packed, "--target", target, *options, *command))
        assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr
    assert (target / "share/text").read_text() == f"prefix={target}\n"
    binary = (target / "share/binary").read_bytes()
    assert binary.startswith(b"\x7fELF\0" + f"{target}/lib".encode() + b"\0")
    assert len(binary) == len(b"\x7fELF\0" + f"{prefix}/lib".encode() + b"\0rest")
    longer = tmp_path / ("longer" * 30)
    done = run(wrapper("--archive", conda_packed, "--target", longer, "--relocate", *command))
    assert (done.returncode, done.stdout) == (125, "")
    assert "bin/conda-unpack failed (ValueError: negative padding)" in done.stderr
    assert not longer.exists()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A virtual environment with a copy of its interpreter, which needs the standard library of that one."""
    root = tmp_path / "venv"
    subprocess.run([other_python(), "-m", "venv", "--copies", "--without-pip", root], check=True, capture_output=True)
    assert not (root / "bin/python").is_symlink()
    return root


def test_a_copied_interpreter(copied: Path, tmp_path: Path) -> None:
    archive = tmp_path / "venv.tar.zst"
    assert run(wrapper("pack", copied, "-o", archive)).returncode == 0
    shutil.rmtree(copied)
    done = run(wrapper("--archive", archive, "--", "python", "-c", "import sys; print(sys.prefix)"))
    assert (done.returncode, done.stdout) == (0, f"{copied}\n"), done.stderr


def test_the_library_of_a_copied_interpreter_is_not_there(copied: Path, tmp_path: Path) -> None:
    archive = tmp_path / "venv.tar.zst"
    settings = copied / "pyvenv.cfg"
    settings.write_text(re.sub("(?m)^home = .*", "home = /absent/bin", settings.read_text()))
    assert run(wrapper("pack", copied, "-o", archive, "--python", other_python())).returncode == 0
    shutil.rmtree(copied)
    done = run(wrapper("--archive", archive, "--", "python", "-c", "pass"), environment(PATH="/nowhere"))
    assert (done.returncode, done.stdout) == (125, "")
    assert "its bin/python is a copy of /absent/bin/python3, which is not there" in done.stderr
    assert not copied.exists()
