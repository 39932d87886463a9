"""Unpacking in parallel gives the packed tree, with any number of workers; if one worker fails, all stop."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.processes import IMPORT_ALL, processes_with, result_of
from helpers.support import CODECS, describe, file_input, make_tree, stock_unpack
from rig.environment import environment
from rig.sites import TAG, members_of, pack
from unpackenv.archive.reader import open_archive
from unpackenv.start import bootstrap, stamp
from unpackenv.start.machine import workers

THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"


def unpack_with(archive: Path, folder: Path, parallel: str, workers: tuple[int, ...], before: str = "") -> list[Path]:
    """Unpack once a number of workers, in one process, and return the trees."""
    folder.mkdir(exist_ok=True)
    code = f"""{before}
from unpackenv.start import bootstrap
for workers in {workers}:
    target = {str(folder)!r} + f"/{{workers}}"
    arguments = dict(archive={str(archive)!r}, target=target, workers=workers, parallel={parallel!r}, log="off")
    bootstrap.Unpack(arguments).run()
result = None
"""
    result_of(code)
    trees = [folder / str(number) for number in workers]
    for tree in trees:
        (tree / stamp.NAME).unlink()
    return trees


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with every kind of member, and a file of many frames. Shared: never write to it."""
    root = tmp_path_factory.mktemp("tree")
    data = random.Random(7).randbytes(700_000)
    (root / "big").write_bytes(data)
    (root / "later").write_bytes(data[:1000])
    return make_tree(root)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("frame_size", [4096, 65_536, 8 << 20])
def test_any_workers_give_the_tree_that_was_packed(tree: Path, tmp_path: Path, codec: str, frame_size: int) -> None:
    archive = tmp_path / "tree.tar"
    pack(archive, members_of(tree), codec, frame_size=frame_size, facts={"python": [TAG]})
    expected = describe(tree)
    assert describe(stock_unpack(archive, codec, tmp_path / "stock")) == expected
    for parallel in ("processes", "threads"):
        for unpacked in unpack_with(archive, tmp_path / parallel, parallel, (1, 2, 3)):
            assert describe(unpacked) == expected, unpacked


@pytest.mark.parametrize("parallel", ["auto", "processes", "threads"])
def test_in_a_process_that_has_threads(tree: Path, tmp_path: Path, parallel: str) -> None:
    archive = tmp_path / "tree.tar"
    pack(archive, members_of(tree), facts={"python": [TAG]})
    for unpacked in unpack_with(archive, tmp_path / "trees", parallel, (1, 3), THREADED):
        assert describe(unpacked) == describe(tree)


@pytest.mark.parametrize("parallel", ["processes", "threads"])
def test_one_file_of_many_frames(tmp_path: Path, parallel: str) -> None:
    content = random.Random(3).randbytes(3_000_000)
    archive = tmp_path / "archive"
    pack(archive, [file_input(tmp_path, b"only", content, 0o640)], frame_size=100_000, facts={"python": [TAG]})
    for unpacked in unpack_with(archive, tmp_path / "trees", parallel, (1, 3)):
        assert (unpacked / "only").read_bytes() == content
        assert (unpacked / "only").stat().st_mode & 0o7777 == 0o640


def test_more_frames_than_fit_a_pipe(tmp_path: Path) -> None:
    """The queue of frames is a pipe of 64 KiB; beyond it, jobs are handed out in runs."""
    content = b"0123456789abcdef" * 256 * 9000
    archive = tmp_path / "archive"
    pack(archive, [file_input(tmp_path, b"only", content)], frame_size=4096, facts={"python": [TAG]})
    for unpacked in unpack_with(archive, tmp_path / "trees", "processes", (2,)):
        assert (unpacked / "only").read_bytes() == content


def test_an_empty_archive_makes_an_empty_tree(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    pack(archive, [], facts={"python": [TAG]})
    for unpacked in unpack_with(archive, tmp_path / "trees", "auto", (0, 1, 3)):
        assert list(unpacked.iterdir()) == []


# --- trees that nobody thought of ----------------------------------------------------------------

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0") and not name.startswith(b".unpackenv")
)
TREES = st.recursive(
    st.one_of(st.binary(max_size=9000), st.integers(0, 40_000), st.tuples(NAMES)),
    lambda children: st.dictionaries(NAMES, children, max_size=5),
    max_leaves=20,
)


