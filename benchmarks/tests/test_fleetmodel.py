"""The model of many nodes."""

from __future__ import annotations

import re

import pytest

import fleetmodel
from fleetmodel import DOCS, DOCUMENT, GBIT, LINES, MB, Line, Way, ways

WAY = Way("way", pulled=100 * MB, fetched=25 * MB, work=2.0, image=300 * MB, tree=500 * MB)
IMAGES = (DOCS / "images.md").read_text()
MEASURED = ways(IMAGES)


def test_a_node_alone_has_its_line_for_itself() -> None:
    assert WAY.ready(1, Line(GBIT, 10 * GBIT)) == pytest.approx(2.0 + 1.0)


def test_all_nodes_together_get_what_the_registry_sends() -> None:
    line = Line(GBIT, 10 * GBIT)
    assert WAY.ready(10, line) == WAY.ready(1, line)
    assert WAY.ready(20, line) == pytest.approx(2.0 + 2.0)
    assert WAY.ready(10_000, line) == pytest.approx(2.0 + 1000.0)


@pytest.mark.parametrize("fewer", [("behind", "slim"), ("on demand", "by URL"), ("zstd", "slim")])
def test_what_fetches_less_is_ready_sooner_at_the_end(fewer: tuple[str, str]) -> None:
    less, more = (MEASURED[name] for name in fewer)
    assert less.bytes < more.bytes
    for line in LINES.values():
        assert less.ready(10_000, line) < more.ready(10_000, line)


def test_one_node_over_a_line_is_as_was_measured() -> None:
    """`docker pull` to JPEG over 1 Gbit/s, of all images; the document says how close."""
    measured = dict(re.findall(r"^\| \((\w)\) [^|]* \| ([\d.]+) \(\S+\) \|$", IMAGES, re.MULTILINE))
    names = {"b": "slim", "c": "xz", "d": "before", "e": "behind", "f": "by URL"}
    found = [float(measured[letter]) / MEASURED[name].ready(1, LINES["1 Gbit/s"]) for letter, name in names.items()]
    said = re.findall(r"the images took (\S+)\s+to (\S+) of what the model says", DOCUMENT.read_text())
    assert said == [(f"{min(found):.2f}", f"{max(found):.2f}")]


def test_the_document_has_what_it_computes() -> None:
    text = DOCUMENT.read_text()
    assert fleetmodel.written(text) == text
