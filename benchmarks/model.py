"""A simple model of a cold start on more CPUs than this machine has. Its figures are computed, not measured."""

from __future__ import annotations

from dataclasses import dataclass

FORMULA = """\
    serial  = wall(1 worker) - phase "unpack" + directories
    work    = phase "unpack" - directories = decode + hash + kernel + Python
    steps   = ⌈frames ÷ n⌉ ÷ frames, the part of the work that the worker with most frames has

    processes(n)          = serial + work × steps
    processes, flat(n)    = serial + (decode + hash + Python) × steps + kernel × max(steps, 1 ÷ 2)
    threads(n)            = serial + max(work × steps, Python)"""


@dataclass(frozen=True)
class Inputs:
    """Seconds of one cold start with one worker on one CPU, and into how many frames its work is cut."""

    wall: float
    unpack: float
    """Its phase "unpack"."""
    directories: float
    """Made by one worker before the others write, and finished by it at the end."""
    decode: float
    hash: float
    kernel: float
    """System time of the whole process, nearly all of it for files that are created and written."""
    frames: int

    @property
    def serial(self) -> float:
        """What one CPU does while the others wait."""
        return self.wall - self.unpack + self.directories

    @property
    def work(self) -> float:
        return self.unpack - self.directories

    @property
    def python(self) -> float:
        """What is left for the interpreter, which holds the GIL meanwhile."""
        return max(0.0, self.work - self.decode - self.hash - self.kernel)

    def steps(self, workers: int) -> float:
        """Return the part of the work that the worker with most frames has."""
        return -(-self.frames // workers) / self.frames


def processes(inputs: Inputs, workers: int) -> float:
    """Seconds with forked workers, if all their work scales."""
    return inputs.serial + inputs.work * inputs.steps(workers)


def processes_flat(inputs: Inputs, workers: int) -> float:
    """Seconds with forked workers, if the kernel's part gets no faster with more than two."""
    steps = inputs.steps(workers)
    return inputs.serial + (inputs.work - inputs.kernel) * steps + inputs.kernel * max(steps, 1 / 2)


def threads(inputs: Inputs, workers: int) -> float:
    """Seconds with threads: one at a time runs Python."""
    return inputs.serial + max(inputs.work * inputs.steps(workers), inputs.python)
