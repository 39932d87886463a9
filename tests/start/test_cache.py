"""The cache for what is fetched: shared by the starts of a machine, bounded, and never trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.file_server import FileServer
from helpers.fills import family, kill, wait_until_filled, wrong_files
from helpers.processes import PATHS, python, result_of, run, wait_for, wrapper
from helpers.processes import start as begin
from helpers.starts import boot_code
from rig.environment import environment
from unpackenv.archive import trailer

STARTS = 12
Variables = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def made(large: tuple[Path, dict[str, int]]) -> tuple[Path, dict[str, int]]:
    return large


@pytest.fixture
def archive(made: tuple[Path, dict[str, int]]) -> Path:
    return made[0]


@pytest.fixture
def variables(
    server: FileServer, made: tuple[Path, dict[str, int]], tmp_path: Path
) -> Iterator[Callable[..., dict[str, str]]]:
    """A function that returns the environment of a start, given the name of its target."""
    targets = []

    def make(name: str = "tree", **more: object) -> dict[str, str]:
        targets.append(tmp_path / name)
        return environment(
            **{
                "UNPACKENV_ARCHIVE": f"{server.url}/a#sha256={trailer.identify(str(made[0])).digest}",
                "UNPACKENV_TARGET": tmp_path / name,
                "UNPACKENV_CACHE": tmp_path / "cache",
                "UNPACKENV_FETCH_TIMEOUT": 4,
                "NO_PROXY": "*",
                **more,
            }
        )

    yield make
    for target in targets:
        kill(list(family(target)))


def entries(cache: Path, suffix: str = "") -> list[Path]:
    return sorted(path for path in cache.rglob(f"*{suffix}") if not path.is_dir())


def start(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = run(wrapper("--", "true"), env)
    assert done.returncode == 0, done.stderr
    return done


# --- what it is for ------------------------------------------------------------------------------


def test_a_start_finds_everything_there(
    server: FileServer, variables: Variables, tmp_path: Path, sizes: dict[str, int]
) -> None:
    start(variables("one"))
    before = len(server.requests)
    assert "from the cache" in start(variables("two")).stderr
    assert len(server.requests) == before
    assert wrong_files(tmp_path / "two", sizes) == []


@pytest.mark.parametrize("fill", ["before", "behind"])
def test_starts_at_once_fetch_each_frame_once(
    server: FileServer, variables: Variables, tmp_path: Path, sizes: dict[str, int], fill: str
) -> None:
    names = [f"tree{number}" for number in range(STARTS)]
    starts = [begin(wrapper("--", "true"), variables(name, UNPACKENV_FILL=fill)) for name in names]
    for process in starts:
        _, said = process.communicate()
        assert process.returncode == 0, said
    if fill == "behind":
        python(boot_code(), variables("last", UNPACKENV_FILL="before"))
    asked = Counter(headers["Range"] for _, headers in server.requests)
    assert [each for each, times in asked.items() if times > 1] == []
    assert server.sent <= 1.05 * len(server.data)
    for name in names if fill == "before" else ["last"]:
        assert wrong_files(tmp_path / name, sizes) == []


def test_names_first(server: FileServer, variables: Variables, tmp_path: Path, sizes: dict[str, int]) -> None:
    start(variables("one"))
    before = len(server.requests)
    target = str(tmp_path / "two")
    rest = f"from helpers.fills import wrong_files\nresult = report.outcome, wrong_files({target!r}, {sizes!r})"
    env = variables("two", UNPACKENV_FILL="behind")
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], *PATHS])
    assert result_of(boot_code(rest=rest), env) == ["named", []]
    wait_until_filled(target)
    assert len(server.requests) == before


# --- what it is not trusted with -----------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


WRONG: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "FIFO": make_fifo,
    "directory": make_directory,
    "link": make_link,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("suffix", [".frame", ".tail"])
def test_what_is_wrong_is_fetched_again(
    server: FileServer,
    variables: Variables,
    tmp_path: Path,
    sizes: dict[str, int],
    wrong: str,
    suffix: str,
) -> None:
    start(variables("one"))
    for path in entries(tmp_path / "cache", suffix):
        WRONG[wrong](path)
    start(variables("two"))
    assert wrong_files(tmp_path / "two", sizes) == []


def test_what_another_archive_left_under_its_name(
    server: FileServer, variables: Variables, tmp_path: Path, sizes: dict[str, int]
) -> None:
    """All frames get the content of one of them: the right size is no proof."""
    start(variables("one"))
    frames = entries(tmp_path / "cache", ".frame")
    for path in frames[1:]:
        path.write_bytes(frames[0].read_bytes())
    start(variables("two"))
    assert wrong_files(tmp_path / "two", sizes) == []


# --- what may happen to it -----------------------------------------------------------------------


def test_a_start_that_is_killed_keeps_nobody_waiting(
    server: FileServer, variables: Variables, tmp_path: Path, sizes: dict[str, int]
) -> None:
    def hang(handler: object, number: int) -> bool:
        while number == 3 and not (tmp_path / "killed").exists():
            time.sleep(0.01)
        return False

    server.fault = hang
    process = begin(wrapper("--", "true"), variables("one", UNPACKENV_FETCH_TIMEOUT=600), new_group=True)
    wait_for(lambda: len(server.requests) >= 3, "the request that hangs")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (tmp_path / "killed").touch()
    start(variables("two"))
    assert wrong_files(tmp_path / "two", sizes) == []


def test_its_size_has_a_limit(server: FileServer, variables: Variables, tmp_path: Path) -> None:
    limit = len(server.data) // 3
    start(variables("one", UNPACKENV_CACHE_SIZE=limit))
    kept = entries(tmp_path / "cache")
    assert 0 < sum(path.stat().st_size for path in kept) <= limit


def test_one_that_cannot_be_written_is_read(
    server: FileServer, variables: Variables, tmp_path: Path, mount: Callable[..., None]
) -> None:
    start(variables("one"))
    before = len(server.requests)
    mount("--bind", tmp_path / "cache", tmp_path / "cache")
    mount("-o", "remount,bind,ro", tmp_path / "cache")
    start(variables("two"))
    assert len(server.requests) == before


@pytest.mark.parametrize("place", ["file", "/proc/nowhere"])
def test_without_one_a_start_fetches_by_itself(
    server: FileServer, variables: Variables, tmp_path: Path, sizes: dict[str, int], place: str
) -> None:
    (tmp_path / "file").touch()
    start(variables("one", UNPACKENV_CACHE=tmp_path / place))
    assert wrong_files(tmp_path / "one", sizes) == []
