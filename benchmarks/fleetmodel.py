"""A model of a fleet whose nodes start one image at the same moment: bytes, disk, and time until the last is ready.

    .venv/bin/python benchmarks/fleetmodel.py            prints the tables
    .venv/bin/python benchmarks/fleetmodel.py --write    writes them to docs/fleet.md, and the pictures beside it

What one node takes was measured: docs/images.md. What many take is computed, from the rates of the lines. The part
`fleet` of `make bench` starts some at once over one line, and says how far the model is from that.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tables import table

DOCS = Path(__file__).resolve().parents[1] / "docs"
DOCUMENT = DOCS / "fleet.md"
MB, GBIT = 1e6, 1e9 / 8
NODES = (1, 10, 100, 1_000, 10_000)

# Of the layer with the renderer's packages, as BuildKit makes it by default and with compression=zstd: bytes by codec,
# and seconds until they are unpacked in memory (`--layer`).
LAYER = {"gzip": (138.1 * MB, 2.78), "zstd": (122.7 * MB, 1.13)}
# What a start on demand fetches until the JPEG (docs/remote.md), of an archive of so many bytes; and how much of the
# blocks of a whole tree it has then (docs/performance.md).
FETCHED_ON_DEMAND = 83 / 95.4
BLOCKS_ON_DEMAND = 307 / 557
# Published for images that are fetched lazily: time until ready by that of a whole pull of the same image.
LAZY = (0.5, 1.5)


@dataclass(frozen=True)
class Line:
    """Bytes in a second of a node's line, and of all that the registry sends."""

    node: float
    registry: float

    def rate(self, nodes: int) -> float:
        """Return what each of `nodes` gets that fetch at once."""
        return min(self.node, self.registry / nodes)


@dataclass(frozen=True)
class Way:
    """How a node gets the application. All are of one node; bytes and seconds."""

    name: str
    pulled: float
    """Bytes of the image in the registry."""
    fetched: float
    """Bytes that the start fetches until it is ready."""
    work: float
    """Seconds of pull and start on a line that takes no time."""
    image: float
    """Bytes of the image on disk."""
    tree: float
    """Bytes that each container adds to it, with a directory of its own; on one volume, all together."""

    def ready(self, nodes: int, line: Line) -> float:
        """Return the seconds until the last of `nodes` is ready, as if transfer and work did not overlap."""
        return (self.pulled + self.fetched) / line.rate(nodes) + self.work

    @property
    def bytes(self) -> float:
        """Bytes from the registry, or the server of the archive."""
        return self.pulled + self.fetched


def ways(images: str) -> dict[str, Way]:
    """Return the ways of one node, from what was measured: the text of docs/images.md."""
    rows = {
        letter: [float(re.match(r"[\d.]+", cell).group()) for cell in cells.split(" | ")]  # type: ignore[union-attr]
        for letter, cells in re.findall(r"^\| \((\w)\) [^|]*\| ([\d.]+ \| [\d.]+ \| .*) \|$", images, re.MULTILINE)
        if cells.count("|") == 8
    }

    def way(letter: str, name: str) -> Way:
        disk, registry, _, pull, start, *_, writable = rows[letter]
        return Way(name, registry * MB, 0.0, pull + start, disk * MB, writable * MB)

    slim, behind, remote = way("b", "slim"), way("e", "unpackenv, `behind`"), way("f", "unpackenv by URL, `behind`")
    saved = (LAYER["gzip"][0] - LAYER["zstd"][0], LAYER["gzip"][1] - LAYER["zstd"][1])
    archive = behind.pulled - remote.pulled
    start = rows["e"][4]  # with the archive on its disk: the line adds its own time
    by_url = replace(remote, fetched=archive, work=rows["f"][3] + start)
    on_demand = FETCHED_ON_DEMAND * archive
    return {
        "slim": slim,
        "zstd": replace(slim, name="slim, zstd layers", pulled=slim.pulled - saved[0], work=slim.work - saved[1]),
        "xz": way("c", "`tar Jxf`"),
        "before": way("d", "unpackenv, `before`"),
        "behind": behind,
        "by URL": by_url,
        "on demand": replace(
            by_url, name="unpackenv by URL, `on-demand`", fetched=on_demand, tree=BLOCKS_ON_DEMAND * by_url.tree
        ),
    }


# --- as text and pictures ------------------------------------------------------------------------

LINES = {"1 Gbit/s": Line(GBIT, 10 * GBIT), "10 Gbit/s": Line(10 * GBIT, 100 * GBIT)}
_REGISTRY = dict(zip(LINES, ("10 Gbit/s", "100 Gbit/s")))


