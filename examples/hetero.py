"""Papers and their authors: two types of nodes, at 8 bits: python hetero.py [EPOCHS]."""

import sys

import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, Linear, SAGEConv
from torch_geometric.transforms import ToUndirected

import nodebits

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
PAPERS, AUTHORS, FIELDS = 300, 90, 3


def papers_and_authors() -> HeteroData:
    """Authors write in a field of their own; the field of a paper is that of its authors."""
    field = torch.arange(AUTHORS) % FIELDS
    data = HeteroData()
    data["author"].x = torch.eye(FIELDS)[field] + 0.8 * torch.randn(AUTHORS, FIELDS)
    data["paper"].y = torch.arange(PAPERS) % FIELDS
    data["paper"].x = torch.randn(PAPERS, 8)
    paper = torch.arange(PAPERS).repeat(3)
    # An author of the paper's field, three times.
    author = torch.randint(AUTHORS // FIELDS, (3 * PAPERS,)) * FIELDS + data["paper"].y[paper]
    data["author", "writes", "paper"].edge_index = torch.stack([author, paper])
    split = torch.randperm(PAPERS)
    for name, part in zip(("train", "val", "test"), split.split([150, 50, 100]), strict=True):
        data["paper"][f"{name}_mask"] = torch.zeros(PAPERS, dtype=torch.bool)
        data["paper"][f"{name}_mask"][part] = True
    return ToUndirected()(data)


class Net(torch.nn.Module):
    """One layer of messages per type of edges, then a linear map for papers."""

    def __init__(self, data: HeteroData, hidden: int = 32) -> None:
        super().__init__()
        widths = {kind: data[kind].num_features for kind in data.node_types}
        self.conv = HeteroConv(
            {kind: SAGEConv((widths[kind[0]], widths[kind[2]]), hidden) for kind in data.edge_types}
        )
        self.head = Linear(hidden, FIELDS)

    def forward(self, x_dict, edge_index_dict):
        return self.head(self.conv(x_dict, edge_index_dict)["paper"].relu())


torch.manual_seed(0)
data = papers_and_authors()
problem = nodebits.train.HeteroProblem(data, "paper")
config = nodebits.FitConfig(epochs=EPOCHS, progress=False)
model = Net(data)
nodebits.fit(model, problem, config)
prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=8))
nodebits.fit(prepared, problem, config)
packed = nodebits.convert(prepared)
for name, one in (("float", model), ("8 bits", packed)):
    print(f"{name:7} {nodebits.train.evaluate(one, problem).value:.3f}")
logits = packed.predict(data.x_dict, data.edge_index_dict)
print("classes of the first papers", logits[:5].argmax(1).tolist())
