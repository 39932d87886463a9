"""The plan of a fill: which shard makes which names and fills which frames, and what is written before the start.

A shard is a group of files whose descriptors one guardian and its fillers have. Files that span frames belong to all.
"""

from __future__ import annotations

from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.reader import Archive

_MOST_SHARDS = 16
PIPES = 4
"""Descriptors that every process has for each shard, besides those of files."""
_PROGRAM = 0o111


class Plan:
    """The plan for one archive.

    `starts` are the positions of the frames in the tar stream; `rows` by frame those of the files that lie in it alone;
    `spanning` the frames of each file that lies in several; `shard_of` the shard of each frame, -1 for one that any
    shard may fill; `programs` the rows of files that may be executed. `before` are the frames that are unpacked before
    the start, and `unasked` those that are filled although nobody waits for them. The frames `small` hold small files
    only, which are written when their names are made: that takes no longer than a lease on each.
    """

    def __init__(
        self,
        archive: Archive,
        workers: int,
        descriptors: int,
        scripts: str = "",
        *,
        on_demand: bool = False,
        is_left: bool = False,
        first_rows: int = 0,
        small_rows: int = 0,
    ) -> None:
        """Plan for at least `workers` shards with so many descriptors each.

        The files below the directory `scripts` are written before the start. The `first_rows` are wanted early; with
        `on_demand` only these are filled unasked. The next `small_rows` are small. In a tree that was left (`is_left`)
        all names are there.
        """
        self.toc = toc = archive.toc
        self.starts = toc.frame_starts()
        self.spanning = self._spanning_files()
        count = len(toc.frame_raw)
        bounds = [bisect_left(toc.file_position, start) for start in self.starts]
        self.rows = [
            [row for row in range(begin, end) if row not in self.spanning] for begin, end in zip(bounds, bounds[1:])
        ]
        self.before: set[int] = set()
        if scripts:
            below = self._below(scripts)
            self._write_before({row for row, directory in enumerate(toc.file_dir) if directory in below})
        hot = {frame for frame in range(count) if self._is_hot(frame, first_rows)}
        small = range(first_rows, first_rows if on_demand or is_left else first_rows + small_rows)
        self.small = {frame for frame in range(count) if self._is_within(frame, small)} - self.before
        self.shards = max(workers, 1)
        while not self._share(hot, descriptors):
            if self.shards < _MOST_SHARDS:
                self.shards += 1
            else:
                behind = set(range(count)) - self.before - self.small
                self._write_frame_before(max(behind, key=lambda frame: len(self.rows[frame])))
                self.shards = max(workers, 1)
        self.unasked = (hot if on_demand else set(range(count))) - self.before - self.small
        self.programs = [row for row, mode in enumerate(toc.file_mode) if mode & _PROGRAM and self.is_program(row)]

    def fill_all(self) -> None:
        """Have all frames filled, also if nobody waits for them."""
        self.unasked = set(range(len(self.rows))) - self.before - self.small

    # --- spanning files ---

    def _spanning_files(self) -> dict[int, range]:
        """Return the frames of each file that does not end in the frame in which it begins, by row."""
        toc, starts = self.toc, self.starts
        files = {}
        # Only the last file that begins in a frame can reach into the next one.
        for row in sorted({bisect_left(toc.file_position, start) - 1 for start in starts[1:]} - {-1}):
            end = toc.file_position[row] + toc.file_size[row]
            frames = range(bisect_left(starts, toc.file_position[row] + 1) - 1, bisect_left(starts, end))
            if len(frames) > 1:
                files[row] = frames
        return files

    def pieces(self, frame: int) -> list[int]:
        """Return the rows of spanning files that have a piece in a frame."""
        return [row for row, frames in self.spanning.items() if frame in frames]

    def frame_of(self, row: int) -> int:
        """Return the frame in which a file begins."""
        return bisect_left(self.starts, self.toc.file_position[row] + 1) - 1

    # --- what is written before the start ---

    def _below(self, path: str) -> set[int]:
        """Return the rows of the directories at and below a path."""
        start = path.encode() + b"/"
        return {row for row, each in enumerate(self.toc.dir_paths()) if each.startswith(start)}

    def _write_before(self, rows: set[int]) -> None:
        for frame, own in enumerate(self.rows):
            if not rows.isdisjoint(own) or not rows.isdisjoint(self.pieces(frame)):
                self._write_frame_before(frame)

    def _write_frame_before(self, frame: int) -> None:
        """Have a frame unpacked before the start, and all that are connected to it by spanning files."""
        if frame not in self.before:
            self.before.add(frame)
            for row in self.pieces(frame):
                for other in self.spanning[row]:
                    self._write_frame_before(other)

    # --- shards ---

    def _is_hot(self, frame: int, first_rows: int) -> bool:
        """Whether a frame holds something of the first files."""
        return any(row < first_rows for row in (*self.rows[frame][:1], *self.pieces(frame)))

    def _is_within(self, frame: int, rows: range) -> bool:
        """Whether a frame holds nothing but files of these rows."""
        own = self.rows[frame]
        return bool(own) and own[0] in rows and own[-1] in rows and not self.pieces(frame)

    def _share(self, hot: set[int], descriptors: int) -> bool:
        """Share the frames so that all shards have about as many files; return whether each has enough descriptors.

        The `hot` ones come first, and the shards have them in turn, since they are wanted first.
        """
        self.shard_of = [-1] * len(self.rows)
        load = [len(self.spanning_names())] * self.shards
        held = load[:]
        shared = [frame for frame, rows in enumerate(self.rows) if rows and frame not in self.before]
        for frame in sorted(shared, key=lambda frame: (frame not in hot, frame in hot or -len(self.rows[frame]))):
            self.shard_of[frame] = shard = load.index(min(load))
            load[shard] += len(self.rows[frame])
            held[shard] += 0 if frame in self.small else len(self.rows[frame])
        return max(held) == 0 or max(held) + self.shards * PIPES <= descriptors

    def frames_of(self, shard: int) -> list[int]:
        """Return the frames that a shard can fill, in order: its own, and those that every shard can."""
        written = self.before | self.small
        return [frame for frame, owner in enumerate(self.shard_of) if owner in (shard, -1) and frame not in written]

    def small_frames_of(self, shard: int) -> list[int]:
        """Return the frames of small files that a shard writes."""
        return [frame for frame in sorted(self.small) if self.shard_of[frame] == shard]

    def spanning_names(self) -> list[int]:
        """Return the rows of the spanning files to be made, directory by directory."""
        rows = [row for row, frames in self.spanning.items() if frames[0] not in self.before]
        return sorted(rows, key=self.toc.file_dir.__getitem__)

    def names_of(self, shard: int) -> list[int]:
        """Return the rows of the files that a shard makes without content, directory by directory."""
        frames = [f for f, owner in enumerate(self.shard_of) if owner == shard and f not in self.small]
        return sorted((row for frame in frames for row in self.rows[frame]), key=self.toc.file_dir.__getitem__)

    def is_program(self, row: int) -> bool:
        """Whether a file may be executed: the kernel refuses that while anybody has it open for writing."""
        name = self.toc.file_names[row]
        return bool(self.toc.file_mode[row] & _PROGRAM) and not name.endswith(b".so") and b".so." not in name
