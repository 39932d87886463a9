"""`unpackenv dockerfile`: the Dockerfile of the project in a directory, with its packages in an archive.

It reads what the project says of itself: a lock file of uv, Poetry or PDM, requirements.txt, or pyproject.toml; the
Python that it is for; the file that is most likely its application.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpackenv.errors import PackError

_REQUIREMENTS = "requirements.txt"
# A lock file, and what turns it into requirements with hashes; the project itself is not among them.
_LOCKS = {
    "uv.lock": ("uv", "uv export --frozen --no-dev --no-emit-project --quiet --output-file requirements.txt"),
    "poetry.lock": ("poetry poetry-plugin-export", "poetry export --output requirements.txt"),
    "pdm.lock": ("pdm", "pdm export --prod --output requirements.txt"),
}
_PYPROJECT = "pyproject.toml"
# Projects that are no packages say so here, whatever builds them.
_NO_PACKAGE = (("poetry", "package-mode"), ("uv", "package"), ("pdm", "distribution"))
_DEPENDENCIES = (
    'python -c "import {toml} as toml; '
    "print(*toml.load(open('pyproject.toml', 'rb'))['project'].get('dependencies', []), sep='\\n')\" > requirements.txt"
)
_APPLICATIONS = ("app.py", "main.py", "server.py", "run.py", "wsgi.py", "asgi.py")
# What makes a module an application of a server: the name of its object, and of the class.
_OBJECT = re.compile(r"^(\w+)(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)?(Flask|FastAPI|Starlette|Sanic|Quart)\(", re.MULTILINE)
_ASYNC = ("FastAPI", "Starlette", "Quart")
_NEEDED = re.compile(r"^\s*(?:-[rcef]\b|--(?:requirement|constraint|editable|find-links)\b|\.{0,2}/)", re.MULTILINE)
_VERSION = re.compile(r"3\.\d+")
_OLDEST, _NEWEST = 9, 14
"""Minor numbers of the CPythons that unpackenv is for."""
_STDLIB = "RUN python -m compileall -q $(python -c \"import sysconfig; print(sysconfig.get_path('stdlib'))\")"


@dataclass(frozen=True)
class Project:
    """What a project says of itself: how its packages are installed, its Python ("3.12"), its application."""

    requirements: str
    """The file that names its packages; "" if they are installed with the project itself."""
    is_package: bool
    """Whether the project itself is to be installed, too."""
    python: str
    python_why: str
    command: tuple[str, ...]
    command_why: str
    notes: tuple[str, ...] = ()
    """What the Dockerfile does not settle, a sentence each."""


def look(directory: str, python: str = "") -> Project:
    """Return what the project in `directory` says of itself; `python` is a version that is wanted instead of its own.

    Raises `PackError` if nothing there names packages.
    """
    root = Path(directory)
    if not root.is_dir():
        raise PackError("is no directory", where=str(root.absolute()))
    pyproject = _table(root / _PYPROJECT)
    requirements = next((name for name in (*_LOCKS, _REQUIREMENTS) if (root / name).is_file()), "")
    if not (requirements or "project" in pyproject):
        raise PackError(
            "has neither a lock file of uv, Poetry or PDM, nor requirements.txt, nor a pyproject.toml with [project]",
            where=str(root.absolute()),
            hint="Run this in the directory of a project",
        )
    is_package = "build-system" in pyproject and not any(
        pyproject.get("tool", {}).get(tool, {}).get(key) is False for tool, key in _NO_PACKAGE
    )
    if not requirements and not is_package:
        requirements = _PYPROJECT
    version, why = (python, "as asked for") if python else _python(root, pyproject)
    command, command_why = _command(root, pyproject)
    return Project(requirements, is_package, version, why, command, command_why, tuple(_notes(root, requirements)))


def write(project: Project, *, venv: bool = False) -> str:
    """Return the Dockerfile of a project: its packages in a directory, or in a virtual environment."""
    return "".join(f"{line}\n" for line in (*_build_stage(project, venv), "", *_final_image(project, venv)))


def _build_stage(project: Project, venv: bool) -> Iterator[str]:
    packed, name = ("/opt/venv", "venv") if venv else ("/site-packages", "site-packages")
    pip = "pip --python /opt/venv/bin/python install" if venv else f"pip install --target {packed}"
    for note in project.notes:
        yield f"# Note: {note}"
    yield f"# Python {project.python}: {project.python_why}"
    yield f"FROM python:{project.python} AS build"
    yield "RUN pip install 'unpackenv[build]'"
    if venv:
        yield "RUN python -m venv --without-pip /opt/venv"
    yield "WORKDIR /project"
    if project.requirements in _LOCKS:
        tool, export = _LOCKS[project.requirements]
        yield f"COPY pyproject.toml {project.requirements} ./"
        yield f"RUN pip install {tool} && {export}"
    elif project.requirements:
        yield f"COPY {project.requirements} ./"
    if project.requirements == _PYPROJECT:
        toml = "pip._vendor.tomli" if project.python in ("3.9", "3.10") else "tomllib"
        yield f"RUN {_DEPENDENCIES.format(toml=toml)}"
    if project.requirements:
        yield f"RUN {pip} -r {_REQUIREMENTS}"
    if project.is_package:
        yield "# A .dockerignore keeps .git, .venv and secrets out."
        yield "COPY . ."
        yield f"RUN {pip} {'--no-deps ' if project.requirements else ''}."
    yield "RUN unpackenv runtime /opt/unpackenv/runtime && unpackenv pack " + packed + " \\"
    yield f"    -o /opt/unpackenv/{name}.tar.zst --metadata-to /opt/unpackenv/metadata"


def _final_image(project: Project, venv: bool) -> Iterator[str]:
    yield "# Slim: a library of the system that a package needs (libpq, libgomp, …) has to be installed here, too."
    yield f"FROM python:{project.python}-slim"
    yield "# Official images have the standard library without bytecode: every container would compile what it imports."
    yield _STDLIB
    yield "COPY --from=build /opt/unpackenv /opt/unpackenv"
    if venv:
        yield "ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/unpackenv/runtime"
        yield "WORKDIR /srv"
    else:
        yield "# From here on every interpreter imports from the archive, and the first one unpacks it: a RUN line that"
        yield "# starts Python below would do so in the image."
        yield "RUN PYTHONPATH=/opt/unpackenv/runtime python -m unpackenv hook --auto"
        yield "WORKDIR /srv"
    yield "COPY . ."
    if venv:
        yield 'ENTRYPOINT ["python", "-m", "unpackenv", "--"]'
    else:
        yield "# Scripts of packages are not on PATH: python -m gunicorn, or unpackenv dockerfile --venv."
    yield f"# {project.command_why}"
    yield f"CMD {json.dumps(project.command)}"


def _python(root: Path, pyproject: dict[str, Any]) -> tuple[str, str]:
    """Return the version of Python that a project is for, and where it says so."""
    pinned = root / ".python-version"
    if pinned.is_file() and (found := _VERSION.search(pinned.read_text(encoding="utf-8", errors="replace"))):
        return found[0], ".python-version says so"
    own = sys.version_info[1]
    poetry = pyproject.get("tool", {}).get("poetry", {}).get("dependencies", {}).get("python", "")
    wanted = str(pyproject.get("project", {}).get("requires-python") or poetry)
    if not wanted:
        return f"3.{own}", "that of the Python that ran `unpackenv dockerfile`"
    fitting = _fitting(wanted)
    if not fitting:
        raise PackError(f"wants Python {wanted}, for which unpackenv is not", where=str(root / "pyproject.toml"))
    if own in fitting:
        return f"3.{own}", f"that of the Python that ran `unpackenv dockerfile`; pyproject.toml allows {wanted}"
    return f"3.{fitting[-1]}", f"pyproject.toml wants {wanted}"


def _fitting(wanted: str) -> list[int]:
    """Return the minor numbers of the CPythons that fit a specifier (PEP 440) or a constraint of Poetry."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    text = re.sub(r"\^\s*(3[.\d]*)", r">=\1,<4", wanted)
    text = re.sub(r"(^|,)\s*~\s*(3\.\d+)[.\d]*", r"\1==\2.*", text).replace("||", ",")
    every = range(_OLDEST, _NEWEST + 1)
    try:
        specifiers = SpecifierSet("" if text == "*" else text)
    except InvalidSpecifier:
        specifiers = SpecifierSet("<0")
    # The last patch release of each; a specifier of one version names it.
    named = {int(number) for number in re.findall(r"(?:^|==)\s*3\.(\d+)", wanted)}
    return [minor for minor in every if specifiers.contains(f"3.{minor}.99")] or sorted(named.intersection(every))


