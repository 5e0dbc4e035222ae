"""Layers of PyG with their arguments, and known models: from float to a file and back."""

from __future__ import annotations

import pytest
import torch_geometric.nn as pyg
from torch_geometric.nn import conv

from grids import arguments, known_models
from grids.case import Case
from grids.outcome import outcome_of

CASES = [*arguments.CASES, *known_models.CASES]
# One row of every way to run a layer, and of every kind of model; the others are slow.
FAST = {
    *("CGConv edge_attr, pair", "DNAConv weights", "FAConv attention", "MeshCNNConv"),
    *("GATConv 1 edge features, fill mean", "GATv2Conv pair, residual", "GENConv both, source"),
    *(
        "GINEConv stack",
        "SAGEConv lstm",
        "SAGEConv lazy",
        "SAGEConv several, attn",
        "SGConv cached",
    ),
    *(
        "RGCNConv blocks, pair",
        "RGATConv scaled, bases",
        "HGTConv uneven",
        "HeteroConv cat",
        "SGConv cached",
    ),
    *("GPSConv performer, batch_norm", "PNAConv divided", "DynamicEdgeConv batch", "GravNetConv"),
    *("SplineConv source", "HypergraphConv attention by edge", "TransformerConv edge_attr, pair"),
    *("ASAPooling", "SchNet", "GPS multihead", "to_hetero GAT", "readout GMT", "GraphUNet"),
    *("AttentiveFP", "PMLP", "LINKX", "ViSNet", "GroupAddRev"),
}


@pytest.mark.parametrize("case", [c for c in CASES if c.title in FAST], ids=lambda c: c.title)
def test_a_row(case: Case) -> None:
    found = outcome_of(case)
    assert found.passed, found.reason
    assert set(found.runs) - {"float"}  # a part may be: numbers that a message takes in float


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.title)
def test_every_row(case: Case) -> None:
    found = outcome_of(case)
    assert found.passed, found.reason


def test_no_layer_and_no_model_is_forgotten() -> None:
    layers = {case.name for case in arguments.CASES} | arguments.LEFT_OUT.keys()
    assert set(conv.__all__) - {"MessagePassing"} <= layers
    titles = {case.name.replace("++", "PlusPlus") for case in known_models.CASES}
    shown = titles | known_models.LEFT_OUT.keys() | _PARTS
    assert set(pyg.models.__all__) <= shown
    known = [case.title for case in CASES]
    assert len(set(known)) == len(known) and set(known) >= FAST


# Of PyG's models, what is no model by itself.
_PARTS = {
    "ARGA",  # the base of ARGVA
    "DeepGCNLayer",  # rows "DeepGCN"
    "GPSENodeEncoder",
    "HeteroJumpingKnowledge",
    "InnerProductDecoder",
    "JumpingKnowledge",  # rows "jk"
    "MaskLabel",
    "captum_output_to_dicts",
    "to_captum_input",
    "to_captum_model",
}
