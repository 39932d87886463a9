"""`unpackenv pack` as a user sees it: its progress, how it stops, and its report at the end."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import terminal
from helpers.processes import IS_ROOT, processes_with, run, sooner_than, start, wait_for, wrapper
from helpers.support import make
from rig.environment import PATIENCE, environment
from rig.sites import write_tree

PERCENT = re.compile(r"(\d{1,3})%")

BOTH = ["x.tar.zst", "x.tar.zst.cdx.json"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "site", {"app.py": "VALUE = 1\n"})


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules that take seconds to compile, and data that takes minutes to compress at the highest level. Shared."""
    root = tmp_path_factory.mktemp("large")
    write_tree(root, {f"package/module{number}.py": f"VALUE = {number}\n" * 3000 for number in range(80)})
    chosen = random.Random(1)
    words = [chosen.randbytes(chosen.randrange(2, 9)) for _ in range(5000)]
    (root / "package/data").write_bytes(b"".join(chosen.choices(words, k=8_000_000)))
    return root


TOGETHER = pytest.mark.xdist_group("large")  # one process makes it


def packing(site: Path, tmp_path: Path, *options: object) -> subprocess.Popen[str]:
    """Start to pack into `tmp_path/out`, with temporary files in `tmp_path/temporary`."""
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-m", "unpackenv", "pack", site, "-o", tmp_path / "out/x.tar.zst", *options]
    return start(command, environment(TMPDIR=tmp_path / "temporary"), new_group=True)


# --- stop signals ------------------------------------------------------------------------------


def is_compiling(tmp_path: Path) -> bool:
    return any(path.stat().st_size for path in tmp_path.glob("temporary/unpackenv-*/*"))


def is_compressing(tmp_path: Path) -> bool:
    return any(tmp_path.glob("out/*.partial"))


@TOGETHER
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", [is_compiling, is_compressing])
def test_a_pack_that_is_told_to_stop(
    large: Path, tmp_path: Path, moment: Callable[[Path], bool], signum: signal.Signals
) -> None:
    """It does not wait for a frame, which takes a minute here, nor for a batch, and leaves nothing."""
    with packing(large, tmp_path, "--best") as process:
        wait_for(lambda: moment(tmp_path), "that step to begin")
        if moment is is_compressing:
            time.sleep(0.5)  # so that a frame is under way
        with sooner_than(10):
            process.send_signal(signum)
            output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (128 + signum, ""), errors
    assert "Traceback" not in errors
    assert os.listdir(tmp_path / "out") == []
    wait_for(lambda: os.listdir(tmp_path / "temporary") == [], "the last temporary file to go")
    wait_for(lambda: processes_with(f"TMPDIR={tmp_path}") == [], "every process to end")


@TOGETHER
def test_a_pack_that_is_told_to_stop_at_any_moment(large: Path, tmp_path: Path) -> None:
    chosen = random.Random(2)
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        with packing(large, folder, "--level", 3) as process:
            time.sleep(0.3 + chosen.random() * 2)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)  # not begun yet, or done
        # A signal may also come when all is done, and the process is about to end.
        assert sorted(os.listdir(folder / "out")) in ([BOTH] if process.returncode == 0 else [[], BOTH])
        wait_for(lambda left=folder / "temporary": os.listdir(left) == [], "the last temporary file to go")  # type: ignore[misc]


def test_a_pack_that_is_told_to_stop_does_not_wait_for_a_compiler(site: Path, tmp_path: Path) -> None:
    """Here it never ends."""
    compiler = tmp_path / "python"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exec {sys.executable} "$@"\ncat > /dev/null\nexec sleep 1000\n')
    compiler.chmod(0o755)

    def sleeps() -> bool:
        commands = (Path(f"/proc/{pid}/comm") for pid in processes_with(f"TMPDIR={tmp_path}"))
        return any(path.exists() and path.read_text() == "sleep\n" for path in commands)

    with packing(site, tmp_path, "--python", compiler) as process:
        try:
            wait_for(sleeps, "the compiler to sleep")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir(tmp_path / "out") == []
    wait_for(lambda: os.listdir(tmp_path / "temporary") == [], "the last temporary file to go")
    wait_for(lambda: processes_with(f"TMPDIR={tmp_path}") == [], "every process to end")


