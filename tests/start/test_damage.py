"""A damaged archive does not start, wherever the damage is. These are whole starts, not the reader alone."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from helpers.processes import result_of
from helpers.support import AFTER_FOOTER, CODECS, CUT, FLIPPED, Tally, describe, make_tree
from rig.sites import members_of, pack
from unpackenv.archive import trailer

BOOT_ALL = """
import os, unpackenv
from unpackenv.start import bootstrap
result = []
for number, (at, bits, size) in enumerate(CHANGES):
    data = bytearray(SOUND[:size])
    if bits:
        data[at] ^= bits
    with open(ARCHIVE, "wb") as file:
        file.write(data)
    target = f"{FOLDER}/{number}"
    try:
        bootstrap.Unpack(dict(archive=ARCHIVE, target=target, log="off")).run()
        result.append([at, bits, size, "unpacked"])
    except unpackenv.UnpackenvError as error:
        result.append([at, bits, size, type(error).__name__])
    if os.path.exists(target):
        result.append([at, bits, size, "left something"])
"""


@pytest.fixture(scope="module", params=CODECS)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    path = folder / f"x.tar.{request.param}"
    pack(path, members_of(make_tree(folder / "tree")), request.param, facts={"python": [""]})
    return path


def outcomes(archive: Path, folder: Path, changes: list[tuple[int, int, int]]) -> list[list[object]]:
    """Start from a copy of the archive with each change: a flip of `bits` at a byte, and a cut to a size."""
    setup = f"CHANGES, ARCHIVE, FOLDER = {changes!r}, {str(folder / 'archive')!r}, {str(folder)!r}\n"
    setup += f"SOUND = open({str(archive)!r}, 'rb').read()\n"
    return result_of(setup + BOOT_ALL)  # type: ignore[no-any-return]


def test_the_sound_one_is_unpacked(archive: Path, tmp_path: Path) -> None:
    assert outcomes(archive, tmp_path, [(0, 0, archive.stat().st_size)])[0][3] == "unpacked"
    assert describe(tmp_path / "0")[b"package"]


def test_one_bit_in_the_footer(archive: Path, tmp_path: Path, tally: Tally) -> None:
    size = archive.stat().st_size
    end = size - AFTER_FOOTER[archive.suffix[1:]]
    changes = [(at, 1 << at % 8, size) for at in range(end - trailer.FOOTER_SIZE, size)]
    tally(FLIPPED, len(changes))
    assert not [found for found in outcomes(archive, tmp_path, changes) if found[3] in ("unpacked", "left something")]


def test_one_bit_anywhere(archive: Path, tmp_path: Path, tally: Tally) -> None:
    size = archive.stat().st_size
    places = random.Random(1).sample(range(size), 100)
    changes = [(at, 1 << at % 8, size) for at in places]
    tally(FLIPPED, len(changes))
    assert not [found for found in outcomes(archive, tmp_path, changes) if found[3] in ("unpacked", "left something")]


def test_cut_off_anywhere(archive: Path, tmp_path: Path, tally: Tally) -> None:
    """Also where the frames end: what is left would be a good archive of plain tar."""
    identity = trailer.identify(str(archive))
    assert identity.footer is not None
    size = archive.stat().st_size
    sizes = {*random.Random(2).sample(range(size), 60), *range(size - 120, size), identity.footer.columns_offset}
    sizes |= {identity.footer.columns_offset - more for more in range(1, 40)}
    changes = [(0, 0, cut) for cut in sorted(sizes)]
    tally(CUT, len(changes))
    assert not [found for found in outcomes(archive, tmp_path, changes) if found[3] in ("unpacked", "left something")]
    assert sorted(name for name in os.listdir(tmp_path) if not name.endswith(".lock")) == ["archive"]
