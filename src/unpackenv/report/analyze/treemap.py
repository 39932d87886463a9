"""A picture of what is large: a rectangle for each package, as large as it is (extra `report`).

The layout is that of Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000), by squarify.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import squarify

from unpackenv.report import amount, counted
from unpackenv.report.analyze.contents import Package

_WIDTH, _HEIGHT, _GAP, _LINE = 940, 420, 1.5, 16  # pixels
_CHARACTER = 7.2
_PALETTE = ("#0072b2", "#009e73", "#8a5a00", "#a0457a", "#35618f", "#b34700", "#5f5f5f", "#6b6400")
"""White text can be read on each; after Okabe and Ito."""


def draw(packages: Sequence[Package]) -> str:
    """Return an SVG of packages by their installed size; it says what each is when the mouse points at it."""
    large = sorted((package for package in packages if package.size), key=lambda package: -package.size)
    sizes = squarify.normalize_sizes([package.size for package in large], _WIDTH, _HEIGHT)
    places = squarify.squarify(sizes, 0, 0, _WIDTH, _HEIGHT)
    parts = []
    for number, (package, place) in enumerate(zip(large, places)):
        x, y, width, height = place["x"], place["y"], max(0.0, place["dx"] - _GAP), max(0.0, place["dy"] - _GAP)
        text = f"{package.name}: {amount(package.size)}, in the archive {amount(package.stored)}, "
        text += counted(package.files, "file")
        parts.append(f"<g><title>{escape(text)}</title>")
        colour = _PALETTE[number % len(_PALETTE)]
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')
        for line, label in enumerate((package.name, amount(package.size)), 1):
            if len(label) * _CHARACTER < width - 8 and line * _LINE + 4 < height:
                parts.append(f'<text x="{x + 5:.1f}" y="{y + line * _LINE:.1f}">{escape(label)}</text>')
        parts.append("</g>")
    view = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Packages by their size"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="map" {view}>{"".join(parts)}</svg>'
