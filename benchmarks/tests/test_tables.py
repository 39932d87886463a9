"""Figures as text, and the verdicts on claims."""

from __future__ import annotations

import pytest

from tables import Claim, claims_table, megabytes, spread, table


@pytest.mark.parametrize(
    ("measured", "verdict", "holds"),
    [(0.2, "ok, stretch", True), (0.3, "ok, stretch", True), (0.31, "ok", True), (0.5, "ok", True),
     (0.51, "**missed**", False), (None, "not measured", False)],
)  # fmt: skip
def test_a_figure_is_judged_by_its_limits(measured: float | None, verdict: str, holds: bool) -> None:
    claim = Claim("ratio", 0.5, measured, stretch=0.3)
    assert (claim.verdict, claim.holds) == (verdict, holds)


def test_a_column_for_stretch_is_there_where_a_claim_has_one() -> None:
    plain = Claim("memory", 96e6, 61.2e6, megabytes)
    assert claims_table([plain]).splitlines()[-1] == "| memory | ≤ 96.0 | 61.2 | ok |"
    both = claims_table([plain, Claim("ratio", 0.5, None, stretch=0.3)]).splitlines()
    assert both[-2:] == ["| memory | ≤ 96.0 |  | 61.2 | ok |", "| ratio | ≤ 0.500 | ≤ 0.300 | – | not measured |"]


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    assert spread([3, 1, 2.5]) == "2.500 (1.000–3.000)"


def test_every_line_of_a_table_has_as_many_cells() -> None:
    lines = table(("name", "s", "MB"), [("a", 1, 2), ("b", 3, 4)]).splitlines()
    assert {line.count("|") for line in lines} == {4}
