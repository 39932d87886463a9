"""An analysis as one page of HTML: verdict and command, a map of what is large, all tables."""

from __future__ import annotations

from pathlib import Path

from unpackenv.report import pages
from unpackenv.report.analyze import analysis_text
from unpackenv.report.analyze.analyze import Analysis

_TEMPLATE = Path(__file__).with_name("page.html")


def write(path: str, analysis: Analysis) -> None:
    """Write the page to a file. Raises `ExtraMissing`, or `OSError`."""
    try:
        from unpackenv.report.analyze import treemap
    except ImportError as error:
        raise pages.missing(error) from error
    pages.write(
        path,
        _TEMPLATE,
        subject=analysis.subject.path,
        verdict=list(analysis_text.verdict(analysis)),
        head=list(analysis_text.head(analysis)),
        reasons=analysis.advice.reasons[2:],
        tables=analysis_text.tables(analysis),
        map=treemap.draw(analysis.packages),
    )
