"""Targets that are on `sys.path` before the start, and caches that exist before it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from helpers.processes import result_of, run, wrapper
from rig.environment import environment
from rig.sites import pack_tree, write_tree

TREE = {
    "app.py": "WHERE = __file__\n",
    "paths.pth": "extra\nimport sys; sys.ran_pth = getattr(sys, 'ran_pth', 0) + 1\n",
    "extra/more.py": "",
    "packed_thing-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: packed-thing\nVersion: 2.0\n",
    "packed_thing-2.0.dist-info/RECORD": "",
    "packed_thing-2.0.dist-info/top_level.txt": "app\n",
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive."""
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "tree", TREE))
    return tmp_path / "archive"


def spellings(target: Path, tmp_path: Path) -> dict[str, str]:
    """Return ways to name a target that is below the working directory."""
    (tmp_path / "link").symlink_to(target.parent)
    return {
        "as it is": str(target),
        "relative": os.path.relpath(target, tmp_path),
        "not normalised": f"{target.parent}/./{target.parent.name}/../{target.name}/",
        "through a link": f"{tmp_path}/link/{target.name}",
    }


@pytest.mark.parametrize("how", ["as it is", "relative", "not normalised", "through a link"])
@pytest.mark.parametrize("when", ["PYTHONPATH", "sys.path"])
@pytest.mark.parametrize("there", [False, True])
def test_a_target_that_is_on_the_path(
    packed: Path, target: Path, tmp_path: Path, how: str, when: str, there: bool
) -> None:
    (target.parent / target.parent.name).mkdir()
    if there:
        target.mkdir()
    name = spellings(target, tmp_path)[how]
    env = environment()
    before = "try: import app\nexcept ImportError: pass\n"  # now it is known that nothing is there
    if when == "PYTHONPATH":
        env["PYTHONPATH"] += f":{name}"
    else:
        before = f"import sys; sys.path.insert(0, {name!r})\n{before}"
    code = f"{before}import unpackenv\nunpackenv.bootstrap({str(packed)!r}, {str(target)!r})\n"
    code += "import app, more, sys; result = [app.__name__, sys.ran_pth]"
    for _ in "cold", "warm":
        assert result_of(code, env, cwd=tmp_path) == ["app", 1]


def test_the_wrapper_and_a_target_that_is_on_the_path(packed: Path, target: Path) -> None:
    env = environment()
    env["PYTHONPATH"] += f":{target}"
    code = "import app, more, sys; print(sys.ran_pth, sys.path.count(sys.argv[1]))"
    for _ in "cold", "warm":
        command = [sys.executable, "-c", code, target]
        done = run(wrapper("--archive", packed, "--target", target, "--", *command), env)
        assert done.stdout == "1 1\n", done.stderr


def test_pkg_resources_that_was_imported_before(packed: Path, target: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("pkg_resources") is None:
        pytest.skip("no pkg_resources here")
    image = {
        "packed_thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: packed-thing\nVersion: 1.0\n",
        "packed_thing-1.0.dist-info/RECORD": "",
    }
    own = write_tree(tmp_path / "image", image)
    env = environment()
    env["PYTHONPATH"] += f":{own}"
    code = "import warnings; warnings.simplefilter('ignore')\nimport pkg_resources, unpackenv\n"
    code += f"unpackenv.bootstrap({str(packed)!r}, {str(target)!r})\n"
    code += "found = pkg_resources.get_distribution('packed-thing'); result = [found.version, found.location]"
    for _ in "cold", "warm":
        assert result_of(code, env) == ["2.0", str(target)]


@pytest.mark.parametrize("name", ["sha256:ab", "100%", "%3A", "a b", "ä:ö"])
def test_a_path_that_no_variable_can_hold(packed: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name / "env"
    look = "import app, more, sys; print(app.WHERE, sys.ran_pth)"
    for _ in "cold", "warm":
        done = run(wrapper("--archive", packed, "--target", target, "--", sys.executable, "-c", look))
        assert done.stdout == f"{target}/app.py 1\n", done.stderr
    code = f"import unpackenv\nunpackenv.bootstrap({str(packed)!r}, {str(target)!r})\nimport app, subprocess, sys\n"
    code += f"result = subprocess.run([sys.executable, '-c', {look!r}], capture_output=True, text=True).stdout"
    assert result_of(code) == f"{target}/app.py 1\n"


def test_scripts_that_path_cannot_name(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"bin/tool": "#!/bin/sh\necho the tool\n", "app.py": ""})
    (tree / "bin" / "tool").chmod(0o755)
    pack_tree(tmp_path / "archive", tree, bin="bin")
    target = tmp_path / "a:b"
    done = run(wrapper("--archive", tmp_path / "archive", "--target", target, "--", "env"))
    assert f"; warning: PATH cannot name {target}/bin" in done.stderr
    assert f"PATH={os.defpath}\n" in done.stdout


def test_unpackenv_in_a_place_that_pythonpath_cannot_name(packed: Path, target: Path, tmp_path: Path) -> None:
    place = tmp_path / "a:b"
    place.symlink_to(environment()["PYTHONPATH"])
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import unpackenv\n"
    code += f"unpackenv.bootstrap({str(packed)!r}, {str(target)!r}); import app"
    done = run([sys.executable, "-c", code], {"PATH": os.defpath})
    assert done.returncode == 0
    assert f"; warning: PYTHONPATH cannot name {place}/unpackenv/start/shim" in done.stderr
    assert "`unpackenv hook`" in done.stderr
