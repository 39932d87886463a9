"""Progress is for people: a terminal shows a bar, a log does not."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import terminal
from helpers.file_server import serving
from helpers.processes import processes_with, run, wait_for, wrapper
from rig.environment import environment
from rig.sites import members_of, pack, pack_tree
from unpackenv.archive import trailer

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
PERCENT = re.compile(r"\b\d{1,3}%")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred files of 20 MB together. Shared: never write to it."""
    root = tmp_path_factory.mktemp("packages") / "site"
    noise = random.Random(1).randbytes(1 << 20)
    for number in range(200):
        file = root / f"package{number % 10}" / f"data{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(noise[number << 10 :][:100_000])
    return root


@pytest.fixture(scope="module")
def archive(site: Path) -> Path:
    path = site.parent / "site-packages.tar.zst"
    pack(path, members_of(site), frame_size=1 << 20, workers=2)
    return path


def test_verify_has_a_bar_to_the_end(archive: Path) -> None:
    shown = terminal.run("verify", archive)
    assert (shown.returncode, shown.stdout) == (0, f"{archive}: sound\n")
    assert "verify" in shown.text
    assert "100%" in PERCENT.findall(shown.text)


def test_verify_a_tree(archive: Path, site: Path) -> None:
    shown = terminal.run("verify", archive, "--target", site)
    assert (shown.returncode, shown.stdout) == (0, f"{site}: complete and unaltered\n")
    assert "100%" in PERCENT.findall(shown.text)


# Each file that is written takes a while, in every process of the start; or no process writes before there is a `GO`.
SLOW = """
import os, time
from unpackenv.start.tree import writer
write = writer.TreeWriter.write_file
def slow(*arguments):
    time.sleep(0.01)
    while "GO" in os.environ and not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    write(*arguments)
writer.TreeWriter.write_file = slow
"""


@pytest.fixture
def slow(tmp_path: Path) -> str:
    """A PYTHONPATH on which an unpack takes seconds."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
    return f"{tmp_path / 'slow'}:{environment()['PYTHONPATH']}"


def test_unpack_has_a_bar_that_is_gone_before_the_line(archive: Path, tmp_path: Path, slow: str) -> None:
    """The bar moves with what the workers write, which still are processes, and is gone before the line comes."""
    options = ["--workers", 2, "--log", "json"]
    shown = terminal.run("unpack", archive, "-C", tmp_path / "tree", *options, PYTHONPATH=slow)
    assert shown.returncode == 0, shown.raw
    seen = {int(percent[:-1]) for percent in PERCENT.findall(shown.text)}
    assert len(seen) > 3, shown.text
    assert max(seen) > 60
    before, _, line = shown.raw.rpartition('{"unpackenv"')
    fields = json.loads('{"unpackenv"' + line)
    assert (fields["outcome"], fields["workers"]) == ("unpacked", 2)
    assert "unpack" in before
    assert "%" not in line
    assert before.count(HIDE_CURSOR) == before.count(SHOW_CURSOR) == 1
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize("with_cache", [False, True])
def test_unpack_by_url_has_a_bar(archive: Path, tmp_path: Path, slow: str, with_cache: bool) -> None:
    """It knows the size as soon as the end of the archive is there; what goes into a cache is no part of the tree."""
    cache = {"UNPACKENV_CACHE": tmp_path / "cache"} if with_cache else {}
    with serving(archive.read_bytes()) as server:
        url = f"{server.url.replace('//', '//user:SECRET@')}/a?SECRET#sha256={trailer.identify(str(archive)).digest}"
        shown = terminal.run("unpack", url, "-C", tmp_path / "tree", "--workers", 2, PYTHONPATH=slow, **cache)
    assert shown.returncode == 0, shown.raw
    seen = [int(percent[:-1]) for percent in PERCENT.findall(shown.text.partition("unpackenv:")[0])]
    assert len(set(seen)) > 3, shown.text
    assert max(seen) > 60
    assert with_cache == (tmp_path / "cache").exists()
    assert "SECRET" not in shown.raw
    assert processes_with(str(tmp_path)) == []


def test_what_is_written_besides_the_tree_does_not_count(archive: Path, tmp_path: Path) -> None:
    """A tenth of what is written, by a process that stands still then: the bar is at the rest of it."""
    code = """
