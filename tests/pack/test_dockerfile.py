"""`unpackenv dockerfile`: what it finds in a project. tests/containers/test_projects.py builds what it prints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.processes import run, wrapper
from rig.sites import write_tree
from unpackenv.errors import PackError
from unpackenv.pack import dockerfile

OWN = f"3.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["requirements.txt"], "requirements.txt"), (["requirements.txt", "uv.lock"], "uv.lock"),
        (["poetry.lock", "requirements.txt"], "poetry.lock"), (["pdm.lock"], "pdm.lock"),
    ],
)  # fmt: skip
def test_a_lock_file_wins(tmp_path: Path, files: list[str], found: str) -> None:
    project = dockerfile.look(str(write_tree(tmp_path / "project", dict.fromkeys(files, ""))))
    assert (project.requirements, project.is_package) == (found, False)


PACKAGE = '[project]\nname = "x"\n[build-system]\nrequires = []\n'


@pytest.mark.parametrize(
    ("text", "requirements", "is_package"),
    [
        (PACKAGE, "", True), ('[project]\nname = "x"\n', "pyproject.toml", False),
        (PACKAGE + "[tool.poetry]\npackage-mode = false\n", "pyproject.toml", False),
        (PACKAGE + "[tool.uv]\npackage = false\n", "pyproject.toml", False),
    ],
)  # fmt: skip
def test_a_project_may_be_a_package(tmp_path: Path, text: str, requirements: str, is_package: bool) -> None:
    project = dockerfile.look(str(write_tree(tmp_path / "project", {"pyproject.toml": text})))
    assert (project.requirements, project.is_package) == (requirements, is_package)


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        (">=3.10,<3.11", "3.10"), ("==3.12.*", "3.12"), ("==3.12.4", "3.12"), ("~=3.12.1", "3.12"), (">=3", OWN),
        (">=3.9,!=3.9.*,<3.11", "3.10"), ("<3.10", "3.9"), ("", OWN),
    ],
)  # fmt: skip
def test_the_python_that_a_project_is_for(tmp_path: Path, wanted: str, version: str) -> None:
    text = '[project]\nname = "x"\n' + (f'requires-python = "{wanted}"\n' if wanted else "")
    assert dockerfile.look(str(write_tree(tmp_path / "project", {"pyproject.toml": text}))).python == version


@pytest.mark.parametrize(
    ("wanted", "version"), [("^3.9,<3.10", "3.9"), ("~3.12", "3.12"), ("*", OWN), ("3.11", "3.11")]
)
def test_constraints_of_poetry(tmp_path: Path, wanted: str, version: str) -> None:
    text = f'[tool.poetry.dependencies]\npython = "{wanted}"\n'
    root = write_tree(tmp_path / "project", {"pyproject.toml": text, "poetry.lock": ""})
    assert dockerfile.look(str(root)).python == version


def test_what_names_the_python_first(tmp_path: Path) -> None:
    files = {"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.9"\n', ".python-version": "3.10.4\n"}
    root = str(write_tree(tmp_path / "project", files))
    assert dockerfile.look(root).python == "3.10"
    assert dockerfile.look(root, "3.13").python == "3.13"
    printed = run(wrapper("dockerfile", root, "--python", "3.13")).stdout
    assert [line for line in printed.splitlines() if line.startswith("FROM")] == [
        "FROM python:3.13 AS build", "FROM python:3.13-slim",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "command"),
    [
        (["main.py"], '["python", "main.py"]'), (["main.py", "app.py"], '["python", "app.py"]'),
        (["manage.py"], '["python", "manage.py", "runserver", "0.0.0.0:8000"]'),
    ],
)  # fmt: skip
def test_the_application(tmp_path: Path, files: list[str], command: str) -> None:
    root = write_tree(tmp_path / "project", dict.fromkeys(["requirements.txt", *files], ""))
    assert run(wrapper("dockerfile", root)).stdout.endswith(f"\nCMD {command}\n")


@pytest.mark.parametrize(
    ("packages", "code", "command"),
    [
        (
            "flask\ngunicorn\n",
            "application = flask.Flask(__name__)",
            ("gunicorn", "--bind=0.0.0.0:8000", "app:application"),
        ),
        ("flask\n", "app: Flask = Flask('x')", ("flask", "--app", "app:app", "run", "--host=0.0.0.0", "--port=8000")),
        ("fastapi\nuvicorn\n", "app = FastAPI()", ("uvicorn", "--host=0.0.0.0", "--port=8000", "app:app")),
    ],
)
def test_an_application_that_needs_a_server(tmp_path: Path, packages: str, code: str, command: tuple[str, ...]) -> None:
    files = {"requirements.txt": packages, "app.py": f"{code}\n"}
    assert dockerfile.look(str(write_tree(tmp_path / "a", files))).command == ("python", "-m", *command)
    files["app.py"] += "if __name__ == '__main__':\n    main()\n"
    assert dockerfile.look(str(write_tree(tmp_path / "b", files))).command == ("python", "app.py")


def test_what_it_cannot_settle_is_said_twice(tmp_path: Path) -> None:
    """In the Dockerfile, and where somebody sees it who writes it to a file."""
    done = run(wrapper("dockerfile", write_tree(tmp_path / "project", {"requirements.txt": "-r base.txt\n"})))
    note = "requirements.txt names other files or folders of the project: add COPY lines for them."
    assert done.stdout.startswith(f"# Note: {note}\n")
    assert done.stderr.startswith(f"note: {note}\nnote: command: To be written: ")
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("CMD ")]
    assert "no application was found" in command  # it fails, and says why


def test_of_the_directory_that_it_stands_in(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "project", {"requirements.txt": ""})
    assert run(wrapper("dockerfile"), cwd=root).stdout == run(wrapper("dockerfile", root)).stdout != ""


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "is no directory"),
        ({"app.py": ""}, "has neither a lock file of uv, Poetry or PDM, nor requirements.txt"),
        ({"pyproject.toml": "[project\n"}, "is no valid TOML"),
        ({"pyproject.toml": "[tool.ruff]\n"}, "has neither a lock file"),
        ({"pyproject.toml": '[project]\nname = "x"\nrequires-python = "<3.9"\n'}, "wants Python <3.9"),
    ],
)
def test_what_is_no_project(tmp_path: Path, files: dict[str, str], says: str) -> None:
    root = write_tree(tmp_path / "project", files)
    with pytest.raises(PackError, match=says):
        dockerfile.look(str(root))
    done = run(wrapper("dockerfile", root))
    assert (done.returncode, done.stdout) == (125, "")
    assert str(root) in done.stderr
