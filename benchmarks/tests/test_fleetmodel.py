"""The model of many nodes."""

from __future__ import annotations

import pytest

import fleetmodel
from fleetmodel import DOCS, DOCUMENT, GBIT, LINES, MB, Line, Way, ways

WAY = Way("way", pulled=100 * MB, fetched=25 * MB, work=2.0, image=300 * MB, tree=500 * MB)
MEASURED = ways((DOCS / "images.md").read_text())


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


def test_the_document_has_what_it_computes() -> None:
    text = DOCUMENT.read_text()
    assert fleetmodel.written(text) == text
