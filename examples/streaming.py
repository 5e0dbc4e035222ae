"""Features that stay in a mapped file, and answers for some nodes: python streaming.py [EPOCHS].

The matrix is written, packed and read a piece at a time, as one larger than memory would be.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

import nodebits

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
NODES, COLUMNS, CLASSES, PIECE = 4000, 300, 4, 500

torch.manual_seed(0)
draw = np.random.default_rng(0)
y = draw.integers(CLASSES, size=NODES)
centres = draw.normal(size=(CLASSES, COLUMNS))
matrix = np.lib.format.open_memmap("x.npy", "w+", np.float32, (NODES, COLUMNS))
for begin in range(0, NODES, PIECE):
    rows = slice(begin, begin + PIECE)
    matrix[rows] = centres[y[rows]] + 3 * draw.normal(size=(PIECE, COLUMNS))
matrix.flush()

# Nodes are joined to others of their class, as a rule.
source = np.repeat(np.arange(NODES), 5)
order = np.argsort(y, kind="stable")
same = order[np.searchsorted(y[order], y[source]) + draw.integers(NODES // 8, size=len(source))]
edges = torch.from_numpy(np.stack([np.concatenate([source, same]), np.concatenate([same, source])]))

# A scale per row, which is what models with raw features read.
nodebits.pack_features("x.npy", "x.safetensors", nodebits.Packing(bits=4, granularity="row"))
features = nodebits.PackedFeatures("x.safetensors")
print(f"{Path('x.npy').stat().st_size:,} bytes, packed {Path('x.safetensors').stat().st_size:,}")

data = Data(x=torch.from_numpy(matrix[:]), edge_index=edges, y=torch.from_numpy(y))
part = torch.arange(NODES) % 10
data.train_mask, data.val_mask, data.test_mask = part < 2, part == 2, part > 4
config = nodebits.FitConfig(epochs=EPOCHS, progress=False)
prepared = nodebits.prepare(GraphSAGE(COLUMNS, 32, 2, CLASSES), nodebits.UniformConfig(bits=4))
nodebits.fit(prepared, data, config)
packed = nodebits.convert(prepared)

# A server holds the graph and the packed rows; each question reads the rows of its sample alone.
graph = packed.prepare_graph(edges, NODES)
asked = [9, 19, 29, 3995]
logits = packed.predict_nodes(graph, packed.pack_input(data.x), asked, [10, 10], seed=0)
print("asked about", asked, "found", logits.argmax(1).tolist(), "are", y[asked].tolist())
print(f"all test nodes {nodebits.train.evaluate(packed, data).value:.3f}")
print("a decoded row of the file", features[[7]][0, :4].tolist())
