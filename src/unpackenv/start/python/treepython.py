"""Find the Python that a command of a packed environment will run, before the environment is unpacked.

The `python` of a virtual environment is a link to an interpreter of the image, or a copy of one, which needs its
standard library. The archive says where that is; the interpreter there can be run for its facts. An environment with an
interpreter of its own brings all of it. Imported by cold starts of the wrapper only.
"""

from __future__ import annotations

from unpackenv.archive import interpreter
from unpackenv.archive.facts import first
from unpackenv.archive.reader import Archive
from unpackenv.archive.toc import Toc
from unpackenv.errors import InterpreterMismatch
from unpackenv.start import command as commands
from unpackenv.start.python import relocation
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.command import Command

HINT = "Make the environment with the interpreter of the image that runs it, or copy that interpreter into it"
_LINKS = 40  # as many as the kernel follows


def interpreter_of(command: Command, archive: Archive, target: str) -> tuple[dict[str, str] | None, str]:
    """Return the facts of the Python that `command` will run (None: this one), and a warning or "".

    `target` is where the environment will be, if that is not where the archive records it. Raises
    `InterpreterMismatch` if that is the Python of the environment, and it is not there.
    """
    directory = first(archive.facts, "bin")
    at = os.path.join(os.path.realpath(target or first(archive.facts, "target")), directory)
    if "/" in command.name and os.path.realpath(os.path.dirname(command.name)) != at:
        return command.interpreter(""), ""
    links, files = _entries(archive.toc, os.fsencode(directory))
    name = os.path.basename(command.name)
    if name not in links and name not in files:
        return command.interpreter(""), ""
    is_python = commands.is_python(name)
    python = _leads_to(name if is_python else "python", links, (at, _made_at(archive)))
    copied_from = "" if python else _copied_from(archive)
    python = python or copied_from
    if not python:  # it is as it was packed, and needs this machine
        return {**interpreter.describe(), **{key: first(archive.facts, key) for key in ("python", "soabi")}}, ""
    if os.access(python, os.X_OK):
        return commands.facts_of(python), ""
    if not is_python:  # a script may run another Python, a program none: executing it will show
        return command.interpreter(""), ""
    missing = _missing(os.path.join(directory, name), python, is_copy=bool(copied_from))
    instead = commands.find(name) if command.is_on_path and "/" not in command.name else ""
    if instead:
        return commands.facts_of(instead), f"{missing}: {instead} runs in its place"
    raise InterpreterMismatch(
        missing,
        where=archive.path,
        hint=HINT,
        fact="interpreter",
        packed=python,
        found="",
    )


def missing_python(archive: Archive, target: str) -> str:
    """Return a sentence about the Python that a virtual environment at `target` will lack; "" if it is there."""
    directory = first(archive.facts, "bin")
    links, _ = _entries(archive.toc, os.fsencode(directory))
    linked = _leads_to("python", links, (os.path.join(target, directory), _made_at(archive)))
    python = linked or _copied_from(archive)
    if not python or os.path.exists(python):
        return ""
    return _missing(os.path.join(directory, "python"), python, is_copy=not linked)


def _copied_from(archive: Archive) -> str:
    """Return the interpreter of which a virtual environment has a copy, and whose library it needs; "" if none."""
    home = first(archive.facts, "home")
    return os.path.join(home, "python3") if home else ""


def _missing(path: str, python: str, *, is_copy: bool) -> str:
    return f"its {path} {'is a copy of' if is_copy else 'leads to'} {python}, which is not there"


def _made_at(archive: Archive) -> str:
    return os.path.join(relocation.made_at(archive.facts), first(archive.facts, "bin"))


def _entries(toc: Toc, directory: bytes) -> tuple[dict[str, str], set[str]]:
    """Return the symlinks in a directory of the archive, and the names of its files."""
    row = toc.dir_paths().index(directory + b"/") if directory else 0
    links = zip(toc.link_dir, toc.link_names, toc.link_targets)
    files = [*zip(toc.file_dir, toc.file_names), *zip(toc.hard_dir, toc.hard_names)]
    return (
        {os.fsdecode(name): os.fsdecode(target) for parent, name, target in links if parent == row},
        {os.fsdecode(name) for parent, name in files if parent == row},
    )


def _leads_to(name: str, links: dict[str, str], own: tuple[str, ...]) -> str:
    """Follow the link `name` until it leaves the directory with these links, and return that path; "" if it stays.

    `own` are the paths of the directory; it will be at the first.
    """
    for _ in range(_LINKS):
        if name not in links:
            return ""
        path = os.path.normpath(os.path.join(own[0], links[name]))
        if os.path.dirname(path) not in own:
            return path
        name = os.path.basename(path)
    return ""
