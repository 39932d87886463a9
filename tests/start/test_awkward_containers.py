"""Containers that lack something usual: places to write, a name for the user, CPUs, memory, files, /proc."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.containers_by_hand import FINGERPRINT, MB, SOMEBODY, Container, cpu_group, log_line, memory_group
from helpers.file_server import serving
from helpers.processes import run, wrapper
from helpers.support import MTIME, fingerprint, make_tree
from rig import kept
from rig.environment import environment
from rig.sites import TAG, members_of, pack, pack_tree, write_tree
from unpackenv.archive import trailer

ARCHIVE = "/app/site-packages.tar.zst"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with every kind of member, names that are not ASCII, nor UTF-8, and many directories. Shared."""
    made = make_tree(tmp_path_factory.mktemp("tree"))
    write_tree(made, {"app.py": "", **{f"directory-{number}/file": "" for number in range(700)}})
    return made


@pytest.fixture(scope="session")
def archive(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of it. Shared."""
    path = tmp_path_factory.mktemp("packed") / "tree.tar.zst"
    pack_tree(path, tree, native="yes")
    return path


@pytest.fixture
def container(tmp_path: Path, archive: Path) -> Container:
    """A container with its archive, in which nothing can be written."""
    return _container(tmp_path, archive)


@pytest.fixture
def container_without_proc(tmp_path: Path, archive: Path) -> Container:
    """The same with an empty /proc."""
    return _container(tmp_path, archive, proc=False)


def _container(tmp_path: Path, archive: Path, *, proc: bool = True) -> Container:
    (tmp_path / "root").mkdir()
    made = Container(tmp_path / "root", proc=proc)
    made.bind(archive, ARCHIVE, read_only=True)
    return made


def command(*options: object) -> list[object]:
    """Return a command that starts with the archive and prints the fingerprint of the tree."""
    python = sys.executable
    return [python, "-m", "unpackenv", "--archive", ARCHIVE, *options, "--", python, "-c", FINGERPRINT]


def check(done: subprocess.CompletedProcess[str], tree: Path) -> dict[str, Any]:
    """The start went well, and the tree is what was packed; return the log line."""
    assert (done.returncode, done.stdout.strip()) == (0, fingerprint(tree)), done.stderr
    return log_line(done.stderr)


# --- places, users, environment ------------------------------------------------------------------


def test_only_a_tmpfs_can_be_written_and_the_user_has_no_name(container: Container, tree: Path) -> None:
    container.tmpfs("/temporary")
    env = environment(HOME="/", TMPDIR="/temporary", UNPACKENV_LOG="json")
    line = check(container.run(command(), env, user=SOMEBODY), tree)
    assert line["target"].startswith(f"/temporary/unpackenv-{SOMEBODY}/env/")
    assert [place.partition(" ")[2] for place in line["tried"]] == ["(target-read-only)"]  # and no cache below "/"


def test_the_next_start_in_it_finds_the_tree(container: Container, tree: Path) -> None:
    container.tmpfs("/temporary")
    env = environment(HOME="/", TMPDIR="/temporary", UNPACKENV_LOG="json")
    once, again = command(), command()
    done = container.run([*once[: once.index("--") + 1], "env", "UNPACKENV_LOG=text", *again], env, user=SOMEBODY)
    assert (done.returncode, done.stdout.strip()) == (0, fingerprint(tree)), done.stderr
    first, second = done.stderr.splitlines()
    assert log_line(first)["outcome"] == "unpacked"
    assert second.startswith("unpackenv: reused")


def test_no_place_can_be_written(container: Container) -> None:
    env = environment(HOME="/home/nobody", UNPACKENV_LOG="json")
    done = container.run(command(), env, user=SOMEBODY)
    error = log_line(done.stderr)
    assert (done.returncode, done.stdout, error["reason"]) == (125, "", "target-not-writable")
    places = error["where"].split(", ")
    roots = ["/opt/unpackenv", "/home/nobody/.cache/unpackenv", f"/tmp/unpackenv-{SOMEBODY}"]
    assert [place.partition("/env/")[0] for place in places] == roots
    assert all(place.endswith(" (target-read-only)") for place in places)
    assert "UNPACKENV_TARGET" in error["hint"]


def test_no_place_can_be_written_but_the_tree_is_there(
    container: Container, archive: Path, tree: Path, tmp_path: Path
) -> None:
    """As an init container leaves it on a volume that is mounted read-only."""
    assert run(wrapper("--archive", archive, "--target", tmp_path / "made", "--", "true")).returncode == 0
    subprocess.run(["chown", "-hR", str(SOMEBODY), tmp_path / "made"], check=True)
    container.bind(tmp_path / "made", "/volume", read_only=True)
    env = environment(HOME="/", UNPACKENV_LOG="json")
    line = check(container.run(command("--target", "/volume"), env, user=SOMEBODY), tree)
    assert line["outcome"] == "reused"


@pytest.mark.parametrize("ranges", [True, False])
def test_an_archive_by_url_and_no_temporary_directory(
    container: Container, archive: Path, tree: Path, ranges: bool
) -> None:
    """It is needed only for a server that sends a file as a whole."""
    container.tmpfs("/volume")
    with serving(archive.read_bytes()) as server:
        server.ranges = ranges
        url = f"{server.url}/a#sha256={trailer.identify(str(archive)).digest}"
        env = environment(HOME="/", UNPACKENV_LOG="json", NO_PROXY="*")
        done = container.run(command("--archive", url, "--target", "/volume/env"), env, user=SOMEBODY)
    if ranges:
        check(done, tree)
    else:
        error = log_line(done.stderr)
        assert (done.returncode, error["reason"], error["where"]) == (125, "no-space", "the temporary directory")


def test_shared_memory_of_64_mb_as_the_only_place(container: Container, tree: Path, tmp_path: Path) -> None:
    """A container runtime mounts it noexec: shared objects cannot be there, pure Python can."""
    container.tmpfs("/dev/shm", "mode=1777,size=64m,noexec,nosuid,nodev")
    env = environment(TMPDIR="/dev/shm", HOME="/", UNPACKENV_LOG="json")
    done = container.run(command(), env, user=SOMEBODY)
    error = log_line(done.stderr)
    assert (done.returncode, error["reason"]) == (125, "target-not-writable")
    assert error["where"].endswith(" (target-noexec)")
    pack_tree(tmp_path / "pure.tar.zst", tree, native="no")
    container.bind(tmp_path / "pure.tar.zst", "/app/pure.tar.zst")
    done = container.run(command("--archive", "/app/pure.tar.zst"), env, user=SOMEBODY)
    assert check(done, tree)["target"].startswith("/dev/shm/")


@pytest.mark.parametrize("workers", [0, 8])
def test_64_open_files(container: Container, tree: Path, workers: int) -> None:
    container.tmpfs("/temporary")
    env = environment(TMPDIR="/temporary", UNPACKENV_LOG="json", UNPACKENV_WORKERS=workers)
    check(container.run(command(), env, user=SOMEBODY, setup="ulimit -n 64"), tree)


@pytest.mark.parametrize("limit", [8, 12])
def test_fewer_open_files_than_workers_want(container: Container, tree: Path, limit: int) -> None:
    """Those that could be started do the work, or the start says what it lacks."""
    container.tmpfs("/temporary")
    env = environment(TMPDIR="/temporary", UNPACKENV_LOG="json", UNPACKENV_WORKERS=8)
    done = container.run(command(), env, user=SOMEBODY, setup=f"ulimit -n {limit}")
    if done.returncode != 0:
        assert log_line(done.stderr)["reason"] == "unpack-failed"
        assert "open files" in done.stderr
    else:
        check(done, tree)
    assert done.returncode == 0 or limit < 12


def test_a_closed_umask_closes_the_root_alone(container: Container, tree: Path, tmp_path: Path) -> None:
    """The tree is closed to others by its root; what is in it has the modes that were packed."""
    volume = tmp_path / "volume"
    volume.mkdir()
    container.bind(volume, "/volume")
    env = environment(UNPACKENV_LOG="json")
    check(container.run(command("--target", "/volume/tree"), env, setup="umask 077"), tree)
    assert (volume / "tree").stat().st_mode & 0o7777 == 0o700
    assert (volume / "tree/package/__init__.py").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("codec", ["zst", "xz", "plain.xz"])
@pytest.mark.parametrize(
    "locale",
    [{}, {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "POSIX"}],
    ids=["unset", "ascii", "posix"],
)
def test_names_that_are_not_ascii_where_no_language_is_set(
    tmp_path: Path, tree: Path, codec: str, locale: dict[str, str]
) -> None:
    archive, target = tmp_path / f"tree.tar.{codec}", tmp_path / "caf\u00e9"
    if codec == "plain.xz":
        subprocess.run(["tar", "-C", tree, "-cJf", archive, "."], check=True)
    else:
        pack_tree(archive, tree, "xz" if codec == "xz" else "zstd")
    env = environment(UNPACKENV_LOG="json", **locale)
    assert not {"LANG", "LC_CTYPE"} & env.keys()
    done = run(wrapper("--archive", archive, "--target", target, "--", "true"), env)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(log_line(done.stderr)["target"]) == os.fsencode(target)
    assert fingerprint(target) == fingerprint(tree)


# --- /proc ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [0, SOMEBODY])
@pytest.mark.parametrize("target", ["", "/volume", "/volume/tree"])
def test_a_start_needs_no_proc(container_without_proc: Container, tree: Path, user: int, target: str) -> None:
    container = container_without_proc
    container.tmpfs("/temporary")
    container.tmpfs("/volume", "mode=777")
    env = environment(TMPDIR="/temporary", UNPACKENV_LOG="json")
    line = check(container.run(command(*(["--target", target] if target else [])), env, user=user), tree)
    assert line["target"].startswith(target or "/temporary/")


def test_no_proc_and_a_directory_in_use(container_without_proc: Container, tree: Path) -> None:
    container = container_without_proc
    container.tmpfs("/volume")
    container.shell("mkdir {0}/elsewhere {0}/odd; ln -s elsewhere {0}/package", "/volume")
    options = ["--target", "/volume", "--in-place"]
    archive = [sys.executable, "-m", "unpackenv", "--archive", ARCHIVE, *options, "--"]
    code = "import app, os; print(sorted(os.listdir('/volume/elsewhere')), os.path.islink('/volume/package'))"
    done = container.run([*archive, sys.executable, "-c", code], environment())
    assert (done.returncode, done.stderr.count("unpacked")) == (0, 1), done.stderr
    assert done.stdout == f"{sorted(os.listdir(tree / 'package'))} True\n"


def test_no_proc_names_no_mount_but_refuses_it(container_without_proc: Container) -> None:
    container = container_without_proc
    container.tmpfs("/volume", "noexec")
    done = container.run(command("--target", "/volume"), environment(UNPACKENV_LOG="json"))
    error = log_line(done.stderr)
    assert (done.returncode, error["reason"], error["where"]) == (125, "target-noexec", "/volume")
    assert error["what"].startswith("is mounted noexec")


def test_everything_at_once(container_without_proc: Container, tree: Path) -> None:
    container = container_without_proc
    container.tmpfs("/temporary")
    group = cpu_group(0.25)
    env = environment(HOME="/", TMPDIR="/temporary", UNPACKENV_LOG="json", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    try:
        check(container.run(command(), env, user=SOMEBODY, setup="ulimit -n 64; umask 077", group=group), tree)
    finally:
        group.remove()


# --- CPU and memory ------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "workers"), [(0.25, 1), (1.5, 2)])
def test_as_many_workers_as_the_cpu_quota_allows(
    tmp_path: Path, archive: Path, tree: Path, share: float, workers: int
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one CPU only")
    group = cpu_group(share)
    env = environment(UNPACKENV_LOG="json")
    try:
        words = wrapper("--archive", archive, "--target", tmp_path / "target", "--", "true")
        done = run(words, env, before=group.join)
    finally:
        group.remove()
    assert (done.returncode, log_line(done.stderr)["workers"]) == (0, workers), done.stderr
    assert fingerprint(tmp_path / "target") == fingerprint(tree)


RAW = 100 * MB


def _tar(tree: Path, *options: str) -> Path:
    """Pack as tar and xz do, without unpackenv, once for all runs."""

    def make(to: Path) -> None:
        kept.run("sh", "-c", 'tar -C "$0" -c . | xz "$@" > "$OUT"', tree, *options, env={**os.environ, "OUT": str(to)})

    return kept.made("heavy", f"{fingerprint(tree)} {options}", make, suffix=".tar.xz")


@pytest.fixture(scope="session")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 100 MB and more, some of it noise, and archives of it with frames and blocks of the default sizes."""
    folder = tmp_path_factory.mktemp("heavy")
    tree = folder / "tree"
    noise = random.Random(1).randbytes(8 * MB)
    for number in range(RAW // (2 * MB)):
        (tree / f"{number % 10}").mkdir(parents=True, exist_ok=True)
        begin = number * 40_961 % (7 * MB)
        content = (noise[begin : begin + MB // 8] + f"{number} ".encode() * MB)[: 2 * MB]
        (tree / f"{number % 10}" / f"{number}").write_bytes(content)
    (tree / "large").write_bytes(noise * 2)
    (tree / "app.py").write_text("")
    for path in tree.rglob("*"):
        os.utime(path, (MTIME, MTIME))
    for codec in "zstd", "xz":
        facts = {"python": [str(TAG)]}
        pack(folder / codec, members_of(tree), codec, frame_size=12 * MB, workers=2, facts=facts)
    (folder / "blocks").symlink_to(_tar(tree, "--lzma2=preset=0,dict=1MiB", "-T2", "--block-size=24MiB"))
    (folder / "one-block").symlink_to(_tar(tree, "--lzma2=preset=0,dict=64MiB", "-T1"))
    return folder


FITS_FROM = {"zstd": 64, "xz": 64, "blocks": 64, "one-block": 128}


@pytest.mark.slow
@pytest.mark.xdist_group("heavy")  # one process packs it
@pytest.mark.parametrize("limit", [64, 96, 128])
@pytest.mark.parametrize("kind", FITS_FROM)
def test_the_kernel_never_kills_a_start_under_a_memory_limit(
    heavy: Path, tmp_path: Path, kind: str, limit: int
) -> None:
    """The start fits, or says from an estimate that it will not; the kernel never kills it."""
    target = tmp_path / "target"
    os.sync()  # version 1 of cgroups does not slow down who writes faster than a busy disk: it kills
    group = memory_group(limit * MB)
    words = wrapper("--archive", heavy / kind, "--target", target, "--", "echo", "started")
    try:
        done = run(words, environment(UNPACKENV_LOG="json"), before=group.join)
        assert group.killed() == 0, done.stderr
    finally:
        group.remove()
    line = log_line(done.stderr)
    if limit >= FITS_FROM[kind]:
        assert (done.returncode, done.stdout) == (0, "started\n"), line
        assert fingerprint(target) == fingerprint(heavy / "tree")
    else:
        assert (done.returncode, done.stdout, line["reason"]) == (125, "", "memory-limit")
        assert line["facts"]["have"] < line["facts"]["need"]
        assert line["facts"]["have"] < limit * MB
        assert not target.exists()


@pytest.mark.slow
@pytest.mark.xdist_group("heavy")  # one process packs it
@pytest.mark.parametrize(
    ("kind", "workers", "too_little"),
    [*((kind, workers, 24) for kind in ("zstd", "xz") for workers in (1, 2, 3)), ("blocks", 1, 18), ("blocks", 3, 90)],
)
def test_the_estimate_is_above_the_need(heavy: Path, tmp_path: Path, kind: str, workers: int, too_little: int) -> None:
    """Under a limit that the estimate just allows, so many workers are not killed."""
    target = tmp_path / "target"
    words = wrapper("--archive", heavy / kind, "--target", target, "--", "true")
    env = environment(UNPACKENV_LOG="json", UNPACKENV_WORKERS=workers)
    tight = memory_group(too_little * MB)
    try:
        refusal = log_line(run(words, env, before=tight.join).stderr)
    finally:
        tight.remove()
    assert refusal["reason"] == "memory-limit"
    enough = memory_group(too_little * MB + refusal["facts"]["need"] - refusal["facts"]["have"] + MB)
    try:
        done = run(words, env, before=enough.join)
        assert enough.killed() == 0, done.stderr
    finally:
        enough.remove()
    assert (done.returncode, log_line(done.stderr)["workers"]) == (0, workers), done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("heavy")  # one process packs it
def test_shared_memory_of_64_mb_is_not_needed(heavy: Path, tmp_path: Path) -> None:
    """What workers share with the one that writes is memory like any other: here 96 MB."""
    for name in "root", "volume":
        (tmp_path / name).mkdir()
    container = Container(tmp_path / "root")
    container.bind(heavy / "blocks", ARCHIVE, read_only=True)
    container.bind(tmp_path / "volume", "/volume")
    container.tmpfs("/dev/shm", "mode=1777,size=64m,noexec,nosuid,nodev")
    env = environment(UNPACKENV_LOG="json", UNPACKENV_WORKERS=4)
    line = check(container.run(command("--target", "/volume"), env), heavy / "tree")
    assert line["workers"] == 4
