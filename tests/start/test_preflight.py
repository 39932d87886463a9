"""Checks before the first byte is written: each with a real cause, and its reason code."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.containers_by_hand import FINGERPRINT, MB, SOMEBODY, Container, Group, log_line, memory_group
from helpers.processes import IMPORT_ALL, IS_ROOT, other_python, python, run, wrapper
from helpers.support import file_input, fingerprint
from rig.environment import environment
from rig.sites import TAG, pack, pack_tree, write_tree
from unpackenv.archive import interpreter
from unpackenv.errors import TargetNotWritable, UnpackenvError

Mount = Callable[..., None]
ERRORS = [UnpackenvError, *UnpackenvError.__subclasses__(), *TargetNotWritable.__subclasses__()]


@pytest.fixture
def limited() -> Iterator[Callable[[int], Group]]:
    """A function that makes a cgroup with a memory limit, which is there until the test ends."""
    groups: list[Group] = []

    def make(limit: int) -> Group:
        groups.append(memory_group(limit))
        return groups[-1]

    yield make
    for group in groups:
        group.remove()


@pytest.fixture
def native(tmp_path: Path, site: Path) -> Path:
    """An archive whose tree has shared objects, as far as the archive knows."""
    path = tmp_path / "native.tar.zst"
    pack_tree(path, site, native="yes")
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An archive of 24 MB in two frames of the default size; as it is stored, it is small."""
    path = tmp_path / "large.tar.zst"
    tree = write_tree(tmp_path / "large", {"app.py": "", "zeros": "0" * (24 * MB)})
    pack(path, [file_input(tree, b"zeros", b"0" * (24 * MB))], frame_size=12 * MB, facts={"python": [str(TAG)]})
    return path


def refused(archive: Path, target: Path | str, group: Group | None = None, **settings: object) -> dict[str, Any]:
    """Return the JSON line of a start that fails; wrapper and `bootstrap()` have to say the same."""
    env = environment(UNPACKENV_LOG="json", UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, **settings)
    join = group.join if group else None
    code = "import unpackenv, unpackenv.errors\ntry:\n    unpackenv.bootstrap()\n"
    code += "except unpackenv.UnpackenvError as error:\n    print(type(error).__name__)"
    called = python(code, env, before=join)
    wrapped = run(wrapper("--", "echo", "started"), env, before=join)
    assert (wrapped.returncode, wrapped.stdout) == (125, ""), wrapped.stderr
    lines = [log_line(done.stderr) for done in (called, wrapped)]
    assert lines[0]["reason"] == lines[1]["reason"]
    assert called.stdout == _error_name(lines[0]["reason"]) + "\n"
    assert lines[0]["hint"]
    return lines[1]


def _error_name(reason: str) -> str:
    return next(kind.__name__ for kind in ERRORS if kind.reason == reason)


def started(archive: Path, target: Path | str, group: Group | None = None, **settings: object) -> dict[str, Any]:
    """Return the JSON line of a start that goes well."""
    env = environment(UNPACKENV_LOG="json", UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, **settings)
    done = run(wrapper("--", "echo", "started"), env, before=group.join if group else None)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    return log_line(done.stderr)


def is_untouched(target: Path) -> bool:
    return all(name == ".unpackenv.lock" for name in os.listdir(target))


# --- bytes and inodes ----------------------------------------------------------------------------


def test_too_few_bytes(large: Path, target: Path, mount: Mount) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=20M", "none", target)
    error = refused(large, target)
    assert (error["reason"], error["where"]) == ("no-space", str(target))
    assert error["facts"]["need"] == 24 * MB + 2048
    assert 19 * MB < error["facts"]["have"] <= 20 * MB
    assert error["what"] == f"needs 25.2 MB and has {error['facts']['have'] / 1e6:.1f} MB free"
    assert is_untouched(target)


def test_just_enough_bytes(large: Path, target: Path, mount: Mount) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=25M", "none", target)
    assert started(large, target)["outcome"] == "unpacked"


