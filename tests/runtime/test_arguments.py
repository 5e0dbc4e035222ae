"""A packed model takes what its module takes and returns plain tensors, whatever holds them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCNConv, SAGEConv

from nodebits.core.errors import NonFiniteError, ShapeError
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import PackedModel, convert
from packed_models import FEATURES, NODES, make_case, small_graph

X, EDGES = small_graph()


def packed_of(model: nn.Module, *args: Any, **keywords: Any) -> tuple[nn.Module, PackedModel]:
    prepared = prepare(model.eval(), UniformConfig(bits=4, mode="ptq"))
    calibrate(prepared, *args, **keywords)
    return prepared, convert(prepared)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(FEATURES, 5)


class TakesData(Base):
    def forward(self, data: Any) -> Tensor:
        return self.conv(data.x, data.edge_index)


class EdgesFirst(Base):
    def forward(self, edge_index: Tensor, x: Tensor) -> Tensor:
        return self.conv(x, edge_index)


class KeywordsOnly(Base):
    def forward(self, *, node_features: Tensor, ei: Tensor) -> Tensor:
        return self.conv(node_features, ei)


class ManyStates(Base):
    """Features of several moments, taken apart by the module."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return torch.stack([self.conv(one, edge_index) for one in x])


class TakesList(Base):
    def forward(self, xs: list[Tensor], edge_index: Tensor) -> list[Tensor]:
        return [self.conv(x, edge_index) for x in xs]


class ByType(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv((FEATURES, FEATURES), 5)

    def forward(self, data: HeteroData) -> Tensor:
        edges = data["user", "buys", "item"].edge_index
        return self.conv((data["user"].x, data["item"].x), edges)


def by_type(scale: float = 1.0) -> HeteroData:
    data = HeteroData()
    data["user"].x, data["item"].x = X[:10] * scale, X[10:16]
    data["user", "buys", "item"].edge_index = torch.tensor([[0, 9, 3], [0, 5, 5]])
    return data


FORMS: dict[str, tuple[type[nn.Module], tuple[Any, ...], dict[str, Any]]] = {
    "data": (TakesData, (Data(x=X, edge_index=EDGES),), {}),
    "edges first": (EdgesFirst, (EDGES, X), {}),
    "by keyword": (EdgesFirst, (), {"x": X, "edge_index": EDGES}),
    "keywords only": (KeywordsOnly, (), {"node_features": X, "ei": EDGES}),
    "three dimensions": (ManyStates, (torch.stack([X, X / 2]), EDGES), {}),
    "list": (TakesList, ([X, X / 2], EDGES), {}),
    "heterogeneous": (ByType, (by_type(),), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_arguments_are_those_of_the_module(form: str) -> None:
    make, args, keywords = FORMS[form]
    prepared, packed = packed_of(make(), *args, **keywords)
    with torch.no_grad():
        expected = prepared(*args, **keywords)
    for result in (packed.predict(*args, **keywords), packed(*args, **keywords)):
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert packed.account(*args, **keywords).sites


def test_data_is_not_changed() -> None:
    data = Data(x=X.double(), edge_index=EDGES)
    _, packed = packed_of(TakesData(), Data(x=X, edge_index=EDGES))
    packed.predict(data)
    assert type(data.x) is Tensor and data.x.dtype == torch.float64


@pytest.mark.parametrize(
    "call",
    (
        lambda bad: packed_of(TakesData(), Data(x=X, edge_index=EDGES))[1].predict(
            Data(x=bad, edge_index=EDGES)
        ),
        lambda bad: packed_of(EdgesFirst(), EDGES, X)[1].predict(EDGES, bad),
        lambda bad: packed_of(TakesList(), [X], EDGES)[1].predict([X, bad], EDGES),
        lambda bad: packed_of(ManyStates(), X[None], EDGES)[1].predict(bad[None], EDGES),
    ),
)
def test_nan_is_found_in_every_form(call: Callable[[Tensor], Any]) -> None:
    bad = X.clone()
    bad[7, 3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"\b1\b.*7, 3"):
        call(bad)


@pytest.mark.parametrize(
    ("x", "words"),
    (
        (X.to_sparse(), "to_dense"),
        (X.to_sparse_csr(), "to_dense"),
        (X.numpy(), "ndarray"),
        (X.tolist(), "list"),
        (list(X.numpy()), "list"),
        (X[0], "channels"),
        ("features", "str"),
        (EDGES[0], "expected"),
        (torch.ones(NODES, FEATURES).long(), "embedding"),
    ),
)
def test_what_is_no_feature_matrix_is_refused(x: Any, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        make_case("gcn").packed.predict(x, EDGES)


def test_an_array_in_place_of_edges_is_refused_by_the_graph() -> None:
    with pytest.raises(ValueError, match="adjacency is a ndarray"):
        make_case("gcn").packed.predict(X, np.zeros((2, 3), dtype=np.int64))


@dataclass(frozen=True)
class Result:
    logits: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Own:
    __slots__ = ("inner", "logits")

    def __init__(self, logits: Tensor, hidden: Tensor) -> None:
        self.logits, self.inner = logits, [{"hidden": hidden}]


class Returns(Base):
    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.form = form

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        hidden = self.conv(x, edge_index).relu()
        return self.form(self.last(hidden), hidden)


RESULTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], tuple[Any, Any]]]] = {
    "tuple": (lambda a, b: (a, b), lambda r: r),
    "list": (lambda a, b: [a, None, b], lambda r: (r[0], r[2])),
    "dictionary": (lambda a, b: {"a": {1: a}, "b": b}, lambda r: (r["a"][1], r["b"])),
    "named tuple": (Pair, lambda r: (r.logits, r.hidden)),
    "frozen data class": (Result, lambda r: (r.logits, r.hidden)),
    "slots": (Own, lambda r: (r.logits, r.inner[0]["hidden"])),
    "Data": (lambda a, b: Data(x=a, hidden=b), lambda r: (r.x, r.hidden)),
    "nested": (lambda a, b: {"r": [Result(a, b)]}, lambda r: (r["r"][0].logits, r["r"][0].hidden)),
}


@pytest.mark.parametrize("form", RESULTS)
def test_results_are_plain_tensors(form: str) -> None:
    make, take = RESULTS[form]
    prepared, packed = packed_of(Returns(make), X, EDGES)
    with torch.no_grad():
        expected = take(prepared(X, EDGES))
    result = packed.predict(X, EDGES)
    for value, right in zip(take(result), expected, strict=True):
        assert type(value) is Tensor and torch.equal(value, right)
        assert pickle.loads(pickle.dumps(value)).equal(right)


def test_a_result_that_refers_to_itself() -> None:
    def make(a: Tensor, b: Tensor) -> Own:
        result = Own(a, b)
        result.inner = [result]  # type: ignore[list-item]
        return result

    _, packed = packed_of(Returns(make), X, EDGES)
    assert type(packed.predict(X, EDGES).logits) is Tensor


def test_an_account_counts_its_own_thread() -> None:
    case = make_case("gcn")
    expected = case.packed.account(case.x, case.edge_index)
    wrong: list[int] = []
    done = threading.Event()

    def others() -> None:
        while not done.is_set():
            case.packed.predict(case.x[:, :FEATURES], case.edge_index)

    thread = threading.Thread(target=others)
    thread.start()
    for _ in range(30):
        account = case.packed.account(case.x, case.edge_index)
        if account != expected:
            wrong.append(len(account.sites))
    done.set()
    thread.join()
    assert wrong == [] and NODES == expected.sites[0].num_rows
