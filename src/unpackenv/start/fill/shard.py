"""The holder of a shard, as its guardian and its fillers see it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from unpackenv.start.fill.family import Family


class Shard:
    """A shard of a tree, in the process that holds its leases and in those that it starts."""

    def __init__(self, family: Family, shard: int) -> None:
        self.family = family
        self.shard = shard
        self.filling = family.filling
        self.board = family.board
        self.plan = family.plan

    def frames_of(self, row: int) -> Iterable[int]:
        """Return the frames that a file lies in."""
        return self.plan.spanning.get(row) or (self.plan.frame_of(row),)

    def frames_to_fill(self) -> list[int]:
        """Return the frames that are to be filled unasked and are not, in order."""
        raise NotImplementedError

    def close_guardian(self) -> None:
        """In a filler: close what would keep the guardian from seeing that the holder has ended."""
        raise NotImplementedError

    def close(self) -> None:
        """In the guardian: close what the holder had."""
        raise NotImplementedError

    def take_over(self) -> None:
        """Become the holder in place of one that has ended."""
        raise NotImplementedError

    def run(self) -> None:
        """Hold the leases, and have the files filled."""
        raise NotImplementedError
