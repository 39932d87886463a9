"""`unpackenv runtime`: write what a final image needs to start an archive, and no more.

The wheel of `zstandard` alone installs 24 MB, most of it symbols and a second backend. A runtime is
this package without what only building needs, as bytecode, and one backend without symbols:

    DIR/unpackenv/…                    what a usual start imports: bytecode beside where its source was
    DIR/unpackenv/archive/backend/…    zstandard's C extension and its licence

There is no `zstandard` package in it that could shadow the application's.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import unpackenv
from unpackenv.archive import codecs
from unpackenv.archive.codecs import zstd_extension
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, NoSpace, PackError

# Paths within the package that only a build needs, and the backend, which is copied anew.
_LEFT_OUT = (
    "archive/backend", "archive/pace.py", "archive/writer.py", "cli/analyze.py", "cli/completion.py",
    "cli/dockerfile.py", "cli/launcher.py", "cli/pack.py", "cli/push.py", "cli/runtime.py", "cli/timings.py",
    "cli/trace.py", "contrib", "pack", "publish", "py.typed", "python.py", "report/analyze",
    "report/page.html", "report/pages.py", "report/tables.html", "report/timings",
)  # fmt: skip
_OF_LAUNCHERS = ("start/launcher.py",)
# Empty modules, and modules that a usual start does not import: for failures, extra settings, environments, registries,
# archives of plain tar and other commands. They are compiled when they are imported.
_WITHOUT_BYTECODE = (
    r"report/|archive/(compare|frames|pooled|refusals|tarstream|verify|codecs/zstd_stdlib)\.py|"
    r"cli/(common|doctor|fill|hook|inspect|prune|verify)\.py|"
    r"start/(cold|fill|log|machine|python|remote|tree|unpack)/__init__\.py|"
    r"start/(fill/left|log/import_times|python/(conda_unpack|hook_file|notfound|relocation|treepython)|tree/prune)\.py|"
    r"start/(remote/(cache|credentials|reference|registry|shared|stored|tokens)|unpack/(decode_ahead|foreign|trace))\.py"
)
# Other interpreters, perhaps older ones, run these files: they stay as they were written.
_FOR_OTHERS = ("archive/interpreter.py", "start/shim/*")
# In the first module, which every interpreter can read.
_GUARD = """
import sys
if sys.implementation.cache_tag != {tag!r}:
    text = "this runtime of unpackenv is for {tag}, and this interpreter is " + str(sys.implementation.cache_tag)
    text += ". Write one with the interpreter that will run it: unpackenv runtime"
    if sys.argv[:1] == ["-m"]:
        sys.stderr.write("unpackenv: error: " + text + "\\n")
        raise SystemExit({code})
    raise ImportError(text)
"""
_FIRST_LINE = "from __future__ import annotations\n"
_CHECK = "from unpackenv.archive import codecs; codecs.get({codec!r}).decoder(); import unpackenv.start.cold.place"


@dataclass(frozen=True)
class Runtime:
    """A runtime that was written: its directory, its size on disk in bytes, and whether symbols are stripped."""

    path: str
    size: int
    stripped: bool


def write(directory: str, codec: str = codecs.DEFAULT, *, for_launcher: bool = False) -> Runtime:
    """Write a runtime for archives of `codec` into an absent or empty directory, all or nothing.

    It fits the interpreter that runs this: bytecode and C extension are for one Python version and platform. That of a
    launcher has bytecode also of what a usual start does not import: there it hardly takes more room.
    Raises `PackError`, `NoSpace`, or `SettingError` for an unknown codec.
    """
    needs_extension = codecs.get(codec).needs_extension
    path = Path(os.path.abspath(directory))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise PackError("exists and is not empty", where=str(path), hint="Name another directory, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as name:
            work = Path(name, "runtime")
            _copy_package(work, _LEFT_OUT if for_launcher else (*_LEFT_OUT, *_OF_LAUNCHERS))
            _shorten(work / "unpackenv")
            _guard(work / "unpackenv/__init__.py")
            stripped = not needs_extension or _copy_backend(work, codec)
            _compile(work, "" if for_launcher else _not_imported(codec))
            _leave_out_sources(work / "unpackenv")
            _check(work, codec)
            os.rename(work, path)
    except OSError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        hint = "Make room there, or write the runtime to another disk"
        raise NoSpace("is full, and a runtime takes about 2.2 MB", where=str(path.parent), hint=hint) from error
    return Runtime(str(path), _size_on_disk(path), stripped)


def _copy_package(work: Path, left_out: Collection[str]) -> None:
    package = Path(unpackenv.__file__).parent

    def ignored(directory: str, names: list[str]) -> list[str]:
        paths = {name: Path(directory, name).relative_to(package) for name in names}
        return [name for name, path in paths.items() if name == "__pycache__" or path.as_posix() in left_out]

    shutil.copytree(package, work / "unpackenv", ignore=ignored)


def _shorten(package: Path) -> None:
    """Remove from the sources what only people and type checkers need."""
    for path in package.rglob("*.py"):
        if not any(map(path.match, _FOR_OTHERS)):
            tree = _Shortened().visit(ast.parse(path.read_bytes()))
            path.write_text(ast.unparse(tree), encoding="utf-8")


class _Shortened(ast.NodeTransformer):
    """Removes docstrings, annotations of functions, and code under `if TYPE_CHECKING` from a syntax tree."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


