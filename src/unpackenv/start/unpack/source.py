"""The interfaces of an unpack: the source of the contents, and the observer of the steps."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.tree.writer import TreeWriter


class Source:
    """An open archive as the source of one tree: call `check`, `unpack`, `stamp_facts`, and close it.

    It is a context manager that closes the archive. Its constructor opens the archive, and checks all of it that must
    be right before the first byte is written. Every method that fails raises an `UnpackenvError`.
    """

    key: str
    """The name of the open archive in stamps and default places."""
    workers: int
    """How many workers unpack; after `unpack`, how many have."""
    workers_why: str
    """What decided their number, as `Report.workers_why` says it."""
    warnings: list[str]
    """Warnings for the line of this start."""

    def worker_bounds(self) -> dict[str, int]:
        """Return how many workers each bound allows, by its name."""
        raise NotImplementedError

    def check(self, directory: str, freed_first: tuple[int, int]) -> None:
        """Check that memory and space suffice, before the first byte is written below `directory`.

        `freed_first` is how many bytes and files are removed there before the tree is unpacked.
        """
        raise NotImplementedError

    def unpack(self, writer: TreeWriter, processes: bool, observer: Observer) -> None:
        """Write everything, with workers that are `processes` or threads."""
        raise NotImplementedError

    def stamp_facts(self) -> dict[str, list[str]]:
        """Return the facts of the unpacked tree that a warm start needs."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the archive."""
        raise NotImplementedError

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Observer:
    """Observes the steps of an unpack: each worker calls the methods for its own steps. This one takes no notice."""

    def begin_worker(self, name: str) -> None:
        """This process or thread is the worker `name` from now on."""

    def begin_step(self, frame: int = -1) -> None:
        """This worker begins a step, for a frame if one is given."""

    def end_step(self, name: str) -> None:
        """This worker has ended the step `name`, which began when it was told, or where the step before ended."""

    def end_wait(self, path: str, seconds: float) -> None:
        """An open of the file at `path` has waited for so long, until now."""

    def end_worker(self) -> None:
        """This worker has no more to do, or not for a while."""
