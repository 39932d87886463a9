"""Children of launchers that put their own `sitecustomize` first, and children of other Pythons."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from helpers.processes import result_of, run, wrapper
from rig.environment import environment
from rig.sites import pack_tree, write_tree

# As that of opentelemetry-instrument: it imports a package, and chains to nobody.
LAUNCHER = "import packaged, sys; sys.launched = packaged.__file__\n"
# As that of ddtrace-run: it chains to the next one on the path.
CHAINING = """
import os, sys
here = os.path.dirname(__file__)
this = sys.modules.pop("sitecustomize")
sys.path[:] = [path for path in sys.path if path != here]
try: import sitecustomize
except ImportError: sys.modules["sitecustomize"] = this
import packaged
sys.launched = packaged.__file__
"""
# The interpreter of a virtual environment knows no `usercustomize`.
BASE = os.path.join(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
LOOK = "import json, packaged, sys; print(sys.launched, packaged.__file__, json.__name__, sys.version_info[0])"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive of a package that a launcher needs, with a .pth file."""
    tree = {"packaged.py": "", "paths.pth": "import sys; sys.ran_pth = getattr(sys, 'ran_pth', 0) + 1\n"}
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "tree", tree))
    return tmp_path / "archive"


def launched(packed: Path, target: Path, tmp_path: Path, launcher: str, *child: str) -> list[str]:
    """Start `child` as a launcher does that was itself started by the wrapper, and return the words that it prints."""
    hooks = write_tree(tmp_path / "launcher", {"sitecustomize.py": launcher})
    code = "import os, subprocess, sys\n"
    code += f"os.environ['PYTHONPATH'] = {str(hooks)!r} + ':' + os.environ['PYTHONPATH']\n"
    code += f"sys.exit(subprocess.run({list(child)!r}).returncode)"
    done = run(wrapper("--archive", packed, "--target", target, "--", sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("launcher", [LAUNCHER, CHAINING], ids=["alone", "chaining"])
@pytest.mark.parametrize("flags", [(), ("-s",)], ids=["", "-s"])
def test_children_of_a_launcher_find_the_tree(
    packed: Path, target: Path, tmp_path: Path, launcher: str, flags: tuple[str, ...]
) -> None:
    file = f"{target}/packaged.py"
    words = launched(packed, target, tmp_path, launcher, sys.executable, *flags, "-c", LOOK)
    assert words == [file, file, "json", "3"]


def test_pth_files_run_behind_a_launcher(packed: Path, target: Path, tmp_path: Path) -> None:
    """Where it hides our `sitecustomize`, `usercustomize` does the rest; virtual environments have none."""
    code = "import sys; print(sys.ran_pth, sys.path.index(sys.argv[1]) > sys.path.index(sys.argv[2]))"
    words = launched(packed, target, tmp_path, LAUNCHER, BASE, "-c", code, str(target), os.path.dirname(os.__file__))
    assert words == ["1", "True"]


def test_a_usercustomize_that_is_hidden_runs(packed: Path, target: Path, tmp_path: Path) -> None:
    own = write_tree(tmp_path / "own", {"usercustomize.py": "import sys; sys.customised = True\n"})
    code = f"import os; os.environ['PYTHONPATH'] += ':{own}'; os.execv({BASE!r}, [{BASE!r}, '-c', "
    code += "'import sys; print(sys.customised)'])"
    assert launched(packed, target, tmp_path, LAUNCHER, sys.executable, "-c", code) == ["True"]


def test_a_name_of_the_standard_library_is_not_taken_from_the_tree(target: Path, tmp_path: Path) -> None:
    tree = {"packaged.py": "", "json.py": "raise RuntimeError('shadows the standard library')\n"}
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "tree", tree))
    look = "import json; print(json.__name__)"
    launcher = "import json\n"
    words = launched(tmp_path / "archive", target, tmp_path, launcher, sys.executable, "-s", "-c", look)
    assert words == ["json"]


