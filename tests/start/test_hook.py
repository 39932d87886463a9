"""The hook: one .pth file, and every interpreter of the image imports from the tree."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import processes_with, run, start, wait_for, wrapper
from rig.environment import PATIENCE, SOURCE
from rig.sites import pack_tree, write_tree
from unpackenv.start import hook

ENV = {"PATH": os.defpath}
IMPORT = "import app, package.more.deep; print(app.__file__)"


def install_unpackenv(packages: Path) -> None:
    """Put unpackenv and what it needs into a site directory, as pip would."""
    import zstandard

    shutil.copytree(Path(SOURCE) / "unpackenv", packages / "unpackenv", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "zstandard").symlink_to(Path(zstandard.__file__).parent)


def make_venv(place: Path, *options: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", *options, place], check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    install_unpackenv(packages)
    return place / "bin" / "python"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The interpreter of a virtual environment that has unpackenv."""
    return make_venv(tmp_path / "image", "--without-pip")


@pytest.fixture(scope="session")
def image_with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with pip. Shared: install no hook but by `hooked_pip`."""
    return make_venv(tmp_path_factory.mktemp("with-pip") / "image")


def install(image: Path, *options: object) -> Path:
    """Install the hook and return its file."""
    done = run([image, "-m", "unpackenv", "hook", *options], ENV)
    assert (done.returncode, done.stderr) == (0, "")
    path = Path(done.stdout.partition("wrote ")[2].strip())
    assert path.name == "unpackenv.pth"
    assert len(path.read_text().splitlines()) == 1
    return path


def unpack(image: Path, archive: Path, target: Path) -> None:
    done = run([image, "-m", "unpackenv", "unpack", archive, "-C", target], {**ENV, "UNPACKENV": "off"})
    assert done.returncode == 0, done.stderr


# --- without --auto ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["-c", "-I -c", "-m", "file", "stdin", "child"])
def test_a_published_tree_can_be_imported(image: Path, archive: Path, target: Path, tmp_path: Path, how: str) -> None:
    install(image, "--archive", archive, "--target", target)
    unpack(image, archive, target)
    (tmp_path / "program.py").write_text(IMPORT)
    command: dict[str, list[object]] = {
        "-c": ["-c", IMPORT],
        "-I -c": ["-I", "-c", IMPORT],
        "-m": ["-m", "package.more.deep"],
        "file": [tmp_path / "program.py"],
        "stdin": ["-"],
        "child": ["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {IMPORT!r}])"],
    }
    done = run([image, *command[how]], ENV, stdin=IMPORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if how == "-m" else f"{target}/app.py\n")


def test_a_tree_without_its_archive(image: Path, archive: Path, target: Path) -> None:
    install(image, "--archive", archive, "--target", target)
    unpack(image, archive, target)
    archive.unlink()
    assert run([image, "-c", IMPORT], ENV).stdout == f"{target}/app.py\n"


@pytest.mark.parametrize("what", ["nothing", "archive", "damaged archive", "other version"])
def test_quiet_where_nothing_is_published(image: Path, archive: Path, target: Path, site: Path, what: str) -> None:
    install(image, "--archive", archive, "--target", target)
    if what == "nothing":
        archive.unlink()
    elif what == "damaged archive":
        archive.write_bytes(archive.read_bytes()[:-3])
    elif what == "other version":
        unpack(image, archive, target)
        (site / "app.py").write_text("VERSION = 2\n")
        pack_tree(archive, site)
    done = run([image, "-c", "print('as usual')"], ENV)
    assert (done.returncode, done.stdout, done.stderr) == (0, "as usual\n", "")
    assert target.exists() == (what == "other version")


def test_environment_wins_over_what_is_recorded(image: Path, archive: Path, target: Path, tmp_path: Path) -> None:
    install(image, "--archive", "/nowhere", "--target", tmp_path / "not here")
    unpack(image, archive, target)
    env = {**ENV, "UNPACKENV_ARCHIVE": str(archive), "UNPACKENV_TARGET": str(target)}
    assert run([image, "-c", IMPORT], env).stdout == f"{target}/app.py\n"
    assert run([image, "-c", IMPORT], {**env, "UNPACKENV": "off"}).returncode == 1


def test_precedence_is_that_of_bootstrap(image: Path, archive: Path, target: Path) -> None:
    install(image, "--archive", archive, "--target", target)
    unpack(image, archive, target)
    code = "import sys, sysconfig; ends = ('tree', 'packages', sysconfig.get_path('stdlib'))\n"
    code += "print([path for path in sys.path if path.endswith(ends)])"
    _, tree, packages = eval(run([image, "-c", code], ENV).stdout)
    assert tree == str(target)
    assert packages.endswith("site-packages")


def test_bootstrap_after_the_hook(image: Path, archive: Path, target: Path) -> None:
    install(image, "--archive", archive, "--target", target)
    unpack(image, archive, target)
    code = "import sys, os, unpackenv; before = list(sys.path)\n"
    code += f"report = unpackenv.bootstrap({str(archive)!r}, {str(target)!r})\n"
    code += "print(report.outcome, sys.path == before, 'UNPACKENV_SITE' in os.environ)"
    done = run([image, "-c", code], ENV)
    assert done.stdout == "reused True False\n"
    assert len(done.stderr.splitlines()) == 1


def test_the_tree_of_a_parent_is_that_of_its_children(image: Path, archive: Path, target: Path, tmp_path: Path) -> None:
    """The hook knows one archive, and an application uses another."""
    install(image, "--auto", "--archive", archive, "--target", target)
    pack_tree(tmp_path / "other.tar", write_tree(tmp_path / "other", {"other.py": ""}))
    at = tmp_path / "other-tree"
    show = "import other, os, sys; print(other.__file__)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {show!r}], check=True)"
    code = f"import unpackenv; unpackenv.bootstrap({str(tmp_path / 'other.tar')!r}, {str(at)!r}); {child}"
    done = run([image, "-c", code], ENV)
    assert (done.returncode, done.stdout) == (0, f"{at}/other.py\n"), done.stderr
    command = ["--archive", tmp_path / "other.tar", "--target", at, "--", image, "-I", "-c", show]
    done = run([image, "-m", "unpackenv", *command], ENV)
    assert (done.returncode, done.stdout) == (0, f"{at}/other.py\n"), done.stderr


def test_scripts_are_on_the_path_of_every_interpreter(image: Path, target: Path, tmp_path: Path) -> None:
    pack_tree(tmp_path / "tree.tar", write_tree(tmp_path / "with-bin", {"bin/tool": "", "app.py": ""}), bin="bin")
    install(image, "--auto", "--archive", tmp_path / "tree.tar", "--target", target)
    for _ in ("first", "second"):
        done = run([image, "-c", "import os; print(os.environ['PATH'].split(':')[0])"], ENV)
        assert (done.returncode, done.stdout) == (0, f"{target}/bin\n"), done.stderr


def test_a_hook_that_is_removed_is_gone(image: Path, archive: Path, target: Path) -> None:
    path = install(image, "--archive", archive, "--target", target)
    unpack(image, archive, target)
    for says in "removed", "nothing to remove: there is no hook at":
        done = run([image, "-m", "unpackenv", "hook", "--remove"], ENV)
        assert (done.returncode, done.stdout) == (0, f"{says} {path}\n")
        assert not path.exists()
    assert run([image, "-c", IMPORT], ENV).returncode == 1


def test_site_directory_of_another(image: Path, archive: Path, target: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True, capture_output=True)
    (packages,) = (tmp_path / "other").glob("lib/python*/site-packages")
    path = install(image, "--site-dir", packages, "--archive", archive, "--target", target)
    assert path.parent == packages
    unpack(image, archive, target)
    assert run([tmp_path / "other/bin/python", "-c", IMPORT], ENV).stdout == f"{target}/app.py\n"


# --- with --auto ---------------------------------------------------------------------------------


@pytest.fixture
def auto(image: Path, archive: Path, target: Path) -> Path:
    """An interpreter that unpacks `archive` when it first starts."""
    install(image, "--auto", "--archive", archive, "--target", target)
    assert not target.exists()
    return image


def test_the_first_interpreter_unpacks(auto: Path, target: Path) -> None:
    first = run([auto, "-c", IMPORT], ENV)
    assert (first.returncode, first.stdout) == (0, f"{target}/app.py\n"), first.stderr
    assert first.stderr.startswith("unpackenv: unpacked 5 files")
    assert len(first.stderr.splitlines()) == 1
    second = run([auto, "-I", "-c", IMPORT], ENV)
    assert (second.stdout, second.stderr) == (f"{target}/app.py\n", "")


def test_children_of_the_first(auto: Path, target: Path) -> None:
    done = run([auto, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {IMPORT!r}])"], ENV)
    assert done.stdout == f"{target}/app.py\n"
    assert len(done.stderr.splitlines()) == 1


def test_two_at_once_unpack_once(auto: Path, target: Path) -> None:
    running = [start([auto, "-c", IMPORT], ENV) for _ in range(4)]
    said = ""
    for process in running:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert (process.returncode, stdout) == (0, f"{target}/app.py\n")
        said += stderr
    assert said.count("unpackenv: unpacked") == 1
    assert said.count("\n") == said.count("unpackenv: ") <= 4


@pytest.mark.parametrize(
    "arguments",
    [
        "-m unpackenv --version",
        "-m compileall -q .",
        "-m ensurepip --version",
        "-m venv --help",
        "-Im compileall -q .",
        "-mcompileall -q .",
    ],
)
def test_tools_do_not_trigger_it(auto: Path, target: Path, arguments: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run([auto, *arguments.split()], ENV, cwd=tmp_path / "empty")
    assert (done.returncode, done.stderr) == (0, "")
    assert not target.exists()


def test_pip_does_not_trigger_it(image_with_pip: Path, archive: Path, target: Path) -> None:
    install(image_with_pip, "--auto", "--archive", archive, "--target", target)
    env = {**ENV, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        for command in ([image_with_pip, "-m", "pip", "--version"], [image_with_pip.with_name("pip"), "--version"]):
            done = run(command, env)
            assert (done.returncode, done.stderr) == (0, "")
        assert not target.exists()
        assert run([image_with_pip, "-c", "import app"], env).returncode == 0
        assert target.exists()
    finally:
        run([image_with_pip, "-m", "unpackenv", "hook", "--remove"], ENV)


def test_children_of_tools_do_not_trigger_it(auto: Path, target: Path, tmp_path: Path) -> None:
    """A build backend runs in a child of pip, which starts the interpreter under no telling name."""
    child = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'], check=True)"
    write_tree(tmp_path / "tools", {"wheel.py": child})
    done = run([auto, "-m", "wheel"], ENV, cwd=tmp_path / "tools")
    assert (done.returncode, done.stderr) == (0, "")
    assert not target.exists()


def test_packing_does_not_trigger_it(auto: Path, target: Path, site: Path, tmp_path: Path) -> None:
    done = run([auto, "-m", "unpackenv", "pack", site, "-o", tmp_path / "out.tar.zst", "--level", "1"], ENV)
    assert done.returncode == 0, done.stderr
    assert not target.exists()


def test_the_wrapper_under_the_hook(auto: Path, archive: Path, target: Path) -> None:
    command = [auto, "-m", "unpackenv", "--archive", archive, "--target", target, "--", auto, "-I", "-c", IMPORT]
    done = run(command, ENV)
    assert (done.returncode, done.stdout) == (0, f"{target}/app.py\n"), done.stderr
    assert done.stderr.startswith("unpackenv: unpacked")
    assert len(done.stderr.splitlines()) == 1


def test_the_module_that_becomes_python_under_the_hook(auto: Path, archive: Path, target: Path) -> None:
    env = {**ENV, "UNPACKENV_ARCHIVE": str(archive), "UNPACKENV_TARGET": str(target)}
    done = run([auto, "-m", "unpackenv.python", "-I", "-c", IMPORT], env)
    assert (done.returncode, done.stdout) == (0, f"{target}/app.py\n"), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("how", ["missing", "damaged", "target refused"])
def test_a_failure_is_loud_and_leaves_a_way_out(auto: Path, archive: Path, target: Path, how: str) -> None:
    if how == "missing":
        archive.unlink()
    elif how == "damaged":
        archive.write_bytes(b"\0" * 20 + archive.read_bytes()[20:])
    else:
        write_tree(target, {"mine": ""})
    done = run([auto, "-c", "print('started without its packages')"], ENV)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("unpackenv: error: ")
    assert "UNPACKENV=off" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run([auto, "-c", "print('works')"], {**ENV, "UNPACKENV": "off"}).stdout == "works\n"
    assert run([auto, "-m", "unpackenv", "--version"], ENV).returncode == 0
    assert run([auto, "-m", "unpackenv", "hook", "--remove"], ENV).returncode == 0
    assert run([auto, "-c", "print('works')"], ENV).stdout == "works\n"


@pytest.mark.parametrize("how", ["another interpreter", "no such setting"])
def test_what_no_application_could_start_with_does_not_stop_tools(
    auto: Path, archive: Path, target: Path, site: Path, how: str
) -> None:
    env = dict(ENV)
    if how == "another interpreter":
        pack_tree(archive, site, python="cpython-27")
        assert run(wrapper("unpack", archive, "-C", target)).returncode == 0
    else:
        env["UNPACKENV_WORKERS"] = "abc"
    assert run([auto, "-c", "print('application')"], env).returncode == 125
    assert run([auto, "-m", "venv", "--help"], env).returncode == 0
    assert run([auto, "-m", "unpackenv", "hook", "--remove"], env).returncode == 0


def test_a_setting_that_nobody_can_read_is_told(image: Path) -> None:
    install(image)
    done = run([image, "-c", "print('application')"], {**ENV, "UNPACKENV_DIGEST": "12"})
    assert (done.returncode, done.stdout) == (0, "application\n")
    assert done.stderr.startswith("unpackenv: warning: UNPACKENV_DIGEST: '12' is not a sha256")


@pytest.mark.parametrize("there", [False, True])
def test_a_target_that_is_on_the_path(auto: Path, target: Path, there: bool) -> None:
    if there:
        target.mkdir()
    env = {**ENV, "PYTHONPATH": f"{target}/../{target.name}"}
    for _ in "cold", "warm":
        done = run([auto, "-c", IMPORT], env)
        assert (done.returncode, Path(done.stdout.strip()).resolve()) == (0, target / "app.py"), done.stderr


@pytest.mark.parametrize(
    ("script", "imports"), [("bin/poetry", True), ("bin/pip", False), ("poetry", True), ("pip", True)]
)
def test_what_a_script_starts(auto: Path, tmp_path: Path, script: str, imports: bool) -> None:
    """A runner's application has its packages, a tool's processes do not need any; a file in `bin` is a command."""
    code = f"import os; os.execv({str(auto)!r}, [{str(auto)!r}, '-c', {IMPORT!r}])"
    write_tree(tmp_path / "scripts", {script: code})
    assert (run([auto, tmp_path / "scripts" / script], ENV).returncode == 0) == imports


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_unpacks(auto: Path, target: Path, tmp_path: Path, signum: int) -> None:
    (packages,) = auto.parents[1].glob("lib/python*/site-packages")
    slow = f"lambda *_: (open({str(tmp_path / 'started')!r}, 'w').close(), time.sleep({PATIENCE}))"
    code = f"import time, unpackenv.start.tree.writer as t; t.TreeWriter.write_file = {slow}"
    (packages / "aaa.pth").write_text(f"import sys; exec({code!r}, {{}})\n")
    mark = f"MARK={tmp_path}"
    process = start([auto, "-c", "print('application')"], {**ENV, "MARK": str(tmp_path)})
    wait_for((tmp_path / "started").exists, "the unpack to begin", process)
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert stdout == ""
    assert process.returncode in (128 + signum, -signum), stderr
    wait_for(lambda: not processes_with(mark), "all processes to end")
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


# --- which command lines are tools ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "tool"),
    [
        ("python -m pip install x", "pip"), ("python3.9 -Im pip", "pip"), ("python -mpip", "pip"),
        ("python -X dev -m pip", "pip"),
        ("python -W error -I -m ensurepip", "ensurepip"), ("python /usr/bin/pip3.11 install", "pip"),
        ("python /x/site-packages/pip/__pip-runner__.py install", "pip"), ("python -m pip.__main__", "pip"),
        ("python /srv/pip/app.py", ""), ("python setup.py --version", "setuptools"),
        ("python -m unpackenv -- x", "unpackenv"), ("python -m venv /x", "venv"),
        ("python /x/pyproject_hooks/_in_process/_in_process.py", "pip"), ("python -m build", "build"),
        ("python", ""), ("python -c pip", ""), ("python app.py -m pip", ""), ("python -m pipeline", ""),
        ("python - pip", ""),
        ("python --check-hash-based-pycs never -m pip", "pip"), ("python -Wignore -m pip", "pip"),
        ("python -Icpip -m pip", ""),
        ("python -m flask run", ""), ("python /usr/bin/gunicorn pip", ""), ("python -Ic pip", ""),
        ("python -X pip app.py", ""),
    ],
)  # fmt: skip
def test_tools_are_recognised_by_their_command_lines(line: str, tool: str) -> None:
    assert hook.tool_in(line.split()) == tool