import os, sys, time
from unpackenv.pack import progress
def work():
    os.write(os.open(os.devnull, os.O_WRONLY), bytes(1000))
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
progress.watched("unpack", 1000, work, lambda: 100)
"""
    go = tmp_path / "go"

    def end(process: subprocess.Popen[str]) -> None:
        go.touch()

    command = [sys.executable, "-c", code, str(go)]
    shown = terminal.run_command(command, meanwhile=end, shows="90%")
    assert shown.returncode == 0, shown.raw
    assert "100%" not in PERCENT.findall(shown.text)


def test_verify_by_url_has_a_bar(archive: Path) -> None:
    with serving(archive.read_bytes()) as server:
        url = f"{server.url.replace('//', '//user:SECRET@')}/a?SECRET#sha256={trailer.identify(str(archive)).digest}"
        shown = terminal.run("verify", url)
        assert (shown.returncode, shown.stdout) == (0, f"{server.url}/a: sound\n")
    assert "100%" in PERCENT.findall(shown.text)
    assert "SECRET" not in shown.raw


@pytest.mark.slow
def test_unpack_an_archive_of_tar(site: Path, tmp_path: Path, slow: str) -> None:
    """The size of the whole is unknown."""
    archive = tmp_path / "packages.tar.gz"
    subprocess.run(["tar", "-C", site.parent, "-czf", archive, site.name], check=True)
    shown = terminal.run("unpack", archive, "-C", tmp_path / "tree", PYTHONPATH=slow)
    assert shown.returncode == 0, shown.raw
    assert "unpack" in shown.text.partition("unpackenv:")[0]
    assert not PERCENT.search(shown.text)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_unpack_that_is_stopped(archive: Path, tmp_path: Path, slow: str, signum: signal.Signals) -> None:
    """As by Ctrl-C, for all processes at the terminal; it leaves nothing of the bar and, if possible, of the tree."""

    go = tmp_path / "go"

    def stop(process: subprocess.Popen[str]) -> None:
        wait_for((tmp_path / ".tree.unpackenv.work").exists, "the unpack to begin", process)
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        if signum == signal.SIGKILL:  # no process ends the workers then
            process.wait()
            go.touch()

    shown = terminal.run(
        "unpack", archive, "-C", tmp_path / "tree", meanwhile=stop, shows=HIDE_CURSOR, PYTHONPATH=slow, GO=go
    )
    assert shown.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    if signum != signal.SIGKILL:
        assert [name for name in os.listdir(tmp_path) if name in ("tree", ".tree.unpackenv.work")] == []
        assert shown.raw.count(HIDE_CURSOR) == shown.raw.count(SHOW_CURSOR) == 1
    wait_for(lambda: processes_with(slow) == [], "every process to end")


def test_errors_are_said_once(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"nothing that anybody packed" * 100)
    shown = terminal.run("unpack", tmp_path / "broken", "-C", tmp_path / "tree")
    assert shown.returncode == 125
    assert shown.raw.count("is a text file, and no archive") == 1
    shown = terminal.run("unpack", tmp_path / "nowhere", "-C", tmp_path / "tree")
    assert shown.raw.strip().startswith(f"unpackenv: error: {tmp_path}/nowhere: there is no archive")


def test_nothing_in_a_log(archive: Path, tmp_path: Path) -> None:
    for command in ["verify", archive], ["unpack", archive, "-C", tmp_path / "tree", "--log", "off"]:
        done = run(wrapper(*command))
        assert (done.returncode, done.stderr) == (0, "")
    done = run(wrapper("unpack", archive, "-C", tmp_path / "other"))
    assert len(done.stderr.splitlines()) == 1


def test_nothing_in_the_log_of_a_container_that_has_a_terminal(archive: Path) -> None:
    before = ["unshare", "--pid", "--fork", "--kill-child"]
    if run([*before, "true"]).returncode:
        pytest.skip("this user cannot make a PID namespace")
    shown = terminal.run("verify", archive, before=before)
    assert (shown.returncode, shown.raw) == (0, "")


def test_nothing_without_rich(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('not here')\n")
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    for command in ["verify", archive], ["unpack", archive, "-C", tmp_path / "tree", "--log", "off"]:
        shown = terminal.run(*command, PYTHONPATH=path)
        assert (shown.returncode, shown.raw) == (0, "")


def test_a_start_shows_no_bar(tmp_path: Path) -> None:
    """Nor does the wrapper, which a person may run at a terminal, too."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "app.py").write_text("")
    pack_tree(tmp_path / "archive", tmp_path / "site")
    options = ["--archive", tmp_path / "archive", "--target", tmp_path / "tree"]
    shown = terminal.run(*options, "--", "true")
    assert re.fullmatch(r"unpackenv: unpacked [^\r\n]*", shown.raw.strip())
