"""The runtime: small, enough to start an archive, and apart from the application's packages."""

from __future__ import annotations

import ast
import os
import shutil
import sys
import venv
from pathlib import Path

import pytest

import unpackenv
from helpers.processes import other_python, run
from rig.sites import TAG, pack_tree, write_tree
from unpackenv.errors import PackError
from unpackenv.pack import runtime

LIMIT = 2_200_000
BUILDING = ("contrib", "pack", "publish", "report/analyze", "report/timings")
APP = "import unpackenv; unpackenv.bootstrap({!r}, {!r}); import app; print(app.WHOSE)"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> runtime.Runtime:
    """A runtime for zstd archives. Shared: never write to it."""
    return runtime.write(str(tmp_path_factory.mktemp("final") / "runtime"))


def without_packages(*arguments: object, path: str, **variables: object) -> list[str]:
    """Run this Python without its site directories, so without unpackenv and zstandard; return what it prints."""
    env = {"PATH": os.defpath, "PYTHONPATH": path, **{name: str(value) for name, value in variables.items()}}
    done = run([sys.executable, "-S", "-s", *arguments], env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("strip"), reason="binutils are not installed")
def test_a_runtime_is_small_on_disk(written: runtime.Runtime) -> None:
    assert written.stripped
    on_disk = sum(file.lstat().st_blocks * 512 for file in Path(written.path).rglob("*"))
    assert on_disk <= written.size <= LIMIT


BUILD_COMMANDS = (
    "analyze", "completion", "dockerfile", "launcher", "pack", "push", "runtime", "timings", "trace",
)  # fmt: skip


def test_what_is_in_it(written: runtime.Runtime) -> None:
    files = [str(path.relative_to(written.path)) for path in Path(written.path).rglob("*") if path.is_file()]
    assert {name.partition("/")[0] for name in files} == {"unpackenv"}
    assert "unpackenv/archive/backend/LICENSE" in files
    sources = {name for name in files if name.endswith(".py")}
    compiled = {f"{name[:-1]}" for name in files if name.endswith(".pyc") and "__pycache__" not in name}
    cached = {name.replace("__pycache__/", "").replace(f".{TAG}.pyc", ".py") for name in files if "__pycache__" in name}
    package = Path(unpackenv.__file__).parent
    left_out = {f"{path.relative_to(package.parent)}" for path in package.rglob("*.py")} - sources - compiled
    assert left_out == {
        *(f"unpackenv/archive/{name}.py" for name in ("pace", "writer")),
        *(f"unpackenv/cli/{name}.py" for name in BUILD_COMMANDS),
        *(f"unpackenv/{name}.py" for name in ("python", "report/pages", "start/launcher")),
        *(f"{path.relative_to(package.parent)}" for room in BUILDING for path in (package / room).rglob("*.py")),
    }
    # The first module and those for other interpreters have both.
    assert cached == {
        "unpackenv/__init__.py", "unpackenv/archive/interpreter.py",
        *(f"{path.relative_to(package.parent)}" for path in (package / "start/shim").rglob("*.py")),
    }  # fmt: skip
    looks = {str(path.relative_to(package)) for room in ("", "doctor/") for path in package.glob(f"report/{room}*.py")}
    looks.remove("report/pages.py")
    looks |= {f"archive/{name}.py" for name in ("compare", "frames", "pooled", "refusals", "tarstream", "verify")}
    looks |= {f"cli/{name}.py" for name in ("common", "doctor", "fill", "hook", "inspect", "prune", "verify")}
    looks |= {"start/fill/left.py", "start/log/import_times.py", "start/tree/prune.py"}
    looks |= {f"start/unpack/{name}.py" for name in ("decode_ahead", "foreign", "trace")}
    looks |= {
        f"start/python/{name}.py" for name in ("conda_unpack", "hook_file", "notfound", "relocation", "treepython")
    }
    elsewhere = ("cache", "credentials", "reference", "registry", "shared", "stored", "tokens")
    looks |= {f"start/remote/{name}.py" for name in elsewhere}
    looks |= {f"start/{each.parent.name}/__init__.py" for each in package.glob("start/*/__init__.py")} - {
        "start/shim/__init__.py"
    }
    looks |= {f"archive/codecs/{name}.py" for name in ("xz", "xz_format", "zstd_stdlib")}  # it is for zstd archives
    assert sources - cached == {f"unpackenv/{name}" for name in looks}


