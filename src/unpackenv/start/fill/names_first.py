"""The start of a tree whose files are filled behind the application: all names are made, by several processes.

Each of them goes on as the holder of the leases that it has taken. The first one is the caller, which the application
waits for until the tree is published.
"""

from __future__ import annotations

import _signal
import errno
import resource

from unpackenv.archive.facts import count, first, is_environment
from unpackenv.errors import UnpackFailed
from unpackenv.start.fill import leases
from unpackenv.start.fill.board import FREE
from unpackenv.start.fill.family import Application, Family
from unpackenv.start.fill.filling import memory
from unpackenv.start.fill.holder import Holder
from unpackenv.start.fill.left import is_usable
from unpackenv.start.fill.names import Refused
from unpackenv.start.fill.plan import Plan
from unpackenv.start.machine import workers
from unpackenv.start.settings import ON_DEMAND
from unpackenv.start.tree.staging import Left
from unpackenv.start.tree.writer import member_error
from unpackenv.start.unpack import native
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from unpackenv.start.tree.staging import Staging
    from unpackenv.start.tree.writer import TreeWriter
    from unpackenv.start.unpack.source import Source

_MARGIN = 64
"""Descriptors that a process of the family needs besides those of files."""
_NOT_TO_BE_HAD = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_GO, _REFUSED = b"+", b"?"


def names_first(source: Source, writer: TreeWriter, staging: Staging, fd: int, application: Application) -> Fill:
    """Make every name of a tree in the open directory `fd`; raises `Refused` where files must be filled before.

    A tree that was left may be refused, too. Other failures are raised as `UnpackenvError`.
    """
    if not isinstance(source, native.NativeSource):
        raise Refused("the archive was made by plain tar")
    why = leases.refusal(fd)
    if why:
        raise Refused(why)
    archive = source.archive
    scripts = first(archive.facts, "bin") if is_environment(archive.facts) else ""
    on_demand, descriptors = application.fill == ON_DEMAND, raise_descriptor_limit()
    is_left = isinstance(staging, Left)
    plan = Plan(
        archive,
        source.workers,
        descriptors,
        scripts,
        on_demand=on_demand,
        is_left=is_left,
        first_rows=0 if application.record else count(archive.facts, "first"),
        small_rows=count(archive.facts, "small"),
    )
    if len(plan.before) == len(archive.toc.frame_raw):
        limit = "the limit on open files (RLIMIT_NOFILE) is too low"
        raise Refused("every frame has scripts, which the start reads" if scripts and descriptors > 0 else limit)
    try:
        family = Family(archive, plan, writer, staging.tree(fd), staging.target, application, is_left=is_left)
        fill = Fill(family, writer, is_left)
        fill.make_names()
    except OSError as error:
        if error.errno in _NOT_TO_BE_HAD:
            raise Refused(_not_to_be_had(error)) from error
        raise _member_error(error) from error
    return fill


