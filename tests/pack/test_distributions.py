"""Which distribution a file belongs to, and which distributions are large."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.support import make
from rig.sites import write_tree
from unpackenv.pack import distributions, scan, source

LIB = f"lib/python3.{sys.version_info.minor}/site-packages"


def sizes(root: Path) -> dict[str, int]:
    described = source.recognise(str(root))
    return distributions.sizes(described, scan.scan(described))


def distribution(name: str, *files: str, **other: str) -> dict[str, str]:
    """Return the files of a dist-info directory that lists `files`; `other` are more of them."""
    directory = f"{name.replace('-', '_')}-1.0.dist-info"
    record = "".join(f"{file},,\n" for file in files)
    metadata = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "RECORD": record, **other}
    return {f"{directory}/{file}": text for file, text in metadata.items() if text}


@pytest.mark.parametrize("inner", ["", f"{LIB}/"])
def test_files_belong_to_distributions_by_their_names(tmp_path: Path, inner: str) -> None:
    """Where nothing is listed."""
    found = {
        "numpy/core.py": 100,
        "numpy-1.2.dist-info/RECORD": 10,
        "numpy.libs/libx.so": 1,
        "Jinja2-3.0.dist-info/RECORD": 5,
        "jinja2/x.py": 20,
        "six.py": 3,
        "__pycache__/six.cpython-39.pyc": 4,
        "some_tool-1.0-py3.9.egg-info": 9,
        "empty.py": 0,
    }
    for name, size in found.items():
        make(tmp_path, inner + name, data="x" * size)
    assert list(sizes(tmp_path).items()) == [("numpy", 111), ("jinja2", 25), ("some_tool", 9), ("six", 7)]


def test_of_the_same_size_in_order_of_names(tmp_path: Path) -> None:
    assert list(sizes(make(tmp_path, "c.py", "b.py", "a/x", data="data"))) == ["a", "b", "c"]


@pytest.mark.parametrize("inner", ["", f"{LIB}/"])
def test_what_a_distribution_lists_counts_for_it(tmp_path: Path, inner: str) -> None:
    """Packages of other names, libraries next to them, scripts, and bytecode that was made later."""
    data = "x" * 1000
    of = {
        "pillow": ("PIL/Image.py", "pillow.libs/libjpeg.so", "../../bin/tool" if not inner else "../../../bin/tool"),
        "scikit-learn": ("sklearn/base.py", "scikit_learn.libs/libgomp.so"),
        "PyYAML": ("yaml/__init__.py", "_yaml/__init__.py"),
    }
    tree = {"bin/tool": data}
    for name, files in of.items():
        tree.update({inner + path: text for path, text in distribution(name, *files).items()})
        tree.update({inner + file: data for file in files if not file.startswith("..")})
    later = ("PIL/__pycache__/Image.cpython-39.pyc", "sklearn/__pycache__/base.cpython-39.pyc")
    tree.update({inner + path: data for path in later})
    found = sizes(write_tree(tmp_path, tree))
    assert {name: size // 1000 for name, size in found.items()} == {"pillow": 4, "scikit-learn": 3, "PyYAML": 2}


def test_by_the_top_level_names_without_a_list(tmp_path: Path) -> None:
    """As packages of Debian and of conda are."""
    tree = distribution("PyYAML", RECORD="", **{"top_level.txt": "_yaml\nyaml\n"})
    write_tree(tmp_path, {**tree, "yaml/x.py": "x" * 1000, "_yaml/x.py": "x" * 1000})
    assert list(sizes(tmp_path)) == ["PyYAML"]


def test_half_an_installation_is_packed_all_the_same(tmp_path: Path) -> None:
    write_tree(tmp_path, {**distribution("a", "a.py"), "a.py": "x = 1\n", "b-1.0.dist-info/RECORD": "b.py,,\n"})
    (tmp_path / "a-1.0.dist-info/RECORD").write_bytes(b'"\xff\n\0')
    assert list(sizes(tmp_path)) == ["a", "b"]