def test_too_few_inodes(tmp_path: Path, target: Path, mount: Mount) -> None:
    archive = tmp_path / "many.tar.zst"
    pack_tree(archive, write_tree(tmp_path / "many", {f"file-{number}": "" for number in range(100)}))
    target.mkdir()
    mount("-t", "tmpfs", "-o", "nr_inodes=50", "none", target)
    error = refused(archive, target)
    assert (error["reason"], error["where"], error["facts"]["need"]) == ("no-space", str(target), 100)
    assert 40 < error["facts"]["have"] < 50
    assert error["what"] == f"needs 100 inodes and has {error['facts']['have']} free"
    assert is_untouched(target)


@pytest.mark.parametrize("option", ["size=20M", "nr_inodes=4"])
def test_forced_where_there_is_no_room(large: Path, archive: Path, target: Path, mount: Mount, option: str) -> None:
    """The check is skipped, and the file system says the same later; nothing is left."""
    target.mkdir()
    mount("-t", "tmpfs", "-o", option, "none", target)
    error = refused(large if "size" in option else archive, target, UNPACKENV_FORCE="yes")
    assert error["reason"] == "no-space"
    assert "need" not in error
    assert is_untouched(target)


# --- mount options -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_read_only_mount_is_refused_before_the_first_byte(
    archive: Path, target: Path, tmp_path: Path, mount: Mount, kind: str, below: str
) -> None:
    target.mkdir()
    if kind == "tmpfs":
        mount("-t", "tmpfs", "-o", "ro", "none", target)
    else:
        mount("--bind", target, target)
        mount("-o", "remount,ro,bind", target)
    for force in "no", "yes":
        error = refused(archive, target / below, UNPACKENV_FORCE=force)
        assert (error["reason"], error["where"]) == ("target-read-only", str(target))
        assert f" at {target} is mounted read-only" in error["what"]
        assert kind == "bind" or error["what"].startswith("the tmpfs at ")
        assert "UNPACKENV_TARGET" in error["hint"]


def test_a_noexec_mount_is_refused_for_shared_objects(archive: Path, native: Path, target: Path, mount: Mount) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "-o", "noexec", "none", target)
    error = refused(native, target / "tree")
    assert (error["reason"], error["where"]) == ("target-noexec", str(target))
    assert error["what"].startswith(f"the tmpfs at {target} is mounted noexec, and the archive has shared objects")
    assert "UNPACKENV_FORCE" in error["hint"]
    assert not (target / "tree").exists()
    assert started(archive, target / "pure")["outcome"] == "unpacked"
    assert started(native, target / "tree", UNPACKENV_FORCE="yes")["outcome"] == "unpacked"


# --- memory --------------------------------------------------------------------------------------


def test_tmpfs_against_the_memory_limit(
    large: Path, target: Path, mount: Mount, limited: Callable[[int], Group]
) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=1G", "none", target)
    group = limited(60 * MB)
    error = refused(large, target, group)
    assert (error["reason"], error["where"]) == ("target-in-memory", str(target))
    assert 24 * MB < error["facts"]["have"] < 60 * MB < error["facts"]["need"] + 12 * MB
    assert "tmpfs" in error["what"]
    assert is_untouched(target)
    assert group.killed() == 0


def test_tmpfs_within_the_memory_limit(
    large: Path, archive: Path, target: Path, mount: Mount, limited: Callable[[int], Group]
) -> None:
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=1G", "none", target)
    group = limited(60 * MB)
    assert started(archive, target / "small", group)["outcome"] == "unpacked"
    # 24 MB of files and 36 MB for the start fit in truth; the estimate is on the safe side.
    assert started(large, target / "large", group, UNPACKENV_FORCE="yes", UNPACKENV_WORKERS=1)["outcome"] == "unpacked"
    assert group.killed() == 0


def test_the_same_limit_does_not_matter_on_disk(large: Path, target: Path, limited: Callable[[int], Group]) -> None:
    group = limited(60 * MB)
    assert started(large, target, group)["outcome"] == "unpacked"
    assert group.killed() == 0


def test_memory_limit_that_is_too_small(large: Path, target: Path, limited: Callable[[int], Group]) -> None:
    group = limited(22 * MB)
    error = refused(large, target, group)
    assert (error["reason"], error["where"]) == ("memory-limit", str(large))
    assert error["facts"]["have"] < 22 * MB
    assert 12 * MB < error["facts"]["need"] < 26 * MB
    assert "--frame-size" in error["hint"]
    assert "UNPACKENV_FORCE" in error["hint"]
    assert not target.exists()
    assert group.killed() == 0


