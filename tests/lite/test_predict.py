"""Calls: what they take, what they give, and what they say to anything else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from model_files import degrees, graph_input, scaled, write_model

from nodebits.lite import Model, errors, load

EDGES = np.array([[0, 1, 2, 2], [1, 1, 0, 1]])
DEGREE = np.array([1, 3, 0], np.float32)
TARGETS = np.array([0, 1, 1, 1])


@pytest.fixture
def plain(tmp_path: Path) -> Model:
    return load(write_model(tmp_path / "plain", *scaled()))


@pytest.fixture
def graphs(tmp_path: Path) -> Model:
    return load(write_model(tmp_path / "graphs", degrees()))


def test_results_are_arranged_as_the_module_returned_them(graphs: Model) -> None:
    total, named = graphs.predict(np.ones(3, np.float32), EDGES)
    assert np.array_equal(total, DEGREE + 1) and total.dtype == np.float32
    assert list(named) == ["targets"]
    assert np.array_equal(named["targets"], TARGETS) and named["targets"].dtype == np.int64


@pytest.mark.parametrize(
    "count", [3.0, [3, 3, 3], (3,), "3", True, 2**70, -(2**70), (3, 2.5), np.float32(3)]
)
def test_numbers_of_nodes_are_whole_numbers(graphs: Model, count: object) -> None:
    with pytest.raises(errors.ConfigError, match="num_nodes is"):
        graphs.set_graph(EDGES, count)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [3, np.int64(3), (3, 3), [3, 3]])
def test_numbers_of_nodes_of_any_kind(graphs: Model, count: object) -> None:
    graphs.set_graph(EDGES, count)  # type: ignore[arg-type]
    total, _ = graphs.predict(np.ones(3, np.float32))
    assert np.array_equal(total, DEGREE + 1)


def test_masks_are_not_overlooked(plain: Model) -> None:
    x = np.ma.masked_array(np.ones((2, 3), np.float32), np.eye(2, 3) > 0)
    with pytest.raises(errors.ShapeError, match="x is a masked array, of which 2 entries"):
        plain.predict(x)
    full = np.ma.masked_array(np.ones((2, 3), np.float32))
    assert np.array_equal(plain.predict(full), plain.predict(x.filled(1)))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_models_are_not_copied(plain: Model, copied: Callable[[Model], object]) -> None:
    with pytest.raises(errors.ConfigError, match="another process loads the file"):
        copied(plain)


def test_results_are_the_callers_own(plain: Model) -> None:
    x = np.ones((2, 3), np.float32)
    first = plain.predict(x)
    kept = first.copy()
    plain.predict(x * 5)
    assert np.array_equal(first, kept)
    first[:] = 7
    assert np.array_equal(plain.predict(x), kept)


def test_arguments_by_place_and_name(graphs: Model) -> None:
    x = np.zeros(3, np.float32)
    for args, kwargs in [((x, EDGES), {}), ((x,), {"edge_index": EDGES})]:
        assert np.array_equal(graphs.predict(*args, **kwargs)[0], DEGREE)
    assert np.array_equal(graphs.predict(edge_index=EDGES, x=x)[0], DEGREE)
    with pytest.raises(errors.ConfigError, match=r"'edge_index' is missing.*set_graph"):
        graphs.predict(x)
    with pytest.raises(errors.ConfigError, match="'x' is missing"):
        graphs.predict(edge_index=EDGES)
    with pytest.raises(errors.ConfigError, match="x, edge_index"):
        graphs.predict(x, EDGES, x)
    with pytest.raises(errors.ConfigError, match="x twice"):
        graphs.predict(x, x=x, edge_index=EDGES)
    with pytest.raises(errors.UnknownNameError, match="did you mean 'edge_index'"):
        graphs.predict(x, edge_indx=EDGES)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, ">f4", np.complex64])
def test_other_dtypes_of_features(plain: Model, dtype: str) -> None:
    with pytest.raises(errors.ShapeError, match=r"x.*float32"):
        plain.predict(np.ones((2, 3), dtype))


@pytest.mark.parametrize("shape", [(2, 4), (2, 2), (3,), (), (1, 2, 3), (1,) * 9])
def test_other_shapes_of_features(plain: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.ShapeError, match="x"):
        plain.predict(np.ones(shape, np.float32))


def test_layouts_of_features(plain: Model) -> None:
    x = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    expected = plain.predict(np.ascontiguousarray(x[::2, ::-2]))
    assert np.array_equal(plain.predict(x[::2, ::-2]), expected)
    assert np.array_equal(plain.predict(np.asfortranarray(x[::2, ::-2])), expected)
    shifted = np.frombuffer(b"\0" + x[:, :3].tobytes(), np.uint8)[1:].view(np.float32)
    assert np.array_equal(plain.predict(shifted.reshape(6, 3)), plain.predict(x[:, :3]))
    assert plain.predict(np.zeros((0, 3), np.float32)).shape == (0, 3)
    read_only = x[:, :3].copy()
    read_only.flags.writeable = False
    assert plain.predict(read_only).shape == (6, 3)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_edges_of_either_width(graphs: Model, dtype: type) -> None:
    x = np.zeros(3, np.float32)
    assert np.array_equal(graphs.predict(x, EDGES.astype(dtype))[0], DEGREE)
    graphs.set_graph(EDGES.astype(dtype), 3)
    assert np.array_equal(graphs.predict(x)[0], DEGREE)


def test_graphs_without_edges_or_nodes(graphs: Model) -> None:
    none = np.zeros((2, 0), np.int64)
    assert np.array_equal(graphs.predict(np.ones(2, np.float32), none)[0], np.ones(2))
    assert graphs.predict(np.ones(0, np.float32), none)[0].shape == (0,)
    graphs.set_graph(none, 0)
    assert graphs.predict(np.ones(0, np.float32))[1]["targets"].shape == (0,)


@pytest.mark.parametrize("bad", [3, -1, 2**31, -(2**40)])
def test_edges_that_lead_nowhere(graphs: Model, bad: int) -> None:
    edges = EDGES.copy()
    edges[0, 2] = bad
    with pytest.raises(errors.NodeIndexError, match=str(bad)):
        graphs.predict(np.zeros(3, np.float32), edges)
    with pytest.raises(errors.NodeIndexError, match=str(bad)):
        graphs.set_graph(edges, 3)
    with pytest.raises(errors.NodeIndexError, match=str(bad)):
        graphs.set_graph(indptr=[0, 1, 1, 2], indices=[0, bad])


def test_other_edges(graphs: Model) -> None:
    x = np.zeros(3, np.float32)
    for edges in (EDGES[0], EDGES.T, EDGES.astype(np.float32), EDGES[None]):
        with pytest.raises(errors.ShapeError):
            graphs.predict(x, edges)
        with pytest.raises(errors.ShapeError):
            graphs.set_graph(edges, 3)


def test_a_graph_is_set_once(graphs: Model) -> None:
    x = np.zeros(3, np.float32)
    graphs.set_graph(EDGES, 3)
    for _ in range(3):
        total, named = graphs.predict(x)
        assert np.array_equal(total, DEGREE) and np.array_equal(named["targets"], TARGETS)
    other = np.array([[0], [2]])
    assert np.array_equal(graphs.predict(x, other)[0], [0, 0, 1])  # for this call
    assert np.array_equal(graphs.predict(x)[0], DEGREE)
    graphs.set_graph(indptr=np.array([0, 0, 0, 1]), indices=np.array([0]))
    assert np.array_equal(graphs.predict(x)[0], [0, 0, 1])
    graphs.forget_graph()
    with pytest.raises(errors.ConfigError, match="set_graph"):
        graphs.predict(x)


def test_a_graph_of_another_size(graphs: Model) -> None:
    graphs.set_graph(EDGES, 3)
    for n in (2, 4):
        with pytest.raises(errors.GraphMismatchError, match=rf"3.*{n}"):
            graphs.predict(np.zeros(n, np.float32))
    assert np.array_equal(graphs.predict(np.zeros(3, np.float32))[0], DEGREE)


def test_the_graphs_arrays_may_change_afterwards(graphs: Model) -> None:
    edges, indptr, indices = EDGES.copy(), np.array([0, 0, 0, 1]), np.array([0])
    x = np.zeros(3, np.float32)
    graphs.set_graph(edges, 3)
    edges[:] = 10**9
    assert np.array_equal(graphs.predict(x)[0], DEGREE)
    graphs.set_graph(indptr=indptr, indices=indices)
    indptr[:], indices[:] = 10**9, 10**9
    assert np.array_equal(graphs.predict(x)[0], [0, 0, 1])


@pytest.mark.parametrize(
    ("indptr", "match"),
    [([0, 2, 1, 2], "falls"), ([1, 1, 1, 2], "rise"), ([0, 1, 1, 1], "rise"), ([], "empty")],
)
def test_rows_that_are_none(graphs: Model, indptr: list[int], match: str) -> None:
    with pytest.raises(errors.GraphError, match=match):
        graphs.set_graph(indptr=np.array(indptr, np.int64), indices=[0, 1])


def test_which_graph(graphs: Model, plain: Model) -> None:
    for arguments in (
        {},
        {"edge_index": EDGES},
        {"indptr": [0]},
        {"edge_index": EDGES, "num_nodes": 3, "indptr": [0], "indices": []},
    ):
        with pytest.raises(errors.ConfigError):
            graphs.set_graph(**arguments)
    with pytest.raises(errors.ConfigError, match="no graph"):
        plain.set_graph(EDGES, 3)
    with pytest.raises(errors.UnknownNameError):
        graphs.set_graph(EDGES, 3, name="x")
    for nodes in (-1, 2**31):
        with pytest.raises(errors.GraphError, match=str(nodes)):
            graphs.set_graph(EDGES, nodes)


def two_graphs() -> dict[str, object]:
    """Degrees by two kinds of edges between two kinds of nodes, added."""
    shape = {"dtype": "float32", "shape": [None]}
    return {
        "version": 1,
        "inputs": [
            {"name": "a", "value": 0, **shape},
            {"name": "b", "value": 1, **shape},
            graph_input(2, (4, 5, 6), "likes"),
            graph_input(3, (7, 8, 9), "knows"),
        ],
        "constants": {},
        "steps": [
            {"op": "csr", "args": ["v2", "d0.0", "d1.0"], "outs": [4, 5, 6]},
            {"op": "csr", "args": ["v3", "d1.0", "d1.0"], "outs": [7, 8, 9]},
            {"op": "degree", "args": ["v4"], "outs": [10]},
            {"op": "degree", "args": ["v7"], "outs": [11]},
            {"op": "add", "args": ["v10", "v11"], "outs": [12]},
            {"op": "select", "args": ["v2", 0, 0], "outs": [13]},
        ],
        "outputs": [{"value": 12}, {"value": 13}],
    }


def test_several_graphs(tmp_path: Path) -> None:
    model = load(write_model(tmp_path / "m", two_graphs()))
    a, b = np.zeros(4, np.float32), np.zeros(2, np.float32)
    likes, knows = np.array([[3, 1, 0], [1, 0, 1]]), np.array([[0, 1], [1, 1]])
    total, sources = model.predict(a, b, likes, knows)
    assert np.array_equal(total, [1, 4]) and np.array_equal(sources, likes[0])
    with pytest.raises(errors.ConfigError, match="likes, knows"):
        model.set_graph(likes, (4, 2))
    model.set_graph(likes, (4, 2), name="likes")
    assert np.array_equal(model.predict(a, b, knows=knows)[0], [1, 4])
    model.set_graph(knows, 2, name="knows")
    for _ in range(2):
        total, sources = model.predict(a, b)
        assert np.array_equal(total, [1, 4])
        # In the order of the edges, though the rows are sorted.
        assert np.array_equal(sources, likes[0])
    model.set_graph(knows[:, :1], 2, name="knows")
    assert np.array_equal(model.predict(a, b)[0], [1, 3])
    with pytest.raises(errors.GraphMismatchError, match="'likes' has 4 source"):
        model.predict(b, b)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    plan, tensors = scaled()
    plan["steps"].insert(0, {"op": "check_finite", "args": ["v0"], "outs": []})
    model = load(write_model(tmp_path / "m", plan, tensors))
    x = np.zeros((2, 3), np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        x[1, 2] = bad
        with pytest.raises(errors.NonFiniteError):
            model.predict(x)
    x[1, 2] = 0
    assert model.predict(x).shape == (2, 3)  # nothing is left of the failures


def test_an_input_may_be_the_result_and_a_constant_too(tmp_path: Path) -> None:
    plan, tensors = scaled()
    plan.update(steps=[], outputs=[{"value": 0}, {"value": 1}, {"value": 0}])
    model = load(write_model(tmp_path / "m", plan, tensors))
    x = np.ones((2, 3), np.float32)
    one, scale, two = model.predict(x)
    one[:] = 5
    assert (two == 1).all() and np.array_equal(scale, tensors["scale"])


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_numbers_of_threads(plain: Model, threads: object) -> None:
    with pytest.raises(errors.ConfigError, match="threads"):
        plain.threads = threads
    plain.threads = 3
    assert plain.threads == 3
