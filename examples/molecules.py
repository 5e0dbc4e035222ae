"""A number per graph: made-up molecules whose bonds have features: python molecules.py [EPOCHS]."""

import random
import sys

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GINEConv, global_add_pool

import nodebits

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
ATOMS, BONDS = 4, 3
# What an atom and a bond add to the property that is learned.
WEIGHT, ORDER = (0.1, 0.4, -0.3, 0.2), (0.05, 0.15, 0.3)


def molecule(draw: random.Random) -> Data:
    """A random tree of atoms with a ring closed in it."""
    size = draw.randint(6, 14)
    kinds = [draw.randrange(ATOMS) for _ in range(size)]
    pairs = [(i, draw.randrange(i)) for i in range(1, size)] + [(0, size - 1)]
    bonds = [draw.randrange(BONDS) for _ in pairs]
    edges = torch.tensor(pairs + [(b, a) for a, b in pairs]).t()
    features = torch.eye(BONDS)[bonds + bonds]
    y = sum(WEIGHT[kind] for kind in kinds) + sum(ORDER[bond] for bond in bonds) - 1.5
    return Data(torch.eye(ATOMS)[kinds], edges, features, torch.tensor([y]))


class Net(nn.Module):
    """Two GINE layers, the sum over atoms, and a linear map."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(ATOMS, hidden)
        self.convs = nn.ModuleList(
            GINEConv(nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU()), edge_dim=BONDS)
            for _ in range(2)
        )
        self.head = nn.Linear(hidden, 1)

    def forward(self, x, edge_index, edge_attr, batch):
        x = self.first(x)
        for conv in self.convs:
            x = conv(x, edge_index, edge_attr)
        return self.head(global_add_pool(x, batch))


torch.manual_seed(0)
draw = random.Random(0)
graphs = [molecule(draw) for _ in range(400)]
splits = (graphs[:280], graphs[280:340], graphs[340:])
task = {"task": "graph-regression", "metric": "mae"}
config = nodebits.FitConfig(epochs=EPOCHS, lr=3e-3, batch_size=32, progress=False)

model = Net()
nodebits.fit(model, splits, config, **task)
prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8))
nodebits.fit(prepared, splits, config, **task)
packed = nodebits.convert(prepared)
spread = torch.cat([graph.y for graph in splits[2]]).std()
print(f"deviation of the targets  {float(spread):.3f}")
for name, one in (("float", model), ("8 bits", packed)):
    print(f"{name:7} off on average   {nodebits.train.evaluate(one, splits, **task).value:.3f}")
