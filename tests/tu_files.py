"""Small data sets in the files of the TU collection."""

from __future__ import annotations

from pathlib import Path

import torch


def write_tu(
    root: Path, name: str, graphs: int = 24, attributes: int = 0, targets: str = "labels"
) -> None:
    """Triangles with node labels 0 to 2, in the files of the TU collection."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)

    def write(part: str, lines: list[str]) -> None:
        (raw / f"{name}_{part}.txt").write_text("\n".join(lines) + "\n")

    corners = [(0, 1), (1, 2), (2, 0)]
    edges = [(3 * g + a + 1, 3 * g + b + 1) for g in range(graphs) for a, b in corners]
    write("A", [f"{a}, {b}" for pair in edges for a, b in (pair, pair[::-1])])
    write("graph_indicator", [str(g + 1) for g in range(graphs) for _ in range(3)])
    write("node_labels", [str(node % 3) for node in range(3 * graphs)])
    if attributes:
        values = torch.arange(3 * graphs * attributes).view(-1, attributes) / 10
        write("node_attributes", [", ".join(map(str, row)) for row in values.tolist()])
    if targets == "labels":
        write("graph_labels", [str(1 + g % 2) for g in range(graphs)])
    elif targets == "attributes":
        write("graph_attributes", [str(g / 7) for g in range(graphs)])
    elif targets == "several":
        write("graph_labels", [f"{g % 2}, {g % 3}" for g in range(graphs)])