def raise_descriptor_limit() -> int:
    """Raise the soft limit on descriptors to the hard one; return how many a process may use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        hard = soft
    return min(hard, 1 << 20) - _MARGIN


def _not_to_be_had(error: OSError) -> str:
    return f"descriptors or processes are not to be had ({error.strerror})"


def _member_error(error: OSError) -> Exception:
    return member_error(error, os.fsdecode(error.filename2 or error.filename or "the target"))


class Fill:
    """The fill of one tree, in the process of its first shard."""

    def __init__(self, family: Family, writer: TreeWriter, is_left: bool) -> None:
        self._is_left = is_left
        self.is_on_demand = family.is_on_demand
        self._family = family
        self._plan = family.plan
        self._board = family.board
        self._writer = writer
        self._others: list[tuple[int, int]] = []  # process, and where it says that its names are made
        self._holder = Holder(family, 0)

    # --- names ---

    def make_names(self) -> None:
        """Make every name of the tree; raises the first error of any process."""
        names = self._family.names
        try:
            names.make_files(self._plan.spanning_names())
            for shard in range(1, self._plan.shards):
                self._start(shard)
            self._make_shard(0)
            for _, reader in self._others:
                answer = workers.read_all(reader)
                if answer[:1] == _REFUSED:
                    raise Refused(answer[1:].decode())
                if answer != _GO:
                    raise workers.error_of(answer, 0) or UnpackFailed("a process that made names was killed")
            if not self._is_left:
                names.make_directories()
                if self._plan.before:
                    native.unpack_frames(self._family.archive, self._writer, self._plan.before, self._family.observer)
                native.finish_tree(self._plan.toc, names.paths, self._writer)
            elif not is_usable(self._plan, self._board):
                raise Refused("scripts are missing")
            # The other processes must see that this one has ended, though a guardian goes on.
            self._family.inherited = [*self._family.inherited, self._family.go[1]]
            self._holder.prepare()
        except BaseException:
            self.give_up()
            raise

    def _start(self, shard: int) -> None:
        reader, answer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reader)
                self._run_shard(shard, answer)
            finally:
                os._exit(0)
        os.close(answer)
        os.close(self._family.pulses[shard][1])
        self._others.append((pid, reader))

    def _run_shard(self, shard: int, answer: int) -> None:
        """Be the process of another shard: make its names, wait until the tree is published, and hold its leases.

        Until then, the application waits for this process, too: nobody else may use the directory that it writes in.
        """
        for number, (_, writer) in enumerate(self._family.pulses):
            if number > shard or number == 0:
                os.close(writer)
        os.close(self._family.go[1])
        self._family.inherited = [*self._family.inherited, answer]
        holder = None

        def prepare() -> None:
            nonlocal holder
            self._make_shard(shard)
            holder = Holder(self._family, shard)
            holder.prepare()

        os.write(answer, _answer(prepare))
        self._family.inherited.remove(answer)
        os.close(answer)
        if self._family.is_published() and holder:
            self._family.leave_application()
            holder.run()

    def _make_shard(self, shard: int) -> None:
        """Make the names of a shard, write its small files, and verify its share of an archive that is here."""
        names, filling, archive = self._family.names, self._family.filling, self._family.archive
        observer = self._family.observer
        observer.begin_worker(f"holder {shard}")
        observer.begin_step()
        names.make_files(self._plan.names_of(shard))
        observer.end_step("names")
        for frame in self._plan.small_frames_of(shard):
            filling.decode(frame)
            names.make_files(self._plan.rows[frame], filling.content)
            observer.end_step("write")
        filling.forget()
        if not archive.blob.is_local:  # then each frame is verified before it is written
            observer.end_worker()
            return
        buffer = memory(max(archive.toc.frame_stored))
        for number, frame in enumerate(self._plan.frames_of(shard)):
            if self._plan.shard_of[frame] == shard or number % self._plan.shards == shard:
                observer.begin_step(frame)
                archive.read_frame(frame, buffer)
                observer.end_step("verify")
        observer.end_worker()

    def give_up(self) -> None:
        """End the other processes: the tree is not published."""
        self._board.is_expecting = False
        for pid, reader in self._others:
            os.kill(pid, _signal.SIGKILL)
            workers.wait(pid)
            os.close(reader)
        self._holder.give_up()
        self._family.give_up()

    # --- filling ---

    def expect_readers(self) -> None:
        """Note, before the tree is at its place, that somebody may wait for a file from now on."""
        for frame in self._plan.small:
            self._board.frames[frame] = 1
        for frame in self._plan.before:
            for row in [*self._plan.rows[frame], *self._plan.pieces(frame)]:
                self._board.files[row] = FREE
            self._board.frames[frame] = 1
        self._board.expect_readers()

    def application_starts(self) -> None:
        """Note that the application is about to use the tree: it must not outlive a failure."""
        self._board.is_running = True

    def run(self) -> None:
        """Fill the tree; returns when that has ended, and no process of the family is left but this one."""
        os.write(self._family.go[1], _GO * len(self._others))
        self._family.leave_application()
        self._holder.run()
        self._family.archive.blob.end_reading()
        self._family.close()
        for pid, _ in self._others:
            workers.wait(pid)


def _answer(prepare: Callable[[], None]) -> bytes:
    """Return what another process tells the first one: that it went well, that it was refused, or an error."""
    refusal = b""

    def translated() -> None:
        nonlocal refusal
        try:
            prepare()
        except OSError as error:
            if error.errno not in _NOT_TO_BE_HAD:
                raise _member_error(error) from error
            refusal = _REFUSED + _not_to_be_had(error).encode()
        except Refused as refused:
            refusal = _REFUSED + str(refused).encode()

    return workers.caught(translated) or refusal or _GO
