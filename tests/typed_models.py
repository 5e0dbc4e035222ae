"""Small models and data of several types of nodes and edges, for tests of plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import (
    GAT,
    GATConv,
    GCNConv,
    GraphSAGE,
    HeteroConv,
    HGTConv,
    RGCNConv,
    SAGEConv,
    to_hetero,
)

import nodebits
from nodebits.plan.plan import Plan
from nodebits.runtime.planned import NOTHING

FEATURES = 12
KINDS = [
    ("paper", "cites", "paper"),
    ("author", "writes", "paper"),
    ("paper", "written_by", "author"),
]


def typed_data(papers: int = 40, authors: int = 25, edges: int = 120, seed: int = 0) -> HeteroData:
    generator = torch.Generator().manual_seed(seed)
    data = HeteroData()
    sizes = {"paper": papers, "author": authors}
    for kind, size in sizes.items():
        data[kind].x = torch.rand(size, FEATURES, generator=generator) - 0.3
    for i, kind in enumerate(KINDS):
        count = edges // (i + 1)
        ends = [
            torch.randint(0, sizes[k], (count,), generator=generator) for k in (kind[0], kind[2])
        ]
        data[kind].edge_index = torch.stack(ends)
    return data


class ByRelation(nn.Module):
    """Two layers with a convolution per type of edges."""

    def __init__(
        self, conv: Callable[..., nn.Module] = SAGEConv, aggr: str | None = "sum", **options: Any
    ) -> None:
        super().__init__()
        wide = (FEATURES, FEATURES)
        self.first = HeteroConv({k: conv(wide, 8, **options) for k in KINDS}, aggr=aggr)
        self.last = HeteroConv({k: conv((8, 8), 5, **options) for k in KINDS})

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> Any:
        x = {k: v.relu() for k, v in self.first(x_dict, edge_index_dict).items()}
        return self.last(x, edge_index_dict)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = HGTConv(FEATURES, 8, (["paper", "author"], KINDS), heads=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> Tensor:
        result: Tensor = self.head(self.conv(x_dict, edge_index_dict)["paper"].relu())
        return result


class OfHeteroData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = ByRelation()

    def forward(self, data: HeteroData) -> Tensor:
        result: Tensor = self.model(data.x_dict, data.edge_index_dict)["paper"]
        return result


class OfData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(FEATURES, 5)

    def forward(self, data: Data) -> Tensor:
        result: Tensor = self.conv(data.x, data.edge_index).relu()
        return result


class Relational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = RGCNConv(FEATURES, 5, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        result: Tensor = self.conv(x, edge_index, edge_type).relu()
        return result


def _metadata() -> Any:
    return ["paper", "author"], KINDS


MODELS: dict[str, Callable[[], nn.Module]] = {
    "HeteroConv": ByRelation,
    "HeteroConv of GAT": lambda: ByRelation(GATConv, add_self_loops=False),
    "to_hetero": lambda: to_hetero(GraphSAGE((FEATURES, FEATURES), 8, 2, 5), _metadata()),
    "to_hetero of GAT": lambda: to_hetero(
        GAT((FEATURES, FEATURES), 8, 2, 5, add_self_loops=False), _metadata()
    ),
    "HeteroData": OfHeteroData,
    "Data": OfData,
    "HGT": Attending,
    "RGCN": Relational,
}


def arguments(name: str, data: HeteroData) -> tuple[Any, ...]:
    """What a model of :data:`MODELS` is called with."""
    edges = data[KINDS[0]].edge_index
    if name == "HeteroData":
        return (data,)
    if name == "Data":
        return (Data(x=data["paper"].x, edge_index=edges),)
    if name == "RGCN":
        return data["paper"].x, edges, torch.arange(edges.size(1)) % 3
    return data.x_dict, data.edge_index_dict


def packed_of(model: nn.Module, *args: Any, **keywords: Any) -> nodebits.PackedModel:
    prepared = nodebits.prepare(model.eval(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, *args, **keywords)
    return nodebits.convert(prepared)


def plan_of(packed: nodebits.PackedModel, *args: Any, **keywords: Any) -> Plan:
    plan = packed.plan(*args, **keywords)
    assert isinstance(plan, Plan), plan
    return plan


def same(a: Any, b: Any) -> bool:
    """Whether two results are one, dictionaries and what is missing in them too."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if not isinstance(a, Tensor):
        return a is b
    return torch.equal(a, b)


def compare(packed: nodebits.PackedModel, *args: Any, **keywords: Any) -> Any:
    """What the module returns, which its plan must too."""
    with torch.no_grad():
        expected = packed.module(*args, **keywords)
    found = packed._plans.result(args, keywords)
    assert found is not NOTHING, "no plan was used"
    assert same(found, expected)
    return expected


def as_arrays(value: Any) -> Any:
    """An argument as lite takes it."""
    if isinstance(value, HeteroData):
        stores = [*value.node_items(), *value.edge_items()]
        return {kind: as_arrays(store.to_dict()) for kind, store in stores}
    if isinstance(value, dict):
        return {key: as_arrays(part) for key, part in value.items()}
    return value.numpy()


def leaves(value: Any) -> list[Any]:
    """The arrays of a result."""
    return [np.asarray(one) for one in (value.values() if isinstance(value, dict) else [value])]
