"""Hubs whose edges are divided among ranks: the bits of one process, and fewer rows that cross."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contracts.layers import SAMPLES, inputs, packed
from forking import Python
from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.distributed.files import read_contents, read_part, write_parts
from nodebits.distributed.partition import divided, owners
from nodebits.distributed.settings import METHODS
from nodebits.distributed.works import works_of
from nodebits.graph import as_graph
from nodebits.plan.plan import Plan
from packed_models import NODES, small_graph

TESTS = Path(__file__).resolve().parent.parent
HEAD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from torch import nn
from torch_geometric.nn import (ARMAConv, ChebConv, GATConv, GATv2Conv, GCNConv, GENConv, GINConv,
                                GraphConv, PNAConv, ResGatedGraphConv, SAGEConv, TransformerConv)
from packed_models import *
from nodebits.distributed.files import read_part, write_parts
from nodebits.distributed.launch import gathered, joined
from nodebits.distributed.run import run_part
from nodebits.methods import UniformConfig
from ranks import ended, start

folder = Path(sys.argv[1])

def star():
    first = torch.arange(1, NODES)
    return torch.cat([torch.stack([first, 0 * first]), torch.stack([0 * first, first])], 1)

def power_law():
    generator = torch.Generator().manual_seed(5)
    ends = (torch.rand(2, 400, generator=generator) ** 3 * NODES).long()
    return torch.cat([ends, ends[:, :20], torch.tensor([[0, 0, 1], [0, 0, 1]])], 1)

class Net(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)

class Weighted(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
    def forward(self, x, edge_index, edge_weight):
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)

class Smallest(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = SAGEConv(FEATURES, 8, "min"), SAGEConv(8, CLASSES, "max")
    forward = Net.forward

def packed_of(model, x, edges, **others):
    torch.manual_seed(3)
    return convert(two_steps(model, UniformConfig(bits=4), x, edges, **others))

def sent_and_same(packed, x, edges, others, world, above, name):
    parts = folder / name
    about = write_parts(parts, edges, {"x": x}, others, world, split_hubs=above, name="small")
    def work(rank):
        loaded = read_part(parts, rank)
        with joined(30.0) as ranks:
            found = run_part(packed, loaded, ranks.world, 30.0)
            return gathered(found.outputs, loaded.part.nodes, NODES, ranks, 30.0), found.sent
    found = ended(start(world, work, folder), folder)
    expected = packed.predict(x, edges, **others)
    assert torch.equal(found[0][0].view(torch.int32), expected.view(torch.int32)), (name, found)
    return about, sum(sent for _, sent in found)
"""


def check(python: Python, tmp_path: Path, code: str) -> None:
    result = python(HEAD + code, tmp_path, path=[TESTS, TESTS / "distributed"])
    assert result.returncode == 0, result.stderr


SUMS = """
x, _ = small_graph()
weight = torch.rand(500, generator=torch.Generator().manual_seed(1))
models = {
    "gcn": (lambda: Net(GCNConv(FEATURES, 8), GCNConv(8, CLASSES)), False),
    "gin": (lambda: Net(GINConv(nn.Linear(FEATURES, 8)), SAGEConv(8, CLASSES)), False),
    "weighted gcn": (lambda: Weighted(GCNConv(FEATURES, 8), GCNConv(8, CLASSES)), True),
    "weighted": (lambda: Weighted(GraphConv(FEATURES, 8), GraphConv(8, CLASSES)), True),
    "filters": (lambda: Weighted(ChebConv(FEATURES, 8, 3), ARMAConv(8, CLASSES, 2, 2)), True),
    "random walks": (lambda: Weighted(ChebConv(FEATURES, 8, 3, "rw"),
                                      ARMAConv(8, CLASSES, 3, 2, True)), True),
    "extremes": (Smallest, False),
    "attention": (lambda: Net(GATConv(FEATURES, 4, heads=2), GATv2Conv(8, CLASSES)), False),
    "statistics": (lambda: Net(PNAConv(FEATURES, 8, ["mean", "std", "max", "min"], ["identity"],
                                       torch.ones(64)), SAGEConv(8, CLASSES)), False),
    "messages": (lambda: Net(GENConv(FEATURES, 8, norm=None), GENConv(8, CLASSES, "sum")), False),
    "gates": (lambda: Net(ResGatedGraphConv(FEATURES, 8), TransformerConv(8, CLASSES)), False),
}
"""


