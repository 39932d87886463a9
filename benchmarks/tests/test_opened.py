"""The files that an application opens, as strace sees them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import opened
from rig.sites import write_tree

SITE = {"package/__init__.py": "", "package/one.py": "from package import two\n", "package/two.py": "", "other.py": ""}


def test_files_are_listed_once_in_the_order_in_which_they_are_opened(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    tree = write_tree(tmp_path / "tree", {**SITE, "bin/program": "#!/bin/sh\ncat ./data\n", "bin/data": "text"})
    (tree / "bin" / "program").chmod(0o755)
    code = f"import package.one, subprocess; subprocess.run('./program', cwd={str(tree / 'bin')!r}, check=True)"
    env = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    listed = opened.opened([sys.executable, "-c", f"{code}; open({str(tree / 'package/one.py')!r})"], env, tree)
    assert listed == ["package/__init__.py", "package/one.py", "package/two.py", "bin/program", "bin/data"]


def test_lines_of_strace_become_paths() -> None:
    lines = [
        '10 openat(AT_FDCWD</work>, "a.py", O_RDONLY|O_CLOEXEC) = 3</work/a.py>',
        '10 openat(AT_FDCWD</work>, "missing.py", O_RDONLY) = -1 ENOENT (No such file or directory)',
        '11 openat(AT_FDCWD</work>, "b.py", O_RDONLY <unfinished ...>',
        '10 execve("./bin/tool", ["./bin/tool"], 0x7ffd /* 9 vars */) = 0',
        '11 <... openat resumed>)             = 4</work/b.py>',
        '10 openat(AT_FDCWD</work/deep>, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3</etc/ld.so.cache>',
        '12 execve("/usr/bin/env", ["env"], 0x7ffd /* 9 vars */ <unfinished ...>',
        "12 +++ exited with 0 +++",
    ]  # fmt: skip
    found = list(opened._paths(lines))
    assert found[:4] == ["/work/a.py", "/work/b.py", "/work/deep/bin/tool", "/etc/ld.so.cache"]
    assert [Path(path).name for path in found[4:]] == ["env"]
