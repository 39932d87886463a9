"""Names first: files that are filled behind the application, or when they are opened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.fills import (
    BEHIND,
    ON_DEMAND,
    Running,
    content,
    family,
    is_unfilled,
    kill,
    make_site,
    pack_site,
    wait_until_filled,
    wait_until_synced,
    wrong_files,
)  # fmt: skip
from helpers.processes import IS_ROOT, python, run, start, wait_for, wrapper
from helpers.starts import boot_code
from helpers.support import describe
from rig.environment import environment

pytestmark = pytest.mark.usefixtures("no_fill_left")


@pytest.fixture
def site(tmp_path: Path) -> dict[str, int]:
    return make_site(tmp_path / "site")


@pytest.fixture(params=["zstd", "xz"])
def archive(tmp_path: Path, site: dict[str, int], request: pytest.FixtureRequest) -> Path:
    pack_site(tmp_path / "archive", tmp_path / "site", request.param)
    return tmp_path / "archive"


@pytest.fixture
def asleep(archive: Path, target: Path) -> Iterator[Running]:
    """An application on whose tree nothing is filled but what is opened."""
    application = Running(archive, target, ON_DEMAND)
    assert (application.outcome, application.fill) == ("named", ON_DEMAND), application.end()
    yield application
    application.process.kill()
    application.process.communicate()


def test_the_tree_becomes_that_of_a_start_that_fills_before(archive: Path, target: Path, tmp_path: Path) -> None:
    application = Running(archive, target, BEHIND)
    assert (application.outcome, application.fill) == ("named", BEHIND)
    wait_until_filled(target)
    assert b"\nfill=w\n" in (target / ".unpackenv.stamp").read_bytes()
    application.end()
    wait_until_synced(target)
    filled = describe(target)
    del filled[b".unpackenv.stamp"]
    assert filled == describe(tmp_path / "site")
    assert b"\nfill=s\n" in (target / ".unpackenv.stamp").read_bytes()
    assert sorted(each.name for each in target.iterdir() if each.name.startswith(".")) == [".unpackenv.stamp"]


def test_names_are_right_before_anything_is_filled(asleep: Running, target: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "site").rglob("*"):
        made, packed = (target / path.relative_to(tmp_path / "site")).lstat(), path.lstat()
        assert (made.st_mode, int(made.st_mtime)) == (packed.st_mode, int(packed.st_mtime))
        if path.is_file():
            assert (made.st_size, made.st_nlink) == (packed.st_size, packed.st_nlink)
    unfilled = [path for path in target.rglob("*.bin") if not path.is_symlink() and is_unfilled(path)]
    assert len(unfilled) == len([path for path in target.rglob("*.bin") if not path.is_symlink()]) - 1  # one is empty


READERS: dict[str, Callable[[Path], bytes]] = {}


def reader(read: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    READERS[read.__name__] = read
    return read


@reader
def by_open(path: Path) -> bytes:
    return path.read_bytes()


@reader
def by_mmap(path: Path) -> bytes:
    import mmap

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        return memory[:]


@reader
def by_path_descriptor(path: Path) -> bytes:
    fd = os.open(path, os.O_PATH)
    try:
        return Path(f"/proc/self/fd/{fd}").read_bytes()
    finally:
        os.close(fd)


@reader
def by_hard_link(path: Path) -> bytes:
    other = path.with_name("another-name")
    os.link(path, other)
    return other.read_bytes()


@reader
def by_another_name(path: Path) -> bytes:
    os.rename(path, path.with_name("renamed"))
    return path.with_name("renamed").read_bytes()


@reader
def by_link(path: Path) -> bytes:
    path.with_name("symlink").symlink_to(path.name)
    return path.with_name("symlink").read_bytes()


@reader
def by_writing_to_it(path: Path) -> bytes:
    with open(path, "r+b") as file:
        return file.read()


@reader
def by_appending_to_it(path: Path) -> bytes:
    with open(path, "ab") as file:
        file.write(b"more")
    data = path.read_bytes()
    assert data.endswith(b"more")
    return data[:-4]


@reader
def by_cat(path: Path) -> bytes:
    return subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True).stdout


@reader
def by_cp(path: Path) -> bytes:
    subprocess.run(["cp", "-a", "--reflink=auto", path, path.with_name("copy")], check=True)
    return path.with_name("copy").read_bytes()


@reader
def by_handle(path: Path) -> bytes:
    """open_by_handle_at(2), as network file servers open files."""
    import ctypes

    class Handle(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_char * 128))

    if not IS_ROOT:
        pytest.skip("only root may open by handle")
    libc = ctypes.CDLL(None, use_errno=True)
    handle, mount = Handle(128), ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0):
        pytest.skip(f"this file system has no handles ({os.strerror(ctypes.get_errno())})")
    directory = os.open(path.parent, os.O_RDONLY)
    fd = libc.open_by_handle_at(directory, ctypes.byref(handle), os.O_RDONLY)
    os.close(directory)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    with open(fd, "rb") as file:
        return file.read()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", ["package_7/data_7.bin", "large/spans.bin"])
def test_whoever_opens_a_file_waits_for_its_content(
    asleep: Running, target: Path, site: dict[str, int], name: str, path: str
) -> None:
    assert is_unfilled(target / path)
    assert READERS[name](target / path) == content(path, site[path])
    others = {each for each in site if each != path and site[each]}
    assert {each for each in others if not is_unfilled(target / each)} == set()


def test_an_open_that_does_not_wait_is_refused_and_the_file_filled_next(
    asleep: Running, target: Path, site: dict[str, int]
) -> None:
    path = target / "package_7/data_7.bin"
    with pytest.raises(BlockingIOError):
        os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    wait_for(lambda: not is_unfilled(path), "the file to be filled")
    assert path.read_bytes() == content("package_7/data_7.bin", site["package_7/data_7.bin"])


def test_a_file_that_is_cut_off_as_it_is_opened_stays_so(asleep: Running, target: Path) -> None:
    path = target / "package_7/data_7.bin"
    path.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    os.truncate(target / "package_8/data_8.bin", 5)
    assert (target / "package_8/data_8.bin").read_bytes() == content("package_8/data_8.bin", 5)


def test_replaced_and_removed_files(asleep: Running, target: Path) -> None:
    (target / "new").write_bytes(b"new")
    os.rename(target / "new", target / "package_7/data_7.bin")
    (target / "package_8/data_8.bin").unlink()
    assert (target / "package_7/data_7.bin").read_bytes() == b"new"
    assert run(wrapper("fill", target)).returncode == 0
    assert (target / "package_7/data_7.bin").read_bytes() == b"new"
    assert not (target / "package_8/data_8.bin").exists()


def test_programs_scripts_and_modules(asleep: Running, target: Path) -> None:
    assert run([target / "bin" / "program"]).returncode == 0
    assert run([target / "bin" / "script"]).stdout == "a script\n"
    assert (
        python(f"import sys; sys.path.insert(0, {str(target)!r}); import module; print(module.VALUE)").stdout == "42\n"
    )


@pytest.mark.parametrize("fill", [BEHIND, ON_DEMAND])
def test_programs_are_never_busy(tmp_path: Path, target: Path, fill: str) -> None:
    """The kernel executes no file that anybody has open for writing."""
    site = tmp_path / "site"
    for number in range(60):
        (site / f"bin_{number % 5}").mkdir(parents=True, exist_ok=True)
        program = site / f"bin_{number % 5}" / f"program_{number}"
        program.write_bytes(Path("/bin/true").read_bytes())
        program.chmod(0o755)
    pack_site(tmp_path / "archive", site)
    application = Running(tmp_path / "archive", target, fill)
    programs = sorted(target.glob("bin_*/*"))
    random.Random(1).shuffle(programs)
    codes = [subprocess.run([program]).returncode for program in programs]
    application.process.kill()
    application.end()
    assert codes == [0] * 60


def test_a_shared_object_can_be_loaded(tmp_path: Path, target: Path) -> None:
    import _ctypes

    source = getattr(_ctypes, "__file__", None)
    if not source:
        pytest.skip("this Python has ctypes built in")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "library.so").write_bytes(Path(source).read_bytes())
    (tmp_path / "site" / "library.so").chmod(0o755)
    pack_site(tmp_path / "archive", tmp_path / "site")
    application = Running(tmp_path / "archive", target, ON_DEMAND)
    assert is_unfilled(target / "library.so")
    done = python(f"import ctypes; ctypes.PyDLL({str(target / 'library.so')!r})")
    application.end()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("archive", "fill"), [("zstd", BEHIND), ("xz", ON_DEMAND)], indirect=["archive"])
def test_many_readers_see_no_wrong_byte(archive: Path, target: Path, site: dict[str, int], fill: str) -> None:
    read = (
        "import random, sys; from helpers.fills import wrong_files\n"
        "order = list(sizes); random.Random(int(sys.argv[1])).shuffle(order)\n"
        f"print(wrong_files({str(target)!r}, {{path: sizes[path] for path in order}}))\n"
    )
    env = environment()
    env["PYTHONPATH"] += os.pathsep + os.pathsep.join(sys.path)
    application = Running(archive, target, fill)
    readers = [start([sys.executable, "-c", f"sizes = {site!r}\n{read}", seed], env) for seed in range(32)]
    found = [each.communicate() for each in readers]
    application.end()
    assert found == [("[]\n", "")] * 32


def test_what_an_application_writes_stays(archive: Path, target: Path, site: dict[str, int]) -> None:
    """Even to files that have just been filled, while fillers work on others."""
    application = Running(archive, target, BEHIND)
    paths = [path for path in site if site[path] and path.startswith("package")]
    random.Random(2).shuffle(paths)
    for path in paths:
        with open(target / path, "r+b") as file:
            assert file.read() == content(path, site[path])
            file.seek(0)
            file.write(b"\xffmine")
    application.end()
    wait_until_filled(target)
    assert [path for path in paths if not (target / path).read_bytes().startswith(b"\xffmine"[: site[path]])] == []


# --- the application -----------------------------------------------------------------------------


def test_its_process_stays_as_it_was(archive: Path, target: Path) -> None:
    tell = (
        "import os, _signal as s\n"
        "def state():\n"
        "    return [sorted(os.listdir('/proc/self/task'))[1:], [str(s.getsignal(n)) for n in range(1, 32)],\n"
        "            str(s.pthread_sigmask(s.SIG_BLOCK, ())), os.getpriority(0, 0), os.sched_getscheduler(0),\n"
        "            __import__('resource').getrlimit(7), len(os.listdir('/proc/self/fd'))]\n"
        "before = state()\n"
    )
    after = "after = state(); print(before[:-1] == after[:-1], after[-1] - before[-1])"
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_FILL=BEHIND)
    assert python(tell + boot_code(rest=after), env).stdout == "True 1\n"  # the stamp of a tree in use


def test_it_has_no_child(archive: Path, target: Path) -> None:
    rest = "import os\ntry: print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError: print('none')"
    env = environment(UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_FILL=ON_DEMAND)
    assert python(boot_code(rest=rest), env).stdout == "none\n"
    assert python(boot_code(rest=rest), env).stdout == "none\n"


@pytest.mark.parametrize("fill", [BEHIND, ON_DEMAND])
def test_nobody_waits_for_the_end_of_its_output(archive: Path, target: Path, fill: str) -> None:
    """Fillers outlive the application; whoever reads its stdout and stderr must not wait for them."""
    application = Running(archive, target, fill)
    others = [pid for pid, name in family(target).items() if name != "watch"]
    assert others
    kill(others, signal.SIGSTOP)
    try:
        application.end()
    finally:
        kill(list(family(target)))


REAP = """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
"""


@pytest.mark.parametrize("how", ["signal.SIG_IGN", "reap"])
def test_one_that_ignores_or_reaps_its_children(archive: Path, target: Path, site: dict[str, int], how: str) -> None:
    before = f"import os, signal\n{REAP}signal.signal(signal.SIGCHLD, {how})\n"
    application = Running(archive, target, BEHIND, before)
    assert application.fill == BEHIND
    assert wrong_files(target, site) == []
    application.end()


def test_one_that_forks_and_executes(archive: Path, target: Path, site: dict[str, int]) -> None:
    application = Running(archive, target, ON_DEMAND)
    assert application.process.stdin
    path = str(target / "large/spans.bin")
    code = f"import sys; print('there', flush=True); sys.stdin.read(); print(len(open({path!r}, 'rb').read()))"
    application.process.stdin.write(f"import os; os.execv(sys.executable, [sys.executable, '-c', {code!r}])\n")
    application.process.stdin.flush()
    assert application.process.stdout
    assert application.process.stdout.readline() == "there\n"
    time.sleep(3)  # longer than it takes the fillers to see that nobody uses the tree
    out, _ = application.process.communicate()
    assert out == f"{site['large/spans.bin']}\n"
