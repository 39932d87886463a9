"""Whether packing is worth it: what a pull gains, compared with what the starts after it pay.

    a pull gains    bytes saved / link speed + seconds to unpack the plain layer - those for the packed one
    a start pays    the seconds of the unpack, in each new container

So it depends on how many containers start from one pull. The gain must also be worth another moving
part: a small environment has too little to gain, whatever the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

from unpackenv.report import amount, counted
from unpackenv.report.analyze.measure import Measured

# Bytes: 0.16 s on a link of 1 Gbit/s. A smaller saving is not worth an archive, a runtime and an unpack.
WORTH_SAVING = 20_000_000


@dataclass(frozen=True)
class Circumstances:
    """How the image is used: containers that a node starts for each pull, and the speed of its link in Mbit/s."""

    containers: int = 1
    link: float = 1000


@dataclass(frozen=True)
class Advice:
    """The verdict and the reasons for it; sizes are in bytes, times in seconds."""

    worth_it: bool
    verdict: str
    reasons: list[str]
    saved: float
    """By how much less the registry holds and each pull moves."""
    gained: float
    """By how much a pull is faster."""
    paid: float
    """By how much each start of a new container is slower."""
    break_even: int
    """The largest number of containers for each pull with which the packed image is faster in all."""


def advise(measured: Measured, circumstances: Circumstances) -> Advice:
    """Return the advice for an environment with these measurements."""
    plain, packed, paid = measured.plain, measured.packed, measured.start
    saved = plain.gzip - packed.gzip
    gained = transfer(saved, circumstances) + plain.seconds - packed.seconds
    break_even = max(0, int(gained / paid))
    containers = circumstances.containers
    small, slow = saved < WORTH_SAVING, break_even < containers
    return Advice(
        worth_it=not (small or slow),
        verdict=_verdict(small, slow, saved, break_even, containers),
        reasons=[
            _of_saving(measured, saved),
            _of_times(gained, paid, circumstances),
            _of_break_even(break_even, circumstances),
            *_of_alternatives(measured, saved),
            _of_disk(measured),
        ],
        saved=saved,
        gained=gained,
        paid=paid,
        break_even=break_even,
    )


def transfer(size: float, circumstances: Circumstances) -> float:
    """Return the seconds that `size` bytes take on the link."""
    return size * 8 / (circumstances.link * 1e6)


def _verdict(small: bool, slow: bool, saved: float, break_even: int, containers: int) -> str:
    if small:
        return f"don't: a plain image is better, there is too little to save ({amount(max(0, saved))})"
    if slow:
        return f"don't: a plain image is better for {counted(containers, 'container')} per pull"
    return f"worth it for {counted(containers, 'container')} per pull, and up to {break_even}"


def _of_saving(measured: Measured, saved: float) -> str:
    plain, packed = measured.plain.gzip, measured.packed.gzip
    sizes = f"{amount(packed)} instead of {amount(plain)} in the registry"
    if saved <= 0:
        return f"{sizes}: nothing is saved"
    return f"{sizes}: {saved / plain:.0%} less"


def _of_times(gained: float, paid: float, circumstances: Circumstances) -> str:
    change = f"{abs(gained):.1f} s {'faster' if gained >= 0 else 'slower'}"
    return f"a pull at {circumstances.link:g} Mbit/s is {change}; each new container starts {paid:.2f} s later"


def _of_break_even(break_even: int, circumstances: Circumstances) -> str:
    if not break_even:
        return "so even the first container of a pull is up later than with a plain image"
    return (
        f"so up to {counted(break_even, 'container')} per pull and node, one after the other, are up earlier than with "
        "a plain image; where nodes keep the image and start more, plain is faster"
    )


def _of_alternatives(measured: Measured, saved: float) -> list[str]:
    zstd = measured.plain.zstd
    less = measured.plain.gzip - zstd
    if saved <= 0 or less <= 0:
        return []
    share = f"{less / saved:.0%} of that saving without unpackenv"
    return [f"a plain layer compressed with zstd (docker buildx, compression=zstd) has {amount(zstd)}: {share}"]


def _of_disk(measured: Measured) -> str:
    return (
        f"each container has a tree of its own of {amount(measured.plain.disk)}, unless they share a volume; "
        "a plain layer is there once for all of them"
    )
