"""Links of a tree: those that lead out of it are followed, kept or refused, and always reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import run, wrapper
from helpers.support import make
from rig.environment import environment
from unpackenv.errors import PackError, SettingError
from unpackenv.pack import scan, source
from unpackenv.pack.entries import Tree


def scanned(root: Path, links: str = "follow", exclude: tuple[str, ...] = ()) -> Tree:
    return scan.scan(source.recognise(str(root)), exclude, links=links)


def kinds(tree: Tree) -> dict[str, str]:
    """Return what each member is, and what a link says."""
    return {entry.path: f"-> {entry.link}" if entry.kind == "symlink" else entry.kind for entry in tree.entries}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A tree with a package, and files next to it."""
    make(tmp_path, "site/package/inner.py", "outside/data/more.txt", data="inside")
    make(tmp_path, "outside/other.py", data="VALUE = 1\n")
    return tmp_path / "site"


def test_a_link_out_is_packed_as_what_it_leads_to(site: Path) -> None:
    (site / "package/other.py").symlink_to("../../outside/other.py")
    (site / "data").symlink_to(site.parent / "outside/data")
    found = scanned(site)
    assert kinds(found) == {
        "data": "dir",
        "data/more.txt": "file",
        "package": "dir",
        "package/inner.py": "file",
        "package/other.py": "file",
    }
    (warning,) = found.warnings
    assert warning.startswith("2 links lead out of the tree, and what they lead to is packed in their place")
    assert f"data -> {site.parent}/outside/data" in warning
    sizes = {entry.path: entry.size for entry in found.entries}
    assert sizes["package/other.py"] == len("VALUE = 1\n")


def test_one_link_is_one_in_words(site: Path) -> None:
    (site / "package/other.py").symlink_to("../../outside/other.py")
    (warning,) = scanned(site).warnings
    assert warning.startswith("1 link leads out of the tree, and what it leads to is packed in its place")
    assert warning.endswith(". --links keep packs the link")


def test_a_link_out_is_kept_or_refused_on_request(site: Path) -> None:
    (site / "package/other.py").symlink_to("../../outside/other.py")
    found = scanned(site, "keep")
    assert kinds(found)["package/other.py"] == "-> ../../outside/other.py"
    (warning,) = found.warnings
    assert warning.startswith("1 link leads out of the tree, or names a place in it")
    assert "package/other.py -> ../../outside/other.py" in warning
    with pytest.raises(PackError, match="leads out of the tree") as caught:
        scanned(site, "refuse")
    assert caught.value.where == str(site / "package/other.py")
    assert kinds(scanned(site, "refuse", ("other.py",))) == {"package": "dir", "package/inner.py": "file"}
    with pytest.raises(SettingError, match="none of follow, keep, refuse"):
        scanned(site, "none")


@pytest.mark.parametrize("mode", ["follow", "refuse"])
def test_a_link_to_a_place_in_the_tree_holds_wherever_that_lies(site: Path, mode: str) -> None:
    (site / "relative.py").symlink_to("package/inner.py")
    (site / "package/absolute.py").symlink_to(site / "package/inner.py")
    (site / "package/around.py").symlink_to("../../site/package/inner.py")
    (site / "package/to-a-link.py").symlink_to(site / "relative.py")
    (site / "folder").symlink_to(site / "package")
    (site / "package/top").symlink_to(site)
    found = scanned(site, mode)
    assert {path: kind for path, kind in kinds(found).items() if kind.startswith("->")} == {
        "relative.py": "-> package/inner.py",
        "package/absolute.py": "-> inner.py",
        "package/around.py": "-> inner.py",
        "package/to-a-link.py": "-> ../relative.py",
        "folder": "-> package",
        "package/top": "-> ..",
    }
    assert found.warnings == ()


def test_an_absolute_link_that_is_kept_is_told_of(site: Path) -> None:
    (site / "absolute.py").symlink_to(site / "package/inner.py")
    found = scanned(site, "keep")
    assert kinds(found)["absolute.py"] == f"-> {site}/package/inner.py"
    assert "names a place in it by an absolute path" in found.warnings[0]


def test_the_tree_may_be_named_by_a_link(site: Path) -> None:
    (site / "package/absolute.py").symlink_to(site / "package/inner.py")
    (site.parent / "named").symlink_to(site)
    assert kinds(scanned(site.parent / "named"))["package/absolute.py"] == "-> inner.py"


def test_links_below_a_link_that_is_followed(site: Path) -> None:
    """Those that stay within what is packed stay links; a chain of links ends at what it leads to."""
    outside = site.parent / "outside"
    (outside / "data/near").symlink_to("more.txt")
    (outside / "data/far").symlink_to("../other.py")
    (outside / "data/named").symlink_to(outside / "data/more.txt")
    (outside / "data/back").symlink_to(site / "package/inner.py")
    (site.parent / "chain").symlink_to(outside / "data")
    (site / "data").symlink_to("../chain")
    assert kinds(scanned(site)) == {
        "data": "dir",
        "data/back": "-> ../package/inner.py",
        "data/far": "file",
        "data/more.txt": "file",
        "data/named": "-> more.txt",
        "data/near": "-> more.txt",
        "package": "dir",
        "package/inner.py": "file",
    }


