"""Edges with targets, links among pairs that are none, and what is wrong with pairs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN
from torch_geometric.transforms import RandomLinkSplit

import nodebits
from nodebits.core.errors import ConfigError, LabelError, NodeIndexError, ShapeError
from nodebits.models import PairModel
from nodebits.train import (
    FitConfig,
    OverlappingSplitsError,
    PairProblem,
    as_problem,
    evaluate,
    fit,
    predict_logits,
)

FIT = FitConfig(epochs=40, lr=0.02, progress=False)
NODES = 60


def ring(reach: int = 3) -> Data:
    """Nodes on a circle, joined to the next ones; features say where a node is."""
    near = torch.arange(NODES)
    pairs = [torch.stack([near, (near + step) % NODES]) for step in range(1, reach + 1)]
    edges = torch.cat(pairs, dim=1)
    angle = near * 2 * torch.pi / NODES
    waves = [f(angle * k) for k in (1, 2, 3, 4) for f in (torch.sin, torch.cos)]
    return Data(x=torch.stack(waves, 1), edge_index=torch.cat([edges, edges.flip(0)], 1))


def model(outputs: int = 1, head: str | None = None) -> PairModel:
    return PairModel(GCN(8, 24, 1, 24), 24, outputs, head)


@pytest.mark.parametrize(("task", "least"), [("link", 0.85), ("link-ranking", 0.45)])
def test_links_are_found_distilled_packed_and_saved(task: str, least: float, tmp_path: Any) -> None:
    problem = as_problem(ring(), task)
    assert problem.task.name == task
    float_model = model()
    found = fit(float_model, problem, FIT)
    assert found.val.value > least, found
    config = nodebits.UniformConfig(bits=4)
    prepared = nodebits.prepare(float_model, config)
    teacher = predict_logits(float_model, problem)
    fit(prepared, problem, FIT.replace(epochs=20), method=config, teacher_logits=teacher)
    packed = nodebits.convert(prepared)
    packed.save(tmp_path / "m.safetensors")
    again = nodebits.load(tmp_path / "m.safetensors", model=float_model)
    assert evaluate(again, problem) == evaluate(prepared, problem)
    assert evaluate(again, problem).value > least - 0.1
    # A plan made for some pairs answers any number of them.
    pairs, data = problem.pairs, ring()
    whole = again.predict(data.x, data.edge_index, pairs)
    assert again.plan() is not None
    assert again.predict(data.x, data.edge_index, pairs[:, 5:7]).equal(whole[5:7])


def test_the_split_of_pyg_and_its_pairs_are_used() -> None:
    split = RandomLinkSplit(0.1, 0.2, is_undirected=True, add_negative_train_samples=True)
    parts = split(ring())
    problem = as_problem(parts)
    assert problem.task.name == "link"
    assert problem.labels[problem.indices["val"], 0].tolist() == parts[1].edge_label.tolist()
    assert len(problem.indices["train"]) == parts[0].edge_label.numel()
    found = fit(model(head="mlp"), parts, FIT, metric="average_precision")
    assert found.val.name == "average_precision" and found.val.value > 0.75
    assert fit(model(), parts[:2], FIT.replace(epochs=1)).val.count == len(parts[1].edge_label)


def test_pairs_that_are_no_links_are_drawn_anew_every_epoch() -> None:
    problem = as_problem(ring(), "link")
    steps = [next(iter(problem.steps(1, torch.Generator().manual_seed(n)))) for n in range(6)]
    drawn = {tuple(step.rows[len(step.rows) // 2 :].tolist()) for step in steps}
    assert 1 < len(drawn) <= 5
    whole = ring().edge_index
    edges = set((whole[0] * NODES + whole[1]).tolist())
    for step in steps:
        pairs = step.inputs.others["edge_label_index"]
        ones = step.labels[:, 0] == 1
        keys = pairs[0] * NODES + pairs[1]
        assert int(ones.sum()) * 2 == len(ones)
        assert not edges & set(keys[~ones].tolist()) and edges >= set(keys[ones].tolist())
    again = as_problem(ring(), "link")
    assert torch.equal(again.pairs, problem.pairs), "a seed draws the same pairs"


def test_wrong_targets_of_a_ranking_share_their_source() -> None:
    problem = as_problem(ring(), "link-ranking")
    rows = problem.indices["test"]
    pairs, labels = problem.pairs[:, rows], problem.labels[rows]
    links = {int(q): int(s) for s, (y, q) in zip(pairs[0], labels, strict=True) if y == 1}
    assert len(links) == int(labels[:, 0].sum())
    for source, (y, query) in zip(pairs[0].tolist(), labels.tolist(), strict=True):
        assert y == 1 or links[int(query)] == source
    assert int((labels[:, 0] == 0).sum()) == 20 * len(links)


def edge_data(label: Tensor) -> Data:
    data = ring()
    third = torch.arange(data.num_edges) % 3
    masks = {f"{s}_mask": third == n for n, s in enumerate(("train", "val", "test"))}
    return Data(x=data.x, edge_index=data.edge_index, edge_label=label, **masks)


def test_edges_with_classes_and_numbers() -> None:
    edges = ring().edge_index
    apart = (edges[1] - edges[0]) % NODES
    forward = (apart < NODES // 2).long()
    data = edge_data(forward)
    found = fit(model(2), data, FIT, task="edge", class_weight="balanced", metric="f1_macro")
    assert found.val.f1_macro > 0.9
    numbers = edge_data(data.x[edges[0], 0] + data.x[edges[1], 1])
    found = fit(model(1, "mlp"), numbers, FIT, task="edge-regression", loss="mse", metric="r2")
    assert found.val.r2 > 0.6
    with pytest.raises(LabelError, match="edge_label is missing"):
        fit(model(2), Data(x=data.x, edge_index=edges), FIT, task="edge")


def test_types_of_links() -> None:
    data = ring()
    apart = (data.edge_index[1] - data.edge_index[0]) % NODES
    data.edge_label = (apart < NODES // 2).long()
    problem = as_problem(data, "link-classification")
    assert sorted(problem.labels[problem.indices["test"]].unique().tolist()) == [0, 1, 2]
    assert fit(model(3), problem, FIT).val.accuracy > 0.6


class Loader:
    """What LinkNeighborLoader gives and holds, without a sampler."""

    def __init__(self, data: Data, pairs: Tensor, triplets: bool) -> None:
        self.data, self.edge_label_index, self.triplets = data, pairs, triplets
        self.input_data = SimpleNamespace(row=pairs[0], col=pairs[1], label=None)

    def __iter__(self) -> Any:
        zeros = torch.randint(0, NODES, self.edge_label_index.shape)
        for own in torch.randperm(self.edge_label_index.size(1)).split(50):
            batch, pairs = self.data.clone(), self.edge_label_index[:, own]
            if self.triplets:
                batch.src_index, batch.dst_pos_index = pairs
                batch.dst_neg_index = zeros[:, own].T
            else:
                batch.edge_label_index = torch.cat([pairs, zeros[:, own]], 1)
                batch.edge_label = torch.cat([torch.ones(len(own)), torch.zeros(len(own))])
            yield batch


_LOADED = [("link", False), ("link", True), ("link-ranking", True)]


@pytest.mark.parametrize(("task", "triplets"), _LOADED)
def test_loaders_of_links_train_and_the_whole_graph_validates(task: str, triplets: bool) -> None:
    data = ring()
    edges = data.edge_index[:, : data.num_edges // 2]
    loaders = tuple(Loader(data, edges[:, n::3], triplets) for n in range(3))
    found = fit(model(), loaders, FIT.replace(epochs=8), task=task)
    assert found.val.value > (0.7 if task == "link" else 0.3)
    assert found.val.count >= 2 * edges[:, 1::3].size(1)


def test_a_model_that_returns_no_row_per_pair_is_told_of_the_head() -> None:
    class Nodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gnn = GCN(8, 8, 1, 1)

        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.gnn(x, edge_index)

    with pytest.raises(ShapeError, match=r"\[60, 1\] for \d+ links: .*PairModel"):
        fit(Nodes(), ring(), FIT, task="link")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"edge_label_index": torch.tensor([[0], [99]])}, NodeIndexError, r"val: .*\[1, 0\] is 99"),
        ({"edge_label_index": torch.zeros(3, 2)}, ShapeError, r"val: .*float32 \[3, 2\]"),
        ({"edge_label": torch.ones(7)}, LabelError, "val: edge_label has 7 rows for"),
        ({"edge_label": None}, LabelError, "val: y is missing"),
    ],
)
def test_what_is_wrong_with_a_part_is_named(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    parts = [ring() for _ in range(3)]
    for number, part in enumerate(parts):
        part.edge_label_index = part.edge_index[:, number::3]
        part.edge_label = torch.arange(part.edge_label_index.size(1)) % 2
    for name, value in change.items():
        parts[1][name] = value
    if change.get("edge_label_index") is not None:
        del parts[1].edge_label
    with pytest.raises(error, match=words):
        PairProblem(*parts, task="edge" if "edge_label" in change else "link")


def test_too_few_edges_and_pairs_in_two_parts() -> None:
    with pytest.raises(ConfigError, match="4 edges: too few to hide"):
        as_problem(Data(x=torch.randn(4, 2), edge_index=torch.zeros(2, 4).long()), "link")
    full = torch.combinations(torch.arange(6), with_replacement=True).T
    full = torch.cat([full, full.flip(0)], 1).unique(dim=1)
    with pytest.raises(ConfigError, match="0 pairs of nodes have no edge"):
        as_problem(Data(x=torch.randn(6, 2), edge_index=full), "link")
    data = edge_data((ring().edge_index[0] % 2).long())
    data.edge_label_index = data.edge_index.clone()
    data.edge_label_index[:, 1] = data.edge_label_index[:, 0]
    with pytest.raises(OverlappingSplitsError, match="1 of the 120 val edges"):
        as_problem(data, "edge")
    with pytest.raises(ConfigError, match="head 'dot' has one output"):
        model(3, "dot")
    with pytest.raises(ConfigError, match="'node' is of nodes, the data are pairs"):
        PairProblem(ring(), ring(), task="node")
