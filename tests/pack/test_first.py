"""`pack --first`: listed files come first in the archive, and every tool unpacks the same tree."""

from __future__ import annotations

import json
import os
import re
import subprocess
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import IS_ROOT, run, wrapper
from helpers.support import CODECS, TAR_FLAG, describe, make, make_tree, stock_unpack
from rig.sites import members_of, pack
from unpackenv.archive.reader import open_archive
from unpackenv.archive.verify import verify_archive
from unpackenv.errors import PackError
from unpackenv.pack import first, scan, source
from unpackenv.pack.entries import Entry

NOBODY = 65534


def entries(root: Path) -> tuple[Entry, ...]:
    return scan.scan(source.recognise(str(root)), links="keep").entries


def ordered(root: Path, *lists: list[str]) -> list[str]:
    """Return the paths that come first, and check that small files come next, and that all others stay in order."""
    usual = entries(root)
    found = first.order(usual, lists)
    come_first = found.entries[: found.count]
    assert all(entry.kind == "file" for entry in come_first)
    others = [entry for entry in usual if entry not in come_first]
    small = [entry for entry in others if entry.kind == "file" and entry.size <= 4096]
    small = small if come_first else []
    assert found.small == len(small)
    assert found.entries[found.count :] == (*small, *(entry for entry in others if entry not in small))
    assert len(found.entries) == len(usual)
    return [entry.path for entry in come_first]


def missing(root: Path, *lists: list[str]) -> str:
    """Return the warning about paths that are not packed."""
    (warning,) = first.order(entries(root), lists).warnings
    return warning


# --- the lists ---------------------------------------------------------------------------------


def test_blank_lines_and_comments_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(
        b"# by hand, /absolute/../path\n\n  \nb.py\r\n./#odd\n name with spaces \nlast \xff"
    )
    assert first.read(str(tmp_path / "list")) == ["b.py", "./#odd", " name with spaces ", os.fsdecode(b"last \xff")]


@pytest.mark.parametrize("path", ["/usr/lib/a.py", "../a.py", "package/../a.py", "package/.."])
def test_a_path_that_is_not_below_the_tree_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "list").write_text(f"# a comment\na.py\n{path}\n")
    with pytest.raises(PackError, match=rf"line 3 is '{path}', which is absolute or has a `..`") as caught:
        first.read(str(tmp_path / "list"))
    assert caught.value.where == str(tmp_path / "list")
    assert "relative" in caught.value.hint


def test_dots_within_a_name_are_fine(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("...\npackage/..a\n")
    assert first.read(str(tmp_path / "list")) == ["...", "package/..a"]


@pytest.mark.parametrize("name", ["nothing", "folder/"])
def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    make(tmp_path, "folder/")
    with pytest.raises(PackError, match="cannot be read") as caught:
        first.read(str(tmp_path / name))
    assert caught.value.where == str(tmp_path / name)


# --- the order ---------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make(
        tmp_path / "site", "app.py", "a/one.py", "a/two.py", "a/sub/deep.py", "ab/other.py", "z.py", data="X=1\n"
    )


def test_listed_files_come_first_each_once(site: Path) -> None:
    assert ordered(site, ["z.py", "a/two.py", "z.py", "app.py"]) == ["z.py", "a/two.py", "app.py"]
    assert ordered(site) == ordered(site, []) == []


@pytest.mark.parametrize("spelled", ["./a/two.py", "a//two.py", "a/./two.py", "a/two.py/", ".//a/two.py"])
def test_a_path_may_be_spelled_in_several_ways(site: Path, spelled: str) -> None:
    assert ordered(site, [spelled, "a/two.py"]) == ["a/two.py"]


@pytest.mark.parametrize("spelled", ["a", "a/", "./a//"])
def test_a_directory_stands_for_the_files_in_it(site: Path, spelled: str) -> None:
    assert ordered(site, ["z.py", "a/two.py", spelled]) == ["z.py", "a/two.py", "a/one.py", "a/sub/deep.py"]


@pytest.mark.parametrize("spelled", [".", "./"])
def test_the_root_stands_for_all_files(site: Path, spelled: str) -> None:
    expected = ["z.py", "app.py", "a/one.py", "a/two.py", "a/sub/deep.py", "ab/other.py"]
    assert ordered(site, ["z.py", spelled]) == expected