def test_files_that_two_links_lead_to_are_packed_once(site: Path) -> None:
    for name in ("a.py", "b.py"):
        (site / name).symlink_to("../outside/other.py")
    assert [(entry.kind, entry.link) for entry in scanned(site).entries[:2]] == [("file", ""), ("hardlink", "a.py")]


@pytest.mark.parametrize("to", ["/", "..", "../../{}"])
def test_a_link_to_a_directory_that_it_is_in(site: Path, to: str) -> None:
    (site / "package/up").symlink_to(to.format(site.parent.name) if "{" in to else to)
    if to == "..":
        assert kinds(scanned(site))["package/up"] == "-> .."
        return
    (site / "package/up").unlink()
    (site / "package/up").symlink_to(site.parent)
    with pytest.raises(PackError, match="to a directory that it is in") as caught:
        scanned(site)
    assert caught.value.where == str(site / "package/up")


def test_directories_that_lead_to_each_other(site: Path) -> None:
    outside = site.parent / "outside"
    (site / "data").symlink_to(outside / "data")
    make(site.parent, "third/x")
    (outside / "data/third").symlink_to(site.parent / "third")
    (site.parent / "third/back").symlink_to(outside / "data")
    found = kinds(scanned(site))
    assert (found["data/third"], found["data/third/back"]) == ("dir", "-> ..")


def test_a_link_to_nothing(site: Path) -> None:
    (site / "gone.py").symlink_to("/no/such/file")
    with pytest.raises(PackError, match="which does not exist") as caught:
        scanned(site)
    assert caught.value.where == str(site / "gone.py")
    assert "--links keep" in caught.value.hint
    assert kinds(scanned(site, "keep"))["gone.py"] == "-> /no/such/file"


def test_a_link_in_the_tree_to_what_is_not_packed(site: Path) -> None:
    make(site, "tests/data.txt")
    (site / "a").symlink_to("tests/data.txt")
    (site / "loop").symlink_to("loop")
    (warning,) = scanned(site, exclude=("tests",)).warnings
    assert warning == "2 links lead to nothing that is packed (the first: a -> tests/data.txt)"
    (warning,) = scanned(site).warnings
    assert warning == "1 link leads to nothing that is packed (loop -> loop)"


def test_a_virtual_environment_is_packed_as_it_is(tmp_path: Path) -> None:
    """Its interpreter is outside on purpose, by whatever chain of links."""
    subprocess.run([sys.executable, "-m", "venv", "--symlinks", "--without-pip", tmp_path / "venv"], check=True)
    found = scanned(tmp_path / "venv")
    links = {entry.path: entry.link for entry in found.entries if entry.kind == "symlink"}
    assert links == {
        path: os.readlink(tmp_path / "venv" / path)
        for path in ("bin/python", "bin/python3", f"bin/python3.{sys.version_info.minor}", "lib64")
        if (tmp_path / "venv" / path).is_symlink()
    }
    assert found.warnings == ()
    assert kinds(scanned(tmp_path / "venv", "refuse")) == kinds(found)


def test_a_tree_of_links_to_a_cache_starts_without_the_cache(tmp_path: Path) -> None:
    """As `uv pip install --link-mode symlink` makes it."""
    make(tmp_path, "cache/a1/package/__init__.py", data="from package.inner import VALUE\n")
    make(tmp_path, "cache/a1/package/inner.py", data="VALUE = 42\n")
    make(tmp_path, "site/package/")
    for name in ("__init__.py", "inner.py"):
        (tmp_path / "site/package" / name).symlink_to(tmp_path / "cache/a1/package" / name)
    archive = tmp_path / "site-packages.tar.zst"
    done = run(wrapper("pack", tmp_path / "site", "-o", archive, "--level", 3))
    assert done.returncode == 0, done.stderr
    assert "2 links lead out of the tree" in done.stderr
    shutil.rmtree(tmp_path / "cache")
    command = [sys.executable, "-c", "import package; print(package.VALUE, package.inner.__cached__)"]
    started = run(wrapper("--archive", archive, "--target", tmp_path / "env", "--", *command), environment())
    assert started.stdout.startswith("42 "), started.stderr
    assert not any(path.is_symlink() for path in (tmp_path / "env").rglob("*"))
    assert Path(started.stdout.split()[1]).exists()


def test_analyze_treats_links_as_pack_does(site: Path) -> None:
    (site / "other.py").symlink_to("../outside/other.py")
    assert "1 link" in run(wrapper("pack", site, "-o", site.parent / "x.tar.zst", "--level", 3)).stderr
    shown = run(wrapper("analyze", site))
    assert shown.returncode == 0, shown.stderr
    assert f"{site}: 2 files" in shown.stdout
    refused = run(wrapper("analyze", site, "--links", "refuse"))
    assert refused.returncode == 125
    assert "leads out of the tree" in refused.stderr
