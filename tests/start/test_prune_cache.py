"""`prune` removes what is old in a cache of remote archives; a start removes what was not used for longest."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from helpers.file_server import FileServer
from helpers.processes import IS_ROOT, run, wrapper
from rig.environment import environment
from unpackenv.archive import trailer
from unpackenv.report import amount

DAY = 86_400


def entry(cache: Path, name: str, size: int = 1000, days: float = 0.0, suffix: str = ".frame") -> Path:
    """Make an entry of a cache that looks as if it was last used so many days ago."""
    digest = sha256(name.encode()).hexdigest()
    path = cache / digest[:2] / f"{digest}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def start(server: FileServer, archive: Path, target: Path, cache: Path) -> Callable[..., str]:
    """A function that starts by URL with a cache, at a target of its own; it returns what the start says."""
    count = iter(range(100))
    url = f"{server.url.replace('//', '//user:SECRET@')}/a?SECRET#sha256={trailer.identify(str(archive)).digest}"

    def started(**more: object) -> str:
        names = {"UNPACKENV_ARCHIVE": url, "UNPACKENV_TARGET": target.with_name(f"tree{next(count)}")}
        done = run(wrapper("--", "true"), environment(**{**names, "UNPACKENV_CACHE": cache, "NO_PROXY": "*", **more}))
        assert done.returncode == 0, done.stderr
        return done.stderr

    return started


def prune(*arguments: object, **variables: object) -> list[str]:
    """Prune by the command line and return what it says, line by line."""
    done = run(wrapper("prune", *arguments), environment(**variables))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_is_old_goes_and_what_is_recent_stays(cache: Path) -> None:
    old = [entry(cache, "a", 1000, 31), entry(cache, "b", 2000, 40, ".tail"), entry(cache, "c", 500, 99, ".manifest")]
    recent = entry(cache, "d", 7000, 29)
    assert prune("--cache", cache, "--dry-run") == [f"{cache}: 3 files, 3.5 kB, would be removed; 7.0 kB would be left"]
    assert all(path.exists() for path in old)
    assert prune("--cache", cache) == [f"{cache}: removed 3 files, 3.5 kB; 7.0 kB left"]
    assert [path.exists() for path in (*old, recent)] == [False, False, False, True]
    assert prune("--cache", cache, "--older-than", "4w") == [f"{cache}: removed 1 file, 7.0 kB; 0 bytes left"]


def test_what_killed_starts_left_goes(cache: Path) -> None:
    """An hour after they wrote to it; what another start is fetching now stays."""
    left, wanted = entry(cache, "a", days=1 / 12, suffix=".frame.fetching"), entry(cache, "b", suffix=".tail.fetching")
    prune("--cache", cache)
    assert (left.exists(), wanted.exists()) == (False, True)


def test_files_of_others_stay(cache: Path) -> None:
    """In a directory that was named by mistake, say."""
    ours = entry(cache, "a", days=99)
    others = [
        cache / "a.frame", cache / "ab/abcd.frame", cache / "li/lib.tail", cache / f"ab/{'cd' * 32}.frame",
        cache / f"cd/{'cd' * 32}.frame.old", cache / f"ab/{'ab' * 31}xy.frame", cache / f"more/ab/{'ab' * 32}.frame",
    ]  # fmt: skip
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of somebody else")
        os.utime(path, (1_000_000, 1_000_000))
    assert prune("--cache", cache) == [f"{cache}: removed 1 file, 1.0 kB; 0 bytes left"]
    assert [path.exists() for path in (ours, *others)] == [False] + [True] * len(others)


def test_a_start_is_a_use(start: Callable[..., str], server: FileServer, cache: Path) -> None:
    """What the cache still has is not fetched again, and what it has no more is."""
    start()
    kept = sorted(path for path in cache.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in kept)
    for path in kept:
        os.utime(path, (time.time() - 31 * DAY,) * 2)
    assert "from the cache" in start()
    assert (len(server.requests), prune("--cache", cache)) == (
        1,
        [f"{cache}: removed 0 files, 0 bytes; {amount(size)} left"],
    )
    assert prune("--cache", cache, "--older-than", "0") == [
        f"{cache}: removed {len(kept)} files, {amount(size)}; 0 bytes left"
    ]
    assert "from the cache" not in start()
    assert len(server.requests) == 2


def test_the_cache_of_the_environment(cache: Path, tmp_path: Path) -> None:
    """Beside the default places, if nothing is named; it need not be there yet."""
    home = {"HOME": tmp_path / "home", "TMPDIR": tmp_path, "UNPACKENV_CACHE": cache}
    old = entry(cache, "a", days=31)
    code = "from unpackenv.start import locations; locations.HOME = '/dev/null/opt'\n"
    code += "from unpackenv.__main__ import main; main()"

    def said(*arguments: object, **variables: object) -> list[str]:
        done = run([sys.executable, "-c", code, "prune", *arguments], environment(**{**home, **variables}))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    first, second = said()
    assert first == f"{cache}: removed 1 file, 1.0 kB; 0 bytes left"
    assert second.startswith("nothing to remove: there are no trees in ")
    assert not old.exists()
    assert said(UNPACKENV_CACHE=tmp_path / "later") == said(UNPACKENV_CACHE="") == [second]


def test_trees_and_a_cache_that_are_named(cache: Path, tmp_path: Path) -> None:
    """Trees alone, the cache alone, or both."""
    trees = tmp_path / "trees"
    trees.mkdir()
    (trees / "CACHEDIR.TAG").write_text("of unpackenv")
    nothing = f"nothing to remove: there are no trees in {trees}"
    old = entry(cache, "a", days=31)
    assert prune(trees, UNPACKENV_CACHE=cache) == [nothing]
    assert old.exists()
    assert prune("--cache", cache, trees) == [f"{cache}: removed 1 file, 1.0 kB; 0 bytes left", nothing]


def test_a_cache_that_is_not_there(tmp_path: Path) -> None:
    done = run(wrapper("prune", "--cache", tmp_path / "nowhere"))
    assert (done.returncode, done.stderr) == (125, f"unpackenv: error: {tmp_path}/nowhere: is no directory\n")


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
def test_what_cannot_be_removed(cache: Path, mount: Callable[..., None]) -> None:
    entry(cache, "a", days=31)
    mount("--bind", cache, cache)
    mount("-o", "remount,bind,ro", cache)
    assert prune("--cache", cache) == [
        f"{cache}: removed 0 files, 0 bytes; 1.0 kB left",
        f"{cache}: other files cannot be removed (Read-only file system)",
    ]


def test_a_start_removes_what_was_not_used_for_longest(start: Callable[..., str], cache: Path) -> None:
    """Down to the limit, and no further; what the start has used itself is the newest."""
    start()
    own = [path for path in cache.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in own)
    other = [entry(cache, f"{days}", 1_000_000, days) for days in (5, 1, 4, 2, 3)]
    for path in own:
        path.unlink()
    start(UNPACKENV_CACHE_SIZE=size + 2_500_000)
    assert [path.exists() for path in other] == [False, True, False, True, False]
    assert all(path.exists() for path in own)


def test_secrets_are_not_in_it(start: Callable[..., str], cache: Path) -> None:
    assert "SECRET" not in start()
    texts = [str(path).encode() + path.read_bytes() for path in cache.rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if b"SECRET" in text]
    assert not re.search("SECRET", "".join(prune("--cache", cache)))
