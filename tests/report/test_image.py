"""Packages in the layers of an image: found, counted as a container sees them, and extracted."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import saved_images
from helpers.support import describe
from unpackenv.errors import ArchiveCorrupt, PackError
from unpackenv.report.analyze import image

SITE = "usr/local/lib/python3.12/site-packages"
INFO = f"{SITE}/thing-1.0.dist-info/"


def looked_into(path: Path) -> image.Image:
    found = image.find(str(path))
    assert found
    found.read(lambda done: None)
    return found


def extracted(path: Path, to: Path, site: str = SITE) -> dict[str, str]:
    """Return the files of a site directory with what is in them, links as what they say."""
    to.mkdir()
    looked_into(path).extract(site, str(to), lambda done: None)
    files = [file for file in to.rglob("*") if file.is_symlink() or not file.is_dir()]
    return {
        str(file.relative_to(to)): os.readlink(file) if file.is_symlink() else file.read_text()
        for file in sorted(files)
    }


@pytest.mark.parametrize(
    "write",
    [saved_images.docker, saved_images.oci, lambda path, *layers: saved_images.oci(path, *layers, compress="zstd")],
    ids=["docker", "oci", "oci, zstd"],
)
def test_the_packages_of_an_image_are_those_that_were_put_in(
    small_site: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    base = saved_images.layer(
        ("etc/", b""), ("etc/os-release", b"ID=debian\n"), (INFO, b""), (f"{INFO}METADATA", b"thing")
    )
    path = write(tmp_path / "image.tar", base, saved_images.layer(("packages", small_site)))
    found = looked_into(path)
    assert list(found.sites) == ["packages", SITE]
    files = [file for file in small_site.rglob("*") if file.is_file()]
    assert found.sites["packages"] == sum(file.stat().st_size for file in files)
    assert (len(found.layers), found.architecture, found.python) == (2, "amd64", "3.12.1")
    (tmp_path / "tree").mkdir()
    found.extract("packages", str(tmp_path / "tree"), lambda done: None)
    expected, tree = describe(small_site), describe(tmp_path / "tree")
    assert {name: state for name, state in tree.items() if state[0] != "directory"} == {
        name: state for name, state in expected.items() if state[0] != "directory"
    }


def test_later_layers_win(tmp_path: Path) -> None:
    lower = saved_images.layer(
        (INFO, b""), (f"{SITE}/changed.py", b"old"), (f"{SITE}/gone.py", b"old"), (f"{SITE}/same.py", b"same"),
        (f"{SITE}/emptied/a.py", b"old"), (f"{SITE}/removed/a.py", b"old"), (f"{SITE}/replaced/a.py", b"old"),
    )  # fmt: skip
    upper = saved_images.layer(
        (f"{SITE}/changed.py", b"new"), (f"{SITE}/.wh.gone.py", b""), (f"{SITE}/emptied/.wh..wh..opq", b""),
        (f"{SITE}/emptied/b.py", b"new"), (f"{SITE}/.wh.removed", b""), (f"{SITE}/replaced", b"a file now"),
    )  # fmt: skip
    path = saved_images.docker(tmp_path / "image.tar", lower, upper)
    found = extracted(path, tmp_path / "tree")
    assert found == {"changed.py": "new", "same.py": "same", "emptied/b.py": "new", "replaced": "a file now"}
    assert looked_into(path).sites[SITE] == sum(map(len, found.values()))


def test_what_a_layer_removes_it_may_make_again(tmp_path: Path) -> None:
    lower = saved_images.layer((INFO, b""), (f"{SITE}/package/old.py", b"old"))
    upper = saved_images.layer((f"{SITE}/package/.wh..wh..opq", b""), (f"{SITE}/package/new.py", b"new"))
    last = saved_images.layer((f"{SITE}/package/old.py", b"again"))
    found = extracted(saved_images.docker(tmp_path / "image.tar", lower, upper, last), tmp_path / "tree")
    assert found == {"package/new.py": "new", "package/old.py": "again"}


def test_hard_links_into_a_cache(tmp_path: Path) -> None:
    """As uv makes them: the bytes are outside the site directory, in the same layer."""
    layer = saved_images.layer(
        ("root/.cache/uv/module.py", b"cached"),
        (INFO, b""),
        (f"{SITE}/module.py", saved_images.link("root/.cache/uv/module.py")),
        (f"{SITE}/twice.py", saved_images.link(f"{SITE}/module.py")),
        (f"{SITE}/link.py", saved_images.link("module.py", tarfile.SYMTYPE)),
    )
    path = saved_images.docker(tmp_path / "image.tar", layer)
    found = extracted(path, tmp_path / "tree")
    assert found == {"module.py": "cached", "twice.py": "cached", "link.py": "module.py"}
    assert (tmp_path / "tree/module.py").stat().st_nlink == 2
    assert looked_into(path).sites[SITE] == len("cached")


def test_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    evil = saved_images.layer(
        (INFO, b""), (f"{SITE}/../outside", b"evil"), ("../outside", b"evil"),
        (f"{SITE}/out", saved_images.link(str(tmp_path), tarfile.SYMTYPE)), (f"{SITE}/out/outside", b"evil"),
    )  # fmt: skip
    later = saved_images.layer((f"{SITE}/dir", saved_images.link(str(tmp_path), tarfile.SYMTYPE)))
    path = saved_images.docker(tmp_path / "image.tar", later, evil)
    extracted(path, tmp_path / "tree")
    assert sorted(os.listdir(tmp_path)) == ["image.tar", "tree"]


def test_vendored_packages_are_no_site_directory(tmp_path: Path) -> None:
    vendored = saved_images.layer((INFO, b""), (f"{SITE}/setuptools/_vendor/wheel-1.dist-info/", b""))
    assert list(looked_into(saved_images.docker(tmp_path / "image.tar", vendored)).sites) == [SITE]


def test_what_is_no_image(small_site: Path, tmp_path: Path) -> None:
    assert image.find(str(Path(__file__))) is None
    plain = tmp_path / "plain.tar"
    plain.write_bytes(saved_images.layer(("site-packages", small_site)))
    assert image.find(str(plain)) is None


def test_images_that_are_refused(tmp_path: Path) -> None:
    layer = saved_images.layer((INFO, b""))
    with pytest.raises(PackError, match="holds 2 images"):
        image.find(str(saved_images.oci(tmp_path / "two.tar", layer, platforms=("amd64", "arm64"))))
    with pytest.raises(PackError, match="no installed packages"):
        looked_into(saved_images.docker(tmp_path / "empty.tar", saved_images.layer(("etc/", b""))))
    good = saved_images.docker(tmp_path / "good.tar", saved_images.layer((INFO, b""), (f"{SITE}/a.py", b"x" * 100_000)))
    (tmp_path / "cut.tar").write_bytes(good.read_bytes()[:60_000])
    with pytest.raises(ArchiveCorrupt, match=r"cut.tar"):
        image.find(str(tmp_path / "cut.tar"))
    broken = saved_images.docker(tmp_path / "broken.tar", b"no layer of anything" * 1000)
    with pytest.raises(ArchiveCorrupt, match=r"broken.tar"):
        looked_into(broken)
