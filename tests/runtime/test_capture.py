"""Captured forwards: the bits of predict, for other features too; what cannot be captured."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from nodebits import ops
from nodebits.core.errors import CaptureError, ConfigError, NonFiniteError, ShapeError
from nodebits.methods import UniformConfig
from nodebits.ops.backends.cpu import kernels as backend
from nodebits.runtime import convert
from packed_models import CLASSES, FEATURES, NODES, UserModel, make_case, threads, two_steps

pytestmark = pytest.mark.skipif(
    backend.compiled() is None, reason="there are no compiled calls to capture"
)


def other(x: Tensor, seed: int = 5) -> Tensor:
    """Other features of the same kind."""
    order = torch.randperm(x.size(0), generator=torch.Generator().manual_seed(seed))
    return x[order] * 1.5


@pytest.mark.parametrize("method", ("uniform", "degree-quant", "sgquant", "a2q"))
@pytest.mark.parametrize(
    "name", ("gcn", "gin", "sage", "gat", "agnn", "appnp", "smp", "dagnn", "gcnii", "deepgcn")
)
def test_same_bits_as_predict(name: str, method: str) -> None:
    case = make_case(name, method)
    packed = case.packed
    graph = packed.prepare_graph(case.edge_index, NODES)
    inputs = [packed.pack_input(x, edge_index=graph) for x in (case.x, other(case.x))]
    expected = [packed.predict(x, graph) for x in inputs]
    assert not expected[0].equal(expected[1])
    forward = packed.capture(inputs[0], graph)
    for i in (0, 0, 1, 0, 1, 1):
        assert forward(inputs[i]).equal(expected[i])
    assert forward(other(case.x)).equal(expected[1])
    if name in ("gcn", "appnp", "smp") or (name in ("gin", "sage") and method != "a2q"):
        assert not any(step.startswith("torch") for step in forward.steps)


def test_sparse_features() -> None:
    """Rows of other counts of values, and features that pack to another form."""
    case = make_case("gcn", features=300)
    packed = case.packed
    graph = packed.prepare_graph(case.edge_index, NODES)
    sparse = [(torch.rand(NODES, 300, generator=torch.Generator().manual_seed(i)) > 0.97).float()
              for i in range(3)]  # fmt: skip
    sparse[2] *= torch.rand(NODES, 300) + 0.1  # several codes in a row
    inputs = [packed.pack_input(x) for x in (*sparse, torch.rand(NODES, 300))]
    kinds = [rows.data.name for x in inputs for rows in x.rows.values()]
    assert kinds[:3] == ["sparse"] * 3
    assert kinds[3] == "dense"
    forward = packed.capture(inputs[0], graph)
    for i in (0, 1, 2, 3, 1, 3, 0):
        assert forward(inputs[i]).equal(packed.predict(inputs[i], graph))


@pytest.mark.parametrize("isa", ops.available_isas()[1:])
def test_threads_and_levels_may_change(isa: str) -> None:
    case = make_case("gin")
    with threads(1):
        forward = case.packed.capture(case.x, case.edge_index)
        assert forward(case.x).equal(case.simulated)
    with threads(2), ops.force_isa(isa):
        assert forward(case.x).equal(case.simulated)
    with threads(1):
        assert forward(case.x).equal(case.simulated)


def test_results_have_memory_of_their_own() -> None:
    case = make_case()
    forward = case.packed.capture(case.x, case.edge_index)
    first = forward(case.x)
    first.zero_()
    second = forward(case.x)
    assert second.equal(case.simulated)
    forward(other(case.x))
    assert second.equal(case.simulated)


def test_several_threads_at_once() -> None:
    case = make_case("sage")
    inputs = [case.packed.pack_input(other(case.x, seed)) for seed in range(4)]
    graph = case.packed.prepare_graph(case.edge_index, NODES)
    expected = [case.packed.predict(x, graph) for x in inputs]
    forward = case.packed.capture(inputs[0], graph)
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not forward(inputs[i]).equal(expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_features_from_a_file(tmp_path: Path) -> None:
    for name in ("gcn", "sage"):
        case = make_case(name)
        path = tmp_path / f"{name}.safetensors"
        case.packed.save_input(case.packed.pack_input(case.x), path)
        again = case.packed.load_input(path)
        forward = case.packed.capture(again, case.edge_index)
        assert forward(again).equal(case.simulated)
        assert forward(case.x).equal(case.simulated)


def test_other_arguments_stay() -> None:
    case = make_case("gcn", task="graph")
    forward = case.packed.capture(case.x, case.edge_index, **case.extra)
    assert forward(case.x).equal(case.simulated)
    x = other(case.x)
    assert forward(x).equal(case.packed.predict(x, case.edge_index, **case.extra))


@pytest.mark.parametrize("norm", ("batch_norm", "layer_norm"))
def test_float_norms(norm: str) -> None:
    case = make_case("gcn", norm=norm)
    forward = case.packed.capture(case.x, case.edge_index)
    for x in (case.x, other(case.x)):
        assert forward(x).equal(case.packed.predict(x, case.edge_index))


@pytest.mark.parametrize("name", ("gcn", "gcnii"))
def test_captured_in_inference_mode(name: str) -> None:
    case = make_case(name)
    with torch.inference_mode():
        forward = case.packed.capture(case.x, case.edge_index)
    x = other(case.x)
    expected = case.packed.predict(x, case.edge_index)
    assert forward(x).equal(expected)
    with torch.inference_mode():
        assert forward(x).equal(expected)
    assert not forward(x).is_inference()


def test_a_users_module() -> None:
    torch.manual_seed(0)
    case = make_case()
    prepared = two_steps(UserModel(), UniformConfig(bits=4), case.x, case.edge_index)
    packed = convert(prepared)
    forward = packed.capture(case.x, case.edge_index)
    for x in (case.x, other(case.x)):
        assert forward(x).equal(packed.predict(x, case.edge_index))
    assert not any(step.startswith("torch") for step in forward.steps)  # the norm is in a step


class Around(nn.Module):
    """A convolution and something of the user's after it."""

    def __init__(self, after: Any) -> None:
        super().__init__()
        self.conv = GCNConv(FEATURES, CLASSES)
        self.after = after

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        return self.after(self.conv(x, edge_index))