def pythons() -> list[str]:
    """Return Pythons that are too old for unpackenv."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [
        *versions.glob("2.*/bin/python2"),
        *versions.glob("3.[5678].*/bin/python3"),
        *versions.glob("pypy*/bin/python"),
    ]
    return sorted(str(path) for path in found if path.exists())


@pytest.mark.skipif(not pythons(), reason="no Python here that is too old")
def test_children_of_other_pythons_are_left_alone(packed: Path, target: Path, tmp_path: Path) -> None:
    own = write_tree(tmp_path / "own", {"sitecustomize.py": "import sys; sys.customised = True\n"})
    env = environment(PYTHONPATH=f"{environment()['PYTHONPATH']}:{own}")
    look = "import sys; print([p for p in sys.path if 'shim' in p or p == sys.argv[1]], sys.customised)"
    for python in pythons():
        code = f"import unpackenv, subprocess\nunpackenv.bootstrap({str(packed)!r}, {str(target)!r})\n"
        code += (
            f"done = subprocess.run([{python!r}, '-c', {look!r}, {str(target)!r}], capture_output=True, text=True)\n"
        )
        code += "result = [done.returncode, done.stdout, done.stderr]"
        expected = "([], True)\n" if "/2." in python else "[] True\n"
        assert result_of(code, env) == [0, expected, ""], python


@pytest.mark.skipif(not pythons(), reason="no Python here that is too old")
def test_a_command_of_a_python_that_is_too_old(packed: Path, target: Path) -> None:
    for python in pythons():
        done = run(wrapper("--archive", packed, "--target", target, "--", python, "-c", "pass"))
        assert done.returncode == 125, python
        assert "was packed for python cpython-3" in done.stderr
        assert not target.exists()


@pytest.mark.parametrize(
    ("command", "which"),
    [
        ([sys.executable, "-I", "-c", "pass"], "python -I"),
        ([sys.executable, "-sEc", "pass"], "python -E"),
        ([sys.executable, "-W", "ignore", "-X", "utf8", "-I", "-c", "pass"], "python -I"),
        (["env", "-i", sys.executable, "-c", "pass"], "env -i"),
        (["env", "-u", "PYTHONPATH", sys.executable, "-c", "pass"], "env -u PYTHONPATH"),
        (["env", "--unset=PYTHONPATH", sys.executable, "-c", "pass"], "env --unset=PYTHONPATH"),
        (["env", "A=b", "PYTHONPATH=/srv", sys.executable, "-c", "pass"], "env PYTHONPATH=/srv"),
        (["env", "A=b", sys.executable, "-I", "-c", "pass"], "python -I"),
    ],
    ids=["-I", "-E", "values", "env -i", "env -u", "env --unset", "env PYTHONPATH=", "env, -I"],
)
def test_a_command_that_takes_nothing_from_the_environment(
    packed: Path, target: Path, command: list[str], which: str
) -> None:
    done = run(wrapper("--archive", packed, "--target", target, "--", *command))
    assert done.returncode == 0
    assert f"; warning: {which} ignores PYTHONPATH" in done.stderr
    assert "`unpackenv hook`" in done.stderr


@pytest.mark.parametrize("line", ["{python} -E", "/usr/bin/env -S {python} -E"])
def test_a_script_that_takes_nothing_from_the_environment(
    packed: Path, target: Path, tmp_path: Path, line: str
) -> None:
    script = tmp_path / "tool"
    script.write_text(f"#!{line.format(python=sys.executable)}\n")
    script.chmod(0o755)
    done = run(wrapper("--archive", packed, "--target", target, "--", script))
    assert done.returncode == 0, done.stderr
    assert f"; warning: {script} (python -E) ignores PYTHONPATH" in done.stderr


def test_a_script_that_is_its_own_interpreter(packed: Path, target: Path, tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text(f"#!{script}\n")
    script.chmod(0o755)
    done = run(wrapper("--archive", packed, "--target", target, "--", script))
    assert (done.returncode, done.stderr.splitlines()[1:]) == (
        126,
        [f"unpackenv: {script}: {os.strerror(errno.ELOOP)}"],
    )


@pytest.mark.parametrize("command", [["{python}", "-I"], ["python3", "-I"], ["env", "-i", "{python}"]])
def test_the_python_of_a_virtual_environment_needs_none(target: Path, tmp_path: Path, command: list[str]) -> None:
    run([BASE, "-m", "venv", "--without-pip", target])
    (version,) = os.listdir(target / "lib")
    write_tree(target / "lib" / version / "site-packages", {"packaged.py": ""})
    done = run([sys.executable, "-m", "unpackenv", "pack", target, "-o", tmp_path / "venv.tar.zst", "--level", "1"])
    assert done.returncode == 0, done.stderr
    shutil.rmtree(target)
    words = [word.format(python=target / "bin" / "python3") for word in command]
    done = run(wrapper("--archive", tmp_path / "venv.tar.zst", "--", *words, "-c", "import packaged"))
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("flags", [["-c", "pass", "-I"], ["-W", "ignore", "-c", "pass"], ["-mthis", "-E"]])
def test_a_command_that_does_is_not_warned_of(packed: Path, target: Path, flags: list[str]) -> None:
    done = run(wrapper("--archive", packed, "--target", target, "--", sys.executable, *flags))
    assert done.returncode == 0
    assert "warning" not in done.stderr