@TOGETHER
def test_ctrl_c_at_a_terminal(large: Path, tmp_path: Path) -> None:
    """For all processes of the terminal at once; the cursor is shown again."""

    def stop(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: is_compressing(tmp_path), "the compression to begin")
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)

    (tmp_path / "out").mkdir()
    shown = terminal.run("pack", large, "-o", tmp_path / "out/x.tar.zst", "--best", meanwhile=stop)
    assert shown.returncode == 128 + signal.SIGINT
    assert shown.raw.count("\x1b[?25l") == shown.raw.count("\x1b[?25h") > 0
    assert os.listdir(tmp_path / "out") == []


# --- how far it is -----------------------------------------------------------------------------


@TOGETHER
def test_the_bar_moves_within_a_frame(large: Path, tmp_path: Path) -> None:
    def look(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: is_compressing(tmp_path), "the compression to begin")
        time.sleep(3)
        process.send_signal(signal.SIGTERM)

    (tmp_path / "out").mkdir()
    shown = terminal.run("pack", large, "-o", tmp_path / "out/x.tar.zst", "--best", meanwhile=look)
    seen = {int(percent) for percent in PERCENT.findall(shown.text.partition("compress")[2])}
    assert len(seen) > 1, shown.text


# A line every tenth of a second, so that a test need not wait for ten.
OFTEN = """
import sys
class Often:
    def find_spec(self, name, path=None, target=None):
        if name == "unpackenv.pack.pack":
            sys.meta_path.remove(self)
            from unpackenv.pack import progress
            progress._SECONDS_BETWEEN_LINES = 0.1
sys.meta_path.insert(0, Often())
"""


@TOGETHER
def test_without_a_terminal_there_is_a_line_from_time_to_time(large: Path, tmp_path: Path) -> None:
    (tmp_path / "often").mkdir()
    (tmp_path / "often/sitecustomize.py").write_text(OFTEN)
    env = environment(PYTHONPATH=f"{tmp_path / 'often'}:{environment()['PYTHONPATH']}")
    done = run(wrapper("pack", large, "-o", tmp_path / "x.tar.zst", "--level", 6), env, notices=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("compress: ")]
    *between, last = lines
    assert between
    for line in between:
        assert re.fullmatch(r"compress: \d{1,3}%(, about \d+ (s|min) left)?", line), line
    assert any("left" in line for line in between)
    percents = [int(percent) for line in between for percent in PERCENT.findall(line)]
    assert percents == sorted(percents)
    assert re.fullmatch(r"compress: \d+\.\d s", last)


def test_a_short_pack_says_little(site: Path, tmp_path: Path) -> None:
    done = run(wrapper("pack", site, "-o", tmp_path / "x.tar.zst"))
    assert list(dict.fromkeys(line.partition(":")[0] for line in done.stderr.splitlines())) == ["compile", "compress"]


# --- choices and the summary -------------------------------------------------------------------


@pytest.mark.parametrize(("name", "level"), [("x.tar.zst", "9"), ("x.tar.xz", "1")])
def test_fast_says_that_it_is_and_excludes_best(site: Path, tmp_path: Path, name: str, level: str) -> None:
    for options, expected in (["--fast"], level), (["--fast", "--level", "2"], "2"):
        assert run(wrapper("pack", site, "-o", tmp_path / name, *options)).returncode == 0
        assert f"  level {expected}\n" in run(wrapper("inspect", tmp_path / name)).stdout
    refused = run(wrapper("pack", site, "-o", tmp_path / name, "--fast", "--best"))
    assert (refused.returncode, "not allowed with argument" in refused.stderr) == (2, True)


@TOGETHER
def test_fast_is_much_quicker_for_a_little_more(large: Path, tmp_path: Path) -> None:
    """What `--help` says of it is of the right order: in CPU time, which other processes do not lengthen."""
    from unpackenv.archive import codecs

    raw = (large / "package/data").read_bytes()[: 1 << 20]
    took, sizes = [], []
    for level in (9, 20):
        began = time.process_time()
        sizes.append(len(codecs.get("zstd").encoder(level, len(raw))(raw)))
        took.append(time.process_time() - began)
    assert sizes[1] <= sizes[0]
    assert took[0] * 2 < took[1]


