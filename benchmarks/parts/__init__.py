"""The parts of the benchmark. Each answers one question with tables, raw figures, and claims that must hold."""

from __future__ import annotations

from collections.abc import Callable

from parts import cold, fill, fleet, imports, log, memory, packing, places, remote, scaling, sizes, steps, warm
from parts.common import Options, Part
from workload import Renderer

# What has to be shown first, and what takes longest last: a run that is stopped has not been for nothing.
PARTS: dict[str, Callable[[Renderer, Options], Part]] = {
    "sizes": sizes.sizes,
    "cold": cold.cold,
    "places": places.places,
    "memory": memory.memory,
    "warm": warm.warm,
    "log": log.log,
    "imports": imports.imports,
    "fill": fill.fill,
    "remote": remote.remote,
    "fleet": fleet.fleet,
    "steps": steps.steps,
    "scaling": scaling.scaling,
    "caches": places.caches,
    "workloads": cold.workloads,
    "frames": sizes.frames,
    "levels": sizes.levels,
    "pack": packing.packing,
}
