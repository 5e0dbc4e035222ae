"""What is remembered is given out only while its source is what it was, and dies with it."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from nodebits.graph import Memo, as_graph, constant_inputs
from nodebits.graph.adjacency import _cache
from nodebits.ops import available_isas, force_isa
from nodebits.ops.backends.cpu.kernels import REFERENCE
from nodebits.ops.content import digest

NODES = 6


def ring() -> Tensor:
    nodes = torch.arange(NODES)
    return torch.stack([nodes, (nodes + 1) % NODES])


def through_data(t: Tensor) -> None:
    t.data[1] = t.data[1].flip(0)


def through_numpy(t: Tensor) -> None:
    array = t.numpy()
    array[1] = array[1][::-1].copy()


def through_inference(t: Tensor) -> None:
    with torch.inference_mode():
        t[1] = t[1].flip(0)


def through_set(t: Tensor) -> None:
    t.set_(torch.stack([t[0], t[1].flip(0)]))


def through_torch(t: Tensor) -> None:
    t[1] = t[1].flip(0)


EDITS = (through_data, through_numpy, through_inference, through_set, through_torch)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edge_index_edited_anyhow_is_converted_again(edit: Callable[[Tensor], None]) -> None:
    index = torch.from_numpy(ring().numpy().copy())
    before = as_graph(index, NODES)
    assert as_graph(index, NODES) is before
    edit(index)
    after = as_graph(index, NODES)
    expected = as_graph(index.clone(), NODES)
    assert after is not before
    assert torch.equal(after.indices, expected.indices)


def test_edge_index_class_is_compared_too() -> None:
    index = EdgeIndex(ring(), sparse_size=(NODES, NODES))
    before = as_graph(index, NODES)
    assert as_graph(index, NODES) is before
    index.as_tensor().data[1] = index.as_tensor()[1].flip(0)
    assert not torch.equal(as_graph(index, NODES).indices, before.indices)


def test_edge_index_class_is_read_under_inference_mode() -> None:
    index = EdgeIndex(ring(), sparse_size=(NODES, NODES))
    expected = as_graph(ring(), NODES).indices
    with torch.inference_mode():
        inner = EdgeIndex(ring(), sparse_size=(NODES, NODES))
        assert torch.equal(as_graph(index, NODES).indices, expected)
        assert torch.equal(as_graph(inner, NODES).indices, expected)
    assert torch.equal(as_graph(inner, NODES).indices, expected)


def test_inference_tensors_are_compared_too() -> None:
    with torch.inference_mode():
        index = ring().clone()
        first = as_graph(index, NODES).indices.clone()
        index[1] = index[1].flip(0)
        assert not torch.equal(as_graph(index, NODES).indices, first)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_values_of_a_matrix_edited_in_place(layout: torch.layout) -> None:
    matrix = torch.eye(NODES).to_sparse(layout=layout)
    assert as_graph(matrix, NODES).edge_weight is None
    values = matrix._values() if layout == torch.sparse_coo else matrix.values()
    values[:] = 3.0
    weight = as_graph(matrix, NODES).edge_weight
    assert weight is not None and weight.eq(3).all()


@pytest.mark.parametrize("edit", [lambda w: w.data.mul_(2), lambda w: w.numpy().__imul__(2)])
def test_edge_weights_edited_anyhow(edit: Callable[[Tensor], None]) -> None:
    index, weight = ring(), torch.rand(NODES) + 1
    before = as_graph(index, NODES, edge_weight=weight).edge_weight
    assert before is not None
    edit(weight)
    after = as_graph(index, NODES, edge_weight=weight).edge_weight
    assert after is not None and torch.equal(after, before * 2)


def test_graphs_own_their_arrays() -> None:
    index, weight = ring(), torch.rand(NODES)
    matrix = torch.eye(NODES).to_sparse_csr()
    graphs = [as_graph(index, NODES, edge_weight=weight), as_graph(matrix, NODES)]
    before = copy.deepcopy([(g.indptr, g.indices, g.edge_weight) for g in graphs])
    index.zero_()
    weight.zero_()
    matrix.col_indices().zero_()
    matrix.crow_indices().zero_()
    for graph, (indptr, indices, kept) in zip(graphs, before, strict=True):
        assert torch.equal(graph.indptr, indptr) and torch.equal(graph.indices, indices)
        assert kept is None or torch.equal(graph.edge_weight, kept)


def test_nothing_outlives_its_source() -> None:
    batches = [torch.randint(NODES, (2, 9)) for _ in range(40)]
    weights = [torch.rand(9) for _ in batches]
    graphs = [
        weakref.ref(as_graph(e, NODES, edge_weight=w))
        for e, w in zip(batches, weights, strict=True)
    ]
    assert len(_cache.values()) <= 16
    batches.clear()
    weights.clear()
    gc.collect()
    assert all(graph() is None for graph in graphs)
    assert all(entry.source() is not None for entry in _cache.values())


def counted(memo: Memo, source: Tensor, key: Any = None, owned: bool = False) -> int:
    """How often the value was made in two calls."""
    calls: list[int] = []
    for _ in range(2):
        memo.recall(source, key, lambda: calls.append(1) or torch.ones(1), owned)
    return len(calls)


def test_constant_inputs_are_trusted_inside_only() -> None:
    memo, source = Memo(2), torch.zeros(3)
    with constant_inputs():
        assert counted(memo, source) == 1
        source.data.fill_(1)  # against the promise: not seen
        with constant_inputs():
            assert counted(memo, source) == 0
        source.fill_(2)
        assert counted(memo, source) == 1
    assert counted(memo, source) == 1
    assert counted(memo, source) == 0
    with constant_inputs():  # another block, another promise
        source.data.fill_(3)
        assert counted(memo, source) == 1


def test_limit_keys_and_copies() -> None:
    memo, sources = Memo(2), [torch.zeros(1) for _ in range(3)]
    for source in sources:
        memo.put(source, None, "value")
    assert [memo.get(s, None) for s in sources] == [None, "value", "value"]
    assert memo.get(sources[1], "other") is None
    for made in (copy.deepcopy(memo), pickle.loads(pickle.dumps(memo))):
        assert made.values() == []
    memo.forget()
    assert memo.values() == []


def test_threads() -> None:
    indices = [torch.randint(NODES, (2, 9)) for _ in range(30)]
    expected = [as_graph(e.clone(), NODES).indices.clone() for e in indices]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            for i, index in enumerate(indices):
                if not torch.equal(as_graph(index, NODES).indices, expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("isa", [i for i in available_isas() if i in (REFERENCE, "scalar")])
@pytest.mark.parametrize("size", [0, 1, 7, 64, 65, 300_000])
def test_digest_sees_every_byte_and_its_place(isa: str, size: int) -> None:
    with force_isa(isa):
        t = torch.randint(0, 256, (size,), dtype=torch.uint8)
        known = {digest(t)}
        places = sorted({0, 1, size // 2, size - 1} & set(range(size)))
        for at in places:
            for bit in (1, 128):
                other = t.clone()
                other[at] ^= bit
                known.add(digest(other))
        assert len(known) == 1 + 2 * len(places)
        if size > 2:
            assert digest(t.roll(1)) not in known
        assert digest(t) == digest(t.clone())


def test_digest_of_any_tensor() -> None:
    x = torch.randn(4, 6)
    assert digest(x.t()) == digest(x.t().contiguous()) != digest(x)
    assert digest(-x) != digest(x)
    assert digest(torch.ones(3, dtype=torch.bool)) != digest(torch.zeros(3, dtype=torch.bool))
    z = torch.randn(3, dtype=torch.complex64)
    assert digest(z.conj()) != digest(z)
    assert digest(torch.tensor(1.0)) != digest(torch.tensor(2.0))
    assert digest(x[:, ::2]) == digest(x[:, ::2].clone())
    assert digest(torch.ones(1).expand(5)) == digest(torch.ones(5))


def test_digest_does_not_depend_on_threads() -> None:
    t = torch.randn(200_000)
    one = digest(t)
    torch.set_num_threads(4)
    assert digest(t) == one