def test_forced_under_a_memory_limit(large: Path, target: Path, limited: Callable[[int], Group]) -> None:
    """It is tried, and here it fits: the estimate is a little above the need."""
    group = limited(26 * MB)
    assert refused(large, target, group)["reason"] == "memory-limit"
    assert started(large, target, group, UNPACKENV_FORCE="yes")["outcome"] == "unpacked"


def test_killed_for_its_memory_says_so(large: Path, target: Path, limited: Callable[[int], Group]) -> None:
    """What the estimate would have prevented, had it been asked: the message still names the reason."""
    group = limited(15 * MB)
    error = refused(large, target, group, UNPACKENV_FORCE="yes")
    assert group.killed() > 0
    assert error["reason"] == "unpack-failed"
    assert "memory limit" in error["what"]
    assert not target.exists()


# --- interpreter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", ["python", "soabi", "machine", "system", "libc"])
def test_an_archive_for_another_interpreter_is_refused(site: Path, target: Path, tmp_path: Path, fact: str) -> None:
    own = interpreter.describe()
    other = {
        "python": "cpython-27",
        "soabi": "cpython-27m",
        "machine": "sparc",
        "system": "plan9",
        "libc": "dietlibc 1",
    }
    compiled, pure = tmp_path / "compiled.tar.zst", tmp_path / "pure.tar.zst"
    facts = {**own, fact: other[fact]}
    pack_tree(compiled, site, native="yes", **facts)
    pack_tree(pure, site, native="no", **facts)
    error = refused(compiled, target)
    assert (error["reason"], error["where"]) == ("interpreter-mismatch", str(compiled))
    assert (error["facts"]["fact"], error["facts"]["packed"], error["facts"]["found"]) == (fact, other[fact], own[fact])
    assert error["facts"]["packed"] in error["what"]
    assert error["facts"]["found"] in error["what"]
    assert not target.exists()
    if fact == "python":
        assert refused(pure, target)["reason"] == "interpreter-mismatch"
    else:
        assert started(pure, target / "pure")["outcome"] == "unpacked"
    assert started(compiled, target, UNPACKENV_FORCE="yes", UNPACKENV_IN_PLACE="yes")["outcome"] == "unpacked"


@pytest.mark.parametrize(("version", "outcome"), [("0.1", "unpacked"), ("", "unpacked"), ("99.1", "error")])
def test_another_version_of_the_libc(site: Path, target: Path, tmp_path: Path, version: str, outcome: str) -> None:
    own = interpreter.describe()
    path = tmp_path / "other.tar.zst"
    pack_tree(path, site, native="yes", **{**own, "libc": f"{own['libc'].split(' ')[0]} {version}".strip()})
    if outcome == "error":
        error = refused(path, target)
        assert (error["reason"], error["facts"]["fact"], error["facts"]["found"]) == (
            "interpreter-mismatch",
            "libc",
            own["libc"],
        )
    else:
        assert started(path, target)["outcome"] == outcome


@pytest.mark.parametrize("fact", ["python", "soabi", "machine"])
def test_a_tree_that_unpack_made_for_another_interpreter(site: Path, target: Path, tmp_path: Path, fact: str) -> None:
    """`unpack` does not know who will import the tree, so every start looks."""
    path = tmp_path / "other.tar.zst"
    pack_tree(path, site, native="yes", **{**interpreter.describe(), fact: "another"})
    done = run([sys.executable, "-m", "unpackenv", "unpack", path, "-C", target], environment())
    assert done.returncode == 0, done.stderr
    error = refused(path, target)
    assert (error["reason"], error["where"], error["facts"]["fact"]) == ("interpreter-mismatch", str(target), fact)
    assert started(path, target, UNPACKENV_FORCE="yes")["outcome"] == "reused"


def test_a_command_of_another_interpreter(archive: Path, target: Path) -> None:
    env = environment(UNPACKENV_LOG="json")
    command = wrapper(
        "--archive", archive, "--target", target, "--", other_python(), "-c", "import app; print(app.VERSION)"
    )
    done = run(command, env)
    error = log_line(done.stderr)
    assert (done.returncode, error["reason"], error["facts"]["packed"]) == (125, "interpreter-mismatch", TAG)
    assert error["facts"]["found"] not in ("", TAG)
    done = run(command, {**env, "UNPACKENV_FORCE": "yes"})
    assert (done.returncode, done.stdout) == (0, "1\n")


