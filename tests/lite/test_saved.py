"""Models that nodebits has saved give the bits that nodebits computed (``make_models.py``)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nodebits.lite import load

MODELS = sorted((Path(__file__).parent / "models").glob("*.safetensors"))
every_model = pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
Case = tuple[dict[str, np.ndarray], np.ndarray]


def cases(path: Path) -> list[Case]:
    """Inputs and results."""
    kept = np.load(path.with_suffix(".npz"))
    found: dict[str, dict[str, np.ndarray]] = {}
    for key in kept:
        number, _, name = key.partition("/")
        found.setdefault(number, {})[name] = kept[key]
    return [(case, case.pop("result")) for case in found.values()]


def test_there_are_models() -> None:
    assert [path.stem for path in MODELS] == ["gat", "gcn", "gin", "sage"]
    assert all(path.stat().st_size < 100_000 for path in MODELS)


@pytest.mark.parametrize("threads", [1, 2])
@every_model
def test_results_have_the_bits_of_nodebits(path: Path, threads: int) -> None:
    model = load(path, threads=threads)
    for _ in range(2):  # the second time in memory that is used again
        for given, expected in cases(path):
            found = model.predict(**given)
            assert found.dtype == expected.dtype and np.array_equal(found, expected)


@every_model
def test_graphs_that_are_set_give_the_same(path: Path) -> None:
    model = load(path)
    for given, expected in cases(path):
        edges, nodes = given.pop("edge_index"), len(given["x"])
        model.set_graph(edges, nodes)
        for _ in range(2):
            assert np.array_equal(model.predict(**given), expected)
        order = np.argsort(edges[1], kind="stable")
        indptr = np.zeros(nodes + 1, np.int64)
        np.add.at(indptr, edges[1] + 1, 1)
        model.set_graph(indptr=indptr.cumsum(), indices=edges[0][order].astype(np.int32))
        assert np.array_equal(model.predict(**given), expected)


@every_model
def test_threads_share_a_model_and_a_graph(path: Path) -> None:
    model = load(path, threads=2)
    given, expected = cases(path)[-1]
    rest = {name: value for name, value in given.items() if name != "edge_index"}
    model.set_graph(given["edge_index"], len(given["x"]))

    def call(i: int) -> bool:
        inputs = given if i % 2 else rest
        return all(np.array_equal(model.predict(**inputs), expected) for _ in range(30))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


@every_model
def test_graphs_without_edges_and_single_nodes(path: Path) -> None:
    model = load(path)
    given, expected = cases(path)[1]
    assert len(given["x"]) == 1 and np.array_equal(model.predict(**given), expected)
    given["edge_index"] = np.zeros((2, 0), np.int64)
    assert model.predict(**given).shape == expected.shape


@every_model
def test_wrong_features_are_refused_and_change_nothing(path: Path) -> None:
    model = load(path)
    given, expected = cases(path)[0]
    width = given["x"].shape[1]
    for x, error in [
        (given["x"][:, :-1], "ShapeError"),
        (given["x"].astype(np.float64), "ShapeError"),
        (np.where(np.arange(width) == 3, np.nan, given["x"]).astype(np.float32), "NonFiniteError"),
    ]:
        with pytest.raises(ValueError) as caught:
            model.predict(**{**given, "x": x})
        assert type(caught.value).__name__ == error
    edges = given["edge_index"].copy()
    edges[1, 5] = len(given["x"])
    with pytest.raises(IndexError, match=str(len(given["x"]))):
        model.predict(**{**given, "edge_index": edges})
    assert np.array_equal(model.predict(**given), expected)