def test_every_module_that_a_start_can_import_is_in_it(written: runtime.Runtime) -> None:
    """All that its modules import, at the top or in a function; the command line does without some."""
    root, package = Path(written.path), Path(unpackenv.__file__).parent
    for path in {*root.rglob("*.py"), *root.rglob("*.pyc")} - {*root.rglob("cli/*"), *root.rglob("__pycache__/*")}:
        original = package.parent / path.relative_to(root).with_suffix(".py")
        for node in ast.walk(ast.parse(original.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unpackenv"):
                for name in node.names:
                    assert is_there(root, node.module, name.name), f"{path} imports {name.name} of {node.module}"


def is_there(root: Path, module: str, name: str) -> bool:
    """Whether a module is there and has a name, or a module of that name below it."""
    place = module.replace(".", "/")
    if has_module(root, f"{place}/{name}") or has_module(root, f"{place}/{name}/__init__"):
        return True
    file = f"{place}/__init__" if (root / place).is_dir() else place
    return has_module(root, file) and name in (Path(unpackenv.__file__).parents[1] / f"{file}.py").read_text()


def has_module(root: Path, place: str) -> bool:
    return (root / f"{place}.py").exists() or (root / f"{place}.pyc").exists()


@pytest.mark.parametrize("codec", ["zstd", "xz"])
def test_starts_an_archive_without_anything_installed(tmp_path: Path, codec: str) -> None:
    at = runtime.write(str(tmp_path / "runtime"), codec).path
    assert bool(list(Path(at).rglob("*.so"))) == (codec == "zstd")
    archive = tmp_path / "archive"
    pack_tree(archive, write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"}), codec)
    code = "import sys; print([name for name in sys.modules if 'zstandard' in name])"
    target = tmp_path / "tree"
    assert without_packages("-c", APP.format(str(archive), str(target)), path=at) == ["packed"]
    shown = without_packages("-m", "unpackenv", "--archive", archive, "--", sys.executable, "-S", "-c", code, path=at,
                             UNPACKENV_TARGET=tmp_path / "other", UNPACKENV_LOG="off")  # fmt: skip
    assert shown == ["[]"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython decodes zstd itself")
def test_a_runtime_of_another_python_says_so(written: runtime.Runtime, tmp_path: Path) -> None:
    at = tmp_path / "runtime"
    shutil.copytree(written.path, at)
    (extension,) = at.rglob("*.so")
    name = extension.name.split(".")
    extension.rename(extension.with_name(".".join([name[0], "cpython-27-x86_64-linux-gnu", *name[2:]])))
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"}))
    code = APP.format(str(tmp_path / "archive"), str(tmp_path / "tree"))
    done = run([sys.executable, "-S", "-s", "-c", code], {"PATH": os.defpath, "PYTHONPATH": str(at)})
    assert done.returncode == 1
    says = f"this interpreter, {sys.implementation.cache_tag}, cannot import zstandard (this runtime is for cpython-27-"
    assert says in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython decodes zstd itself")
def test_an_extension_that_does_not_load_says_why(written: runtime.Runtime, tmp_path: Path) -> None:
    at = tmp_path / "runtime"
    shutil.copytree(written.path, at)
    (extension,) = at.rglob("*.so")
    extension.write_bytes(b"not an extension")
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"}))
    code = APP.format(str(tmp_path / "archive"), str(tmp_path / "tree"))
    done = run([sys.executable, "-S", "-s", "-c", code], {"PATH": os.defpath, "PYTHONPATH": str(at)})
    assert done.returncode == 1
    assert f"cannot import zstandard ({extension}: " in done.stderr
    assert "this runtime is for" not in done.stderr
    # Where zstandard is installed as well, that one will do.
    done = run([sys.executable, "-c", code], {"PATH": os.defpath, "PYTHONPATH": str(at)})
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr


def test_the_application_has_its_own_zstandard(written: runtime.Runtime, tmp_path: Path) -> None:
    files = {"app.py": "import zstandard\nWHOSE = zstandard.WHOSE\n", "zstandard/__init__.py": "WHOSE = 'own'\n"}
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", files))
    code = APP.format(str(tmp_path / "archive"), str(tmp_path / "tree"))
    for _ in ("cold", "warm"):
        assert without_packages("-c", code, path=written.path) == ["own"]
    threads = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    code = threads + APP.format(str(tmp_path / "archive"), str(tmp_path / "threaded"))
    assert without_packages("-c", code, path=written.path) == ["own"]


def test_a_runtime_does_not_import_the_installed_zstandard(written: runtime.Runtime, tmp_path: Path) -> None:
    """Nor does it matter if what is installed is broken."""
    broken = write_tree(tmp_path / "broken", {"zstandard/__init__.py": "raise SystemExit('imported')\n"})
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"}))
    code = APP.format(str(tmp_path / "archive"), str(tmp_path / "tree"))
    assert without_packages("-c", code, path=f"{broken}:{written.path}") == ["packed"]


def test_hook_from_a_runtime(written: runtime.Runtime, tmp_path: Path) -> None:
    venv.create(tmp_path / "image", with_pip=False)
    python = tmp_path / "image/bin/python"
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"}))
    env = {"PATH": os.defpath, "PYTHONPATH": written.path}
    hook = ["-m", "unpackenv", "hook", "--auto", "--archive", tmp_path / "archive", "--target", tmp_path / "tree"]
    done = run([python, *hook], env)
    assert done.returncode == 0, done.stderr
    done = run([python, "-I", "-c", "import app; print(app.WHOSE)"], {"PATH": os.defpath})
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr


def test_commands_of_a_runtime(written: runtime.Runtime, tmp_path: Path) -> None:
    shown = "\n".join(without_packages("-m", "unpackenv", "--help", path=written.path))
    assert "unpack " in shown
    assert "pack  " not in shown.replace("unpack  ", "")
    assert "write what the final image needs" not in shown
    assert {"doctor", "verify", "inspect", "prune", "hook"} <= set(shown.split())
    pack_tree(tmp_path / "archive", write_tree(tmp_path / "site", {"app.py": "WHOSE = 'packed'\n"}))
    without_packages("-m", "unpackenv", "unpack", tmp_path / "archive", "-C", tmp_path / "tree", path=written.path)
    assert (tmp_path / "tree/app.py").read_text() == "WHOSE = 'packed'\n"
    for arguments in ["pack", tmp_path, "-o", "x.tar.zst"], ["help", "pack"]:
        done = run([sys.executable, "-m", "unpackenv", *arguments], {"PYTHONPATH": written.path})
        assert done.returncode == 2
        assert "pack is not in this runtime, to keep it small; run it where unpackenv is installed" in done.stderr


def test_an_option_of_before_is_accepted(tmp_path: Path) -> None:
    """There were runtimes without the doctor."""
    done = run([sys.executable, "-m", "unpackenv", "runtime", "--codec", "xz", "--doctor", tmp_path / "runtime"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runtime/unpackenv/report/doctor/doctor.py").exists()


def test_a_read_only_runtime_has_all_its_bytecode(written: runtime.Runtime) -> None:
    code = "import unpackenv.start.cold.place, unpackenv.start.unpack.native as native; print(native.__file__)"
    (module,) = without_packages("-c", code, path=written.path)
    assert module.endswith("/native.pyc")
    assert Path(module).read_bytes()[4:8] == b"\1\0\0\0"  # unchecked-hash


@pytest.mark.parametrize("arguments", [["-m", "unpackenv", "--", "true"], ["-c", "import unpackenv"]])
def test_another_interpreter_says_so(written: runtime.Runtime, arguments: list[str]) -> None:
    done = run([other_python(), "-S", "-s", *arguments], {"PATH": os.defpath, "PYTHONPATH": written.path})
    assert done.returncode == (125 if arguments[0] == "-m" else 1)
    last = done.stderr.splitlines()[-1]
    says = f"this runtime of unpackenv is for {TAG}, and this interpreter is cpython-"
    assert last.startswith(("unpackenv: error: " if arguments[0] == "-m" else "ImportError: ") + says)
    assert (arguments[0] == "-m") == (done.stderr.count("\n") == 1)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "runtime", {"mine": "stays"})
    with pytest.raises(PackError, match="not empty"):
        runtime.write(str(tmp_path / "runtime"))
    assert os.listdir(tmp_path / "runtime") == ["mine"]
    assert os.listdir(tmp_path) == ["runtime"]


def test_nothing_is_left_of_one_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_CHECK", "import no_such_module")
    with pytest.raises(PackError, match="no_such_module"):
        runtime.write(str(tmp_path / "runtime"))
    assert os.listdir(tmp_path) == []


def test_sources_are_shortened(written: runtime.Runtime) -> None:
    """But for those that other interpreters run, perhaps older ones."""
    package = Path(written.path, "unpackenv")
    for path in package.rglob("*.py"):
        original = Path(runtime.__file__).parents[1] / path.relative_to(package)
        if path.parent.name == "shim" or path.name == "interpreter.py":
            assert path.read_bytes() == original.read_bytes()
        else:
            tree = ast.parse(path.read_bytes())
            functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            assert not [node.name for node in (tree, *functions) if ast.get_docstring(node)]
            assert not [node.name for node in functions if node.returns]
            if path != package / "__init__.py":  # it has a check of the interpreter
                assert ast.dump(tree) == ast.dump(runtime._Shortened().visit(ast.parse(original.read_bytes())))
                assert path.stat().st_size <= original.stat().st_size
