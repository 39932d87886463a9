"""The parts of the benchmark. Each answers one question with tables, raw figures, and what had to be shown."""

from __future__ import annotations

from collections.abc import Callable

from parts import cold, imports, log, memory, packing, places, scaling, sizes, steps, warm
from parts.common import Options, Part
from workload import Renderer

PARTS: dict[str, Callable[[Renderer, Options], Part]] = {
    "sizes": sizes.sizes,
    "cold": cold.cold,
    "places": places.places,
    "caches": places.caches,
    "workloads": cold.workloads,
    "frames": sizes.frames,
    "levels": sizes.levels,
    "memory": memory.memory,
    "warm": warm.warm,
    "log": log.log,
    "imports": imports.imports,
    "steps": steps.steps,
    "pack": packing.packing,
    "scaling": scaling.scaling,
}