# --- the archive ---------------------------------------------------------------------------------


@pytest.mark.skipif(not IS_ROOT, reason="needs a second user")
def test_archive_of_another_user(archive: Path, open_path: Path) -> None:
    closed = Path(shutil.copy(archive, open_path))
    closed.chmod(0o600)
    code = f"{IMPORT_ALL}\nimport os, unpackenv; os.setgroups([]); os.setgid({SOMEBODY}); os.setuid({SOMEBODY})\n"
    code += f"unpackenv.bootstrap({str(closed)!r}, {str(open_path / 'tree')!r}, log='json')"
    error = log_line(python(code).stderr)
    assert (error["reason"], error["where"]) == ("archive-unreadable", str(closed))
    assert "Permission denied" in error["what"]


def test_directory_is_no_archive(tmp_path: Path, target: Path) -> None:
    (tmp_path / "directory.tar.zst").mkdir()
    env = environment(UNPACKENV_LOG="json")
    done = run(wrapper("--archive", tmp_path / "directory.tar.zst", "--target", target, "--", "true"), env)
    assert (done.returncode, log_line(done.stderr)["reason"]) == (125, "archive-unreadable")


# --- places --------------------------------------------------------------------------------------

ARCHIVE = "/app/site-packages.tar.zst"


@pytest.fixture
def container(tmp_path: Path, native: Path) -> Container:
    """A container with an archive that has shared objects, and nothing that could be written."""
    (tmp_path / "root").mkdir()
    made = Container(tmp_path / "root")
    made.bind(native, ARCHIVE, read_only=True)
    return made


def start_in(
    container: Container, *, user: int = 0, group: Group | None = None, **env: object
) -> tuple[int, dict[str, Any], str]:
    """Start without a target and return exit code, JSON line, and what the command printed."""
    command = [sys.executable, "-m", "unpackenv", "--archive", ARCHIVE, "--", sys.executable, "-c", FINGERPRINT]
    done = container.run(command, environment(UNPACKENV_LOG="json", TMPDIR="/temporary", **env), user=user, group=group)
    assert done.stderr, done
    return done.returncode, log_line(done.stderr), done.stdout.strip()


UNUSABLE = {
    "ro": ("target-read-only", ""),
    "noexec": ("target-noexec", ""),
    "size=4k": ("no-space", ""),
    "nr_inodes=8": ("no-space", ""),
    "uid=54321": ("target-untrusted", ""),
    "mode=777": ("target-untrusted", ""),
    "mode=775": ("target-untrusted", ""),
}


@pytest.mark.parametrize("option", UNUSABLE)
@pytest.mark.parametrize("place", ["/opt/unpackenv", "/cache/unpackenv"])
def test_default_places_that_cannot_be_used_are_passed_over(
    container: Container, site: Path, option: str, place: str
) -> None:
    """Each says why, and the next one is taken."""
    container.tmpfs(place, "mode=755," + option)
    container.tmpfs("/temporary")
    code, line, printed = start_in(container, XDG_CACHE_HOME="/cache")
    assert (code, printed) == (0, fingerprint(site))
    assert line["target"].startswith("/temporary/unpackenv-0/env/")
    key = os.path.basename(line["target"])
    reasons = {"/opt/unpackenv": "target-read-only", "/cache/unpackenv": "target-read-only", place: UNUSABLE[option][0]}
    assert line["tried"] == [f"{root}/env/{key} ({reason})" for root, reason in reasons.items()]
    assert line["warnings"] == []


def test_the_first_default_place_that_can_be_used_is_used(container: Container, site: Path) -> None:
    container.tmpfs("/opt/unpackenv", "mode=755")
    container.tmpfs("/cache", "mode=755")
    code, line, printed = start_in(container, XDG_CACHE_HOME="/cache")
    assert (code, printed, line["tried"]) == (0, fingerprint(site), [])
    assert line["target"].startswith("/opt/unpackenv/env/")