def time_table(found: Mapping[str, Way], line: Line) -> str:
    """Return how long it takes until the last node is ready, by the number of nodes."""
    rows = [(way.name, *(_seconds(way.ready(nodes, line)) for nodes in NODES)) for way in found.values()]
    lazy = [
        f"{_seconds(LAZY[0] * at)}–{_seconds(LAZY[1] * at)}" for at in (found["slim"].ready(n, line) for n in NODES)
    ]
    rows.insert(2, ("slim, eStargz or SOCI (published)", *lazy))
    return table(("seconds until the last of N nodes is ready, N =", *(f"{nodes:,}" for nodes in NODES)), rows)


def size_table(found: Mapping[str, Way]) -> str:
    """Return what a node fetches, and what it has on its disk with one container and with four."""
    rows = [
        (
            way.name,
            _megabytes(way.bytes),
            _megabytes(way.image + way.tree),
            _megabytes(way.image + 4 * way.tree),
            _megabytes(way.image + way.tree) if name not in ("slim", "zstd", "xz", "on demand") else "–",
            _terabytes(way.bytes * NODES[-1]),
        )
        for name, way in found.items()
    ]
    header = (
        "a node",
        "fetched MB",
        "disk, 1 container MB",
        "4 containers MB",
        "4 on one volume MB",
        "10,000 nodes fetch TB",
    )
    return table(header, rows)


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _megabytes(value: float) -> str:
    return f"{value / MB:,.0f}"


def _terabytes(value: float) -> str:
    return f"{value / 1e12:.2f}"


def written(text: str) -> str:
    """Return docs/fleet.md with the tables of today's docs/images.md."""
    found = ways((DOCS / "images.md").read_text())
    parts = {"model: sizes": size_table(found)}
    parts.update({f"model: {name}": time_table(found, line) for name, line in LINES.items()})
    for name, shown in parts.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n\n")
        _, end, after = rest.partition("\n\n<!-- end -->")
        assert end, name
        text = before + begin + shown + end + after
    return text


def draw(found: Mapping[str, Way], name: str, path: Path) -> None:
    """Write a picture of the time until the last node is ready."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "unpackenv", "font.size": 11, "svg.fonttype": "none"})
    from matplotlib import pyplot

    line = LINES[name]
    nodes = [round(10 ** (step / 20)) for step in range(81)]
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    slim = [found["slim"].ready(count, line) for count in nodes]
    axes.fill_between(
        nodes, [LAZY[0] * at for at in slim], [LAZY[1] * at for at in slim], color="#bbbbbb", alpha=0.35, linewidth=0,
        label="slim, eStargz or SOCI (published)",
    )  # fmt: skip
    colours = ("#444444", "#999999", "#b8860b", "#1f77b4", "#2ca02c", "#d62728", "#9467bd")
    for way, colour in zip(found.values(), colours):
        axes.plot(nodes, [way.ready(count, line) for count in nodes], label=way.name.replace("`", ""), color=colour)
    axes.set(
        xscale="log", yscale="log", xlabel="nodes that start at the same moment",
        ylabel="seconds until the last is ready",
        title=f"A line of {name} for each node, {_REGISTRY[name]} for the registry",
    )  # fmt: skip
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.4)
    axes.legend(fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


# --- what a layer of packages takes --------------------------------------------------------------


def measure_layer(tree: Path) -> None:
    """Print what a layer with a tree takes by gzip and by zstd, each at its default level, and how long it decodes."""
    import io
    import tarfile
    import time
    import zlib

    import zstandard

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(tree, "usr/local/lib/python3.9/site-packages")
    data = layer.getbuffer()
    packed = {"gzip": zlib.compress(data, 6), "zstd": zstandard.ZstdCompressor(level=3).compress(data)}
    decode: dict[str, Callable[[bytes], bytes]] = {
        "gzip": zlib.decompress,
        "zstd": zstandard.ZstdDecompressor().decompress,
    }
    for codec, content in packed.items():
        times = []
        for _ in range(3):
            began = time.perf_counter()
            decode[codec](content)
            times.append(time.perf_counter() - began)
        print(f"{codec}: {len(content):,} bytes, {sorted(times)[1]:.2f} s")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/fleet.md and its pictures")
    parser.add_argument("--layer", type=Path, metavar="DIR", help="measure a layer with the packages in DIR instead")
    options = parser.parse_args(arguments)
    if options.layer:
        measure_layer(options.layer)
        return
    found = ways((DOCS / "images.md").read_text())
    if not options.write:
        print(size_table(found), *(f"\n{name}\n\n{time_table(found, line)}" for name, line in LINES.items()), sep="\n")
        return
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
    for number, name in enumerate(LINES, 1):
        draw(found, name, DOCS / f"pictures/fleet-{number}.svg")


if __name__ == "__main__":
    main()
