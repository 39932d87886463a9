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
    headline = analysis_text.headline(analysis)
    pages.write(
        path,
        _TEMPLATE,
        subject=analysis.subject.path,
        headline=headline[0].upper() + headline[1:],
        main_reasons=analysis_text.main_reasons(analysis),
        command=analysis_text.command(analysis),
        head=list(analysis_text.head(analysis)),
        other_reasons=analysis_text.other_reasons(analysis),
        tables=analysis_text.tables(analysis),
        map=treemap.draw(analysis.packages),
    )