def test_a_link_stands_for_the_file_that_it_leads_to(site: Path) -> None:
    (site / "link.py").symlink_to("a/one.py")
    (site / "chain.py").symlink_to("link.py")
    (site / "lib64").symlink_to("a")
    os.link(site / "z.py", site / "zz.py")
    assert ordered(site, ["chain.py"]) == ordered(site, ["lib64/one.py"]) == ["a/one.py"]
    assert ordered(site, ["lib64"]) == ["a/one.py", "a/two.py", "a/sub/deep.py"]
    assert ordered(site, ["zz.py"]) == ["z.py"]
    os.link(site / "z.py", site / "ab/again.py")
    assert ordered(site, ["ab"]) == ["z.py", "ab/other.py"]


def test_several_lists_are_merged_by_rank(site: Path) -> None:
    assert ordered(site, ["app.py", "a"], ["z.py"], ["nothing", "ab/other.py"]) == [
        "app.py", "z.py", "ab/other.py", "a/one.py", "a/two.py", "a/sub/deep.py",
    ]  # fmt: skip


def test_a_file_in_several_lists_counts_at_its_best_rank(site: Path) -> None:
    late, early = ["app.py", "a/one.py", "a/two.py", "z.py"], ["z.py", "ab/other.py", "app.py"]
    expected = ["app.py", "z.py", "a/one.py", "ab/other.py", "a/two.py"]
    assert ordered(site, late, early) == expected
    assert ordered(site, early, late)[:2] == ["z.py", "app.py"]
    assert ordered(site, late, late) == late


def test_paths_that_are_not_packed_are_one_warning(site: Path) -> None:
    (site / "out").symlink_to("/usr")
    (site / "broken").symlink_to("nowhere")
    assert first.order(entries(site), [["a", "z.py"]]).warnings == ()
    assert missing(site, ["z.py", "gone.py", "gone.py"]) == "--first lists 1 path that is not packed (gone.py)"
    assert missing(site, ["c", "b"], ["b", "a/d"]) == "--first lists 3 paths that are not packed (c, b, a/d)"
    many = [f"gone{number}.py" for number in range(1200)]
    expected = "--first lists 1,200 paths that are not packed (gone0.py, gone1.py, gone2.py, …)"
    assert missing(site, many) == expected
    assert missing(site, ["broken", "out/bin", "z.py/x"]).startswith("--first lists 3 paths that are")