def test_a_default_place_in_memory_is_passed_over(
    container: Container, large: Path, tmp_path: Path, limited: Callable[[int], Group]
) -> None:
    (tmp_path / "disk").mkdir()
    container.tmpfs("/opt/unpackenv", "mode=755,size=1G")
    container.bind("/sys/fs/cgroup", "/sys/fs/cgroup")
    container.shell("for each in /sys/fs/cgroup/*; do mount --bind $each {}/${{each##*/}}; done", "/sys/fs/cgroup")
    container.bind(tmp_path / "disk", "/cache")
    container.bind(large, "/app/large.tar.zst")
    env = environment(UNPACKENV_LOG="json", XDG_CACHE_HOME="/cache")
    command = [sys.executable, "-m", "unpackenv", "--archive", "/app/large.tar.zst", "--", "true"]
    done = container.run(command, env, group=limited(60 * MB))
    line = log_line(done.stderr)
    assert done.returncode == 0
    assert line["target"].startswith("/cache/unpackenv/env/")
    assert [tried.partition(" ")[2] for tried in line["tried"]] == ["(target-in-memory)"]


def test_no_default_place_can_be_used(container: Container) -> None:
    container.tmpfs("/opt/unpackenv", "mode=777")
    container.tmpfs("/cache", "noexec")
    code, line, printed = start_in(container, XDG_CACHE_HOME="/cache")
    assert (code, printed, line["reason"]) == (125, "", "target-not-writable")
    where = [part.partition("/env/")[0] + part.partition(" ")[2] for part in line["where"].split(", ")]
    assert where == [
        "/opt/unpackenv(target-untrusted)",
        "/cache/unpackenv(target-noexec)",
        "/temporary/unpackenv-0(target-read-only)",
    ]
    assert "UNPACKENV_TARGET" in line["hint"]


def test_force_does_not_trust_what_others_may_write_to(container: Container) -> None:
    container.tmpfs("/opt/unpackenv", "mode=777")
    code, line, _ = start_in(container, UNPACKENV_FORCE="yes")
    assert (code, line["reason"]) == (125, "target-not-writable")
    assert "(target-untrusted)" in line["where"]


def test_force_takes_a_default_place_that_is_noexec(container: Container) -> None:
    container.tmpfs("/opt/unpackenv", "mode=755,noexec")
    code, line, _ = start_in(container, UNPACKENV_FORCE="yes")
    assert (code, line["outcome"], line["tried"]) == (0, "unpacked", [])


@pytest.mark.parametrize("owner", [0, SOMEBODY])
def test_a_default_place_may_belong_to_root_or_to_oneself(container: Container, owner: int) -> None:
    container.tmpfs("/temporary")
    container.tmpfs("/temporary/cache/unpackenv", f"mode=755,uid={owner}")
    container.shell(f"mkdir {{0}}; chown {SOMEBODY} {{0}}", "/temporary/cache/unpackenv/env")
    code, line, _ = start_in(container, user=SOMEBODY, XDG_CACHE_HOME="/temporary/cache")
    assert (code, len(line["tried"])) == (0, 1)
    assert line["target"].startswith("/temporary/cache/unpackenv/env/")


@pytest.mark.parametrize(
    ("trap", "reason"),
    [
        ("mkdir -m 755 {0}", "target-untrusted"),
        ("mkdir -m 777 {0}", "target-untrusted"),
        ("mkdir -m 777 {0} {0}/env", "target-untrusted"),
        ("mkdir -m 777 {0}-2; ln -s unpackenv-12345-2 {0}", "target-untrusted"),
    ],
)
def test_what_another_user_prepared_in_the_shared_directory_is_not_used(
    container: Container, trap: str, reason: str
) -> None:
    container.tmpfs("/temporary")
    container.shell(f"{trap}; chown -hR 54321 {{0}}*", f"/temporary/unpackenv-{SOMEBODY}")
    code, line, _ = start_in(container, user=SOMEBODY)
    assert (code, line["reason"]) == (125, "target-not-writable")
    assert line["where"].endswith(f"({reason})")


