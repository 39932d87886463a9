"""docs/format.md is enough to write a reader: the one in it unpacks what `pack` makes."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from helpers.support import AFTER_FOOTER, describe
from rig.sites import members_of, pack
from unpackenv.archive import tarstream, toc, trailer

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert "unpackenv" not in code
    path = tmp_path_factory.mktemp("document") / "reader.py"
    path.write_text(code)
    return path


def run(reader: Path, archive: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", reader, archive, target], capture_output=True, text=True)


@pytest.mark.parametrize("frame_size", [3000, 1 << 20])
def test_the_reader_of_the_document_unpacks_what_tarfile_unpacks(
    tree: Path, tmp_path: Path, reader: Path, frame_size: int
) -> None:
    archive = tmp_path / "tree.tar.zst"
    pack(archive, members_of(tree), frame_size=frame_size)
    done = run(reader, archive, tmp_path / "by-document")
    assert (done.returncode, done.stderr) == (0, "")
    by_document = describe(tmp_path / "by-document")
    assert by_document == describe(tree)
    trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
    raw = subprocess.run(["zstd", "-dcq", archive], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8", errors="surrogateescape") as stream:
        stream.extractall(tmp_path / "by-tarfile", **trusting)
    by_tarfile = describe(tmp_path / "by-tarfile")
    assert without_symlinks_mtimes(by_document) == without_symlinks_mtimes(by_tarfile)


def without_symlinks_mtimes(state: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """`tarfile` does not restore them."""
    return {path: (what[0], what[2]) if what[0] == "symlink" else what for path, what in state.items()}


def test_the_reader_of_the_document_finds_damage(tree: Path, tmp_path: Path, reader: Path) -> None:
    archive = tmp_path / "tree.tar.zst"
    pack(archive, members_of(tree))
    data = bytearray(archive.read_bytes())
    footer = trailer.identify(str(archive)).footer
    assert footer is not None
    for at, message in ((1000, "damaged frame"), (footer.columns_offset, "damaged table of contents")):
        data[at] ^= 1
        archive.write_bytes(data)
        data[at] ^= 1
        done = run(reader, archive, tmp_path / f"target-{at}")
        assert done.returncode == 1
        assert message in done.stderr


def test_sizes_that_the_document_names() -> None:
    text = " ".join(DOCUMENT.read_text("utf-8").split())
    assert f"{trailer.FOOTER_SIZE} bytes. In a zstd archive" in text
    assert f"In an xz archive {AFTER_FOOTER['xz']} bytes of its container follow" in text
    assert f"1 to {trailer.FACTS_LIMIT:,} bytes" in text
    assert trailer.COLUMNS_LIMIT == 1 << 26
    assert "`columns_raw` are at most 2^26" in text
    assert f"at most {toc.MEMBER_LIMIT:,} directories" in text
    assert f"two blocks ({len(tarstream.END_OF_ARCHIVE):,} bytes)" in text
