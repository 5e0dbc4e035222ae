"""Few bits are spent where they save something: sums' readers and heads keep 8."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, GINEConv, GPSConv, SAGEConv

import nodebits
from nodebits.methods import QuantConfig, make_config, prepare
from nodebits.methods.roles import head_linears
from nodebits.models import ModelSpec, build_model
from nodebits.nn.quantizers import FloatWeightQuantizer

SPARING = ("uniform", "degree-quant")


def is_float(site: Any) -> bool:
    return isinstance(site, FloatWeightQuantizer)


def widths(model: nn.Module) -> dict[str, int | None]:
    found = {}
    for path, module in model.named_modules():
        for name in ("input", "quantized_weight", "message"):
            site: Any = getattr(module, name, None)
            if site is not None and hasattr(site, "bits"):
                found[f"{path}.{name}"] = site.bits if not is_float(site) else None
    return found


def gin() -> nn.Module:
    return build_model(ModelSpec("gin", 5, 8, 2, num_layers=2, task="graph"))


@pytest.mark.parametrize("method", SPARING)
@pytest.mark.parametrize("bits", [2, 4])
def test_sums_and_heads_keep_8_bits(method: str, bits: int) -> None:
    found = widths(prepare(gin(), make_config(method, bits)))
    wide = {path for path, bits in found.items() if bits == 8}
    assert wide == {
        "convs.0.nn.0.input",
        "convs.1.nn.0.input",
        *(f"lin{n}.{name}" for n in (1, 2) for name in ("input", "quantized_weight")),
    }
    assert {bits for path, bits in found.items() if path not in wide} == {bits}


@pytest.mark.parametrize(("columns", "first"), [(255, 8), (256, 2)])
def test_sums_within_an_mlp_of_pyg(columns: int, first: int) -> None:
    """Sums of wide raw features lie in memory with the graph, so that bits count there."""
    model = build_model(ModelSpec("gin", columns, 8, 2, num_layers=2))
    found = widths(prepare(model, make_config("uniform", 2)))
    assert found.pop("convs.0.nn.lins.0.input") == first
    assert found.pop("convs.1.nn.lins.0.input") == 8
    assert set(found.values()) == {2}


@pytest.mark.parametrize("columns", [5, 256])
def test_a_width_for_sums_reaches_all_of_them(columns: int) -> None:
    model = build_model(ModelSpec("gin", columns, 8, 2, num_layers=2))
    found = widths(prepare(model, make_config("uniform", 2, sum_bits=6)))
    assert {found[f"convs.{n}.nn.lins.0.input"] for n in (0, 1)} == {6}


@pytest.mark.parametrize("method", ["smp", "sgquant", "uniform"])
def test_one_width_where_it_is_asked_for(method: str) -> None:
    given = {"sum_bits": 4, "head_bits": 4} if method in SPARING else {}
    assert set(widths(prepare(gin(), make_config(method, 4, **given))).values()) == {4}


@pytest.mark.parametrize(
    ("options", "sums", "head"),
    [
        ({"sum_bits": 5}, 5, 8),
        ({"head_bits": 3}, 8, 3),
        ({"input_bits": 4, "weight_bits": 4}, 4, 4),
        ({"overrides": {"convs.0.nn.0.input": 1, "lin1.*": 6}}, 1, 6),
        ({"preset": "published"}, 2, 2),
    ],
)
def test_what_is_given_counts(options: dict[str, Any], sums: int, head: int) -> None:
    found = widths(prepare(gin(), make_config("uniform", 2, **options)))
    assert found["convs.0.nn.0.input"] == sums
    assert found["lin1.input"] == found["lin1.quantized_weight"] == head


@pytest.mark.parametrize("method", SPARING)
def test_float_stays_float(method: str) -> None:
    assert set(widths(prepare(gin(), make_config(method, 32))).values()) == {None}


@pytest.mark.parametrize("bits", [0, 9, "wide"])
@pytest.mark.parametrize("name", ["sum_bits", "head_bits"])
def test_no_width_is_refused(name: str, bits: Any) -> None:
    with pytest.raises(nodebits.NodebitsError, match=name):
        QuantConfig(**{name: bits})


@pytest.mark.parametrize(
    ("conv", "reader"),
    [
        (GINEConv(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))), "nn.0"),
        (SAGEConv(4, 4), None),
        (GCNConv(4, 4), None),
    ],
)
def test_only_what_reads_the_sum_is_wider(conv: nn.Module, reader: str | None) -> None:
    model = nn.ModuleDict({"conv": conv, "last": GCNConv(4, 4)})
    found = widths(prepare(model, nodebits.UniformConfig(bits=2)))
    wide = [path for path, bits in found.items() if bits == 8]
    assert wide == ([] if reader is None else [f"conv.{reader}.input"])


class Wrapped(nn.Module):
    """A model within a model, whose encoder stands before its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4)
        self.convs = nn.ModuleList([GPSConv(4, GATConv(4, 4), heads=1) for _ in range(2)])
        self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def test_a_head_stands_behind_all_convolutions() -> None:
    model = Wrapped()
    behind = {model.head[0], model.head[2]}
    assert head_linears(model) == behind
    assert head_linears(nn.Sequential(model)) == behind
    assert head_linears(model.convs) == set()
    assert head_linears(model.head) == set()
    assert head_linears(GINConv(nn.Sequential(nn.Linear(4, 4)))) == set()


@pytest.mark.parametrize("mode", ["qat", "ptq"])
def test_packed_is_the_simulation(mode: str) -> None:
    torch.manual_seed(0)
    x, edge_index = torch.randn(12, 5), torch.randint(12, (2, 40))
    batch = torch.arange(12) // 6
    prepared = prepare(gin().eval(), make_config("uniform", 2, mode=mode))

    def run(model: Any) -> Tensor:
        result: Tensor = model(x, edge_index, batch)
        return result

    nodebits.calibrate(prepared, x, edge_index, batch=batch)
    with torch.no_grad():
        expected = run(prepared.eval())
    assert torch.equal(nodebits.convert(prepared).predict(x, edge_index, batch=batch), expected)
