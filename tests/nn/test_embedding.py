"""Embedding tables: looked up by row, quantized by row, the same packed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from nodebits.core.errors import NodeIndexError, ShapeError, UnsupportedLayerWarning
from nodebits.methods import UniformConfig, make_config, method_names, prepare
from nodebits.nn.embedding import QuantEmbedding
from nodebits.runtime import convert, load
from packed_models import small_graph, two_steps

ROWS, DIM = 9, 6
_, EDGES = small_graph()
IDS = torch.arange(40) % ROWS


class Model(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.atoms = nn.Embedding(ROWS, DIM, **options)  # type: ignore[arg-type]
        self.conv = GCNConv(DIM, 3)

    def forward(self, ids: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.atoms(ids), edge_index)


class Whole(Model):
    """The table is the feature matrix, and decodes as well."""

    def forward(self, ids: Tensor | None, edge_index: Tensor) -> Tensor:
        return self.conv(self.atoms.weight, edge_index) @ self.atoms.weight[:3, :3]


@pytest.mark.parametrize("method", method_names())
@pytest.mark.parametrize("bits", (8, 4, 2, 1))
def test_packed_is_simulated(method: str, bits: int, tmp_path: Path) -> None:
    config = make_config(method, bits)
    prepared = two_steps(Model(padding_idx=0), config, IDS, EDGES)
    assert isinstance(prepared.atoms, QuantEmbedding) and isinstance(prepared.atoms, nn.Embedding)
    with torch.no_grad():
        expected = prepared(IDS, EDGES)
    packed = convert(prepared)
    assert torch.equal(packed.predict(IDS, EDGES), expected)
    # Torch's own padding row is zero, and stays so at widths without a level at zero.
    assert packed.module.atoms(torch.zeros(1, dtype=torch.int64)).abs().max() < 1e-29
    table = packed.module.atoms.quantized_weight
    assert table.packed.numel() == ROWS * ((DIM * table.bits + 7) // 8)
    packed.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", model=Model(padding_idx=0))
    assert torch.equal(again.predict(IDS, EDGES), expected)


@pytest.mark.parametrize("bits", (8, 2, 32))
def test_the_table_read_as_a_matrix(bits: int) -> None:
    config = UniformConfig(bits=4, overrides={"atoms.weight": bits})
    edges = EDGES[:, (EDGES < ROWS).all(0)]
    prepared = two_steps(Whole(), config, None, edges)
    with torch.no_grad():
        expected = prepared(None, edges)
    assert torch.equal(convert(prepared).predict(None, edges), expected)


def test_eight_bits_are_close_and_the_table_trains() -> None:
    model = Model()
    prepared = prepare(model, UniformConfig(bits=8)).train()
    torch.testing.assert_close(prepared.atoms(IDS), model.atoms(IDS), rtol=0, atol=0.03)
    assert prepared.atoms.weight is dict(prepared.named_parameters())["atoms.weight"]
    prepared(IDS, EDGES).sum().backward()
    grad = prepared.atoms.weight.grad
    assert grad is not None and bool((grad.abs().sum(1) > 0).all())
    prepared.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(prepared.atoms.weight, model.atoms.weight)


@pytest.mark.parametrize("ids", (torch.tensor([0, ROWS]), torch.tensor([2, -1])))
def test_an_id_outside_is_named(ids: Tensor) -> None:
    prepared = two_steps(Model(), UniformConfig(bits=4), IDS, EDGES)
    with pytest.raises(NodeIndexError, match=rf"id {int(ids[1])} at \[1\].*0 to {ROWS - 1}"):
        prepared.atoms(ids)
    packed = convert(prepared)
    with pytest.raises(NodeIndexError, match=rf"atoms: id {int(ids[1])} at \[1\]"):
        packed.module.atoms(ids)
    with pytest.raises(ShapeError, match="float32"):
        packed.predict(torch.rand(40), EDGES)
    with pytest.raises(ShapeError, match="atoms takes int64 ids, got a NoneType"):
        packed.predict(None, EDGES)


@pytest.mark.parametrize("options", ({"max_norm": 1.0}, {"sparse": True}))
def test_options_that_stay_in_float(options: dict[str, object]) -> None:
    with pytest.warns(UnsupportedLayerWarning, match=f"atoms.*{next(iter(options))}"):
        prepared = prepare(Model(**options), UniformConfig(bits=4))
    assert type(prepared.atoms) is nn.Embedding