@pytest.mark.parametrize("worlds", ["3", pytest.param("1, 2, 4, 5, 8", marks=pytest.mark.slow)])
def test_hubs_have_the_bits_of_one_process(python: Python, tmp_path: Path, worlds: str) -> None:
    check(
        python,
        tmp_path,
        SUMS
        + f"""
for graph, edges in {{"star": star(), "power law": power_law()}}.items():
    for name, (model, weighted) in models.items():
        others = {{"edge_weight": weight[: edges.size(1)]}} if weighted else {{}}
        packed = packed_of(model(), x, edges, **others)
        for world in ({worlds},):
            # 1: the edges of nearly all nodes are divided, and ranks have no other ones.
            for above in (1, 9):
                told = f"{{graph}} {{name}} {{world}} {{above}}"
                about, _ = sent_and_same(packed, x, edges, others, world, above, told)
                assert (about.hubs > 0) == (world > 1), told
""",
    )


def test_partial_sums_are_what_is_sent(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        """
x, _ = small_graph()
edges = star()[:, : NODES - 1]  # into node 0 alone
packed = packed_of(Net(SAGEConv(FEATURES, 8), SAGEConv(8, CLASSES)), x, edges)
about, sent = sent_and_same(packed, x, edges, {}, 3, 4, "split")
assert (about.hubs, about.boundary, about.partial) == (1, 0, 2), about
assert sent == about.partial * 4 * (FEATURES + 8)  # int32, in two layers
rows, before = sent_and_same(packed, x, edges, {}, 3, None, "whole")
assert before == rows.boundary * (FEATURES + 8) // 2
# Codes of extremes are bytes.
packed = packed_of(Smallest(), x, edges)
about, sent = sent_and_same(packed, x, edges, {}, 3, 4, "extremes")
assert sent == about.partial * (FEATURES + 8)
# Weighted sums: the owner sends codes of edges, which follow from the weights of all of a row.
weight = {"edge_weight": torch.linspace(0.1, 1, edges.size(1))}
packed = packed_of(Weighted(GraphConv(FEATURES, 8), GraphConv(8, CLASSES)), x, edges, **weight)
about, sent = sent_and_same(packed, x, edges, weight, 3, 4, "weighted")
widths = FEATURES + 8
assert sent == about.partial * 4 * widths + 2 * about.late, (sent, about)
# Sums of codes and of their squares.
def net(layer):
    return packed_of(Net(layer(FEATURES, 8), layer(8, 8)), x, edges)

def pna(*sizes):
    return PNAConv(*sizes, ["std"], ["identity"], torch.ones(64))

about, sent = sent_and_same(net(pna), x, edges, {}, 3, 4, "statistics")
assert sent == 2 * about.partial * 4 * widths, (sent, about)
# Packed rows of the hub go out, its two sums come back: of gated values, and of gates.
about, sent = sent_and_same(net(ResGatedGraphConv), x, edges, {}, 3, 4, "gates")
assert sent == about.partial * 2 * (4 + 2 * 4 * 8), (sent, about)
# Its row, the largest scores and back, and the sums of codes and of rows: of no edge.
about, sent = sent_and_same(net(GATv2Conv), x, edges, {}, 3, 4, "attention")
assert sent == about.partial * 2 * (4 + 3 * 4 + 4 * 8), (sent, about)
""",
    )