# --- the archive -------------------------------------------------------------------------------


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# What `package/text-again` is a hard link to: the first of its names in the order of packing.
FIRST_NAME = b"".join(b"directory-%02d-of-a-path-that-does-not-fit-a-tar-header/" % n for n in range(12)) + b"and-again"
HOT = ["package/sub/native.so", "package/text-again", "odd/caf\u00e9", "old", "package/empty.py"]
HOT_FILES = [b"package/sub/native.so", FIRST_NAME, b"odd/caf\xc3\xa9", b"old", b"package/empty.py"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of member, and a directory that nobody may write to."""
    root = make_tree(tmp_path / "tree")
    (root / "package/sub").chmod(0o555)
    return root


def packed(tree: Path, to: Path, codec: str, *lists: list[str], options: tuple[object, ...] = ()) -> Path:
    """Pack a tree as it is, with these lists."""
    files = [to.with_suffix(f".{number}") for number in range(len(lists))]
    for file, paths in zip(files, lists):
        file.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    each = [option for file in files for option in ("--first", file)]
    settings = "--links", "keep", "--bytecode", "keep", "--level", 1, "--frame-size", "8K", "--codec", codec
    done = run(wrapper("pack", tree, "-o", to, *settings, *each, *options))
    assert done.returncode == 0, done.stderr
    return to


def test_tar_and_unpackenv_unpack_the_same_tree(tree: Path, tmp_path: Path, codec: str) -> None:
    archive = packed(tree, tmp_path / "archive", codec, HOT)
    verify_archive(str(archive))
    assert describe(stock_unpack(archive, codec, tmp_path / "by-tar")) == describe(tree)
    done = run(wrapper("unpack", "--no-stamp", archive, "-C", tmp_path / "by-unpackenv"))
    assert done.returncode == 0, done.stderr
    assert describe(tmp_path / "by-unpackenv") == describe(tree)
    done = run(wrapper("verify", archive, "--target", tmp_path / "by-tar"))
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_tar_of_a_user_fills_a_directory_that_nobody_may_write_to(tree: Path, tmp_path: Path, codec: str) -> None:
    archive = packed(tree, tmp_path / "archive", codec, HOT)
    target = make(tmp_path, "target/") / "target"
    target.chmod(0o777)
    command = ["tar", TAR_FLAG[codec], "--warning=no-timestamp", "-xpf", "-"]
    with open(archive, "rb") as stdin:
        done = subprocess.run(command, stdin=stdin, cwd=target, user=NOBODY, extra_groups=[], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert describe(target) == describe(tree)


def test_the_stream_has_the_first_files_before_everything_else(tree: Path, tmp_path: Path, codec: str) -> None:
    def listed(archive: Path) -> list[bytes]:
        command = ["tar", TAR_FLAG[codec], "--quoting-style=literal", "-tf", archive]
        return subprocess.run(command, capture_output=True, check=True).stdout.split(b"\n")

    usual, found = listed(packed(tree, tmp_path / "usual", codec)), listed(packed(tree, tmp_path / "x", codec, HOT))
    assert found[: len(HOT_FILES)] == HOT_FILES
    assert sorted(found) == sorted(usual)
    directories = [path for path in usual if path.endswith(b"/")]
    assert [path for path in found if path.endswith(b"/")] == directories
    assert found.index(directories[0]) > found.index(b"new")


@pytest.mark.parametrize("frame_size", ["4K", "64K", "1M"])
def test_a_frame_ends_after_the_first_files(tree: Path, tmp_path: Path, codec: str, frame_size: str) -> None:
    archive = packed(tree, tmp_path / "x", codec, HOT, options=("--frame-size", frame_size))
    with open_archive(str(archive)) as opened:
        toc, facts = opened.toc, opened.facts
    count = int(facts["first"][0])
    assert count == len(HOT_FILES)
    last = toc.file_position[count - 1] + toc.file_size[count - 1]
    starts = toc.frame_starts()
    end = starts[bisect_left(starts, last)]
    assert 0 <= end - last < 512, "more than padding"
    assert end < toc.file_position[count]
    raw = list(toc.frame_raw)[: starts.index(end)]
    assert (len(raw) == 1) == (frame_size == "1M")


@pytest.mark.parametrize("frame_size", ["8K", "16M"])
def test_small_files_have_frames_of_their_own(tree: Path, tmp_path: Path, codec: str, frame_size: str) -> None:
    options = ("--fill", "behind", "--frame-size", frame_size)
    archive = packed(tree, tmp_path / "x", codec, options=options)
    with open_archive(str(archive)) as opened:
        toc, facts = opened.toc, opened.facts
    assert "first" not in facts
    count = int(facts["small"][0])
    assert count > 5
    assert max(toc.file_size[:count]) <= 4096 < max(toc.file_size)
    starts = toc.frame_starts()
    last = toc.file_position[count - 1] + toc.file_size[count - 1]
    assert starts[bisect_left(starts, last)] < toc.file_position[count]
    verify_archive(str(archive))
    assert describe(stock_unpack(archive, codec, tmp_path / "by-tar")) == describe(tree)


def test_without_first_files_nothing_changes(tree: Path, tmp_path: Path, codec: str) -> None:
    plain = packed(tree, tmp_path / "plain", codec)
    empty = packed(tree, tmp_path / "empty", codec, [], ["nothing"])
    assert plain.read_bytes() == empty.read_bytes()
    with open_archive(str(plain)) as opened:
        assert not {"first", "small"} & set(opened.facts)


def test_all_files_may_come_first(tree: Path, tmp_path: Path, codec: str) -> None:
    archive = packed(tree, tmp_path / "x", codec, ["."])
    with open_archive(str(archive)) as opened:
        assert opened.facts["first"] == opened.facts["files"]
    verify_archive(str(archive))
    assert describe(stock_unpack(archive, codec, tmp_path / "by-tar")) == describe(tree)


def test_the_same_lists_give_the_same_bytes(tree: Path, tmp_path: Path, codec: str) -> None:
    lists = HOT, ["new", "package"]
    one, two, other = (
        packed(tree, tmp_path / name, codec, *lists[::step], options=("--workers", workers)).read_bytes()
        for name, workers, step in (("one", 1, 1), ("two", 3, 1), ("other", 1, -1))
    )
    assert one == two
    assert one != other


def test_the_writer_still_wants_the_parents_of_other_members_first(tmp_path: Path) -> None:
    members = members_of(make(tmp_path / "tree", "a/b/c"))
    with pytest.raises(KeyError):
        pack(tmp_path / "x", [members[1], members[0], members[2]])


# --- the command line --------------------------------------------------------------------------


def inspected(archive: Path, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(wrapper("inspect", archive, "--json", *options)).stdout)
    return found


def test_inspect_counts_and_lists_the_first_files(tree: Path, tmp_path: Path) -> None:
    archive = packed(tree, tmp_path / "x", "zstd", HOT)
    expected = [os.fsdecode(path) for path in HOT_FILES]
    size = sum((tree / path).stat().st_size for path in expected)
    found = inspected(archive, "--first")
    assert found["facts"]["first"] == 5
    frames = found["first"].pop("frames")
    assert found["first"] == {"files": 5, "size": size}
    assert 100_000 < sum(frame["raw"] for frame in found["frames"][:frames]) < 100_000 + 60_000
    assert [member["path"] for member in found["members"]] == expected
    text = run(wrapper("inspect", archive)).stdout
    assert f"  first 5 files, {size / 1000:.1f} kB, in {frames} frames\n" in text
    assert "native.so" not in text
    lines = run(wrapper("inspect", archive, "--first")).stdout.splitlines()
    assert [line.split(" file ")[1].strip() for line in lines[-5:]] == expected
    assert "  0 packages" in lines[:-5][-1]
    everything = inspected(archive, "--first", "--files")["members"]
    assert len(everything) == found["facts"]["members"]


def test_inspect_counts_every_frame_of_a_large_file(tree: Path, tmp_path: Path) -> None:
    found = inspected(packed(tree, tmp_path / "x", "zstd", ["package/sub/native.so"]))
    raw = [frame["raw"] for frame in found["frames"]]
    frames = found["first"]["frames"]
    assert sum(raw[:frames]) - raw[frames - 1] < 100_000 < sum(raw[:frames]) < 110_000


def test_several_lists_on_the_command_line(site: Path, tmp_path: Path) -> None:
    archive = packed(site, tmp_path / "x", "zstd", ["z.py", "app.py"], ["a/two.py", "z.py"])
    assert [member["path"] for member in inspected(archive, "--first")["members"]] == ["z.py", "a/two.py", "app.py"]


def test_inspect_of_an_archive_without_first_files(tree: Path, tmp_path: Path) -> None:
    archive = packed(tree, tmp_path / "x", "zstd")
    found = inspected(archive, "--first")
    assert (found["first"], found["members"]) == ({"files": 0, "size": 0, "frames": 0}, [])
    assert "first" not in run(wrapper("inspect", archive, "--first")).stdout


@pytest.mark.parametrize(("value", "files"), [("99", 1), ("0", 0), ("-1", 0), ("many", 0)])
def test_inspect_of_an_archive_whose_fact_is_wrong(tmp_path: Path, value: str, files: int) -> None:
    pack(tmp_path / "x", members_of(make(tmp_path / "tree", "one.py")), facts={"first": [value]})
    assert inspected(tmp_path / "x", "--first")["first"]["files"] == files
    text = run(wrapper("inspect", tmp_path / "x")).stdout
    assert f"  first {'1 file, 0 bytes, in 1 frame' if files else value}\n" in text


def test_pack_says_what_came_first_and_what_is_missing(site: Path, tmp_path: Path) -> None:
    """Bytecode that is made by the pack can be listed, and is missing where it is not made."""
    pyc = f"a/__pycache__/one.{source.recognise(str(site)).interpreter.cache_tag}.pyc"
    (tmp_path / "list").write_text(f"{pyc}\napp.py\n")
    command = wrapper("pack", site, "-o", tmp_path / "x.tar.zst", "--level", 1, "--first", tmp_path / "list")
    done = run(command)
    assert "warning" not in done.stderr
    assert re.search(r"^  first 2 files, \d+ bytes, in 1 frame$", done.stdout, re.MULTILINE)
    assert [member["path"] for member in inspected(tmp_path / "x.tar.zst", "--first")["members"]] == [pyc, "app.py"]
    done = run([*command, "--bytecode", "none"])
    assert f"warning: --first lists 1 path that is not packed ({pyc})\n" in done.stderr
    assert re.search(r"^  first 1 file, 4 bytes, in 1 frame$", done.stdout, re.MULTILINE)
    done = run([*command, "--exclude", "a", "--exclude", "app.py"])
    assert f"warning: --first lists 2 paths that are not packed ({pyc}, app.py)\n" in done.stderr
    assert "  first " not in done.stdout


def test_a_bad_list_is_said_before_the_work(site: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("/etc/passwd\n")
    for name, says in ("list", "line 1 is '/etc/passwd'"), ("none", "cannot be read (No such file or directory)"):
        done = run(wrapper("pack", site, "-o", tmp_path / "x.tar.zst", "--first", tmp_path / name))
        assert done.returncode == 125
        assert done.stderr.startswith(f"unpackenv: error: {tmp_path / name}: {says}")
        assert not (tmp_path / "x.tar.zst").exists()
