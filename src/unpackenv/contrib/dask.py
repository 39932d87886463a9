"""For Dask: workers unpack the environment before their first task.

As a preload, with settings from the environment::

    UNPACKENV_ARCHIVE=/data/app.tar.zst dask worker --preload unpackenv.contrib.dask tcp://scheduler:8786

As a plugin, with those that it is given, for workers that run already::

    client.register_plugin(UnpackenvPlugin("/data/app.tar.zst"))

The timing line is in the logs of the worker, which the dashboard shows and `Client.get_worker_logs` returns. It needs
`distributed` (the extra `unpackenv[dask]`), and unpackenv itself, where the workers run.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from distributed.diagnostics.plugin import WorkerPlugin

import unpackenv
from unpackenv.errors import EXIT_BOOTSTRAP_FAILED, UnpackenvError

if TYPE_CHECKING:
    from distributed import Worker

_LOGGER = logging.getLogger("distributed.worker.unpackenv")


def dask_setup(worker: Worker) -> None:
    """Bootstrap in the process of a worker, which Dask is about to start; it exits with 125 if that fails.

    Dask would only log an error, and give tasks to a worker that cannot import what they need.
    """
    try:
        _bootstrap(None, {})
    except UnpackenvError as error:
        sys.stderr.write(f"unpackenv: error: {error}\n")
        sys.stderr.flush()
        os._exit(EXIT_BOOTSTRAP_FAILED)


class UnpackenvPlugin(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Bootstraps in each worker; arguments are those of `unpackenv.bootstrap()`.

    Raises `UnpackenvError` where it is registered, if a worker fails.
    """

    name = "unpackenv"  # the one that is registered last counts

    def __init__(self, archive: str | None = None, **settings: object) -> None:
        self.archive = archive
        self.settings = settings

    def setup(self, worker: Worker) -> None:
        """Bootstrap in a worker."""
        _bootstrap(self.archive, self.settings)


def _bootstrap(archive: str | None, settings: dict[str, object]) -> None:
    report = unpackenv.bootstrap(archive, **settings)  # type: ignore[arg-type]
    _LOGGER.info("%s", report.text())
