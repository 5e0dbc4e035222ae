"""Layers of PyG with the arguments that PyG's own tests of layers try (``test/nn/conv``, 2.8/2.9).

One row per class and combination of constructor and forward arguments that inference knows.
Left out: JIT and ``torch.compile``, errors on bad arguments, CUDA, sparse features.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.nn import aggr

from grids.case import C_DST, TYPES, C, Case

# Channels of results.
OUT = 8
# Not tried, and why.
LEFT_OUT = {
    "CuGraphGATConv": "needs pylibcugraphops",
    "CuGraphRGCNConv": "needs pylibcugraphops",
    "CuGraphSAGEConv": "needs pylibcugraphops",
    "FusedGATConv": "needs dgNN",
    "WLConv": "hashes integer labels: there are no floats",
}
PAIR = (C, C_DST)


def mlp(channels_in: int = C, channels_out: int = OUT) -> nn.Module:
    """Two linear maps."""
    return nn.Sequential(nn.Linear(channels_in, OUT), nn.ReLU(), nn.Linear(OUT, channels_out))


def _degrees() -> torch.Tensor:
    return torch.tensor([0, 2, 5, 9, 12, 14, 9, 6, 2, 1])


def _simple() -> list[Case]:
    """Layers whose tests try forwards more than constructors."""
    return [
        Case("AGNNConv", "", lambda: pyg.AGNNConv(), "x edges"),
        Case("AGNNConv", "fixed beta", lambda: pyg.AGNNConv(requires_grad=False), "x edges"),
        Case("AntiSymmetricConv", "", lambda: pyg.AntiSymmetricConv(C), "x edges"),
        Case("AntiSymmetricConv", "weights", lambda: pyg.AntiSymmetricConv(C), "x edges weight"),
        Case("APPNP", "", lambda: pyg.APPNP(3, 0.1), "x edges"),
        Case("APPNP", "cached", lambda: pyg.APPNP(3, 0.1, cached=True), "x edges", False),
        Case("ARMAConv", "", lambda: pyg.ARMAConv(C, OUT, 3, 2), "x edges"),
        Case("ARMAConv", "lazy", lambda: pyg.ARMAConv(-1, OUT, 3, 2), "x edges"),
        Case("CGConv", "", lambda: pyg.CGConv(C), "x edges"),
        Case("CGConv", "batch norm", lambda: pyg.CGConv(C, batch_norm=True), "x edges"),
        Case("CGConv", "pair", lambda: pyg.CGConv(PAIR), "pair pair_edges"),
        Case("CGConv", "edge_attr", lambda: pyg.CGConv(C, dim=3), "x edges attr_3"),
        Case("CGConv", "edge_attr, pair", lambda: pyg.CGConv(PAIR, 3), "pair pair_edges attr_3"),
        Case("ChebConv", "", lambda: pyg.ChebConv(C, OUT, 3), "x edges", sparse=False),
        Case("ChebConv", "weights", lambda: pyg.ChebConv(C, OUT, 3), "x edges weight"),
        Case(
            "ChebConv",
            "lambda_max",
            lambda: pyg.ChebConv(C, OUT, 3),
            "x edges weight lambda_max=lambda_max",
        ),
        Case("ChebConv", "batch", lambda: pyg.ChebConv(C, OUT, 3), "x batch_edges none batch"),
        Case("ChebConv", "stack", lambda: pyg.ChebConv(C, OUT, 2), "stack edges"),
        Case("ClusterGCNConv", "", lambda: pyg.ClusterGCNConv(C, OUT, 1.0), "x edges"),
        Case("DirGNNConv", "", lambda: pyg.DirGNNConv(pyg.SAGEConv(C, OUT)), "x edges"),
        Case("DirGNNConv", "stack", lambda: pyg.DirGNNConv(pyg.SAGEConv(C, OUT)), "stack edges"),
        Case("DNAConv", "groups", lambda: pyg.DNAConv(C, 4, 8), "history edges"),
        Case("DNAConv", "one head", lambda: pyg.DNAConv(C, 1, 1), "history edges"),
        Case("DNAConv", "weights", lambda: pyg.DNAConv(C, 4, 8), "history edges weight"),
        Case("DNAConv", "cached", lambda: pyg.DNAConv(C, cached=True), "history edges", False),
        Case("EdgeConv", "", lambda: pyg.EdgeConv(mlp(2 * C)), "x edges"),
        Case("EdgeConv", "pair", lambda: pyg.EdgeConv(mlp(2 * C)), "pair_even pair_edges"),
        Case("DynamicEdgeConv", "", lambda: pyg.DynamicEdgeConv(mlp(2 * C), 3), "x"),
        Case("DynamicEdgeConv", "batch", lambda: pyg.DynamicEdgeConv(mlp(2 * C), 3), "x batch"),
        Case("FAConv", "", lambda: pyg.FAConv(C, eps=1.0), "x x_0 edges"),
        Case("FAConv", "cached", lambda: pyg.FAConv(C, eps=1.0, cached=True), "x x_0 edges", False),
        Case(
            "FAConv",
            "attention",
            lambda: pyg.FAConv(C),
            "x x_0 edges return_attention_weights=yes",
        ),
        Case("FeaStConv", "", lambda: pyg.FeaStConv(C, OUT, 2), "x edges"),
        Case("FeaStConv", "pair", lambda: pyg.FeaStConv(C, OUT, 2), "pair_even pair_edges"),
        Case("FiLMConv", "", lambda: pyg.FiLMConv(C, OUT), "x edges"),
        Case("FiLMConv", "relations", lambda: pyg.FiLMConv(C, OUT, 2), "x edges types_2"),
        Case("FiLMConv", "pair", lambda: pyg.FiLMConv(PAIR, OUT), "pair pair_edges"),
        Case(
            "FiLMConv",
            "relations, pair",
            lambda: pyg.FiLMConv(PAIR, OUT, 2),
            "pair pair_edges types_2",
        ),
        Case("GatedGraphConv", "", lambda: pyg.GatedGraphConv(C, 3), "x edges"),
        Case("GatedGraphConv", "weights", lambda: pyg.GatedGraphConv(C, 3), "x edges weight"),
        Case("GravNetConv", "", lambda: pyg.GravNetConv(C, OUT, 4, 8, 3), "x"),
        Case("GravNetConv", "batch", lambda: pyg.GravNetConv(C, OUT, 4, 8, 3), "x batch"),
        Case("GravNetConv", "pair", lambda: pyg.GravNetConv(C, OUT, 4, 8, 3), "pair_even"),
        Case("LEConv", "", lambda: pyg.LEConv(C, OUT), "x edges"),
        Case("LGConv", "", lambda: pyg.LGConv(), "x edges"),
        Case("LGConv", "weights", lambda: pyg.LGConv(), "x edges weight"),
        Case("MeshCNNConv", "", lambda: pyg.MeshCNNConv(C, OUT), "x mesh", sparse=False),
        Case("MFConv", "", lambda: pyg.MFConv(C, OUT), "x edges"),
        Case("MFConv", "pair", lambda: pyg.MFConv(PAIR, OUT), "pair pair_edges"),
        Case("MFConv", "source", lambda: pyg.MFConv(PAIR, OUT), "source pair_edges size"),
        Case("MixHopConv", "", lambda: pyg.MixHopConv(C, OUT, [0, 1, 2, 4]), "x edges"),
        Case("MixHopConv", "weights", lambda: pyg.MixHopConv(C, OUT, [0, 1, 2]), "x edges weight"),
        Case("PANConv", "", lambda: pyg.PANConv(C, OUT, 2), "x edges", False),
        Case("PDNConv", "", lambda: pyg.PDNConv(C, OUT, 3, 16), "x edges attr_3"),
        Case("SGConv", "", lambda: pyg.SGConv(C, OUT, K=4), "x edges"),
        Case("SGConv", "weights", lambda: pyg.SGConv(C, OUT, K=4), "x edges weight"),
        Case("SGConv", "cached", lambda: pyg.SGConv(C, OUT, K=2, cached=True), "x edges", False),
        Case("SSGConv", "", lambda: pyg.SSGConv(C, OUT, 0.1, K=4), "x edges"),
        Case("SSGConv", "weights", lambda: pyg.SSGConv(C, OUT, 0.1, K=4), "x edges weight"),
        Case("SSGConv", "cached", lambda: pyg.SSGConv(C, OUT, 0.1, 2, True), "x edges", False),
        Case("TAGConv", "", lambda: pyg.TAGConv(C, OUT), "x edges"),
        Case("TAGConv", "weights", lambda: pyg.TAGConv(C, OUT), "x edges weight"),
        Case("TAGConv", "stack", lambda: pyg.TAGConv(C, OUT), "stack edges"),
        Case("WLConvContinuous", "", lambda: pyg.WLConvContinuous(), "x edges"),
        Case(
            "WLConvContinuous",
            "weights, source",
            lambda: pyg.WLConvContinuous(),
            "source pair_edges signed size",
        ),
        Case(
            "WLConvContinuous",
            "weights, pair",
            lambda: pyg.WLConvContinuous(),
            "pair_even pair_edges signed",
        ),
    ]


def _native() -> list[Case]:
    """Layers that sum integers."""
    lazy = (-1, -1)
    rows = [
        Case("GCNConv", "", lambda: pyg.GCNConv(C, OUT), "x edges"),
        Case("GCNConv", "weights", lambda: pyg.GCNConv(C, OUT), "x edges weight"),
        Case("GCNConv", "not normalized", lambda: pyg.GCNConv(C, OUT, normalize=False), "x edges"),
        Case("GCNConv", "cached", lambda: pyg.GCNConv(C, OUT, cached=True), "x edges", False),
        Case("GCNConv", "stack", lambda: pyg.GCNConv(C, OUT), "stack edges"),
        Case("GCN2Conv", "", lambda: pyg.GCN2Conv(C, 0.2), "x x_0 edges"),
        Case("GCN2Conv", "weights", lambda: pyg.GCN2Conv(C, 0.2), "x x_0 edges weight"),
        Case(
            "GCN2Conv",
            "two weights",
            lambda: pyg.GCN2Conv(C, 0.2, shared_weights=False),
            "x x_0 edges",
        ),
        Case("GINConv", "", lambda: pyg.GINConv(mlp(), train_eps=True), "x edges"),
        Case("GINConv", "pair", lambda: pyg.GINConv(mlp()), "pair_even pair_edges"),
        Case("GINConv", "source", lambda: pyg.GINConv(mlp()), "source pair_edges size"),
        Case("GINConv", "stack", lambda: pyg.GINConv(mlp()), "stack edges"),
        Case("GraphConv", "", lambda: pyg.GraphConv(C, OUT), "x edges"),
        Case("GraphConv", "weights", lambda: pyg.GraphConv(C, OUT), "x edges signed"),
        Case("GraphConv", "pair", lambda: pyg.GraphConv(PAIR, OUT), "pair pair_edges"),
        Case(
            "GraphConv", "pair, weights", lambda: pyg.GraphConv(PAIR, OUT), "pair pair_edges signed"
        ),
        Case(
            "GraphConv", "source", lambda: pyg.GraphConv(PAIR, OUT), "source pair_edges size=size"
        ),
        Case("GraphConv", "max", lambda: pyg.GraphConv(C, OUT, aggr="max"), "x edges"),
        Case("SAGEConv", "lazy", lambda: pyg.SAGEConv(lazy, OUT), "pair pair_edges"),
        Case("SAGEConv", "lstm", lambda: pyg.SAGEConv(C, OUT, aggr="lstm"), "x sorted_edges"),
        Case(
            "SAGEConv",
            "MLP aggregation",
            lambda: pyg.SAGEConv(C, OUT, aggr=aggr.MLPAggregation(C, C, 16, num_layers=1)),
            "x sorted_edges",
        ),
    ]
    for project, reduce in product((False, True), ("mean", "sum", "max")):
        for kind, channels, given in (
            ("", C, "x edges"),
            ("pair", PAIR, "pair pair_edges"),
            ("source", PAIR, "source pair_edges size=size"),
        ):
            rows.append(
                Case(
                    "SAGEConv",
                    ", ".join([reduce, *["project"] * project, *[kind] * bool(kind)]),
                    lambda c=channels, p=project, r=reduce: pyg.SAGEConv(c, OUT, r, project=p),
                    given,
                )
            )
    several = ["mean", "max", "sum", "softmax"]
    for mode, keywords in (
        ("cat", None),
        ("proj", {"in_channels": C, "out_channels": C}),
        ("attn", {"in_channels": C, "out_channels": C, "num_heads": 4}),
        ("sum", None),
    ):
        options = {"mode": mode, "aggrs_kwargs": [{}, {}, {}, {"learn": True, "t": 1}]}
        if keywords:
            options["mode_kwargs"] = keywords
        rows.append(
            Case(
                "SAGEConv",
                f"several, {mode}",
                lambda o=options: pyg.SAGEConv(C, OUT, aggr=list(several), aggr_kwargs=dict(o)),
                "x edges",
            )
        )
    return rows


def _attention() -> list[Case]:
    """Layers with attention."""
    rows = [
        Case(
            "GeneralConv",
            "pair",
            lambda: pyg.GeneralConv(PAIR, OUT, attention=True),
            "pair pair_edges",
        ),
    ]
    for name, make in (("GATConv", pyg.GATConv), ("GATv2Conv", pyg.GATv2Conv)):
        for residual in (False, True):
            more = ", residual" * residual

            def built(c: Any, make: Any = make, residual: bool = residual, **options: Any) -> Any:
                return make(c, OUT, heads=2, residual=residual, **options)

            rows += [
                Case(name, f"2 heads{more}", lambda b=built: b(C), "x edges"),
                Case(
                    name,
                    f"attention{more}",
                    lambda b=built: b(C),
                    "x edges return_attention_weights=yes",
                ),
                Case(
                    name,
                    f"pair{more}",
                    lambda b=built: b(PAIR, add_self_loops=False),
                    "pair pair_edges",
                ),
            ]
        rows.append(
            Case(name, "not concatenated", lambda m=make: m(C, OUT, 2, concat=False), "x edges")
        )
        for dim, fill in product((1, 8), (0.5, "mean")):
            rows.append(
                Case(
                    name,
                    f"{dim} edge features, fill {fill}",
                    lambda m=make, d=dim, f=fill: m(C, OUT, 2, edge_dim=d, fill_value=f),
                    f"x edges {'weight' if dim == 1 else 'attr_8'}",
                )
            )
    rows.append(
        Case(
            "GATConv",
            "source",
            lambda: pyg.GATConv(PAIR, OUT, 2, add_self_loops=False),
            "source pair_edges size=size",
        )
    )
    for edge_dim, concat in product((None, 8), (True, False)):
        more = f"{'edge_attr' if edge_dim else 'plain'}{'' if concat else ', averaged'}"
        for kind, channels, given in (
            ("", C, "x edges"),
            (", attention", C, "x edges return_attention_weights=yes"),
            (", pair", PAIR, "pair pair_edges"),
        ):
            words = given.split()
            words[2:2] = ["attr_8" if edge_dim else "none"]
            rows.append(
                Case(
                    "TransformerConv",
                    more + kind,
                    lambda c=channels, e=edge_dim, k=concat: pyg.TransformerConv(
                        c, OUT, 2, k, beta=True, edge_dim=e
                    ),
                    " ".join(words),
                )
            )
    general: tuple[dict[str, Any], ...] = (
        {},
        {"skip_linear": True},
        {"directed_msg": False},
        {"heads": 3},
        {"attention": True},
        {"heads": 3, "attention": True},
        {"heads": 3, "attention": True, "attention_type": "dot_product"},
        {"l2_normalize": True},
    )
    for options in general:
        said = ", ".join(f"{k} {v}" for k, v in options.items())
        rows.append(
            Case("GeneralConv", said, lambda o=options: pyg.GeneralConv(C, C, **o), "x edges")
        )
        rows.append(
            Case(
                "GeneralConv",
                f"{said}, edge_attr".lstrip(", "),
                lambda o=options: pyg.GeneralConv(C, C, in_edge_channels=8, **o),
                "x edges attr_8",
            )
        )
    for kind in ("MX", "SD"):
        make = lambda k=kind: pyg.SuperGATConv(C, OUT, 2, attention_type=k)  # noqa: E731
        rows.append(Case("SuperGATConv", kind, make, "x edges"))
        rows.append(Case("SuperGATConv", f"{kind}, batch", make, "x batch_edges batch=batch"))
    for concat in (True, False):
        rows.append(
            Case(
                "HEATConv",
                "" if concat else "averaged",
                lambda k=concat: pyg.HEATConv(C, OUT, 3, 4, 5, 3, 6, heads=2, concat=k),
                "x edges node_types types attr_3",
            )
        )
    return rows


def _relations() -> list[Case]:
    """RGCN and RGAT."""
    rows = []
    for name, make in (("RGCNConv", pyg.RGCNConv), ("FastRGCNConv", pyg.FastRGCNConv)):
        for said, bases, blocks in (("", None, None), ("bases", 2, None), ("blocks", None, 2)):
            for pair in (False, True):
                rows.append(
                    Case(
                        name,
                        ", ".join(filter(None, (said, "pair" * pair))),
                        lambda m=make, b=bases, k=blocks, p=pair: m(
                            PAIR if p else C, OUT, 4, b, k, aggr="sum"
                        ),
                        "pair pair_edges types" if pair else "x edges types",
                    )
                )
        rows.append(
            Case(
                name, "no features", lambda m=make: m(60, OUT, 4), "none edges types", sparse=False
            )
        )
    modes = ("additive-self-attention", "multiplicative-self-attention")
    for where, mode, concat, edge_dim in product(
        ("within-relation", "across-relation"), modes, (True, False), (None, 8)
    ):
        said = [where, mode.partition("-")[0], *["averaged"] * (not concat)]
        rows.append(
            Case(
                "RGATConv",
                ", ".join([*said, *["edge_attr"] * bool(edge_dim)]),
                lambda w=where, m=mode, k=concat, e=edge_dim: pyg.RGATConv(
                    C,
                    OUT,
                    4,
                    attention_mechanism=w,
                    attention_mode=m,
                    heads=2,
                    concat=k,
                    edge_dim=e,
                ),
                f"x edges types {'attr_8' if edge_dim else 'none'}",
            )
        )
    for mod, how in product(
        ("additive", "scaled", "f-additive", "f-scaled"), ("num_bases", "num_blocks")
    ):
        rows.append(
            Case(
                "RGATConv",
                f"{mod}, {how[4:]}",
                lambda m=mod, h=how: pyg.RGATConv(C, OUT, 4, mod=m, heads=2, **{h: 4}),
                "x edges types",
            )
        )
    rows.append(
        Case(
            "RGATConv",
            "attention",
            lambda: pyg.RGATConv(C, OUT, 4, heads=2),
            "x edges types return_attention_weights=yes",
        )
    )
    return rows


def _edge_features() -> list[Case]:
    """Layers whose messages read rows of edges or positions."""
    rows = []
    for kind in ("softmax", "powermean", ["softmax", "powermean"]):
        said = kind if isinstance(kind, str) else "both"

        def gen(c: Any, kind: Any = kind, **options: Any) -> nn.Module:
            return pyg.GENConv(c, OUT, kind, **options)

        rows += [
            Case("GENConv", said, lambda g=gen: g(C, edge_dim=C, msg_norm=True), "x edges"),
            Case("GENConv", f"{said}, edge_attr", lambda g=gen: g(C, edge_dim=8), "x edges attr_8"),
            Case("GENConv", f"{said}, pair", lambda g=gen: g(PAIR), "pair pair_edges"),
            Case(
                "GENConv", f"{said}, source", lambda g=gen: g(PAIR), "source pair_edges size=size"
            ),
            Case(
                "GENConv",
                f"{said}, lazy",
                lambda g=gen: g((-1, -1), edge_dim=-1),
                "pair pair_edges attr_8",
            ),
        ]
    for separate in (True, False):
        said = "separate" if separate else "shared"
        rows += [
            Case(
                "GMMConv",
                f"{said}{', ' * bool(more)}{more}",
                lambda s=separate, c=channels: pyg.GMMConv(c, OUT, 3, 5, separate_gaussians=s),
                given,
            )
            for more, channels, given in (
                ("", C, "x edges attr_3"),
                ("pair", PAIR, "pair pair_edges attr_3"),
                ("source", PAIR, "source pair_edges attr_3 size"),
                ("lazy", -1, "x edges attr_3"),
            )
        ]
    for divide in (True, False):
        rows.append(
            Case(
                "PNAConv",
                "divided" if divide else "",
                lambda d=divide: pyg.PNAConv(
                    C,
                    OUT,
                    ["sum", "mean", "min", "max", "var", "std"],
                    ["identity", "amplification", "attenuation", "linear", "inverse_linear"],
                    _degrees(),
                    edge_dim=3,
                    towers=4,
                    pre_layers=2,
                    post_layers=2,
                    divide_input=d,
                ),
                "x edges attr_3",
            )
        )
    for aggregators, loops in product((["symnorm"], ["sum", "symnorm", "std"]), (True, False)):
        rows.append(
            Case(
                "EGConv",
                f"{' '.join(aggregators)}{'' if loops else ', no loops'}",
                lambda a=aggregators, s=loops: pyg.EGConv(C, OUT, a, add_self_loops=s),
                "x edges",
            )
        )
    for edge_dim in (None, 8):
        attr = "attr_8" if edge_dim else "none"
        for said, channels, given in (("", C, "x edges"), ("pair", PAIR, "pair pair_edges")):
            rows.append(
                Case(
                    "ResGatedGraphConv",
                    ", ".join(filter(None, (said, "edge_attr" * bool(edge_dim)))),
                    lambda c=channels, e=edge_dim: pyg.ResGatedGraphConv(c, OUT, edge_dim=e),
                    f"{given} {attr}",
                )
            )
    for reduce, root in (
        ("mean", None),
        ("sum", "sum"),
        (["mean", "max"], "cat"),
        ("mean", "self_loop"),
    ):
        said = f"{reduce if isinstance(reduce, str) else 'mean max'}, root {root}"
        rows.append(
            Case("SimpleConv", said, lambda r=reduce, o=root: pyg.SimpleConv(r, o), "x edges")
        )
        if root != "self_loop":
            make = lambda r=reduce, o=root: pyg.SimpleConv(r, o)  # noqa: E731
            rows.append(Case("SimpleConv", f"{said}, pair", make, "pair_even pair_edges"))
    rows += [
        Case("GINEConv", "", lambda: pyg.GINEConv(mlp(), train_eps=True), "x edges attr_c"),
        Case("GINEConv", "edge_dim", lambda: pyg.GINEConv(mlp(), edge_dim=8), "x edges attr_8"),
        Case("GINEConv", "pair", lambda: pyg.GINEConv(mlp()), "pair_even pair_edges attr_c"),
        Case("GINEConv", "source", lambda: pyg.GINEConv(mlp()), "source pair_edges attr_c size"),
        Case("GINEConv", "stack", lambda: pyg.GINEConv(mlp()), "stack edges attr_c"),
        Case(
            "HypergraphConv", "", lambda: pyg.HypergraphConv(C, OUT), "x hyper_edges", sparse=False
        ),
        Case(
            "HypergraphConv",
            "weights",
            lambda: pyg.HypergraphConv(C, OUT),
            "x hyper_edges hyper_weight",
        ),
        Case(
            "HypergraphConv",
            "attention",
            lambda: pyg.HypergraphConv(C, OUT, use_attention=True, heads=2),
            "x hyper_edges hyper_weight hyper_attr",
        ),
        Case(
            "HypergraphConv",
            "attention by edge",
            lambda: pyg.HypergraphConv(C, OUT, use_attention=True, attention_mode="edge"),
            "x hyper_edges hyper_weight hyper_attr",
        ),
        Case("NNConv", "", lambda: pyg.NNConv(C, OUT, mlp(3, C * OUT)), "x edges attr_3"),
        Case(
            "NNConv",
            "pair",
            lambda: pyg.NNConv(PAIR, OUT, mlp(3, C * OUT)),
            "pair pair_edges attr_3",
        ),
        Case(
            "NNConv",
            "source",
            lambda: pyg.NNConv(PAIR, OUT, mlp(3, C * OUT)),
            "source pair_edges attr_3 size",
        ),
        Case("PointNetConv", "", lambda: pyg.PointNetConv(mlp(C + 3), mlp(OUT)), "x pos edges"),
        Case(
            "PointNetConv",
            "pair",
            lambda: pyg.PointNetConv(mlp(C + 3), mlp(OUT)),
            "x pos_pair pair_edges",
        ),
        Case(
            "PointGNNConv",
            "",
            lambda: pyg.PointGNNConv(mlp(C, 3), mlp(C + 3, C), mlp(C, C)),
            "x pos edges",
        ),
        Case("PointTransformerConv", "", lambda: pyg.PointTransformerConv(C, OUT), "x pos edges"),
        Case(
            "PointTransformerConv",
            "networks",
            lambda: pyg.PointTransformerConv(C, OUT, mlp(3), mlp(OUT)),
            "x pos edges",
        ),
        Case(
            "PointTransformerConv",
            "pair",
            lambda: pyg.PointTransformerConv(PAIR, OUT),
            "pair pos_pair pair_edges",
        ),
        Case("PPFConv", "", lambda: pyg.PPFConv(mlp(C + 4), mlp(OUT)), "x pos normal edges"),
        Case(
            "PPFConv",
            "pair",
            lambda: pyg.PPFConv(mlp(C + 4), mlp(OUT)),
            "x pos_pair normal_pair pair_edges",
        ),
        Case("SignedConv", "first", lambda: pyg.SignedConv(C, OUT, True), "x edges negative"),
        Case("SignedConv", "later", lambda: pyg.SignedConv(C // 2, OUT, False), "x edges negative"),
        Case("SplineConv", "", lambda: pyg.SplineConv(C, OUT, 3, 5), "x edges attr_3"),
        Case(
            "SplineConv", "pair", lambda: pyg.SplineConv(PAIR, OUT, 3, 5), "pair pair_edges attr_3"
        ),
        Case(
            "SplineConv",
            "source",
            lambda: pyg.SplineConv(PAIR, OUT, 3, 5),
            "source pair_edges attr_3 size",
        ),
        Case("XConv", "", lambda: pyg.XConv(C, OUT, 3, 4, dilation=2), "x pos"),
    ]
    return rows


def _types() -> list[Case]:
    """Layers over types of nodes, and with attention of all nodes."""
    relations = TYPES[1]
    uneven = {"paper": C, "author": C_DST}
    rows = [
        Case("HGTConv", "", lambda: pyg.HGTConv(C, OUT, TYPES, 2), "x_by_type edges_by_type"),
        Case(
            "HGTConv",
            "uneven",
            lambda: pyg.HGTConv(uneven, OUT, TYPES, 2),
            "x_by_type_uneven edges_by_type",
        ),
        Case("HGTConv", "lazy", lambda: pyg.HGTConv(-1, OUT, TYPES, 2), "x_by_type edges_by_type"),
        Case(
            "HANConv",
            "",
            lambda: pyg.HANConv(uneven, OUT, TYPES, 2),
            "x_by_type_uneven edges_by_type",
        ),
        Case("HANConv", "lazy", lambda: pyg.HANConv(-1, OUT, TYPES, 2), "x_by_type edges_by_type"),
    ]
    for kind in ("sum", "mean", "min", "max", "cat", None):
        rows.append(
            Case(
                "HeteroConv",
                str(kind),
                lambda k=kind: pyg.HeteroConv(
                    {
                        relations[0]: pyg.GCNConv(-1, OUT),
                        relations[1]: pyg.SAGEConv((-1, -1), OUT),
                        relations[2]: pyg.GATConv((-1, -1), OUT, edge_dim=3, add_self_loops=False),
                    },
                    aggr=k,
                ),
                "x_by_type_uneven edges_by_type edge_attr_dict=attr_of_by",
            )
        )
    for kind, norm in product(("multihead", "performer"), (None, "batch_norm", "layer_norm")):
        make = lambda k=kind, n=norm: pyg.GPSConv(  # noqa: E731
            C, pyg.SAGEConv(C, C), heads=4, norm=n, attn_type=k
        )
        rows.append(Case("GPSConv", f"{kind}, {norm}", make, "x batch_edges batch"))
    return rows


CASES = [*_simple(), *_native(), *_attention(), *_relations(), *_edge_features(), *_types()]