def summary(site: Path, to: Path, seconds: int, *options: object) -> str:
    """Return the summary of a pack of which more than `seconds` are thought to be long."""
    code = f"import sys; from unpackenv.cli import main, pack; pack._LONG = {seconds}; main(sys.argv[1:])"
    done = run([sys.executable, "-c", code, "pack", site, "-o", to, *options])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_long_pack_tells_of_fast(site: Path, tmp_path: Path) -> None:
    text = summary(site, tmp_path / "x.tar.zst", -1)
    assert re.search(
        r"  compressing took \d+ s; with --fast it would take about \d+ s, for an archive of [\d.]+ (bytes|kB|MB)\n",
        text,
    )
    assert "--fast" not in summary(site, tmp_path / "x.tar.zst", 3000)
    for options in ["--fast"], ["--best"], ["--level", 3]:
        assert "--fast" not in summary(site, tmp_path / "x.tar.zst", -1, *options)


def test_the_place_of_a_virtual_environment_is_recorded_and_said(site: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    text = summary(venv, tmp_path / "x.tar.zst", 3000)
    assert f"  target {venv}: starts unpack it there" in text
    assert "This environment is there now" in text
    text = summary(venv, tmp_path / "x.tar.zst", 3000, "--target", "/srv/venv")
    assert "  target /srv/venv: starts unpack it there" in text
    assert "This environment is there now" not in text
    assert "target" not in summary(site, tmp_path / "x.tar.zst", 3000)


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tgz", "x.whl", "x.tar", "X.ZIP", "x.tar.bz2"])
def test_a_suffix_of_other_archives_is_refused(site: Path, tmp_path: Path, name: str) -> None:
    done = run(wrapper("pack", site, "-o", tmp_path / name))
    assert done.returncode == 125
    assert done.stderr.startswith(f"unpackenv: error: {tmp_path / name}: is named like")
    assert ".tar.zst" in done.stderr
    assert not (tmp_path / name).exists()


def test_what_is_wrong_is_said_before_the_work(tmp_path: Path) -> None:
    """Warnings come before the first step is over."""
    site = write_tree(tmp_path / "site", {"app.py": "", "setup.py": ""})
    done = run(wrapper("pack", site, "-o", tmp_path / "x.data", "--exclude", "nothing", "--level", 3))
    lines = list(dict.fromkeys(line.partition(" ")[0] for line in done.stderr.splitlines()))
    assert lines == ["warning:", "compile:", "compress:"]
    assert done.stderr.count("warning: ") == 3


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    if not IS_ROOT:
        pytest.skip("only root can mount")
    place = make(tmp_path, "small/") / "small"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    chosen = random.Random(3)
    module = "".join(f"name{chosen.getrandbits(60)} = {chosen.getrandbits(60)}\n" for _ in range(2000))
    return write_tree(tmp_path / "noise", {f"module{number}.py": module + f"x{number} = 1\n" for number in range(20)})


def test_no_room_for_the_archive(noise: Path, small: Path) -> None:
    (noise / "data").write_bytes(random.Random(4).randbytes(1_000_000))
    done = run(wrapper("pack", noise, "-o", small / "x.tar.zst", "--level", 3, "--frame-size", "64K"))
    assert done.returncode == 125
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("unpackenv: error: ")]
    assert error.startswith(f"unpackenv: error: {small}: is full")
    assert re.search(r"the archive takes about \d\.\d MB, and 0\.\d MB of it were written", error), error
    assert "Make room there" in error
    assert os.listdir(small) == []


def test_no_room_for_a_runtime(small: Path) -> None:
    done = run(wrapper("runtime", small / "runtime"))
    assert (done.returncode, os.listdir(small)) == (125, [])
    assert done.stderr.startswith(f"unpackenv: error: {small}: is full, and a runtime takes about 2.2 MB. Make room")


def test_no_room_to_compile(noise: Path, small: Path, tmp_path: Path) -> None:
    env = environment(TMPDIR=small)
    done = run(wrapper("pack", noise, "-o", tmp_path / "x.tar.zst", "--level", 3), env)
    assert done.returncode == 125
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("unpackenv: error: ")]
    assert error.startswith(f"unpackenv: error: {small}: is full")
    assert re.search(r"compiling takes about \d\.\d MB\. .*TMPDIR", error), error
    assert (os.listdir(small), (tmp_path / "x.tar.zst").exists()) == ([], False)
