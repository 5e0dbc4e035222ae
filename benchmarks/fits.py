"""What fits where, by the shapes of published graphs: tables of docs/guides/beyond.md.

    python benchmarks/fits.py
    python benchmarks/fits.py --write

A layer that is computed for all nodes at once holds the graph (int32 sources, int64 row pointers),
the packed rows that it reads and those that it writes, of 256 columns and the same width, and a
float32 scale and factor for each node. A machine is counted with 92 % of its memory. Nothing here
is measured; ``out_of_core.py`` measures the same arithmetic on graphs that are made.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodebits.out_of_core import predict

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "beyond.md"
BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"
GIB = 1 << 30
HIDDEN, SHARE = 256, 0.92
MACHINES = (8, 24, 139)
WIDTHS = (32, 16, 8, 4, 2, 1)
# What one run from files is given, and the width of its rows.
BOUND, BITS = 8 * GIB, 4


@dataclass(frozen=True)
class Shape:
    """A published graph.

    Attributes:
        name: What it is called.
        nodes: Nodes.
        edges: Edges as models read them, both directions of undirected ones.
        columns: Of its features.
    """

    name: str
    nodes: int
    edges: int
    columns: int

    @property
    def graph(self) -> int:
        """Bytes of its rows."""
        return 4 * self.edges + 8 * (self.nodes + 1)

    def rows(self, bits: int, columns: int = 0) -> int:
        """Bytes of packed rows, of the features by default."""
        return self.nodes * -(-(columns or self.columns) * bits // 8)

    def layer(self, bits: int) -> int:
        """Bytes that a layer takes in memory."""
        return self.graph + self.rows(bits) + self.rows(bits, HIDDEN) + 8 * self.nodes


SHAPES = (
    Shape("ogbn-arxiv", 169_343, 1_166_243, 128),
    Shape("Reddit", 232_965, 114_615_892, 602),
    Shape("ogbn-products", 2_449_029, 123_718_280, 100),
    Shape("ogbn-papers100M", 111_059_956, 1_615_685_872, 128),
    Shape("MAG240M, papers", 121_751_666, 1_297_748_926, 768),
    Shape("MAG240M, all nodes", 244_160_499, 1_728_364_232, 768),
)


def _gib(count: float) -> str:
    size = count / GIB
    return f"{size:.2f}" if size < 1 else f"{size:.1f}" if size < 100 else f"{size:.0f}"


def _head(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def features() -> Iterator[str]:
    """GiB of features at every width, and of the graph."""
    yield from _head("GiB", *(_width(bits) for bits in WIDTHS), "graph")
    for shape in SHAPES:
        cells = [_gib(shape.rows(bits)) for bits in WIDTHS]
        yield f"| {shape.name} | {' | '.join(cells)} | {_gib(shape.graph)} |"


def layers() -> Iterator[str]:
    """GiB of a layer in memory, and the smallest machine that has them."""
    yield from _head("a layer, GiB", *(_width(bits) for bits in WIDTHS))
    for shape in SHAPES:
        cells = []
        for bits in WIDTHS:
            need = shape.layer(bits)
            fitting = [size for size in MACHINES if need <= SHARE * size * GIB]
            where = f"fits {fitting[0]}" if fitting else "none"
            cells.append(f"{_gib(need)}: {where}")
        yield f"| {shape.name} | {' | '.join(cells)} |"


def files() -> Iterator[str]:
    """What a run from files reads and writes in a layer of 256 columns, by its order."""
    names = ("graph", "blocks of targets", "read for them", "blocks of sources", "read and written")
    yield from _head(f"{BITS} bits, {BOUND // GIB} GiB", *names)
    for shape in SHAPES[2:5]:
        row = -(-HIDDEN * BITS // 8)
        table = shape.rows(BITS, HIDDEN)
        held = table <= BOUND // predict.PART
        of_edge = predict.EDGE_BYTES if held else predict.FOUND + row
        left = int(predict.SHARE * (BOUND - table * held))
        blocks = max(-(-shape.edges * of_edge // left), 1)
        # A table that is not held is read for every block: its sources are spread over all of it.
        targets = (1 if held else blocks) * table + shape.graph
        parts = max(-(-table // (BOUND // predict.PART)), 1)
        sums = 4 * HIDDEN * shape.nodes
        sources = table + 2 * shape.graph * (parts > 1) + shape.graph + sums * 2 * parts
        yield (
            f"| {shape.name} | {_gib(shape.graph)} GiB | {blocks} | {_gib(targets)} GiB "
            f"| {parts} | {_gib(sources)} GiB |"
        )


def _width(bits: int) -> str:
    return f"float{bits}" if bits > 8 else f"{bits} bit{'s' * (bits > 1)}"


def tables() -> str:
    """All of them, with what they say."""
    lines = ["Features and graph:", "", *features(), ""]
    lines += [
        f"A layer of all nodes at once, with rows of {HIDDEN} columns, and the smallest memory:",
        "",
        *layers(),
        "",
        "The same layer from files:",
        "",
        *files(),
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    if not parser.parse_args().write:
        print(tables())
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
