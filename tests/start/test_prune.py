"""`prune` removes old trees, and never one that a process uses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.processes import IMPORT_ALL, IS_ROOT, python, run, start, wait_for, wrapper
from helpers.support import describe, leftovers
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree
from unpackenv.archive import trailer
from unpackenv.report import amount
from unpackenv.start.tree.prune import LEFTOVER

DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The directory of a user's cache, in which no start has made a tree yet."""
    return tmp_path / "home" / ".cache" / "unpackenv" / "env"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(HOME=tmp_path / "home", TMPDIR=tmp_path)


NO_HOME = "from unpackenv.start import locations; locations.HOME = '/dev/null/opt'\n"  # but the cache of the user


def application(archive: Path, code: str = "") -> str:
    return f"{NO_HOME}import unpackenv\ndone = unpackenv.bootstrap({str(archive)!r})\n{code}"


def unpack(archive: Path, cache: Path, env: dict[str, str]) -> Path:
    """Start once, at the default place, and return the tree."""
    done = python(application(archive, "print(done.outcome)"), env)
    assert done.stdout == "unpacked\n", done.stderr
    return cache / trailer.identify(str(archive)).key[:32]


def without_sizes(text: str) -> list[str]:
    return [re.sub(r", [\d.,]+ (bytes|kB|MB)$", "", line) for line in text.splitlines()]


def prune(*arguments: object, env: dict[str, str] | None = None) -> list[str]:
    """Prune by the command line and return what it says, line by line, but for sizes."""
    done = run(wrapper("prune", *arguments), env)
    assert done.returncode == 0, done.stderr
    return without_sizes(done.stdout)


def last_used(tree: Path, days: float) -> None:
    """Make a tree look as if it was last used so many days ago."""
    then = time.time() - days * DAY
    os.utime(tree / ".unpackenv.stamp", (then, then))


@pytest.fixture
def running() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a command and returns when it has printed a line; it is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[object], env: dict[str, str]) -> subprocess.Popen[str]:
        process = start(command, env)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline(), process.communicate()[1]
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


# --- which trees go ------------------------------------------------------------------------------