def test_nothing_is_made_behind_a_link_in_the_shared_directory(container: Container) -> None:
    container.tmpfs("/temporary")
    container.shell(f"mkdir {{0}}; chown {SOMEBODY} {{0}}", "/temporary/own")
    container.shell("ln -s own {0}; chown -h 54321 {0}", f"/temporary/unpackenv-{SOMEBODY}")
    start = f"{sys.executable} -m unpackenv --archive {ARCHIVE} -- true; echo $?; ls -A /temporary/own"
    done = container.run(["sh", "-c", start], environment(TMPDIR="/temporary"), user=SOMEBODY)
    assert done.stdout == "125\n", done.stderr


@pytest.mark.parametrize(
    ("options", "user", "warning"),
    [
        ("mode=777", SOMEBODY, "it may be written by others"),
        ("mode=1777", 0, "it may be written by others"),
        ("mode=775,gid=12345", SOMEBODY, "it may be written by others"),
        ("mode=777,uid=54321", SOMEBODY, "it belongs to uid 54321"),
        ("mode=755,uid=12345", SOMEBODY, ""),
        ("mode=755,uid=12345", 0, "it belongs to uid 12345"),
        ("mode=755", 0, ""),
    ],
)
def test_a_target_that_was_named_is_used_with_a_warning(
    container: Container, site: Path, options: str, user: int, warning: str
) -> None:
    """Such as an emptyDir, to which everybody may write."""
    container.tmpfs("/volume", options)
    code, line, printed = start_in(container, user=user, UNPACKENV_TARGET="/volume")
    assert (code, printed, line["target"]) == (0, fingerprint(site), "/volume")
    assert line["warnings"] == ([warning] if warning else [])
    command = [sys.executable, "-m", "unpackenv", "--archive", ARCHIVE, "--target", "/volume", "--", "true"]
    text = container.run(command, environment(), user=user).stderr
    assert text.count("\n") == 1
    assert text.partition("; warning: ")[2].strip() == warning


def test_a_parent_that_others_may_write_to_is_named(container: Container) -> None:
    container.tmpfs("/volume", "mode=777")
    code, line, _ = start_in(container, UNPACKENV_TARGET="/volume/tree")
    assert (code, line["warnings"]) == (0, ["its parent may be written by others"])


def test_every_refusal_has_a_class_and_a_reason_of_its_own() -> None:
    reasons = [kind.reason for kind in ERRORS]
    assert len(set(reasons)) == len(reasons) > 20
    assert json.dumps(reasons) == json.dumps(reasons).lower()


# --- default places, and what is around them ------------------------------------------------------


def test_a_default_place_in_a_directory_where_everybody_may_rename(container: Container) -> None:
    container.tmpfs("/temporary", "mode=777")
    code, line, _ = start_in(container, user=SOMEBODY)
    assert (code, line["reason"]) == (125, "target-not-writable")
    assert line["where"].endswith("(target-untrusted)")


def test_a_temporary_directory_that_is_no_absolute_path(archive: Path, container: Container) -> None:
    env = environment(TMPDIR="relative", UNPACKENV_LOG="json")
    done = container.run([sys.executable, "-m", "unpackenv", "--archive", ARCHIVE, "--", "true"], env, user=SOMEBODY)
    assert log_line(done.stderr)["reason"] == "target-not-writable"


def test_files_that_are_smaller_than_a_block(target: Path, tmp_path: Path, mount: Mount) -> None:
    tree = write_tree(tmp_path / "tree", {f"directory/{number}": "x" for number in range(3000)})
    path = tmp_path / "small.tar.zst"
    pack_tree(path, tree)
    target.mkdir()
    mount("-t", "tmpfs", "-o", "size=9M", "none", target)
    error = refused(path, target)
    assert (error["reason"], error["where"]) == ("no-space", str(target))
    assert error["facts"]["need"] > error["facts"]["have"]
    mount("-t", "tmpfs", "-o", "size=20M", "none", target)
    assert started(path, target)["outcome"] == "unpacked"


def test_a_ramfs_says_nothing_of_its_room(archive: Path, target: Path, mount: Mount) -> None:
    target.mkdir()
    mount("-t", "ramfs", "none", target)
    assert started(archive, target)["outcome"] == "unpacked"


def test_a_mount_with_a_carriage_return_in_its_name(archive: Path, target: Path, tmp_path: Path, mount: Mount) -> None:
    odd = tmp_path / "carriage\rreturn"
    odd.mkdir()
    mount("-t", "tmpfs", "none", odd)
    assert started(archive, target)["outcome"] == "unpacked"
