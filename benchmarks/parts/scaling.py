"""From one worker to as many as there are CPUs, and a model of more."""

from __future__ import annotations

import json
import statistics

import measure
import model
from measure import Command, Usage
from parts.common import Options, Part, cold_start, cpus, medians, on_cpus, plain, walls
from parts.steps import taken
from tables import count, seconds, spread, table
from workload import Renderer

MODEL_WORKERS = (1, 2, 4, 8, 16, 32, 64)
_FORMS = ("processes", "threads")
_MODEL = """\
**Computed, not measured**, but for the last two columns. The inputs come from one worker on one CPU, and from its steps
taken one by one. Decoding, hashing and the kernel leave the GIL alone, Python holds it:"""
_LIMITS = """\
It knows nothing of memory bandwidth, of forks, or of locks in the kernel; *flat* is what is to be feared of the last:
the file system's part gets no faster with more than two workers."""


def scaling(renderer: Renderer, options: Options) -> Part:
    """What does each worker gain, and what is to be expected of more CPUs than there are here?"""
    available = cpus()
    workers = [1 << power for power in range(len(available).bit_length())]
    commands = [_command(renderer, form, number, available) for form in _FORMS for number in workers]
    measure.warm_up(commands[0], options.fresh)
    usages = measure.in_turn(commands, options.rounds, options.fresh)
    rows = []
    for form in _FORMS:
        one = medians(usages[_name(form, 1)], lambda usage: usage.wall)
        for number in workers:
            runs = usages[_name(form, number)]
            wall = medians(runs, lambda usage: usage.wall)
            rows.append(
                (
                    _name(form, number),
                    spread(walls(usages)[_name(form, number)].values()),
                    seconds(medians(runs, lambda usage: usage.user)),
                    seconds(medians(runs, lambda usage: usage.system)),
                    count(medians(runs, lambda usage: usage.switches)),
                    f"{one / wall:.2f}",
                )
            )
    header = ("workers, each with a CPU", "wall s", "user s", "system s", "switches", "× faster than 1")
    inputs = _inputs(renderer, options, usages[_name("processes", 1)])
    data: dict[str, object] = {"runs": plain(usages), "model": vars(inputs)}
    return Part([table(header, rows), *_model_text(inputs, usages)], data)


def _inputs(renderer: Renderer, options: Options, runs: list[Usage]) -> model.Inputs:
    """Return what the model needs: medians of runs with one worker, and of the steps taken one by one."""
    rounds = [taken(renderer, options) for _ in range(options.rounds)]
    step = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return model.Inputs(
        wall=medians(runs, lambda usage: usage.wall),
        unpack=medians(runs, _unpack_phase),
        directories=step["make directories"] + step["end directories"],
        decode=step["decode"],
        hash=step["hash"],
        kernel=medians(runs, lambda usage: usage.system),
        frames=round(step["frames"]),
    )


def _unpack_phase(usage: Usage) -> float:
    """Return the seconds of the phase "unpack", from the line of the start."""
    return float(json.loads(usage.output)["phases"]["unpack"]) / 1e3


def _model_text(inputs: model.Inputs, usages: dict[str, list[Usage]]) -> list[str]:
    measured = [
        ("wall", inputs.wall),
        ("serial", inputs.serial),
        ("decode", inputs.decode),
        ("hash", inputs.hash),
        ("kernel", inputs.kernel),
        ("Python", inputs.python),
    ]
    rows = []
    for number in MODEL_WORKERS:
        seen = [usages.get(_name(form, number)) for form in _FORMS]
        walls_seen = [seconds(medians(runs, lambda usage: usage.wall)) if runs else "–" for runs in seen]
        computed = [form(inputs, number) for form in (model.processes, model.processes_flat, model.threads)]
        rows.append((number, *map(seconds, computed), *walls_seen))
    header = ("workers", "processes", "processes, flat", "threads", "processes, measured", "threads, measured")
    return [
        "### A model of more CPUs",
        _MODEL,
        table(("input", "s"), [(name, seconds(value)) for name, value in measured]),
        f"{inputs.frames} frames.",
        model.FORMULA,
        _LIMITS,
        table(header, rows),
    ]


def _command(renderer: Renderer, form: str, number: int, available: list[int]) -> Command:
    env = {"UNPACKENV_WORKERS": str(number), "UNPACKENV_PARALLEL": form, "UNPACKENV_LOG": "json"}
    return on_cpus(cold_start(renderer, _name(form, number), renderer.zstd, **env), available[:number])


def _name(form: str, number: int) -> str:
    return f"{form}, {number}"