def around(after: Any) -> tuple[Any, Tensor, Tensor]:
    case = make_case()
    plain = two_steps(Around(lambda y: y), UniformConfig(bits=4), case.x, case.edge_index)
    packed = convert(plain)
    packed.module.after = after
    return packed, case.x, case.edge_index


@pytest.mark.parametrize(
    "after",
    (
        lambda y: y.log_softmax(1),
        lambda y: y.bfloat16(),
        lambda y: {"logits": y, "top": (y.argmax(1), y[:, 0])},
        lambda y: y.clone().mul_(2).t(),
        lambda y: y.float().sort(1),
        lambda y: torch.zeros_like(y).add_(y),
    ),
)
def test_torch_after_the_layers(after: Any) -> None:
    packed, x, edges = around(after)
    forward = packed.capture(x, edges)
    for features in (x, other(x), x):
        expected = packed.predict(features, edges)
        found = forward(features)
        assert type(found) is type(expected)
        pairs = zip(
            torch.utils._pytree.tree_leaves(found),
            torch.utils._pytree.tree_leaves(expected),
            strict=True,
        )
        assert all(a.equal(b) for a, b in pairs)


_seen = torch.zeros(NODES, CLASSES)


@pytest.mark.parametrize(
    ("after", "named"),
    (
        (lambda y: y if y.sum() > 0 else -y, "_local_scalar_dense"),
        (lambda y: y[y > 0], "aten"),
        (lambda y: _seen.add_(y), "add_"),
        (lambda y: torch.zeros(NODES, CLASSES).add_(y), "add_"),
    ),
)
def test_what_depends_on_values_is_refused(after: Any, named: str) -> None:
    packed, x, edges = around(after)
    with pytest.raises(CaptureError, match=named):
        packed.capture(x, edges)


def test_what_is_refused_and_why() -> None:
    case = make_case()
    packed = case.packed
    graph = packed.prepare_graph(case.edge_index, NODES, reorder=True)
    with pytest.raises(CaptureError, match="reorder"):
        packed.capture(case.x, graph)
    with ops.force_isa("reference"), pytest.raises(CaptureError, match="reference"):
        packed.capture(case.x, case.edge_index)
    forward = packed.capture(case.x, case.edge_index)
    with pytest.raises(ShapeError, match=r"\[39, 12\].*\[40, 12\]"):
        forward(case.x[:-1])
    with pytest.raises(ShapeError):
        forward(torch.randn(NODES, FEATURES + 1))
    bad = case.x.clone()
    bad[3, 4] = float("nan")
    with pytest.raises(NonFiniteError, match=r"\[3, 4\]"):
        forward(bad)
    for foreign in (make_case("sage"), make_case(bits=8)):
        with pytest.raises(ConfigError, match="another model"):
            forward(foreign.packed.pack_input(case.x))
    with pytest.raises(ConfigError, match="reordered"):
        forward(packed.pack_input(case.x, edge_index=graph))
    assert forward(case.x).equal(case.simulated)
