"""A setting is declared once: signature, documents and commands have the same settings, and no others."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unpackenv
from helpers.documented import PROJECT, documents
from helpers.processes import run, wrapper
from rig.environment import environment
from unpackenv.archive import trailer
from unpackenv.cli import parsers
from unpackenv.cli.common import default_of, help_of
from unpackenv.start import locations
from unpackenv.start.settings import ARCHIVE, COMMAND, HOOK, PREFIX, TABLE, VARIABLES, Setting, Settings

NAMES = [setting.name for setting in TABLE]
# Variables of the tests, which CONTRIBUTING.md names.
OF_TESTS = {"UNPACKENV_PYTHON39"}
EACH = pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)


def remembered(place: str) -> set[str]:
    return {setting.name for setting in TABLE if place in setting.remembered}


def options_of(command: str) -> set[str]:
    """Return the names of settings among the options of a command."""
    parser = parsers.command_line(command).commands.choices[command]
    options = {option for action in parser._actions for option in action.option_strings}
    return {setting.name for setting in TABLE if setting.option in options}


def test_the_signature_has_every_setting() -> None:
    parameters = inspect.signature(unpackenv.bootstrap).parameters
    assert list(parameters) == NAMES
    assert all(parameter.default is None for parameter in parameters.values())


@EACH
def test_the_types_of_arguments_and_values_agree(setting: Setting) -> None:
    of_value = type(setting.default).__name__
    assert Settings.__annotations__[setting.name] == of_value
    of_argument = "str | os.PathLike[str]" if setting.is_path else of_value
    annotation = inspect.signature(unpackenv.bootstrap).parameters[setting.name].annotation
    assert annotation == f"{of_argument} | None"
    assert (setting.placeholder == "") == setting.is_switch == (of_value == "bool")


def test_no_attribute_is_left_of_a_setting_that_is_gone() -> None:
    assert list(Settings.__annotations__) == NAMES


@EACH
def test_the_default_that_people_read_is_the_default(setting: Setting) -> None:
    assert getattr(Settings({}, {}), setting.name) == setting.default
    if not setting.is_path:
        assert setting.parse(default_of(setting)) == setting.default
    elif setting.name == "archive":
        for name in locations.NAMES:
            stem, dot, suffix = name.partition(".")
            assert stem in default_of(setting)
            assert dot + suffix in default_of(setting)


def test_reference_and_docstring_have_every_setting() -> None:
    """What they say of it is written by `make tables`."""
    reference = (PROJECT / "docs/reference.md").read_text()
    rows = re.findall(r"^\| `(UNPACKENV\w*)` \|", reference, re.MULTILINE)
    assert rows == [*(setting.variable for setting in TABLE), "UNPACKENV"]
    described = re.findall(r"^    (\w+): ", inspect.getdoc(unpackenv.bootstrap) or "", re.MULTILINE)
    assert described == NAMES


def test_help_lists_every_option_with_its_meaning() -> None:
    shown = run(wrapper("help"), environment(COLUMNS=1000)).stdout.partition("usage: python -m unpackenv")[2]
    listed = re.findall(r"^  (--[a-z-]+)(?: ([A-Z0-9]+))?\s+(.*)$", shown, re.MULTILINE)
    assert listed == [(setting.option, setting.placeholder, help_of(setting)) for setting in TABLE]


def variables_named() -> Iterator[tuple[str, str]]:
    """Yield every variable that a document or a source names, and where."""
    for path in (*documents(), *PROJECT.glob("src/**/*.py"), *PROJECT.glob("docs/deploy/*")):
        for name in re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", path.read_text()):
            yield name, str(path.relative_to(PROJECT))


def test_no_document_and_no_message_names_a_variable_that_is_not_there() -> None:
    assert {(name, where) for name, where in variables_named() if name not in VARIABLES | OF_TESTS} == set()


def test_the_wrapper_hands_on_what_is_remembered_for_its_command(archive: Path, target: Path, tmp_path: Path) -> None:
    given = {"archive": archive, "target": target, "workers": 1, "log": "json", "imports": 3}
    values: dict[str, object] = {
        each.name: tmp_path / each.name if each.is_path else default_of(each) for each in TABLE
    }
    values.update(given)
    options: list[object] = []
    for setting in TABLE:
        if setting.name != "in_place":  # else the target would have to be there
            options += [setting.option] if setting.is_switch else [setting.option, values[setting.name]]
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    done = run(wrapper(*options, "--", sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    handed_on = {setting.name: found.get(setting.variable) for setting in TABLE if setting.variable in found}
    assert handed_on == {name: str(values[name]) for name in remembered(COMMAND)}


def test_the_hook_has_options_for_what_it_remembers() -> None:
    assert options_of("hook") == remembered(HOOK)


def test_pack_records_what_an_archive_remembers(tmp_path: Path) -> None:
    assert remembered(ARCHIVE) <= options_of("pack")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "module.py").touch()
    archive = tmp_path / "site.tar.zst"
    done = run(wrapper("pack", tmp_path / "site", "-o", archive, "--target", tmp_path / "there", "--fill", "behind"))
    assert done.returncode == 0, done.stderr
    assert {*trailer.identify(str(archive)).facts} & {*NAMES} == remembered(ARCHIVE)


def test_a_relative_path_stays_the_same_file_for_the_command(archive: Path, tmp_path: Path) -> None:
    """The command may change its directory."""
    env = environment(UNPACKENV_LOG_FILE="log", UNPACKENV_TARGET="env")
    code = "import os; print(os.environ['UNPACKENV_LOG_FILE'], os.environ['UNPACKENV_TARGET'])"
    done = run(wrapper("--archive", archive, "--", sys.executable, "-c", code), env, cwd=tmp_path)
    assert done.stdout.split() == [str(tmp_path / "log"), str(tmp_path / "env")]
