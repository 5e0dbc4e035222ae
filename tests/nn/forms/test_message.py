"""A message is a product by what it computes, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing, SGConv

from nodebits.nn.forms.base import form_of
from nodebits.nn.forms.message import Product, traced
from nodebits.nn.propagate.arguments import Call

N, E, C = 6, 10, 4


def call(**values: Any) -> Call:
    return Call(torch.randint(N, (2, E)), (N, N), values, 0, values.pop("node_dim", 0))


class Layer(MessagePassing):
    scale = 2.0

    def __init__(self, **keywords: Any) -> None:
        super().__init__(node_dim=0, **keywords)
        self.gain = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("count", torch.zeros(1))
        self.kept: Any = None
        self.seen: list[int] = []


class Plain(Layer):
    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class Weighted(Layer):
    def message(self, x_j: Tensor, w: Tensor | None) -> Tensor:
        return x_j if w is None else x_j * w.unsqueeze(-1)


class ByHead(Layer):
    def message(self, x_j: Tensor, alpha: Tensor, norm_i: Tensor, w: Tensor) -> Tensor:
        return (
            norm_i.view(-1, 1, 1) * (x_j.view(-1, 2, 2) * alpha.view(-1, 2, 1)) * w.view(-1, 1, 1)
        )


class TwoWeights(Layer):
    def message(self, x_j: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).reshape(-1, 1) * x_j


@pytest.mark.parametrize(
    ("layer", "values", "found"),
    [
        (Plain(), {"x": torch.randn(N, C)}, Product("x_j", (), (), 1, (C,), False)),
        (Plain(), {"x": torch.randn(N)}, Product("x_j", (), (), 1, (), False)),
        (
            Weighted(),
            {"x": (torch.randn(N, C), None), "w": torch.rand(E)},
            Product("x_j", ("w",), (), 1, (C,), False),
        ),
        (Weighted(), {"x": torch.randn(N, C), "w": None}, Product("x_j", (), (), 1, (C,), False)),
        (
            ByHead(),
            {
                "x": torch.randn(N, 4),
                "alpha": torch.rand(E, 2),
                "norm": torch.rand(N),
                "w": torch.rand(E),
            },
            Product("x_j", ("alpha", "w"), ("norm_i",), 2, (2, 2), False),
        ),
        (
            TwoWeights(),
            {"x": torch.randn(N, C), "a": torch.rand(E), "b": torch.rand(E)},
            Product("x_j", ("a", "b"), (), 1, (C,), False),
        ),
    ],
    ids=["rows", "numbers", "weighted", "weights left out", "heads and targets", "two weights"],
)
def test_products(layer: Any, values: dict[str, Any], found: Product) -> None:
    assert traced(layer, call(**values)) == found


class Sum(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return x_j + w.view(-1, 1)


class Activated(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return (x_j * w.view(-1, 1)).relu()


class Squared(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return x_j * x_j


class Gained(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return x_j * self.gain


class Drawn(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return x_j * torch.rand(x_j.size(0), 1)


class Counted(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        self.count.add_(1)
        return x_j


class Kept(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        self.kept = w
        return x_j * w.view(-1, 1)


class Remembering(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        self.seen.append(x_j.size(0))
        return x_j


class Branching(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return x_j if bool(w.max() > 0.5) else -x_j


class Indexed(Layer):
    def message(self, x_j: Tensor, w: Tensor, index: Tensor) -> Tensor:
        return x_j


class ByColumn(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return x_j * w.view(-1, 1).expand(-1, C)


class Transposed(Layer):
    def message(self, x_j: Tensor, w: Tensor) -> Tensor:
        return (x_j.t() * w).t()


@pytest.mark.parametrize(
    "kind",
    [
        Sum,
        Activated,
        Squared,
        Gained,
        Drawn,
        Counted,
        Kept,
        Remembering,
        Branching,
        Indexed,
        ByColumn,
        Transposed,
    ],
)
def test_what_does_more_is_no_product_and_leaves_no_trace(kind: type[Layer]) -> None:
    layer = kind()
    given = call(x=torch.ones(N, C), w=torch.ones(E))
    random = torch.get_rng_state()
    assert traced(layer, given) is None
    assert float(layer.count) == 0.0 and layer.kept is None and layer.seen == []
    assert torch.equal(torch.get_rng_state(), random)


def test_edges_do_not_pass_for_columns() -> None:
    """As many columns as edges: a weight along the columns is no weight of an edge."""

    class Wrong(Layer):
        def message(self, x_j: Tensor, w: Tensor) -> Tensor:
            return x_j * w

    assert traced(Wrong(), call(x=torch.randn(N, E), w=torch.rand(E))) is None


def test_a_number_for_every_column_is_a_row() -> None:
    class Gate(Layer):
        def message(self, x_j: Tensor, w: Tensor) -> Tensor:
            return x_j * w

    assert traced(Gate(), call(x=torch.randn(N, C), w=torch.rand(E, C))) is None


def test_a_subclass_is_judged_by_its_own_functions() -> None:
    given = call(x=torch.randn(N, C), edge_weight=torch.rand(E))

    class Message(SGConv):
        def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
            return edge_weight.view(-1, 1) * x_j.tanh()

    class Aggregate(SGConv):
        def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int | None = None) -> Tensor:
            return super().aggregate(inputs.abs(), index, dim_size=dim_size)

    class Same(SGConv):
        pass

    assert form_of(Same(C, C), given) is not None
    assert form_of(Message(C, C), given) is None and form_of(Aggregate(C, C), given) is None
    assert form_of(SGConv(C, C, aggr="max"), given) is None
    assert form_of(SGConv(C, C, aggr="mean"), given) is not None
