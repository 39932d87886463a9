"""Pages of reports: one file of HTML each, without scripts, that needs no network. They need the extra `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unpackenv.errors import ExtraMissing
from unpackenv.report.terminal import Bar


def write(path: str, template: Path, **content: Any) -> None:
    """Write a page, of a template that extends `page.html`. Raises `ExtraMissing`, or `OSError`."""
    try:
        import jinja2
    except ImportError as error:
        raise missing(error) from error
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )  # fmt: skip
    environment.tests["bar"] = lambda cell: isinstance(cell, Bar)
    page = environment.from_string(template.read_text(encoding="utf-8")).render(content)
    Path(path).write_text(page, encoding="utf-8", errors="replace")


def missing(error: ImportError) -> ExtraMissing:
    """Return the error for a library that is not installed."""
    return ExtraMissing(
        f"the page needs {error.name}, which is not installed",
        where="--html",
        hint="Install the extra: pip install 'unpackenv[report]'; the tables and --json do not need it",
    )
