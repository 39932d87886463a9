"""Compiling is reproducible, its interpreter accepts the bytecode, and the tree on the disk stays as it is."""

from __future__ import annotations

import dataclasses
import importlib.util
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unpackenv.errors import PackError, SettingError
from unpackenv.pack import bytecode, scan, source

TAG = sys.implementation.cache_tag
COMPILED = ("unchecked-hash", "checked-hash", "timestamp")
FLAGS = {"timestamp": 0, "unchecked-hash": 1, "checked-hash": 3}

# What CPython writes differently according to what the process has seen: names that another module
# or an import of the compiler's own (`\\N{...}` makes it import unicodedata) had already, strings of
# one letter, and sets, whose order is that of hashes.
STATEFUL = """
from {other} import *
def outer(x):
    class Inner:
        def method(self): return "*", ".", b"x", x.east_asian_width
    return x in {{None, "sym", ..., 7, "spam", "eggs"}}
def in_pairs(x): return [y for y in {{(None, 1), (2, None), (3, "x"), (None, None)}} if y == x]
"""
IMPORTS = r"x = '\N{BULLET}'"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree, a while old."""
    root = tmp_path / "tree"
    for name, text in {
        "top.py": "VALUE = 1\n",
        "package/__init__.py": "from package.inner import f\n",
        "package/inner.py": "def f(): return 'from bytecode'\n",
        "package/data.txt": "no code",
        "bin/script.py": "print()\n",
    }.items():
        write(root / name, text)
    return root


def write(path: Path, text: str, mtime: int = 1_600_000_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (mtime, mtime))


def compiled(
    root: Path, mode: str = "unchecked-hash", workers: int = 1, python: str = sys.executable
) -> bytecode.Bytecode:
    """Compile a tree into a staging directory of its own."""
    staging = root.parent / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    described = source.recognise(str(root), python)
    return bytecode.compile_tree(scan.scan(described), described, mode, str(staging), workers)


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def laid_out(root: Path, result: bytecode.Bytecode) -> Path:
    """Make the tree that an archive of `result` would unpack to."""
    target = root.parent / "target"
    target.mkdir()
    for entry in result.tree.entries:
        place = target / entry.path
        if entry.kind == "dir":
            place.mkdir()
        elif entry.kind == "symlink":
            place.symlink_to(entry.link)
            continue
        else:
            place.write_bytes(contents(result).get(entry.path) or (root / entry.path).read_bytes())
        os.utime(place, (entry.mtime, entry.mtime))
    return target


def contents(result: bytecode.Bytecode) -> dict[str, bytes]:
    sizes = {entry.path: entry.size for entry in result.tree.entries}
    return {
        path: Path(place.path).read_bytes()[place.offset :][: sizes[path]] for path, place in result.overlay.items()
    }


def paths(result: bytecode.Bytecode) -> list[str]:
    return [entry.path for entry in result.tree.entries]


def run(target: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, *options, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {code}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def other_pythons() -> Iterator[str]:
    """Yield interpreters of other versions that this machine has."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for minor in range(9, 14):
        if minor != sys.version_info.minor:
            yield from map(str, sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python"))[:1])


# --- what comes out ----------------------------------------------------------------------------


def test_every_source_has_its_bytecode(tree: Path) -> None:
    result = compiled(tree)
    assert paths(result) == [
        "top.py",
        "__pycache__",
        f"__pycache__/top.{TAG}.pyc",
        "bin",
        "bin/script.py",
        "package",
        "package/__init__.py",
        "package/data.txt",
        "package/inner.py",
        "package/__pycache__",
        f"package/__pycache__/__init__.{TAG}.pyc",
        f"package/__pycache__/inner.{TAG}.pyc",
    ]
    assert result.failed == []
    assert set(result.overlay) == {path for path in paths(result) if path.endswith(".pyc")}


def test_entries_are_like_those_of_their_source(tree: Path) -> None:
    (tree / "top.py").chmod(0o755)
    os.utime(tree, (0, 1_500_000_000))
    result = compiled(tree)
    entries = {entry.path: entry for entry in result.tree.entries}
    made = entries[f"__pycache__/top.{TAG}.pyc"]
    assert (made.kind, made.mode, made.mtime) == ("file", 0o644, 1_600_000_000)
    assert marshal.loads(contents(result)[made.path][16:]).co_filename == "top.py"
    assert entries["__pycache__"][1:] == ("dir", 0o755, 1_500_000_000, 0, "")
    assert result.tree.root_mtime == 1_500_000_000


@pytest.mark.parametrize("mode", bytecode.MODES)
def test_the_tree_is_not_written(tree: Path, mode: str) -> None:
    write(tree / "package/__pycache__" / f"inner.{TAG}.pyc", "stale")
    before = {path: path.stat() for path in [tree, *tree.rglob("*")]}
    compiled(tree, mode)
    after = {path: path.stat() for path in [tree, *tree.rglob("*")]}
    assert {path: (s.st_mtime_ns, s.st_ino, s.st_size) for path, s in before.items()} == {
        path: (s.st_mtime_ns, s.st_ino, s.st_size) for path, s in after.items()
    }


@pytest.mark.parametrize("mode", COMPILED)
def test_the_header_says_how_the_source_is_checked(tree: Path, mode: str) -> None:
    data = contents(compiled(tree, mode))[f"__pycache__/top.{TAG}.pyc"]
    text = (tree / "top.py").read_bytes()
    stamp = (1_600_000_000).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(data[4:8], "little") == FLAGS[mode]
    assert data[8:16] == (stamp if mode == "timestamp" else importlib.util.source_hash(text))


def test_timestamp_is_the_packed_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1400000000")
    data = contents(compiled(tree, "timestamp"))[f"__pycache__/top.{TAG}.pyc"]
    assert int.from_bytes(data[8:12], "little") == 1_400_000_000


@pytest.mark.parametrize("mtime", [-5, (1 << 33) + 5])
def test_timestamp_has_32_bits(tree: Path, mtime: int) -> None:
    os.utime(tree / "top.py", (mtime, mtime))
    target = laid_out(tree, compiled(tree, "timestamp"))
    assert imported_from(target, "top")["top"].endswith(f"{TAG}.pyc")


def test_code_is_that_of_the_source(tree: Path) -> None:
    write(tree / "top.py", '"""Docstring."""\nassert VALUE\n' + STATEFUL.format(other="os"))
    data = contents(compiled(tree))[f"__pycache__/top.{TAG}.pyc"]
    assert marshal.loads(data[16:]) == compile((tree / "top.py").read_text(), "top.py", "exec", dont_inherit=True)


# --- the interpreter takes it ------------------------------------------------------------------


def imported_from(target: Path, code: str) -> dict[str, str]:
    """Import modules and return for each of `target` where its code came from, as `python -v` says it."""
    lines = run(target, f"import {code}", "-v", "-B").stderr.splitlines()
    origins = [line.split("'")[1] for line in lines if line.startswith("# code object from '")]
    origins += [line.split("from ")[1] for line in lines if line.startswith("# code object from /")]
    return {Path(path).name.split(".")[0]: path for path in origins if path.startswith(str(target))}


@pytest.mark.parametrize("mode", COMPILED)
def test_import_compiles_nothing(tree: Path, mode: str) -> None:
    target = laid_out(tree, compiled(tree, mode))
    origins = imported_from(target, "top, package")
    assert set(origins) == {"top", "__init__", "inner"}
    assert all(path.endswith(f".{TAG}.pyc") for path in origins.values()), origins


def test_without_bytecode_import_compiles(tree: Path) -> None:
    assert imported_from(laid_out(tree, compiled(tree, "none")), "top")["top"].endswith("top.py")


@pytest.mark.parametrize(("mode", "printed"), [("unchecked-hash", "from bytecode"), ("checked-hash", "from source")])
def test_only_checked_bytecode_sees_an_edit(tree: Path, mode: str, printed: str) -> None:
    target = laid_out(tree, compiled(tree, mode))
    write(target / "package/inner.py", "def f(): return 'from source'\n")
    assert run(target, "import package; print(package.f())", "-B").stdout.strip() == printed


def test_tracebacks_name_the_unpacked_file(tree: Path) -> None:
    target = laid_out(tree, compiled(tree))
    printed = run(target, "import package; print(package.f.__code__.co_filename)").stdout.strip()
    assert printed == str(target / "package/inner.py")


@pytest.mark.parametrize("python", list(other_pythons()))
def test_bytecode_is_for_the_interpreter_that_will_run_it(tree: Path, python: str) -> None:
    interpreter = source.recognise(str(tree), python).interpreter
    result = contents(compiled(tree, python=python))
    assert f"__pycache__/top.{interpreter.cache_tag}.pyc" in result
    assert {data[:4].hex() for data in result.values()} == {interpreter.magic}


# --- the same bytes ----------------------------------------------------------------------------


@pytest.fixture
def stateful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree in which the order of compiling would show, cut into several batches."""
    monkeypatch.setattr(bytecode, "_BATCH", 3)
    root = tmp_path / "tree"
    for number in range(10):
        write(root / f"module{number}.py", STATEFUL.format(other=f"module{(number * 7) % 10}"))
    write(root / "module4.py", IMPORTS)
    return root


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_same_bytes_with_any_number_of_workers(stateful: Path, workers: int) -> None:
    first = compiled(stateful)
    assert len(first.overlay) == 10
    expected = contents(first)
    again = compiled(stateful, workers=workers)
    assert contents(again) == expected
    assert again.tree == first.tree


def test_same_bytes_whichever_batch_comes_first(stateful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = contents(compiled(stateful))

    def backwards(work, batches, *_):  # type: ignore[no-untyped-def]
        return reversed([work(batch) for batch in reversed(batches)])

    monkeypatch.setattr(bytecode.pooled, "in_order", backwards)
    assert contents(compiled(stateful)) == expected


def test_same_bytes_in_any_environment(stateful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = contents(compiled(stateful))
    for name, value in {"PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2", "PYTHONDEVMODE": "1", "LC_ALL": "C"}.items():
        monkeypatch.setenv(name, value)
    assert contents(compiled(stateful)) == expected


def test_interpreter_is_isolated_but_for_its_hash_seed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tree))
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    seen = tree.parent / "seen"
    script = f'(echo "$@"; env | grep ^PYTHON | sort) > {seen}; exec {sys.executable} -v "$@" 2>> {seen}'
    described = with_interpreter(tree, script)
    write(tree / "json.py", "raise SystemExit('imported while compiling')\n")
    write(tree / "top.py", "x = 1 is 1\n")
    result = bytecode.compile_tree(scan.scan(described), described, "timestamp", str(made(tree.parent / "staging")), 1)
    assert len(result.overlay) == 4
    options, *settings, stderr = seen.read_text().split("\n", 3)
    assert settings == ["PYTHONHASHSEED=0", "PYTHONUTF8=1"]
    assert not {"-I", "-E"} & set(options.split())  # they would make it ignore the seed
    assert "SyntaxWarning" not in stderr
    assert "import 'site'" not in stderr


def test_same_bytes_wherever_none_is_in_memory(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    sets = "\n".join(
        f"def f{n}(x): return x in {{(None, {n}), ({n}, None), (None, 'x'), (None, 2.5)}}" for n in range(50)
    )
    write(root / "sets.py", sets)
    (first,) = contents(compiled(root)).values()
    assert {first} == {data for _ in range(3) for data in contents(compiled(root)).values()}


# --- bytecode that was there -------------------------------------------------------------------


def with_old_bytecode(tree: Path) -> Path:
    for name in (
        f"__pycache__/top.{TAG}.pyc",
        f"__pycache__/top.{TAG}.opt-1.pyc",
        "__pycache__/top.cpython-31.pyc",
        f"__pycache__/gone.{TAG}.pyc",
        "__pycache__/top.cache",
        "package/__pycache__/inner.cpython-31.pyc",
        "package/sourceless.pyc",
        "empty/__pycache__/",
    ):
        if name.endswith("/"):
            (tree / name).mkdir(parents=True)
        else:
            write(tree / name, "old")
    return tree


def test_old_bytecode_is_replaced(tree: Path) -> None:
    result = compiled(with_old_bytecode(tree))
    assert [path for path in paths(result) if "cache" in path or path.endswith(".pyc")] == [
        "__pycache__",
        "__pycache__/top.cache",
        f"__pycache__/top.{TAG}.pyc",
        "package/sourceless.pyc",
        "package/__pycache__",
        f"package/__pycache__/__init__.{TAG}.pyc",
        f"package/__pycache__/inner.{TAG}.pyc",
    ]


def test_none_leaves_bytecode_out(tree: Path) -> None:
    result = compiled(with_old_bytecode(tree), "none")
    assert [path for path in paths(result) if "cache" in path or path.endswith(".pyc")] == [
        "__pycache__",
        "__pycache__/top.cache",
        "package/sourceless.pyc",
    ]
    assert (result.overlay, result.failed) == ({}, [])


def test_keep_changes_nothing(tree: Path) -> None:
    described = source.recognise(str(with_old_bytecode(tree)))
    scanned = scan.scan(described)
    result = bytecode.compile_tree(scanned, described, "keep", "", 1)
    assert (result.tree, result.overlay, result.failed) == (scanned, {}, [])


def test_file_that_was_linked_to_old_bytecode_stays(tree: Path) -> None:
    old = tree / "package/__pycache__" / f"inner.{TAG}.pyc"
    write(old, "old")
    (tree / "zoo").mkdir()
    os.link(old, tree / "zoo/copy.bin")
    assert ("zoo/copy.bin", "file", 3) in {(e.path, e.kind, e.size) for e in compiled(tree).tree.entries}


# --- which sources -----------------------------------------------------------------------------


def test_only_modules_below_an_import_path_are_compiled(tmp_path: Path) -> None:
    lib = f"lib/python3.{sys.version_info.minor}"
    for name in (f"{lib}/site-packages/a.py", f"{lib}/b.py", f"{lib}/c.py", "bin/d.py", "share/e.py"):
        write(tmp_path / "tree" / name, "")
    write(tmp_path / "tree" / lib / "__pycache__" / f"c.{TAG}.pyc", "old")
    assert sorted(compiled(tmp_path / "tree").overlay) == [
        f"{lib}/__pycache__/c.{TAG}.pyc",
        f"{lib}/site-packages/__pycache__/a.{TAG}.pyc",
    ]


def test_links_to_sources_of_the_tree_are_compiled(tree: Path) -> None:
    (tree / "symlink.py").symlink_to("package/inner.py")
    os.link(tree / "top.py", tree / "hard.py")
    write(tree.parent / "outside.py", "")
    (tree / "outside.py").symlink_to("../outside.py")
    (tree / "dangling.py").symlink_to("nowhere.py")
    result = compiled(tree, "timestamp")
    found = {Path(path).name for path in result.overlay if path.startswith("__pycache__/")}
    assert found == {f"{name}.{TAG}.pyc" for name in ("top", "hard", "symlink", "outside")}
    assert imported_from(laid_out(tree, result), "symlink")["symlink"].endswith(".pyc")


def test_names_that_bytecode_cannot_have(tree: Path) -> None:
    write(tree / f"{'n' * 250}.py", "")
    (tree / "directory.py").mkdir()
    write(tree / "package/__pycache__", "a file")
    assert list(compiled(tree).overlay) == [f"__pycache__/top.{TAG}.pyc"]


def test_names_of_any_bytes(tree: Path) -> None:
    for name in (b"caf\xc3\xa9", b"\xff", b"new\nline", b"tab\t"):
        with open(os.path.join(os.fsencode(tree), name + b".py"), "w"):
            pass
    assert len(compiled(tree).overlay) == 7


# --- what does not compile ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"def f(:\n", "SyntaxError: "),
        (b"x = '\xff'\n", "SyntaxError: "),
        (b"# coding: no-such-coding\n", "SyntaxError: "),
        (b"x = '\0'\n", "Error: source code"),
        (b"x = " + b"-" * 100_000 + b"1\n", "Error: "),
    ],
)
def test_sources_that_do_not_compile_are_packed_as_they_are(tree: Path, data: bytes, reason: str) -> None:
    write(tree / "package/__pycache__" / f"broken.{TAG}.pyc", "old")
    (tree / "package/broken.py").write_bytes(data)
    result = compiled(tree)
    ((path, message),) = result.failed
    assert path == "package/broken.py"
    assert reason in message
    assert [path for path in paths(result) if "broken" in path] == ["package/broken.py"]
    assert len(result.overlay) == 3


def test_warnings_of_the_compiler_are_not_shown(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tree / "top.py", "x = 1 is 1\n")
    assert compiled(tree).failed == []
    assert capfd.readouterr() == ("", "")


def with_interpreter(tree: Path, script: str) -> source.PackSource:
    """Return the tree with an interpreter that does what the shell script `script` says."""
    fake = tree.parent / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    described = source.recognise(str(tree))
    return dataclasses.replace(described, interpreter=dataclasses.replace(described.interpreter, path=str(fake)))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "signal 11"),
        ("echo last words >&2; exit 3", "last words"),
        ("exit 3", "exit status 3"),
        ("exit 0", "exit status 0"),
    ],
)
def test_interpreter_that_dies(tree: Path, tmp_path: Path, script: str, message: str) -> None:
    described = with_interpreter(tree, f"cat > /dev/null; echo 3; {script}")
    with pytest.raises(PackError, match=message) as caught:
        bytecode.compile_tree(scan.scan(described), described, "unchecked-hash", str(tmp_path), 2)
    assert caught.value.where == str(tree / "package/__init__.py")


def test_source_that_vanishes(tree: Path) -> None:
    described = source.recognise(str(tree))
    scanned = scan.scan(described)
    (tree / "package/inner.py").unlink()
    with pytest.raises(PackError, match="No such file") as caught:
        bytecode.compile_tree(scanned, described, "unchecked-hash", str(made(tree.parent / "staging")), 1)
    assert caught.value.where == str(tree / "package/inner.py")


def test_progress_is_told_file_by_file(stateful: Path) -> None:
    described = source.recognise(str(stateful))
    seen: list[tuple[int, int]] = []
    staging = str(made(stateful.parent / "staging"))
    bytecode.compile_tree(
        scan.scan(described), described, "timestamp", staging, 2, lambda done, total: seen.append((done, total))
    )
    assert list(dict.fromkeys([(0, 10), *seen])) == [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]


def test_an_unknown_mode_is_refused_with_the_known_ones(tree: Path) -> None:
    with pytest.raises(SettingError, match="'fast' is none of unchecked-hash,"):
        compiled(tree, "fast")