def write(path: bytes, node: object, mode: int) -> None:
    if isinstance(node, dict):
        os.mkdir(path)
        for name, child in node.items():
            write(os.path.join(path, name), child, mode)
        os.chmod(path, 0o700 | mode)
    elif isinstance(node, tuple):
        os.symlink(node[0], path)
    else:
        with open(path, "wb") as file:
            file.write(node if isinstance(node, bytes) else bytes(range(256)) * (node // 256))
        os.chmod(path, 0o400 | mode)
    os.utime(path, (1_500_000_000 + mode, 1_500_000_000 + mode), follow_symlinks=False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    root=st.dictionaries(NAMES, TREES, max_size=6), mode=st.integers(0, 0o777), codec=st.sampled_from(CODECS),
    frame_size=st.integers(4096, 30_000), workers=st.integers(1, 3), parallel=st.sampled_from(["auto", "threads"]),
)  # fmt: skip
def test_any_tree_comes_out_as_it_went_in(
    root: dict[bytes, object], mode: int, codec: str, frame_size: int, workers: int, parallel: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(os.fsencode(folder / "tree"), root, mode)
        members = members_of(folder / "tree")
        pack(folder / "archive", members, codec, frame_size=frame_size, facts={"python": [TAG]})
        target = str(folder / "target")
        bootstrap.Unpack(
            {
                "archive": str(folder / "archive"),
                "target": target,
                "workers": workers,
                "parallel": parallel,
                "log": "off",
            }
        ).run()
        (folder / "target" / stamp.NAME).unlink()
        assert describe(folder / "target") == describe(folder / "tree")


# --- a worker fails ------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("parallel", ["processes", "threads"])
@pytest.mark.parametrize("threaded", [False, True])
def test_a_damaged_frame_ends_every_worker_and_leaves_nothing(
    tree: Path, tmp_path: Path, target: Path, codec: str, parallel: str, threaded: bool
) -> None:
    archive = tmp_path / "archive"
    pack(archive, members_of(tree), codec, facts={"python": [TAG]})
    with open_archive(str(archive)) as opened:
        stored = opened.toc.frame_stored
        assert len(stored) > 20
        at = sum(stored[:10]) + stored[10] // 2
    data = bytearray(archive.read_bytes())
    data[at] ^= 1
    archive.write_bytes(data)
    code = f"""{THREADED if threaded else ""}
import os, unpackenv
try:
    unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, workers=3, parallel={parallel!r})
except unpackenv.UnpackenvError as error:
    result = [type(error).__name__, str(error), len(os.listdir('/proc/self/fd'))]
"""
    mark = str(tmp_path / "mark")
    name, text, _ = result_of(code, environment(UNPACKENV_TEST=mark))
    assert name == "ArchiveCorrupt"
    assert text.startswith(str(archive))
    assert "frame 10 " in text or "frame 9 " in text  # an xz archive begins with a stream header
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]
    assert processes_with(mark) == []


def test_an_unexpected_error_in_a_worker_is_told_whole(tree: Path, tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "archive"
    pack(archive, members_of(tree), facts={"python": [TAG]})
    code = f"""
import os, unpackenv, unpackenv.start.tree.writer as writer
def fail(*arguments): raise ZeroDivisionError("of all things")
writer.TreeWriter.write_file = fail
try:
    unpackenv.bootstrap({str(archive)!r}, {str(target)!r}, workers=2)
except unpackenv.UnpackenvError as error:
    result = [type(error).__name__, str(error)]
"""
    name, text = result_of(code)
    assert name == "UnpackFailed"
    assert "ZeroDivisionError" in text
    assert "of all things" in text
    assert os.listdir(target.parent) == [".tree.unpackenv.lock"]


@pytest.mark.parametrize("processes", [False, True])
def test_told_to_stop_while_workers_are_started(processes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are at work already are waited for: none may be left that writes, or holds what is closed."""
    started: list[workers.Worker] = []
    really_start = workers.start

    def start(body: Callable[[], None], processes: bool) -> workers.Worker:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(really_start(body, processes))
        return started[-1]

    def work(_number: int, take: Callable[[], int], ready: Callable[[], None]) -> None:
        while take() >= 0:
            ready()
            time.sleep(0.1)

    before = threading.active_count()
    monkeypatch.setattr(workers, "start", start)
    with pytest.raises(KeyboardInterrupt):
        workers.run(lambda: None, work, 1000, 4, processes)
    assert threading.active_count() == before
    for worker in started if processes else ():
        with pytest.raises(ChildProcessError):  # it has been waited for
            os.waitpid(worker._pid, os.WNOHANG)  # type: ignore[union-attr]


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_that_is_not_there_yet_or_lets_nobody_in_is_waited_for(open_path: Path, there: bool) -> None:
    """Where the umask takes rights from the owner, a thread can come between `mkdir` and `chmod`."""
    code = f"""{IMPORT_ALL}
import os
from unpackenv.start.unpack.native import _when_made
if os.geteuid() == 0: os.setgroups([]); os.setgid(54321); os.setuid(54321)
os.chdir({str(open_path)!r})
if {there}: os.mkdir("directory", 0)
def ready():
    if not {there}: os.mkdir("directory", 0)
    os.chmod("directory", 0o700)
os.close(_when_made(os.open, ready, "directory/file", os.O_CREAT, 0o600))
try:
    os.chmod("directory", 0)
    _when_made(os.open, lambda: None, "directory/file", os.O_RDONLY)
    result = "opened"
except PermissionError:
    result = "refused"
"""
    assert result_of(code) == "refused"
