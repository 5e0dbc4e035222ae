"""Edges that lead nowhere: errors name the layer, and the type of edges where there are several."""

from __future__ import annotations

import re
from functools import partial

import pytest
from torch import nn
from torch_geometric.nn import GeneralConv, HANConv, SAGEConv

import nodebits
from nodebits.core.errors import NodeIndexError
from nodebits.methods import UniformConfig
from typed_models import FEATURES, KINDS, Attending, ByRelation, typed_data

KIND = ("author", "writes", "paper")
RELATION = "<author___writes___paper>"
POWERS = partial(SAGEConv, aggr="powermean")
MODELS: dict[str, tuple[nn.Module, str]] = {
    "HeteroConv": (ByRelation(), f"layer 'first.convs.{RELATION}' (SAGEConv)"),
    "tiles": (
        ByRelation(POWERS),
        f"layer 'first.convs.{RELATION}' (SAGEConv)",
    ),
    "messages": (ByRelation(GeneralConv), f"layer 'first.convs.{RELATION}' (GeneralConv)"),
    "HGTConv": (Attending(), f"edges {KIND} of layer 'conv' (HGTConv)"),
    "HANConv": (
        HANConv(FEATURES, 8, (["paper", "author"], KINDS), heads=2),
        f"edges {KIND} of layer '' (HANConv)",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_type_of_edges_is_named(name: str) -> None:
    model, words = MODELS[name]
    data = typed_data()
    prepared = nodebits.prepare(model.eval(), UniformConfig(bits=8, mode="ptq"))
    nodebits.calibrate(prepared, data.x_dict, data.edge_index_dict)
    packed = nodebits.convert(prepared)
    bad = {kind: edges.clone() for kind, edges in data.edge_index_dict.items()}
    bad[KIND][1, 3] = 99
    with pytest.raises(NodeIndexError, match=re.escape(f"{words}: edge_index[1, 3] is 99")):
        packed.predict(data.x_dict, bad)
    with pytest.raises(NodeIndexError, match=r"layer .*: edge_index\[1, 3\] is 99"):
        prepared(data.x_dict, bad)