def _command(root: Path, pyproject: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return what starts the application, and why that."""
    for name in _APPLICATIONS:
        if (root / name).is_file():
            return _of_module(root / name, _named_packages(root))
    if (root / "manage.py").is_file():
        why = "Django, for a first try; then a server such as gunicorn"
        return ("python", "manage.py", "runserver", "0.0.0.0:8000"), why
    for script in pyproject.get("project", {}).get("scripts", {}).values():
        module, _, function = script.partition(":")
        return ("python", "-c", f"import {module} as app; app.{function}()"), "The first script of pyproject.toml"
    missing = "no application was found: write its command into the Dockerfile"
    why = f"To be written: there is none of {', '.join(_APPLICATIONS)}"
    return ("python", "-c", f"raise SystemExit('{missing}')"), why


def _of_module(path: Path, packages: str) -> tuple[tuple[str, ...], str]:
    """Return the command for a module: a server, if it has an application for one and does not start itself."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = _OBJECT.search(text)
    if not found or "__main__" in text:
        return ("python", path.name), "The application, by its name"
    where = f"{path.stem}:{found[1]}"
    why = f"{path.name} has an application of {found[2]}, and does not start by itself"
    if found[2] in _ASYNC and "uvicorn" in packages:
        return ("python", "-m", "uvicorn", "--host=0.0.0.0", "--port=8000", where), why
    if found[2] == "Flask":
        if "gunicorn" in packages:
            return ("python", "-m", "gunicorn", "--bind=0.0.0.0:8000", where), why
        return ("python", "-m", "flask", "--app", where, "run", "--host=0.0.0.0", "--port=8000"), why
    return ("python", path.name), f"{why}: put its server here"


def _named_packages(root: Path) -> str:
    """Return the text of all files that name packages."""
    files = (root / name for name in (_REQUIREMENTS, _PYPROJECT, *_LOCKS))
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())


def _notes(root: Path, requirements: str) -> Iterator[str]:
    if requirements == _REQUIREMENTS:
        text = (root / requirements).read_text(encoding="utf-8", errors="replace")
        if _NEEDED.search(text):
            yield "requirements.txt names other files or folders of the project: add COPY lines for them."


def _table(path: Path) -> dict[str, Any]:
    """Return what a file in TOML says; {} if it is not there. Raises `PackError`."""
    if not path.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:
        import tomli as toml
    try:
        return dict(toml.loads(path.read_text(encoding="utf-8")))
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PackError(f"is no valid TOML: {error}", where=str(path)) from error
