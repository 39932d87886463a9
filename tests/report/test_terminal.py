"""Reports fit the terminal: no line is wider, and a word that fits a line is not broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import terminal as terminals
from helpers import timing_logs
from helpers.processes import quickly, run, wrapper
from rig.environment import environment
from rig.sites import pack_tree, write_tree
from unpackenv.report import amount, terminal
from unpackenv.report.terminal import Bar, Table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = 20  # paths and the like, which are broken where need be


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a few files. Shared."""
    folder = tmp_path_factory.mktemp("packed")
    pack_tree(folder / "site.tar.zst", write_tree(folder / "site", {"app.py": "", "a-1.0.dist-info/METADATA": ""}))
    return folder


@pytest.fixture(scope="module")
def reports(packed: Path) -> dict[str, list[object]]:
    """Commands that print reports."""
    records = [timing_logs.start(), timing_logs.error(), timing_logs.mark(), timing_logs.start("reused", 3)]
    log = timing_logs.write(packed / "starts.log", records)
    return {
        "timings": ["timings", log, "--compare", log],
        "doctor": ["doctor", "--archive", packed / "site.tar.zst", "--target", packed / "tree"],
        "analyze": ["analyze", "--quick", packed / "site"],
    }


@pytest.fixture
def same_warnings(tmp_path: Path) -> dict[str, str]:
    """Variables with which `analyze` finds every file system slow; else it depends on what else the machine does."""
    slow = "import unpackenv.report.analyze.scratch as scratch\nscratch.SLOW = 0\n"
    write_tree(tmp_path, {"quickly_too.py": slow})
    return quickly(tmp_path)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", ["timings", "doctor", "analyze"])
def test_reports_fit_the_width_of_the_terminal(
    reports: dict[str, list[object]], same_warnings: dict[str, str], name: str, columns: int
) -> None:
    lines = ESCAPES.sub("", terminals.screen(*reports[name], columns=columns, **same_warnings)).splitlines()
    assert [line for line in lines if len(line) > columns] == []
    wide = " ".join(run(wrapper(*reports[name]), environment(**same_warnings)).stdout.split())
    known = {*re.split(r"[ █▏▎▍▌▋▊▉#]+", wide)}
    figures = re.compile(r"[-+~≈\d.,%:()µms█▏▎▍▌▋▊▉─━]*")  # which differ from one run to the next
    broken = {
        word for line in lines for word in line.split()
        if not figures.fullmatch(word) and word not in known
        and not any(word in long for long in known if len(long) > LONG)
    }  # fmt: skip
    assert broken <= {"GB", "MB", "kB", "python", "pid"}


def test_the_same_in_a_pipe_on_one_line_each(reports: dict[str, list[object]]) -> None:
    """Whatever the terminal is: so that `grep` and `less -S` find rows as they are."""
    done = run(wrapper(*reports["doctor"]))
    assert "\x1b" not in done.stdout
    (line,) = re.findall(r"^  ok +archive .*", done.stdout, re.MULTILINE)
    assert "site.tar.zst: " in line
    assert ", digest " in line


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(reports: dict[str, list[object]], variable: str, value: str) -> None:
    assert "\x1b" in terminals.screen(*reports["doctor"])
    assert "\x1b" not in terminals.screen(*reports["doctor"], **{variable: value})


def test_a_terminal_that_knows_no_lines(reports: dict[str, list[object]]) -> None:
    seen = terminals.screen(*reports["timings"], PYTHONIOENCODING="ascii", PYTHONUTF8=0)
    assert "-----" in seen
    assert "####" in seen
    assert "\\u" not in seen


words = st.text(st.sampled_from("ab/ -é中\n"), max_size=60)


@given(rows=st.lists(st.tuples(words, words, st.just(Bar(0.4))), min_size=1, max_size=4), width=st.integers(20, 90))
def test_any_table_fits(rows: list[tuple[str, str, Bar]], width: int) -> None:
    table = Table("title", ("first", "a second one", "bar"), rows, "note " * 20)
    written: list[str] = []
    screen = terminal._Screen()
    screen.width = width
    screen.line = written.append  # type: ignore[method-assign]
    screen.table(table)
    assert all(terminal._width(line) <= width for line in written)
    text = "".join("".join(written).split())
    for row in rows:
        for cell in row[:2]:
            for line in cell.split("\n"):
                if len(line) < 5:  # else it may be broken, with cells of other columns between its parts
                    assert "".join(line.split()) in text


@given(text=st.text(st.sampled_from("abc/ 中"), max_size=80), width=st.integers(2, 40))
def test_lines_are_broken_between_words(text: str, width: int) -> None:
    lines = terminal._wrapped(text, width)
    assert all(terminal._width(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for word in text.split():
        if terminal._width(word) <= width:
            assert any(word in line for line in lines)


def test_a_path_is_broken_after_a_slash() -> None:
    assert terminal._wrapped("/opt/unpackenv/environment", 16) == ["/opt/unpackenv/", "environment"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (97_951_270, "98.0 MB"), (5.65e9, "5,650.0 MB")],
)  # fmt: skip
def test_amounts_have_units_that_people_read(size: float, text: str) -> None:
    assert amount(size) == text
