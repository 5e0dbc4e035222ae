"""Batch norms that directly follow a layer become part of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN, GIN, MLP, GCNConv, GraphConv, GraphSAGE, SAGEConv
from torch_geometric.nn import BatchNorm as PyGBatchNorm
from torch_geometric.nn import Sequential as PyGSequential

from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import PackedModel, convert, load
from packed_models import CLASSES, FEATURES, make_case, small_graph, threads

# The package's attribute of that name is the function.
convert_module = sys.modules["nodebits.runtime.convert"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


class Wrapped(nn.Module):
    """A node-wise network behind one convolution, called like any model."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.conv, self.tail = GraphConv(FEATURES, 8), tail

    def forward(self, x: Any, edge_index: Any) -> torch.Tensor:
        return self.tail(self.conv(x, edge_index))


def sequential() -> nn.Module:
    return Wrapped(
        nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3), PyGBatchNorm(3)
        )
    )


def no_bias() -> nn.Module:
    return Wrapped(
        nn.Sequential(nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16, affine=False), nn.ReLU())
    )


def mlp() -> nn.Module:
    return Wrapped(MLP([8, 16, 16, CLASSES], norm="batch_norm"))


def gcn() -> nn.Module:
    return GCN(FEATURES, 16, 3, CLASSES, norm="batch_norm")


def gcn_with_head() -> nn.Module:
    return GCN(FEATURES, 16, 2, CLASSES, norm="batch_norm", jk="cat")


def sage() -> nn.Module:
    return GraphSAGE(FEATURES, 16, 2, CLASSES, norm="batch_norm")


def gin() -> nn.Module:
    return GIN(FEATURES, 16, 2, CLASSES, norm="batch_norm")


FOLDED = {
    sequential: ["tail.1", "tail.4"],
    no_bias: ["tail.1"],
    mlp: ["tail.norms.0", "tail.norms.1"],
    gcn: ["norms.0", "norms.1"],
    gcn_with_head: ["norms.0", "norms.1"],
    sage: ["norms.0"],
    gin: ["norms.0", "convs.0.nn.norms.0", "convs.1.nn.norms.0"],
}


def randomize_norms(model: nn.Module) -> None:
    """Statistics and factors that a trained norm could have, negative factors among them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.weight is not None:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)


def both(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[PackedModel, PackedModel]:
    """The packed model with norms folded, and with norms kept."""
    torch.manual_seed(1)
    x, edge_index = small_graph()
    model = make()
    randomize_norms(model)
    prepared = prepare(model.eval(), UniformConfig(**{"bits": 8, **options}))
    calibrate(prepared, x, edge_index)
    folded = convert(prepared)
    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "fold_norms", lambda model: [])
        return folded, convert(prepared)


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]


@pytest.mark.parametrize("bits", (8, 2))
@pytest.mark.parametrize("make", FOLDED, ids=lambda f: f.__name__)
def test_folded(
    make: Callable[[], nn.Module], bits: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x, edge_index = small_graph()
    folded, kept = both(make, monkeypatch, bits=bits)
    assert sorted(folded.folded) == sorted(FOLDED[make])
    assert not norms_of(folded) and norms_of(kept)
    found, expected = folded.predict(x, edge_index), kept.predict(x, edge_index)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    folded.save(tmp_path / "folded.safetensors")
    loaded = load(tmp_path / "folded.safetensors", model=make())
    assert loaded.folded == folded.folded
    assert not norms_of(loaded)
    assert torch.equal(loaded.predict(x, edge_index), found)


def unknown_forward() -> nn.Module:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = GCNConv(FEATURES, CLASSES), nn.BatchNorm1d(CLASSES)

        def forward(self, x: Any, edge_index: Any) -> torch.Tensor:
            return self.norm(self.conv(x, edge_index))

    return Mine()


def after_activation() -> nn.Module:
    return Wrapped(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8)))


def activation_first() -> nn.Module:
    return GCN(FEATURES, 16, 2, CLASSES, norm="batch_norm", act_first=True)


def mlp_activation_first() -> nn.Module:
    return Wrapped(MLP([8, 16, CLASSES], norm="batch_norm", act_first=True))


def without_statistics() -> nn.Module:
    return Wrapped(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False)))


def other_norm() -> nn.Module:
    return Wrapped(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)))


def normalized_rows() -> nn.Module:
    return GraphSAGE(FEATURES, 16, 2, CLASSES, norm="batch_norm", normalize=True)


@pytest.mark.parametrize(
    "make",
    (
        unknown_forward,
        after_activation,
        activation_first,
        mlp_activation_first,
        other_norm,
        normalized_rows,
    ),
    ids=lambda f: f.__name__,
)
def test_kept(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x, edge_index = small_graph()
    kept, expected = both(make, monkeypatch)
    assert kept.folded == []
    assert torch.equal(kept.predict(x, edge_index), expected.predict(x, edge_index))
    kept.save(tmp_path / "kept.safetensors")
    loaded = load(tmp_path / "kept.safetensors", model=make())
    assert torch.equal(loaded.predict(x, edge_index), kept.predict(x, edge_index))


def test_norm_of_the_batch_is_kept() -> None:
    """Without running statistics a norm depends on the data: there is nothing to fold."""
    x, edge_index = small_graph()
    prepared = prepare(without_statistics().eval(), UniformConfig(bits=8))
    calibrate(prepared, x, edge_index)
    assert convert(prepared).folded == []


@pytest.mark.parametrize("conv", (GCNConv, SAGEConv, GraphConv))
def test_quantized_output_keeps_the_norm(conv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows an ``output`` site follows a rounding: it does not commute with the norm."""
    x, edge_index = small_graph()

    def make() -> nn.Module:
        return PyGSequential(
            "x, edge_index",
            [(conv(FEATURES, 8), "x, edge_index -> x"), nn.BatchNorm1d(8)],
        )

    kept, expected = both(make, monkeypatch, output_bits=8)
    assert kept.folded == []
    assert torch.equal(kept.predict(x, edge_index), expected.predict(x, edge_index))


@pytest.mark.parametrize("name", ("gcn", "gin", "sage"))
@pytest.mark.parametrize("task", ("node", "graph"))
def test_named_models_with_norms(name: str, task: str, tmp_path: Path) -> None:
    """The file alone rebuilds a folded model."""
    case = make_case(name, bits=8, task=task, norm="batch_norm")
    assert case.packed.folded
    found = case.packed.predict(case.x, case.edge_index, **case.extra)
    torch.testing.assert_close(found, case.simulated, rtol=1e-5, atol=1e-5)
    case.packed.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.folded == case.packed.folded
    assert torch.equal(loaded.predict(case.x, case.edge_index, **case.extra), found)


def test_fold_leaves_the_prepared_model_alone() -> None:
    case = make_case("gcn", bits=8, norm="batch_norm")
    assert norms_of(case.prepared)
    with torch.no_grad():
        assert torch.equal(case.prepared(case.x, case.edge_index), case.simulated)
