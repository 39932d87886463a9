"""The contracts of an unpack: where contents come from, and who is told of the steps."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.tree.writer import TreeWriter


class Source:
    """Where the contents of one tree come from: opened, then `check`, `unpack`, `stamp_facts`, and closed.

    It is a context manager that closes what it has open. Making one opens the archive, and checks all of it that has
    to be right before the first byte is written. Every method raises an `UnpackenvError` for what is wrong.
    """

    key: str
    """What names the archive that is open, in stamps and default places."""
    workers: int
    """How many workers unpack; after `unpack`, how many have."""
    workers_why: str
    """What decided their number, as `Report.workers_why` says it."""
    warnings: list[str]
    """What the line of this start has to say of it."""

    def worker_bounds(self) -> dict[str, int]:
        """Return how many workers each of the things allows that bound them, by name."""
        raise NotImplementedError

    def check(self, directory: str, freed_first: tuple[int, int]) -> None:
        """Check what is there against what is needed, before the first byte is written below `directory`.

        `freed_first` is how many bytes and files are removed there before the tree is unpacked.
        """
        raise NotImplementedError

    def unpack(self, writer: TreeWriter, processes: bool, observer: Observer | None = None) -> None:
        """Write everything, with workers that are `processes` or threads."""
        raise NotImplementedError

    def stamp_facts(self) -> dict[str, list[str]]:
        """Return what a warm start has to know of the tree that was unpacked."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open."""
        raise NotImplementedError

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Observer:
    """Is told of the steps of an unpack, by each worker of its own: its methods are called in all of them."""

    def begin_worker(self, name: str) -> None:
        """This process or thread is the worker `name` from now on."""
        raise NotImplementedError

    def begin_frame(self, number: int) -> None:
        """This worker begins a step for a frame."""
        raise NotImplementedError

    def end_step(self, name: str) -> None:
        """This worker has ended the step `name`, which began with the frame or where the step before ended."""
        raise NotImplementedError

    def end_worker(self) -> None:
        """This worker has no more to do."""
        raise NotImplementedError