def test_what_is_old_goes_and_what_is_recent_stays(
    archive: Path, cache: Path, env: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other.tar.zst"
    pack_tree(other, write_tree(tmp_path / "other", {"other.py": "VALUE = 1\n"}))
    old, recent = unpack(archive, cache, env), unpack(other, cache, env)
    last_used(old, days=31)
    last_used(recent, days=29)
    said = prune(cache)
    assert sorted(said) == sorted([f"{old}: removed", f"{recent}: used recently"])
    assert not old.exists()
    assert sorted(os.listdir(cache)) == sorted([recent.name, f".{recent.name}.unpackenv.lock", "CACHEDIR.TAG"])


def test_what_went_is_said_with_its_size(archive: Path, cache: Path, env: dict[str, str]) -> None:
    tree = unpack(archive, cache, env)
    size = int(trailer.identify(str(archive)).facts["unpacked-size"][0])
    assert run(wrapper("prune", "--older-than", "0", cache)).stdout == f"{tree}: removed, {amount(size)}\n"


def test_where_there_is_nothing_that_is_said(cache: Path, archive: Path, env: dict[str, str]) -> None:
    unpack(archive, cache, env)
    prune("--older-than", "0", cache)
    assert prune(cache) == prune("--dry-run", cache) == [f"nothing to remove: there are no trees in {cache}"]
    done = run(wrapper("prune", cache / "nowhere"))
    assert (done.returncode, done.stderr) == (125, f"unpackenv: error: {cache}/nowhere: is no directory\n")


def test_a_start_is_a_use(archive: Path, cache: Path, env: dict[str, str]) -> None:
    tree = unpack(archive, cache, env)
    if os.statvfs(tree).f_flag & os.ST_NOATIME:
        pytest.skip("this mount keeps no times of access")
    last_used(tree, days=31)
    assert python(application(archive, "print(done.outcome)"), env).stdout == "reused\n"
    assert prune(cache) == [f"{tree}: used recently"]


def test_to_look_at_a_tree_is_no_use(archive: Path, cache: Path, env: dict[str, str]) -> None:
    tree = unpack(archive, cache, env)
    last_used(tree, days=20)
    assert prune(cache) == [f"{tree}: used recently"]
    assert prune("--dry-run", "--older-than", "1d", cache) == [f"{tree}: would be removed"]
    assert prune("--older-than", "1d", cache) == [f"{tree}: removed"]


@pytest.mark.parametrize(
    ("limit", "goes"), [("0", True), ("90s", True), ("1.5m", True), ("2h", False), ("1d", False), ("1w", False)]
)
def test_units_of_the_limit(archive: Path, cache: Path, env: dict[str, str], limit: str, goes: bool) -> None:
    tree = unpack(archive, cache, env)
    last_used(tree, days=1 / 24)
    prune("--older-than", limit, cache)
    assert tree.exists() is not goes


def test_a_limit_that_is_no_time(cache: Path) -> None:
    for limit in ("soon", "-1d", "nan"):
        done = run(wrapper("prune", f"--older-than={limit}", cache))
        assert (done.returncode, "is no time such as 12h or 30d" in done.stderr) == (2, True), limit


def test_a_tree_without_a_stamp_goes(archive: Path, cache: Path, env: dict[str, str]) -> None:
    tree = unpack(archive, cache, env)
    (tree / ".unpackenv.stamp").unlink()
    assert prune(cache) == [f"{tree}: removed what a killed start left"]
    assert os.listdir(cache) == ["CACHEDIR.TAG"]


def test_what_killed_starts_left_goes(archive: Path, cache: Path, env: dict[str, str]) -> None:
    tree = unpack(archive, cache, env)
    gone = cache / ("0" * 32)
    for left in (f".{tree.name}.unpackenv.old", f".{gone.name}.unpackenv.work"):
        write_tree(cache / left, {"package/half.py": ""})
    assert prune(cache) == [
        f"{gone}: removed what a killed start left",
        *sorted([f"{tree}: removed what a killed start left", f"{tree}: used recently"]),
    ]
    assert sorted(os.listdir(cache)) == sorted([tree.name, f".{tree.name}.unpackenv.lock", "CACHEDIR.TAG"])


def test_a_dry_run_changes_nothing(archive: Path, cache: Path, env: dict[str, str]) -> None:
    tree = unpack(archive, cache, env)
    for name, outcome in (("0" * 32, "work"), ("1" * 32, "old")):
        write_tree(cache / f".{name}.unpackenv.{outcome}", {"half.py": ""})
    write_tree(cache / ("2" * 32), {"half.py": ""})
    (cache / f".{'3' * 32}.unpackenv.lock").touch()
    last_used(tree, days=31)
    before = describe(cache)
    last_used(tree, days=31)  # to describe it was to read it
    said = prune("--dry-run", cache)
    after = describe(cache)
    for path in before.keys() | after.keys():  # a lock names its last holder
        assert path in before if path.endswith(b".lock") else before.get(path) == after.get(path), path
    last_used(tree, days=31)
    would = {"would be removed": "removed", "has what a killed start left, which would be removed": LEFTOVER}
    assert prune(cache) == [f"{path}: {would[what]}" for path, _, what in (line.partition(": ") for line in said)]
    assert os.listdir(cache) == ["CACHEDIR.TAG"]
    assert len(said) == 4


def test_links_are_no_trees(archive: Path, cache: Path, env: dict[str, str], tmp_path: Path) -> None:
    tree = unpack(archive, cache, env)
    elsewhere = tree.rename(tmp_path / "elsewhere")
    tree.symlink_to(elsewhere)
    before = describe(elsewhere)
    prune("--older-than", "0", cache)
    assert describe(elsewhere) == before


# --- in use --------------------------------------------------------------------------------------


def test_the_tree_of_an_application_that_lives_stays(
    archive: Path, cache: Path, env: dict[str, str], running: Callable[..., subprocess.Popen[str]]
) -> None:
    waits = application(archive, "print('up', flush=True); input()")
    process = running([sys.executable, "-c", waits.replace("input()", "import time; time.sleep(1200)")], env)
    tree = cache / trailer.identify(str(archive)).key[:32]
    last_used(tree, days=300)
    before = describe(tree)
    for arguments in (["--older-than", "0"], [], ["--dry-run"]):
        assert prune(*arguments, cache) == [f"{tree}: in use"]
    assert describe(tree) == before
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    assert prune("--older-than", "0", cache) == [f"{tree}: removed"]
    assert os.listdir(cache) == ["CACHEDIR.TAG"]


@pytest.mark.parametrize("start_", ["cold", "warm"])
def test_the_tree_of_a_command_that_lives_stays(
    archive: Path, cache: Path, env: dict[str, str], running: Callable[..., subprocess.Popen[str]], start_: str
) -> None:
    tree = cache / trailer.identify(str(archive)).key[:32]
    if start_ == "warm":
        unpack(archive, cache, env)
    command = wrapper("--archive", archive, "--target", tree, "--", "sh", "-c", "echo up; exec sleep 1200")
    if start_ == "cold":
        unpack(archive, cache, env)
        for path in sorted(tree.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    process = running(command, env)
    assert prune("--older-than", "0", cache) == [f"{tree}: in use"]
    process.kill()
    process.wait(timeout=PATIENCE)
    assert prune("--older-than", "0", cache) == [f"{tree}: removed"]


def test_a_place_where_a_start_unpacks_is_in_use(
    archive: Path, cache: Path, env: dict[str, str], slow: dict[str, str]
) -> None:
    tree = cache / trailer.identify(str(archive)).key[:32]
    process = start([sys.executable, "-c", application(archive)], {**slow, **env, "PYTHONPATH": slow["PYTHONPATH"]})
    wait_for(Path(slow["STARTED"]).exists, "the unpack to begin", process)
    assert prune("--older-than", "0", cache) == [f"{tree}: in use"]
    Path(slow["GO"]).touch()
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert leftovers(tree) == []
    assert tree.exists()


# Prunes with a pause behind each file that it removes.
PRUNES_SLOWLY = """
import sys, time
from unpackenv.unpatched import os
unlink = os.unlink
def slow(*arguments, **options):
    unlink(*arguments, **options)
    open(UP, "w").close()
    time.sleep(0.2)
os.unlink = slow
from unpackenv import cli
cli.main(["prune", "--older-than", "0", CACHE])
"""


def test_a_start_that_comes_while_its_tree_is_removed_gets_a_whole_one(
    archive: Path, site: Path, cache: Path, env: dict[str, str], tmp_path: Path
) -> None:
    tree = unpack(archive, cache, env)
    up = tmp_path / "up"
    pruning = start([sys.executable, "-c", f"UP = {str(up)!r}; CACHE = {str(cache)!r}\n{PRUNES_SLOWLY}"])
    wait_for(up.exists, "the removal to begin", pruning)
    code = "import app, package.more.deep; print(done.outcome, sorted(done.phases))"
    waiting = [start([sys.executable, "-c", application(archive, code)], env) for _ in range(3)]
    outcomes = []
    for process in waiting:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, stderr
        outcomes.append(stdout.split()[0])
    stdout, stderr = pruning.communicate(timeout=PATIENCE)
    assert without_sizes(stdout) == [f"{tree}: removed"], stderr
    assert outcomes.count("unpacked") == 1
    found = {path: state for path, state in describe(tree).items() if not path.startswith(b".unpackenv.")}
    assert found == describe(site)


def test_starts_and_prunes_at_once(archive: Path, cache: Path, env: dict[str, str]) -> None:
    """Whatever meets, an application that has started can read all of its tree."""
    unpack(archive, cache, env)
    code = application(archive, "import glob, app, package, package.more.deep\n")
    code += "assert len(glob.glob(done.target + '/**/*', recursive=True)) == 7, os.listdir(done.target)"
    for _ in range(8):
        starts = [start([sys.executable, "-c", code], env) for _ in range(2)]
        prunes = [start(wrapper("prune", "--older-than", "0", cache), env) for _ in range(2)]
        for process in [*starts, *prunes]:
            _, stderr = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, stderr


# --- where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["none", "of another program", "a link"])
def test_a_directory_that_is_no_cache_of_ours_is_refused(
    archive: Path, cache: Path, env: dict[str, str], tmp_path: Path, tag: str
) -> None:
    unpack(archive, cache, env)
    directory = write_tree(tmp_path / "precious", {"data/file": "precious", ".x.unpackenv.work/file": "precious"})
    if tag == "of another program":
        text = "Signature: 8a477f597d28d172789f06886806bc55\n# This file was created by a compiler.\n"
        (directory / "CACHEDIR.TAG").write_text(text)
    elif tag == "a link":
        (directory / "CACHEDIR.TAG").symlink_to(cache / "CACHEDIR.TAG")
    before = describe(directory)
    done = run(wrapper("prune", "--older-than", "0", directory))
    assert done.returncode == 125
    assert done.stderr.startswith(f"unpackenv: error: {directory}: has no CACHEDIR.TAG of unpackenv"), done.stderr
    assert describe(directory) == before


def test_a_default_place_without_a_tag_does_not_keep_the_others(
    archive: Path, cache: Path, env: dict[str, str], tmp_path: Path
) -> None:
    tree = unpack(archive, cache, env)
    (tmp_path / f"unpackenv-{os.geteuid()}" / "env").mkdir(parents=True)
    assert f"{tree}: removed" in prune("--older-than", "0", env=env)


def test_the_tag_is_what_backups_look_for(archive: Path, cache: Path, env: dict[str, str], tmp_path: Path) -> None:
    unpack(archive, cache, env)
    assert (cache / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    listed = subprocess.run(
        ["tar", "--exclude-caches-all", "-C", tmp_path, "-cvf", "/dev/null", "home"], capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this tar knows no caches")
    assert "home/.cache/unpackenv/" in listed.stdout.splitlines()
    assert "app.py" not in listed.stdout


PRUNES_DEFAULTS = "from unpackenv import cli; import sys; cli.main(['prune', '--older-than', '0', *sys.argv[1:]])"


def test_trees_of_all_default_places_are_removed(archive: Path, tmp_path: Path) -> None:
    """/opt/unpackenv, the cache of the user, and the temporary directory, those of them that are there."""
    env = environment(HOME=tmp_path / "home", TMPDIR=tmp_path / "tmp")
    home = f"from unpackenv.start import locations; locations.HOME = {str(tmp_path / 'opt')!r}\n"
    places = [f"tmp/unpackenv-{os.geteuid()}", "home/.cache/unpackenv", "opt"]
    nothing = (
        f"nothing to remove: there are no trees in {', '.join(f'{tmp_path / at}/env' for at in reversed(places))}\n"
    )
    assert run([sys.executable, "-c", home + PRUNES_DEFAULTS], env).stdout == nothing
    boot = f"import unpackenv; print(unpackenv.bootstrap({str(archive)!r}).target)"
    trees = [
        python(NO_HOME + boot, {**env, "HOME": "/dev/null"}).stdout.strip(),
        python(NO_HOME + boot, {**env, "TMPDIR": "/dev/null"}).stdout.strip(),
        python(home + boot, {**env, "HOME": "/dev/null", "TMPDIR": "/dev/null"}).stdout.strip(),
    ]
    assert [os.path.dirname(tree) for tree in trees] == [f"{tmp_path / place}/env" for place in places]
    done = run([sys.executable, "-c", home + PRUNES_DEFAULTS], env)
    assert without_sizes(done.stdout) == [f"{tree}: removed" for tree in reversed(trees)], done.stderr
    assert not [tree for tree in trees if os.path.exists(tree)]


@pytest.mark.skipif(not IS_ROOT, reason="only root can be two users")
def test_a_place_of_root_does_not_keep_a_user_from_pruning_the_own_one(archive: Path, open_path: Path) -> None:
    copy = open_path / "site.tar.zst"
    copy.write_bytes(archive.read_bytes())
    env = environment(HOME=open_path / "home", TMPDIR=open_path / "tmp")
    home = f"{IMPORT_ALL}\nimport unpackenv.cli.parsers, unpackenv.start.tree.prune\n"
    home += "import unpackenv.start.locations as locations\n"
    home += f"unpackenv.cli.parsers.command_line(); locations.HOME = {str(open_path / 'opt')!r}\n"
    boot = f"import unpackenv; print(unpackenv.bootstrap({str(copy)!r}).target)"
    of_root = python(home + boot, env).stdout.strip()
    user = f"{home}import os; os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
    own = python(f"{user}locations.HOME = '/dev/null/opt'\n{boot}", env).stdout.strip()
    done = run([sys.executable, "-c", user + PRUNES_DEFAULTS], env)
    assert done.returncode == 0, done.stderr
    assert without_sizes(done.stdout) == [
        f"{of_root}: cannot be removed (Permission denied)",
        f"{own}: removed",
    ]
    assert os.path.exists(of_root)
    assert not os.path.exists(own)


@pytest.mark.parametrize("name", ["..unpackenv.x", "...unpackenv.x", "....unpackenv.x"])
def test_names_that_are_of_no_tree(archive: Path, cache: Path, env: dict[str, str], name: str) -> None:
    tree = unpack(archive, cache, env)
    (cache / name).touch()
    (cache.parent / "precious").touch()
    prune(cache)
    assert (tree / ".unpackenv.stamp").exists()
    assert (cache.parent / "precious").exists()
