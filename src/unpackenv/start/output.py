"""Where the lines of a start go."""

from __future__ import annotations

import sys

from unpackenv.start.settings import path
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Log:
    """Where lines go: to stderr in one `form` ("text", "json" or "off"), and to a `file` or none ("").

    It takes the settings unchecked: a start with invalid settings must write its line, too.
    """

    __slots__ = ("file", "form")

    def __init__(self, arguments: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> None:
        self.form = str(arguments.get("log") or environ.get("UNPACKENV_LOG") or "text")
        self.file = str(arguments.get("log_file") or environ.get("UNPACKENV_LOG_FILE", ""))
        try:
            self.file = path(self.file)
        except ValueError:  # `Settings` reports it
            self.file = ""
        if sys.platform == "win32":  # it has no figures for lines in JSON
            self.form, self.file = self.form.replace("json", "text"), ""

    @property
    def is_json(self) -> bool:
        """Whether a line in JSON is wanted anywhere."""
        return self.form == "json" or self.file != ""


def write_line(text: str) -> None:
    """Write one line to stderr, in one write; a closed stderr is no error."""
    try:
        os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        pass
