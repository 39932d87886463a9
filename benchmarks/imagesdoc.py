"""docs/images.md, from its template `images.md.in` and the raw figures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import Claim, claims_table, megabytes, spread, table

_NAMES = {
    "full": "(a) *full*: one stage, build tools",
    "slim": "(b) *slim*: two stages, packages as a layer",
    "xz": "(c) *xz*: `tar Jxf` at the top of app.py",
    "unpackenv": "(d) *unpackenv*",
    "fill": "(e) *unpackenv*, names first (`--first`, `--fill behind`)",
    "remote": "(f) *unpackenv*, the archive of (e) by URL",
}
_REPLICAS = {
    "slim": "(b) *slim*: a layer for all",
    "unpackenv": "(d) *unpackenv*: a tree each",
    "shared": "(d) *unpackenv*: one volume for all",
    "fill": "(e) *unpackenv*, on demand: a tree each",
    "fill, shared": "(e) *unpackenv*, behind: one volume for all",
}
_RATES = {"100 Mbit/s": 100e6 / 8, "1 Gbit/s": 1e9 / 8, "10 Gbit/s": 10e9 / 8}

_TEMPLATE = Path(__file__).with_name("images.md.in")


def render(found: dict[str, Any]) -> str:
    """Return the document."""
    images, machine, replicas = found["images"], found["machine"], found["replicas"]
    slim, ours = images["slim"], images["unpackenv"]
    return _TEMPLATE.read_text().format(
        rounds=found["rounds"],
        main=_main(images),
        claims=claims_table([*_claims(images), *_claims_of_names_first(images, replicas), *_claims_of_line(images)]),
        line=_line(images),
        rate=f"{found['line']['rate'] / 1e9:g}",
        latency=found["line"]["latency"],
        loss=_s(_differences(ours["start"], slim["start"])),
        slow=_s(ours["start"]),
        fast=_s(slim["start"]),
        again=_s(ours["restart"]),
        again_plain=_s(slim["restart"]),
        disk_d=megabytes(ours["disk"] + statistics.median(ours["writable"])),
        disk_b=megabytes(slim["disk"] + statistics.median(slim["writable"])),
        writable=_mb(_differences(ours["writable"], slim["writable"])),
        charged_d=_mb(ours["charged"]),
        charged_b=_mb(slim["charged"]),
        anonymous_d=_mb(ours["anonymous"]),
        anonymous_b=_mb(slim["anonymous"]),
        registry_d=megabytes(ours["registry"]),
        registry_b=megabytes(slim["registry"]),
        push_d=_s(ours["push"]),
        push_b=_s(slim["push"]),
        pull_d=_s(ours["pull"]),
        pull_b=_s(slim["pull"]),
        transfer=_transfer(images),
        bytecode=_bytecode(images, found["compiled"]),
        count=found["replica_count"],
        replicas=_replicas_table(replicas),
        memory_source="memory.max_usage_in_bytes" if machine["cgroups"] == "1" else "memory.peak",
        cpus=machine["CPUs"],
        **{name: machine[name] for name in ("engine", "processor", "kernel", "cgroups")},
    )


def _claims(images: dict[str, Any]) -> list[Claim]:
    plain, peer, ours = images["slim"], images["xz"], images["unpackenv"]
    overhead = zip(_differences(ours["start"], plain["start"]), _differences(peer["start"], plain["start"]))
    return [
        Claim("on disk, (d) / (c)", 1.05, ours["disk"] / peer["disk"]),
        Claim("in the registry, (d) / (c)", 1.05, ours["registry"] / peer["registry"]),
        Claim("start beyond that of (b), (d) / (c)", 0.30, statistics.median(own / other for own, other in overhead)),
    ]


def _claims_of_names_first(images: dict[str, Any], replicas: dict[str, Any]) -> list[Claim]:
    plain, ours = images["slim"], images["fill"]

    def compared(name: str, figure: str) -> float:
        pairs = zip(replicas[name], replicas["slim"])
        return float(statistics.median(run[figure] / plain_run[figure] for run, plain_run in pairs))

    def by_each_tree(figure: str) -> float:
        pairs = zip(replicas["fill"], replicas["unpackenv"])
        return float(statistics.median(run[figure] / other[figure] for run, other in pairs))

    return [
        Claim("start beyond that of (b), (e), s", 0.55, statistics.median(_differences(ours["start"], plain["start"]))),
        Claim("replicas, last JPEG, (e) on demand / (d) a tree each", 0.6, by_each_tree("first")),
        Claim("replicas, page cache, (e) on demand / (d) a tree each", 0.6, by_each_tree("cache_first")),
        Claim("replicas on one volume, last JPEG, (e) / (b)", 1.25, compared("fill, shared", "first")),
    ]


def _claims_of_line(images: dict[str, Any]) -> list[Claim]:
    def compared(name: str) -> float:
        pairs = zip(images["remote"]["line"], images[name]["line"])
        return float(statistics.median(own / other for own, other in pairs))

    return [
        Claim("`docker pull` to JPEG over the line, (f) / (d)", 0.60, compared("unpackenv")),
        Claim("`docker pull` to JPEG over the line, (f) / (b)", 0.40, compared("slim")),
    ]


def _line(images: dict[str, Any]) -> str:
    rows = [(_NAMES[key], spread(image["line"], _short)) for key, image in images.items()]
    return table(("image", "`docker pull` to JPEG s"), rows)


def _main(images: dict[str, Any]) -> str:
    header = ("image", "on disk MB", "in the registry MB", "push s", "pull s", "`docker run` to JPEG s",
              "`docker restart` to JPEG s", "peak memory MB", "of processes MB", "writable layer MB")  # fmt: skip
    return table(
        header,
        [
            (
                name,
                megabytes(image["disk"]),
                megabytes(image["registry"]),
                _s(image["push"]),
                _s(image["pull"]),
                spread(image["start"], _short),
                spread(image["restart"], _short),
                _mb(image["charged"]),
                _mb(image["anonymous"]),
                _mb(image["writable"]),
            )
            for name, image in ((_NAMES[key], image) for key, image in images.items())
        ],
    )


def _transfer(images: dict[str, Any]) -> str:
    rows = []
    for key, image in images.items():
        if key == "remote":  # more than its image is transferred
            continue
        here = statistics.median(pull + start for pull, start in zip(image["pull"], image["start"]))
        rows.append((_NAMES[key], _short(here), *(_short(here + image["registry"] / rate) for rate in _RATES.values())))
    return table(("image", "measured, loopback s", *(f"{name} s" for name in _RATES)), rows)


def _bytecode(images: dict[str, Any], compiled: dict[str, Any]) -> str:
    rows = []
    for key, image in compiled.items():
        plain = images[key]
        rows.append(
            (
                _NAMES[key],
                spread(plain["start"], _short),
                spread(image["start"], _short),
                _s(_differences(plain["start"], image["start"])),
                megabytes(image["disk"] - plain["disk"]),
                megabytes(image["registry"] - plain["registry"]),
            )
        )
    header = ("image", "start without s", "start with s", "saved s", "more on disk MB", "more in the registry MB")
    return table(header, rows)


def _replicas_table(replicas: dict[str, Any]) -> str:
    rows = []
    for key, runs in replicas.items():
        values = {name: [run[name] for run in runs] for name in runs[0]}
        rows.append(
            (
                _REPLICAS[key],
                _mb(values["disk"]),
                _mb(values["cache_first"]),
                _mb(values["cache_later"]),
                spread(values["first"], _short),
                spread(values["later"], _short),
            )
        )
    header = ("", "disk MB", "page cache, first start MB", "page cache, restart MB", "last JPEG, first start s",
              "last JPEG, restart s")  # fmt: skip
    return table(header, rows)


def _differences(more: Sequence[float], less: Sequence[float]) -> list[float]:
    """Return the difference within each round."""
    return [one - other for one, other in zip(more, less)]


def _short(value: float) -> str:
    return f"{value:.2f}"


def _s(values: Sequence[float]) -> str:
    return _short(statistics.median(values))


def _mb(values: Sequence[float]) -> str:
    return megabytes(statistics.median(values))