def _copy_backend(work: Path, codec: str) -> bool:
    """Copy zstandard's C extension and licence; return whether its symbols could be stripped."""
    spec = zstd_extension.find()
    if spec is None or spec.origin is None:
        raise PackError("zstandard is not installed here, or lacks its C extension", where=sys.executable)
    source = spec.origin
    directory = work / os.path.relpath(zstd_extension.DIRECTORY, Path(unpackenv.__file__).parents[1])
    directory.mkdir()
    for licence in _licences():
        shutil.copy(licence, directory)
    copied = Path(shutil.copy(source, directory))
    with tempfile.TemporaryDirectory(prefix="unpackenv-") as folder:
        smaller = Path(folder, copied.name)
        if _strip(copied, smaller):
            original = Path(shutil.move(copied, Path(folder, "original")))
            shutil.copy(smaller, copied)
            try:
                _check(work, codec)
            except PackError:  # stripping breaks some libraries that were patched
                shutil.copy(original, copied)
            else:
                return True
    return False


def _strip(source: Path, to: Path) -> bool:
    command = ["strip", "--strip-unneeded", "-o", str(to), str(source)]
    if not shutil.which("strip"):
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _licences() -> Iterator[Path]:
    try:
        for file in files("zstandard") or ():
            if file.name.upper().startswith("LICENSE"):
                yield Path(str(file.locate()))
    except PackageNotFoundError:
        pass


def _not_imported(codec: str) -> str:
    """Return a pattern for the modules that a usual start with `codec` does not import."""
    others = "|".join(name for name in codecs.names() if name != codec)
    return f"{_WITHOUT_BYTECODE}|archive/codecs/({others})(_\\w+)?\\.py"


def _compile(work: Path, but: str) -> None:
    """Compile the modules, without docstrings, but for those whose path in the package matches a pattern.

    An image may be read-only: there every start would compile them again.
    """
    command = ["-m", "compileall", "-q", "-o", "2", "--invalidation-mode", "unchecked-hash", "-s", str(work)]
    command += ["-x", f"{re.escape(str(work))}/unpackenv/({but})"] if but else []
    _run([*command, str(work)], {"PYTHONHASHSEED": "0"})
    for bytecode in work.rglob("*.opt-2.pyc"):  # an interpreter without -OO looks for the plain name
        bytecode.rename(bytecode.with_name(bytecode.name.replace(".opt-2", "")))


def _guard(module: Path) -> None:
    """Have a module say so if another interpreter imports it."""
    text = module.read_text(encoding="utf-8")
    guard = _GUARD.format(tag=sys.implementation.cache_tag, code=EXIT_BOOTSTRAP_FAILED)
    module.write_text(text.replace(_FIRST_LINE, _FIRST_LINE + guard, 1), encoding="utf-8")


def _leave_out_sources(package: Path) -> None:
    """Put bytecode where its source was; but for sources that other interpreters read."""
    for bytecode in package.rglob("__pycache__/*.pyc"):
        source = bytecode.parent.parent / f"{bytecode.name.partition('.')[0]}.py"
        if source != package / "__init__.py" and not any(map(source.match, _FOR_OTHERS)):
            bytecode.rename(source.with_suffix(".pyc"))
            source.unlink()
            if not any(bytecode.parent.iterdir()):
                bytecode.parent.rmdir()


def _check(work: Path, codec: str) -> None:
    _run(["-S", "-B", "-c", _CHECK.format(codec=codec)], {"PYTHONPATH": str(work)})


def _run(arguments: list[str], variables: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.run(
        [sys.executable, "-s", *arguments],
        env={**environment, **variables},
        check=False,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise PackError(f"the runtime does not work ({process.stderr.strip()[-500:]})", where=arguments[-1])


def _size_on_disk(path: Path) -> int:
    return sum(file.lstat().st_blocks * 512 for file in (path, *path.rglob("*")))