def test_hubs_stay_whole_where_messages_have_rows_of_edges_or_kinds() -> None:
    whole = {
        kind.__name__
        for kind, sample in SAMPLES.items()
        if sample.reads in ("graph", "features", "relations")
        and isinstance(plan := packed(kind).plan(*inputs(kind)), Plan)
        and works_of(plan).whole
    }
    gathered = {"AGNNConv", "SuperGATConv"}
    kinds = {"RGCNConv", "FastRGCNConv", "FiLMConv"}
    outer = {"NNConv", "GMMConv"}
    assert whole == {"GENConv", "GINEConv", "CGConv"} | gathered | kinds | outer


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_every_edge_into_a_hub_is_in_one_share(method: str, parts: int) -> None:
    _, edges = small_graph()
    graph = as_graph(edges, NODES)
    owner = owners(graph, parts, method, 8)
    made = list(divided(graph, owner, parts, 8))
    degree = torch.bincount(edges[1], minlength=NODES)
    for rank, part in enumerate(made):
        count = part.nodes.numel() - part.hubs.count
        assert bool((degree[part.nodes[count:]] > 8).all())
        # Sources of hubs come last, and other nodes read none of them.
        halo = [one.nodes[one.send.split(one.send_counts)[rank]] for one in made]
        late = [one.nodes[one.hubs.send.split(one.hubs.send_counts)[rank]] for one in made]
        assert [rows.numel() for rows in late] == part.hubs.receive
        number = torch.cat([part.nodes, *halo, *late])
        targets = part.nodes.repeat_interleave(part.indptr.diff())
        assert torch.equal(
            edges[:, part.edges], torch.stack([number[part.indices.long()], targets])
        )
        before = part.indices[: int(part.indptr[count])]
        assert not before.numel() or int(before.max()) < number.numel() - sum(part.hubs.receive)
        # Edges into hubs of others that this rank's nodes have, by the owner's rows.
        at = 0
        lists = part.hubs.indices.split(part.hubs.indptr.diff().tolist())
        for other, rows in enumerate(part.hubs.shares):
            hubs = made[other].nodes[made[other].nodes.numel() - made[other].hubs.count :]
            some = [hub for hub in hubs if bool((owner[edges[0][edges[1] == hub]] == rank).any())]
            some = some if other != rank else []
            assert len(some) == rows
            for hub, found in zip(some, lists[at : at + rows], strict=True):
                sources = edges[0][edges[1] == hub]
                assert torch.equal(part.nodes[found.long()], sources[owner[sources] == rank])
            at += rows


def test_a_hub_no_longer_makes_one_rank_the_slow_one() -> None:
    star = torch.stack([torch.arange(1, 1001), torch.zeros(1000, dtype=torch.int64)])
    ring = torch.stack([torch.arange(1001), (torch.arange(1001) + 1) % 1001])
    graph = as_graph(torch.cat([star, ring], 1), 1001)

    def work(above: int | None) -> list[int]:
        parts = list(divided(graph, owners(graph, 4, "range", above), 4, above))
        return [
            # Own edges but for those of hubs that others add up, and shares of others' hubs.
            int((part.indices < part.nodes.numel() + sum(part.receive)).sum())
            + part.hubs.indices.numel()
            for part in parts
        ]

    assert max(work(None)) > 1.5 * sum(work(None)) / 4
    assert max(work(100)) < 1.1 * sum(work(100)) / 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x, edges = small_graph()
    write_parts(tmp_path, edges, {"x": x}, {}, 3, split_hubs=8, name="small")
    return tmp_path


def test_other_versions_and_damaged_hubs_are_refused(folder: Path) -> None:
    import json

    from nodebits.runtime import container

    contents = read_contents(folder)
    assert contents.split_hubs == 8 and contents.hubs and contents.partial and contents.late
    path = folder / "part-1.safetensors"
    header, tensors = container.read(path, container.PART)
    about = header["part"]
    for name, value in (("hub_send", NODES), ("hub_indices", NODES), ("hub_indptr", -1)):
        changed = {**tensors, name: tensors[name].clone()}
        changed[name][-1] = value
        container.write(path, container.PART, {"part": about}, changed)
        with pytest.raises((FileFormatError, IndexError, ValueError)):
            read_part(folder, 1)
    for name, wrong in (("hubs", 100), ("hub_receive", [0, 1]), ("hub_shares", [9, 9, 9])):
        container.write(path, container.PART, {"part": {**about, name: wrong}}, tensors)
        with pytest.raises(FileFormatError, match="do not fit"):
            read_part(folder, 1)
    text = json.loads((folder / "partition.json").read_text())
    (folder / "partition.json").write_text(json.dumps({**text, "version": 1}))
    with pytest.raises(FileFormatError, match="version 1, and this release reads version 2"):
        read_part(folder, 0)


def test_what_is_no_number_of_edges(tmp_path: Path) -> None:
    x, edges = small_graph()
    with pytest.raises(ConfigError, match="split_hubs is 0"):
        write_parts(tmp_path, edges, {"x": x}, {}, 2, split_hubs=0, name="small")
