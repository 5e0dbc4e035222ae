"""Known models of PyG, and of papers made of its parts, at small sizes.

Models that have no forward of features are in :data:`LEFT_OUT` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import aggr, models
from torch_geometric.nn.models.rev_gnn import GroupAddRev
from torch_geometric.nn.pool import global_mean_pool
from torch_geometric.utils import to_dense_adj, to_dense_batch

from grids.case import TYPES, C, Case, N

H, OUT = 16, 8
LEFT_OUT = {
    "CorrectAndSmooth": "propagates predictions, has no parameters",
    "LabelPropagation": "propagates labels, has no parameters",
    "MetaPath2Vec": "an embedding that is looked up; its forward takes no graph",
    "Node2Vec": "an embedding that is looked up; its forward takes no graph",
    "LPFormer": "needs numba",
    "TGNMemory": "writes to its memory between calls: a state, not a forward",
    "RENet": "keeps sequences of events in the data set that its forward takes",
}


def mlp(channels_in: int, channels_out: int) -> nn.Module:
    """Two linear maps."""
    return nn.Sequential(nn.Linear(channels_in, H), nn.ReLU(), nn.Linear(H, channels_out))


class Pooled(nn.Module):
    """A convolution, a pooling of nodes, another convolution, the mean of every graph."""

    def __init__(self, pool: nn.Module, conv: type[nn.Module] = pyg.GCNConv) -> None:
        super().__init__()
        self.first, self.pool = conv(C, H), pool
        self.last, self.lin = conv(H, H), nn.Linear(H, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        if isinstance(self.pool, pyg.EdgePooling | pyg.ClusterPooling):
            x, edge_index, batch, _ = self.pool(x, edge_index, batch)
        elif isinstance(self.pool, pyg.ASAPooling):
            x, edge_index, _, batch, _ = self.pool(x, edge_index, batch=batch)
        else:
            x, edge_index, _, batch, *_ = self.pool(x, edge_index, batch=batch)
        x = self.last(x, edge_index).relu()
        result: Tensor = self.lin(global_mean_pool(x, batch))
        return result


class Read(nn.Module):
    """Two convolutions and an aggregation of every graph's nodes."""

    def __init__(self, readout: nn.Module, width: int = H) -> None:
        super().__init__()
        self.convs = nn.ModuleList([pyg.GINConv(mlp(C, H)), pyg.GINConv(mlp(H, H))])
        self.readout, self.lin = readout, nn.Linear(width, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        x = self.readout(x, batch)
        if isinstance(x, tuple):
            x = x[0].flatten(1)
        result: Tensor = self.lin(x)
        return result


class Dense(nn.Module):
    """A pooling by assignment: sparse, then dense convolutions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.assign = pyg.SAGEConv(C, H), nn.Linear(H, 4)
        self.dense, self.lin = pyg.DenseSAGEConv(H, H), nn.Linear(H, OUT)
        self.dmon = pyg.DMoNPooling([H, H], 4)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.conv(x, edge_index).relu()
        stacked, mask = to_dense_batch(x, batch)
        adjacency = to_dense_adj(edge_index, batch)
        if self.kind == "dmon":
            _, stacked, adjacency, *_ = self.dmon(stacked, adjacency, mask)
        else:
            pool = pyg.dense_diff_pool if self.kind == "diff" else pyg.dense_mincut_pool
            stacked, adjacency, *_ = pool(stacked, adjacency, self.assign(stacked), mask)
        result: Tensor = self.lin(self.dense(stacked, adjacency).mean(1))
        return result


class DeepGCN(nn.Module):
    """Blocks of norm, activation and GENConv with residual connections."""

    def __init__(self, block: str) -> None:
        super().__init__()
        self.node, self.edge = nn.Linear(C, H), nn.Linear(3, H)
        width = H
        self.layers = nn.ModuleList()
        for _ in range(3):
            conv = pyg.GENConv(width, H, aggr="softmax", t=1.0, learn_t=True, num_layers=2)
            norm = nn.LayerNorm(H)
            self.layers.append(pyg.DeepGCNLayer(conv, norm, nn.ReLU(), block=block, dropout=0.1))
            width += H if block == "dense" else 0
        self.lin = nn.Linear(width, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.node(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        result: Tensor = self.lin(x)
        return result


class GPS(nn.Module):
    """Local and global attention, with encodings of edges."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.node, self.edge = nn.Embedding(60, H), nn.Linear(3, H)
        self.convs = nn.ModuleList(
            pyg.GPSConv(H, pyg.GINEConv(mlp(H, H)), heads=4, attn_type=kind) for _ in range(2)
        )
        self.lin = nn.Linear(H, OUT)

    def forward(self, z: Tensor, edge_index: Tensor, batch: Tensor, edge_attr: Tensor) -> Tensor:
        x, edges = self.node(z), self.edge(edge_attr)
        for conv in self.convs:
            x = conv(x, edge_index, batch, edge_attr=edges)
        result: Tensor = self.lin(pyg.global_add_pool(x, batch))
        return result


class Hetero(nn.Module):
    """Two layers over types of nodes."""

    def __init__(self, make: Callable[[int], nn.Module], lins: bool = True) -> None:
        super().__init__()
        self.lins = pyg.HeteroDictLinear(C, H, TYPES[0]) if lins else None
        self.convs = nn.ModuleList([make(H if lins else C), make(H)])
        self.lin = nn.Linear(H, OUT)

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Tensor:
        x = {name: value.clone() for name, value in x_dict.items()}
        if self.lins is not None:
            x = {name: value.relu() for name, value in self.lins(x).items()}
        for conv in self.convs:
            x = {name: value.relu() for name, value in conv(x, edge_index_dict).items()}
        result: Tensor = self.lin(x["paper"])
        return result


class RGCN(nn.Module):
    """Relations over an embedding of every node."""

    def __init__(self, fast: bool) -> None:
        super().__init__()
        conv = pyg.FastRGCNConv if fast else pyg.RGCNConv
        self.first = conv(N, H, 4, num_bases=2)
        self.last = conv(H, OUT, 4, num_bases=2)

    def forward(self, x: Tensor | None, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        result: Tensor = self.last(
            self.first(x, edge_index, edge_type).relu(), edge_index, edge_type
        )
        return result


class Meta(nn.Module):
    """Battaglia's block: edges, nodes, graphs."""

    class _Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = mlp(2 * C + 3, H)

        def forward(
            self, src: Tensor, dst: Tensor, attr: Tensor, u: Tensor, batch: Tensor
        ) -> Tensor:
            result: Tensor = self.mlp(torch.cat([src, dst, attr], 1))
            return result

    class _Nodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = mlp(C + H, H), mlp(C + H, H)

        def forward(
            self, x: Tensor, edges: Tensor, attr: Tensor, u: Tensor, batch: Tensor
        ) -> Tensor:
            sent = self.one(torch.cat([x[edges[0]], attr], 1))
            read = pyg.MeanAggregation()(sent, edges[1], dim_size=x.size(0))
            result: Tensor = self.two(torch.cat([x, read], 1))
            return result

    def __init__(self) -> None:
        super().__init__()
        self.layer = models.MetaLayer(self._Edges(), self._Nodes())
        self.lin = nn.Linear(H, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        x, _, _ = self.layer(x, edge_index, edge_attr)
        result: Tensor = self.lin(x)
        return result


class Encoded(nn.Module):
    """An autoencoder: scores of edges."""

    def __init__(self, auto: nn.Module) -> None:
        super().__init__()
        self.auto = auto

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        z = self.auto.encode(x, edge_index)
        result: Tensor = self.auto.decode(z, edge_index, sigmoid=False)
        return result


class Variational(nn.Module):
    """Means and logarithms of deviations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(C, H)
        self.mean, self.deviation = pyg.GCNConv(H, OUT), pyg.GCNConv(H, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x, edge_index).relu()
        return self.mean(x, edge_index), self.deviation(x, edge_index)


def _corrupted(x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return x.flip(0), edge_index


def _to_hetero(model: nn.Module) -> nn.Module:
    made: nn.Module = pyg.to_hetero(model, TYPES)
    return made


def _pna(**options: Any) -> nn.Module:
    deg = torch.tensor([0, 2, 5, 9, 12, 14, 9, 6, 2, 1])
    scalers = ["identity", "amplification", "attenuation"]
    return pyg.PNA(
        C, H, 2, OUT, aggregators=["mean", "max", "std"], scalers=scalers, deg=deg, **options
    )


def _norm(name: str) -> Any:
    """A norm that takes no width by itself; of others the name is enough."""
    if name in ("GraphSizeNorm", "MeanSubtractionNorm"):
        return getattr(pyg, name)()
    return pyg.DiffGroupNorm(H, 4) if name == "DiffGroupNorm" else name


def _basic() -> list[Case]:
    """PyG's basic models with every jumping knowledge, norm and several activations."""
    rows = [
        Case("GCN", "", lambda: pyg.GCN(C, H, 3, OUT), "x edges edge_weight=weight"),
        Case("GraphSAGE", "", lambda: pyg.GraphSAGE(C, H, 3, OUT), "x edges"),
        Case("GraphSAGE", "max", lambda: pyg.GraphSAGE(C, H, 3, OUT, aggr="max"), "x edges"),
        Case("GIN", "", lambda: pyg.GIN(C, H, 3, OUT), "x edges"),
        Case("GAT", "", lambda: pyg.GAT(C, H, 3, OUT, heads=4), "x edges"),
        Case("GAT", "edges", lambda: pyg.GAT(C, H, 2, OUT, edge_dim=3), "x edges edge_attr=attr_3"),
        Case("GAT", "v2", lambda: pyg.GAT(C, H, 3, OUT, v2=True, heads=4), "x edges"),
        Case("PNA", "", _pna, "x edges"),
        Case("EdgeCNN", "", lambda: pyg.EdgeCNN(C, H, 3, OUT), "x edges"),
    ]
    for jk in ("last", "cat", "max", "lstm"):
        for name in ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN"):
            make = lambda n=name, j=jk: getattr(pyg, n)(C, H, 3, OUT, jk=j)  # noqa: E731
            rows.append(Case(name, f"jk {jk}", make, "x edges"))
    norms = (
        "BatchNorm",
        "LayerNorm",
        "InstanceNorm",
        "GraphNorm",
        "GraphSizeNorm",
        "PairNorm",
        "MeanSubtractionNorm",
        "DiffGroupNorm",
    )
    for norm in norms:
        make = lambda n=norm: pyg.GraphSAGE(C, H, 3, OUT, norm=_norm(n))  # noqa: E731
        rows.append(Case("GraphSAGE", norm, make, "x batch_edges batch=batch"))
    for act in ("elu", "leaky_relu", "gelu", "tanh", "PReLU", None):
        make = lambda a=act: pyg.GCN(C, H, 3, OUT, act=a)  # noqa: E731
        rows.append(Case("GCN", f"act {act}", make, "x edges"))
    return rows


def _of_pyg() -> list[Case]:
    """``torch_geometric.nn.models``, the rest."""
    pair = {"hidden_channels": H, "num_layers": 2}
    return [
        Case("MLP", "", lambda: pyg.MLP([C, H, OUT]), "x", False),
        Case(
            "AttentiveFP",
            "",
            lambda: pyg.AttentiveFP(C, H, OUT, 3, 2, 2),
            "x batch_edges batch_attr batch",
        ),
        Case("GraphUNet", "", lambda: pyg.GraphUNet(C, H, OUT, 3, 0.5), "x undirected", False),
        Case("GNNFF", "", lambda: pyg.GNNFF(5, 5, 2), "z pos batch", False),
        Case("GPSE", "", lambda: models.GPSE(C, 10, H, layers_mp=2), "x_as_data", False),
        Case("SchNet", "", lambda: pyg.SchNet(H, H, 2, 10, 0.8), "z pos batch", False),
        Case(
            "DimeNet", "", lambda: pyg.DimeNet(8, 1, 2, 3, 3, 3, cutoff=0.5), "z pos batch", False
        ),
        Case(
            "DimeNet++",
            "",
            lambda: pyg.DimeNetPlusPlus(8, 1, 2, 4, 3, 4, 3, 3, cutoff=0.5),
            "z pos batch",
            False,
        ),
        Case(
            "ViSNet",
            "",
            lambda: pyg.ViSNet(
                hidden_channels=16, num_heads=4, num_layers=2, num_rbf=8, cutoff=0.6
            ),
            "z pos batch",
            False,
        ),
        Case("LINKX", "", lambda: pyg.LINKX(N, C, H, OUT, 2), "x edges"),
        Case("LINKX", "no features", lambda: pyg.LINKX(N, C, H, OUT, 2), "none edges"),
        Case("LightGCN", "", lambda: pyg.LightGCN(N, H, 3), "edges", False),
        Case("RECT_L", "", lambda: pyg.RECT_L(C, H), "x edges"),
        Case("SignedGCN", "", lambda: pyg.SignedGCN(C, H, 2), "x edges negative"),
        Case("PMLP", "", lambda: pyg.PMLP(C, H, OUT, 3), "x edges"),
        Case(
            "NeuralFingerprint",
            "",
            lambda: pyg.NeuralFingerprint(C, H, OUT, 3),
            "x batch_edges batch",
        ),
        Case(
            "Polynormer",
            "",
            lambda: models.Polynormer(C, H, OUT, local_layers=2),
            "x batch_edges batch",
        ),
        Case("SGFormer", "", lambda: models.SGFormer(C, H, OUT), "x batch_edges batch"),
        Case("ARLinkPredictor", "", lambda: models.ARLinkPredictor(C, **pair), "x edges", False),
        Case("MetaLayer", "", Meta, "x edges attr_3"),
        Case(
            "GroupAddRev",
            "",
            lambda: pyg.Sequential(
                "x, e",
                [
                    (nn.Linear(C, H), "x -> x"),
                    (GroupAddRev(pyg.SAGEConv(H // 2, H // 2), num_groups=2), "x, e -> x"),
                ],
            ),
            "x edges",
        ),
        Case("DeepGraphInfomax", "", _infomax, "x edges"),
        Case("GAE", "", lambda: Encoded(pyg.GAE(pyg.GCN(C, H, 2, OUT))), "x edges", False),
        Case("VGAE", "", lambda: Encoded(pyg.VGAE(Variational())), "x edges", False),
        Case(
            "ARGVA",
            "",
            lambda: Encoded(pyg.ARGVA(Variational(), nn.Linear(OUT, 1))),
            "x edges",
            False,
        ),
        *(
            Case("DeepGCN", block, lambda b=block: DeepGCN(b), "x edges")
            for block in ("res+", "res", "dense", "plain")
        ),
    ]


def _infomax() -> nn.Module:
    return pyg.DeepGraphInfomax(
        H, pyg.GCN(C, H, 2), lambda z, *args: z.mean(0).sigmoid(), _corrupted
    )


def _of_papers() -> list[Case]:
    """Models of papers and of PyG's examples."""
    kinds = TYPES[1]
    sage = lambda c: pyg.HeteroConv({k: pyg.SAGEConv((c, c), H) for k in kinds})  # noqa: E731
    gat = lambda c: pyg.HeteroConv(  # noqa: E731
        {k: pyg.GATConv((c, c), H, add_self_loops=False) for k in kinds}
    )
    given = "x_by_type edges_by_type"
    rows = [
        Case("GPS", "multihead", lambda: GPS("multihead"), "z batch_edges batch batch_attr"),
        Case("GPS", "performer", lambda: GPS("performer"), "z batch_edges batch batch_attr"),
        Case("HeteroConv", "SAGE", lambda: Hetero(sage), given),
        Case("HeteroConv", "GAT", lambda: Hetero(gat), given),
        Case("HGT", "", lambda: Hetero(lambda c: pyg.HGTConv(c, H, TYPES, 2)), given),
        Case("HAN", "", lambda: Hetero(lambda c: pyg.HANConv(c, H, TYPES, 2)), given),
        Case(
            "to_hetero", "GraphSAGE", lambda: _to_hetero(pyg.GraphSAGE((-1, -1), H, 2, OUT)), given
        ),
        Case(
            "to_hetero",
            "GAT",
            lambda: _to_hetero(pyg.GAT((-1, -1), H, 2, OUT, add_self_loops=False)),
            given,
        ),
        Case("RGCN", "features", lambda: RGCN(False), "one_hot edges types"),
        Case("RGCN", "fast", lambda: RGCN(True), "one_hot edges types"),
        Case(
            "DirGNN",
            "",
            lambda: pyg.Sequential(
                "x, e",
                [
                    (pyg.DirGNNConv(pyg.GCNConv(C, H)), "x, e -> x"),
                    nn.ReLU(inplace=True),
                    (pyg.DirGNNConv(pyg.GATv2Conv(H, OUT, add_self_loops=False)), "x, e -> x"),
                ],
            ),
            "x edges",
        ),
        Case(
            "AntiSymmetric",
            "",
            lambda: pyg.Sequential(
                "x, e", [(pyg.AntiSymmetricConv(C, num_iters=3), "x, e -> x"), nn.Linear(C, OUT)]
            ),
            "x edges",
        ),
        Case(
            "SGC",
            "",
            lambda: pyg.Sequential("x, e", [(pyg.SGConv(C, OUT, 2), "x, e -> x")]),
            "x edges",
        ),
    ]
    pools: tuple[tuple[str, Callable[[], nn.Module]], ...] = (
        ("TopKPooling", lambda: pyg.TopKPooling(H, 0.5)),
        ("SAGPooling", lambda: pyg.SAGPooling(H, 0.5)),
        ("SAGPooling, GAT", lambda: pyg.SAGPooling(H, 0.5, GNN=pyg.GATConv)),
        ("EdgePooling", lambda: pyg.EdgePooling(H)),
        ("ASAPooling", lambda: pyg.ASAPooling(H, 0.5)),
        ("ASAPooling, GCN", lambda: pyg.ASAPooling(H, 0.5, GNN=pyg.GCNConv)),
    )
    for name, pool in pools:
        rows.append(Case(name, "", lambda p=pool: Pooled(p()), "x batch_edges batch", False))
    rows += [
        Case("PANPooling", "", Pan, "x batch_edges batch", False),
        *(
            Case("Dense", k, lambda k=k: Dense(k), "x batch_edges batch", False)
            for k in ("diff", "mincut", "dmon")
        ),
    ]
    return rows


class Pan(nn.Module):
    """PAN: the path integral based convolution and its pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = pyg.PANConv(C, H, 2), pyg.PANPooling(H, 0.5)
        self.lin = nn.Linear(H, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x, matrix = self.conv(x, edge_index)
        x, _, _, batch, _, _ = self.pool(x.relu(), matrix, batch)
        result: Tensor = self.lin(global_mean_pool(x, batch))
        return result


def _readouts() -> list[Case]:
    """Every aggregation module as the readout of a GIN."""
    kinds: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "sum": (aggr.SumAggregation, H),
        "mean": (aggr.MeanAggregation, H),
        "max": (aggr.MaxAggregation, H),
        "min": (aggr.MinAggregation, H),
        "mul": (aggr.MulAggregation, H),
        "var": (aggr.VarAggregation, H),
        "std": (aggr.StdAggregation, H),
        "softmax": (lambda: aggr.SoftmaxAggregation(learn=True), H),
        "powermean": (lambda: aggr.PowerMeanAggregation(learn=True), H),
        "median": (aggr.MedianAggregation, H),
        "quantile": (lambda: aggr.QuantileAggregation([0.25, 0.75]), 2 * H),
        "LSTM": (lambda: aggr.LSTMAggregation(H, H), H),
        "GRU": (lambda: aggr.GRUAggregation(H, H), H),
        "Set2Set": (lambda: aggr.Set2Set(H, 3), 2 * H),
        "degree scaler": (
            lambda: aggr.DegreeScalerAggregation(
                ["mean", "max"], ["identity", "amplification"], torch.tensor([0, 0, 4, 1])
            ),
            4 * H,
        ),
        "sort": (lambda: aggr.SortAggregation(5), 5 * H),
        "GMT": (lambda: aggr.GraphMultisetTransformer(H, k=4, heads=2), H),
        "attentional": (lambda: aggr.AttentionalAggregation(mlp(H, 1), mlp(H, H)), H),
        "MLP": (lambda: aggr.MLPAggregation(H, H, 16, num_layers=1), H),
        "deep sets": (lambda: aggr.DeepSetsAggregation(mlp(H, H), mlp(H, H)), H),
        "set transformer": (lambda: aggr.SetTransformerAggregation(H, heads=2), H),
        "LCM": (lambda: aggr.LCMAggregation(H, H), H),
        "variance preserving": (aggr.VariancePreservingAggregation, H),
        "patch transformer": (lambda: aggr.PatchTransformerAggregation(H, H, 4, H, heads=2), H),
        "several": (lambda: aggr.MultiAggregation(["mean", "max", "std"]), 3 * H),
        "MemPooling": (lambda: pyg.MemPooling(H, 8, heads=2, num_clusters=2), 16),
    }
    return [
        Case("readout", name, lambda m=make, w=width: Read(m(), w), "x batch_edges batch", False)
        for name, (make, width) in kinds.items()
    ]


CASES = [*_basic(), *_of_pyg(), *_of_papers(), *_readouts()]
