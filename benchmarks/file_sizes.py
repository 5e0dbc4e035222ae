"""Files of small models with edge features, as a share of the file of their float weights.

    python benchmarks/file_sizes.py > benchmarks/results/file_sizes.md

The models are those of ``real_tasks.py``, on a random batch of graphs with ids as ZINC has. They
are calibrated and not trained: training changes codes, and hardly the size of a file.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

import nodebits
from nodebits.bench.measure import file_sizes
from real_tasks_models import MODELS, EdgeModel

GRAPHS, NODES, EDGES, NODE_IDS, EDGE_IDS = 64, 23, 50, 28, 4
SHAPES = ((32, 2), (64, 3), (128, 4))
WIDTHS = (8, 4, 2)
TITLE = """# Files of small models

Made by `python benchmarks/file_sizes.py`; its text says of what.
Shares are of a safetensors file of the float weights.

| model | width | layers | float, KiB | 8 bits | 4 bits | 2 bits |
|---|---|---|---|---|---|---|
"""


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x``, ``edge_index``, ``edge_attr`` and ``batch`` of random graphs."""
    graph = torch.arange(GRAPHS).repeat_interleave(EDGES)
    edge_index = torch.randint(NODES, (2, GRAPHS * EDGES)) + NODES * graph
    x = torch.randint(NODE_IDS, (GRAPHS * NODES, 1))
    edge_attr = torch.randint(EDGE_IDS, (GRAPHS * EDGES, 1))
    return x, edge_index, edge_attr, torch.arange(GRAPHS).repeat_interleave(NODES)


def main() -> None:
    """Prints the table."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    args = batch()
    degrees = torch.bincount(torch.bincount(args[1][1], minlength=GRAPHS * NODES)).tolist()
    lines = []
    for name, given in MODELS.items():
        for hidden, layers in SHAPES:
            more = {**given, "hidden": hidden, "layers": layers, "degrees": degrees}
            model = EdgeModel(node_ids=[NODE_IDS], edge_ids=[EDGE_IDS], **more).eval()
            cells = []
            for bits in WIDTHS:
                prepared = nodebits.prepare(model, nodebits.DegreeQuantConfig(bits=bits))
                nodebits.calibrate(prepared, *args)
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.safetensors"
                    nodebits.convert(prepared).save(path)
                    sizes = file_sizes(path, model)
                cells.append(f"{sizes.file / sizes.float_file:.0%}")
            kib = sizes.float_file / 1024
            lines.append(f"| {name} | {hidden} | {layers} | {kib:.0f} | {' | '.join(cells)} |")
    print(TITLE + "\n".join(lines))


if __name__ == "__main__":
    main()
