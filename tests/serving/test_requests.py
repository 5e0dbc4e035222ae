"""Bodies of strangers become questions or reasons, and nothing else."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from nodebits.serving.errors import RequestError
from nodebits.serving.questions import Graphs, KnownRows, NewNodes, SampledRows
from nodebits.serving.requests import Facts, read_change, read_question
from nodebits.serving.settings import Limits

OPEN = dict.fromkeys(("nodes", "pairs", "num_neighbors", "new_nodes", "graphs"), "")
FACTS = Facts(40, {"n7": 7}, 3, False, OPEN, {})
LIMITS = Limits(max_rows=50, max_nodes=60, max_edges=30)
X = [[1.0, 2, 3]]


def read(body: Any, facts: Facts = FACTS) -> Any:
    return read_question(body if type(body) is bytes else json.dumps(body).encode(), facts, LIMITS)


def test_questions():
    asked = read({"nodes": [3, "n7", 0]})
    assert type(asked) is KnownRows and asked.rows.tolist() == [3, 7, 0]
    assert asked.names == [3, "n7", 0]
    sampled = read({"nodes": [], "num_neighbors": [10, -1], "seed": 4})
    assert type(sampled) is SampledRows and sampled.seed == 4 and sampled.rows.shape == (0,)
    new = read({"new_nodes": {"x": [[1, 2.5, -3], [0, 0, 0]], "edges": [[40, 41], [3, 40]]}})
    assert type(new) is NewNodes and new.x.tolist() == [[1, 2.5, -3], [0, 0, 0]]
    assert new.edges.tolist() == [[40, 3], [41, 40]]
    assert read({"new_nodes": {"x": X}}).edges.shape == (2, 0)
    (graph,) = read({"graphs": [{"x": X, "edges": [[0, 0]], "edge_attr": [[1, 2]]}]}).graphs
    assert graph.others["edge_attr"].shape == (1, 2) and graph.x.dtype == torch.float32
    ids = replace(FACTS, integers=True)
    assert read({"graphs": [{"x": [4, 5]}]}, ids).graphs[0].x.tolist() == [4, 5]
    assert read({"graphs": [{"x": [[4], [5]]}]}, ids).graphs[0].x.shape == (2, 1)
    assert type(read({"graphs": [{"x": X}]})) is Graphs
    assert read({"pairs": [[0, 39], [1, 2]]}).pairs.tolist() == [[0, 1], [39, 2]]


def test_edges_of_data_with_weights_need_them():
    facts = replace(FACTS, of_edges={"edge_weight": 0, "edge_attr": 2})
    given = {"x": X, "edges": [[40, 1]], "edge_weight": [0.5], "edge_attr": [[1, 2]]}
    asked = read({"new_nodes": given}, facts)
    assert asked.of_edges["edge_weight"].tolist() == [0.5]
    assert asked.of_edges["edge_attr"].shape == (1, 2)
    del given["edge_weight"]
    with pytest.raises(RequestError, match=r"new_nodes\.edge_weight is missing"):
        read({"new_nodes": given}, facts)


def test_own_ids_are_taken_wherever_nodes_of_the_data_are():
    asked = read({"new_nodes": {"x": X, "edges": [["n7", 40], [40, "n7"], [3, 40]]}})
    assert asked.edges.tolist() == [[7, 40, 3], [40, 7, 40]]
    pairs = read({"pairs": [["n7", 0], [1, 2]]})
    assert pairs.pairs.tolist() == [[7, 1], [0, 2]] and pairs.names == [["n7", 0], [1, 2]]
    for kind in ("add_edges", "remove_edges"):
        change = read_change(json.dumps({kind: [["n7", 3]]}).encode(), FACTS, LIMITS)
        assert change.tensors[0].tolist() == [[7], [3]]
    with pytest.raises(RequestError, match=r"edges\[1\] is 'n8': the data have no such node"):
        read({"new_nodes": {"x": X, "edges": [[0, 40], ["n8", 40]]}})
    with pytest.raises(RequestError, match=r"edges\[0\] is 'n7': expected an integer from 0 to 0"):
        read({"graphs": [{"x": X, "edges": [["n7", 0]]}]})


def test_graphs_without_edges_have_the_columns_of_others_or_of_the_model():
    facts = replace(FACTS, of_edges={"edge_attr": 5, "edge_weight": 0})
    for alone in ({"x": X}, {"x": X, "edges": [], "edge_attr": []}):
        others = read({"graphs": [alone]}, facts).graphs[0].others
        assert {n: tuple(v.shape) for n, v in others.items()} == {
            "edge_attr": (0, 5), "edge_weight": (0,),
        }  # fmt: skip
        full = {"x": X, "edges": [[0, 0]], "edge_attr": [[1, 2]]}
        for known in (FACTS, facts):  # which need not be what the request has
            first, second = read({"graphs": [alone, full]}, known).graphs
            assert first.others["edge_attr"].shape == (0, 2) and first.others.keys() == {
                "edge_attr"
            }
            assert second.others["edge_attr"].tolist() == [[1, 2]]
    new = read({"new_nodes": {"x": X}}, facts)
    assert new.of_edges["edge_attr"].shape == (0, 5)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff\xfe\x00", 400, "no JSON"),
        (b'{"nodes": [1], "nodes": [2]}', 400, "twice"),
        (b'{"nodes": [NaN]}', 400, "NaN"),
        (b'{"nodes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deep"),
        (b'{"nodes": ' + b"[" * 600 + b"]" * 600 + b"}", 422, "nodes[0]"),
        (b'{"nodes": [' + b"9" * 5000 + b"]}", 400, "no JSON"),
        (b'{"nodes": [' + b"9" * 400 + b"]}", 422, "an integer of"),
        ([1], 422, "the body is [1]: expected an object"),
        (None, 422, "expected an object"),
        ({}, 422, "must have one of nodes, pairs, new_nodes, graphs; it has no field"),
        ({"nodes": [1], "graphs": []}, 422, "must have one of"),
        ({"node": [1]}, 422, "it has 'node'"),
        ({"nodes": [1], "hops": 2}, 422, "the field 'hops': known are nodes, num_neighbors, seed"),
        ({"nodes": 1}, 422, "nodes is 1: expected a list"),
        ({"nodes": [1, 40]}, 422, "nodes[1] is 40: expected an integer from 0 to 39"),
        ({"nodes": [-1]}, 422, "nodes[0] is -1"),
        ({"nodes": [True]}, 422, "nodes[0] is True"),
        ({"nodes": [1.0]}, 422, "nodes[0] is 1.0"),
        ({"nodes": ["n8"]}, 422, "nodes[0] is 'n8': the data have no such node"),
        ({"nodes": [0] * 51}, 413, "nodes has 51 entries: 50 at most"),
        ({"nodes": [0], "seed": 1}, 422, "give num_neighbors too"),
        ({"nodes": [0], "num_neighbors": []}, 422, "num_neighbors is empty"),
        ({"nodes": [0], "num_neighbors": [-2]}, 422, "num_neighbors[0] is -2"),
        ({"nodes": [0], "num_neighbors": [1], "seed": -1}, 422, "seed is -1"),
        ({"pairs": []}, 422, "pairs is empty"),
        ({"pairs": [[0, 40]]}, 422, "pairs[0] is 40"),
        ({"new_nodes": X}, 422, "new_nodes is [[1.0, 2, 3]]: expected an object"),
        ({"new_nodes": {"edges": []}}, 422, "new_nodes.x is missing"),
        ({"new_nodes": {"x": []}}, 422, "new_nodes.x is empty"),
        ({"new_nodes": {"x": [[1, 2]]}}, 422, "x[0]: expected a list of 3 numbers, got 2 of them"),
        ({"new_nodes": {"x": [1]}}, 422, "x[0]: expected a list of 3 numbers, got 1"),
        ({"new_nodes": {"x": [[1, "2", 3]]}}, 422, "x[0][1] is '2': expected a number"),
        ({"new_nodes": {"x": [[1, True, 3]]}}, 422, "x[0][1] is True: expected a number"),
        ({"new_nodes": {"x": [[1, None, 3]]}}, 422, "x[0][1] is None"),
        ({"new_nodes": {"x": [[1, 1e39, 3]]}}, 422, "value 1 of new_nodes.x is beyond float32"),
        (b'{"new_nodes": {"x": [[1e999, 1, 1]]}}', 422, "beyond float32"),
        ({"new_nodes": {"x": [[1, 10**400, 3]]}}, 422, "beyond float32"),
        ({"new_nodes": {"x": X, "edges": [[0]]}}, 422, "edges[0] is [0]: expected [source, targ"),
        ({"new_nodes": {"x": X, "edges": [0]}}, 422, "edges[0] is 0"),
        ({"new_nodes": {"x": X, "edges": [[0, 41]]}}, 422, "edges[0] is 41: expected an integer"),
        ({"new_nodes": {"x": X, "edges": [[0, "a"]]}}, 422, "edges[0] is 'a'"),
        ({"new_nodes": {"x": X, "edges": [[0, 1]] * 31}}, 413, "31 entries: 30 at most"),
        ({"new_nodes": {"x": X, "edge_weight": [1]}}, 422, "the field 'edge_weight'"),
        ({"graphs": []}, 422, "graphs is empty"),
        ({"graphs": [{"x": []}]}, 422, "graphs[0].x is empty"),
        ({"graphs": [{"x": X, "edges": [[0, 1]]}]}, 422, "graphs[0].edges[0] is 1"),
        ({"graphs": [{"x": X}, {"x": X, "pos": [[1]]}]}, 422, "graphs[1] has other fields"),
        ({"graphs": [{"x": X, "y": 1}]}, 422, "graphs[0] has the field 'y'"),
        ({"graphs": [{"x": X * 40}, {"x": X * 40}]}, 413, "more than 60 nodes"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_told_why(body, status, words):
    with pytest.raises(RequestError) as refused:
        read(body)
    assert refused.value.status == status and words in str(refused.value)


def test_what_the_model_does_not_answer():
    closed = replace(FACTS, kinds={**OPEN, "graphs": "the model predicts nodes"})
    with pytest.raises(RequestError, match="graphs cannot be asked for: the model predicts nodes"):
        read({"graphs": [{"x": X}]}, closed)


def mutated(rng: random.Random) -> bytes:
    """JSON that is near to a question, or bytes that are near to JSON."""
    base: list[Any] = [
        {"nodes": [1, 2], "num_neighbors": [2], "seed": 1},
        {"new_nodes": {"x": [[1, 2, 3]], "edges": [[40, 0], [1, 40]]}},
        {"graphs": [{"x": [[1, 2, 3]], "edges": [[0, 0]], "edge_weight": [1], "pos": [[1]]}]},
        {"pairs": [[0, 1]]},
    ]
    odd: list[Any] = [
        None, True, -1, 1.5, 2**70, 1e308, "", "a", "\ud800", [], {}, [[]], [[[1]]], {"x": 1},
        [None],
    ]  # fmt: skip

    def change(value: Any) -> Any:
        if rng.random() < 0.15:
            return rng.choice(odd)
        if isinstance(value, dict):
            made = {k: change(v) for k, v in value.items() if rng.random() > 0.1}
            if rng.random() < 0.1:
                made[rng.choice(["x", "edges", "nodes", "seed", "z", "edge_attr"])] = rng.choice(
                    odd
                )
            return made
        if isinstance(value, list):
            made_list = [change(v) for v in value if rng.random() > 0.1]
            return made_list * rng.choice([1, 1, 1, 2, 40])
        return value

    body = bytearray(json.dumps(change(rng.choice(base))).encode())
    if rng.random() < 0.4:
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(body) + 1)
            piece = rng.choice([b"\x00", b"\xff", b"[", b"}", b"NaN", b'"', b"1e999", b"\\u"])
            body[place : place + rng.randint(0, 2)] = piece
    return bytes(body)


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_bodies_are_questions_or_refused(count):
    rng = random.Random(count)
    found = {400: 0, 413: 0, 422: 0, 200: 0}
    for _ in range(count):
        try:
            read(mutated(rng), replace(FACTS, integers=rng.random() < 0.2))
            found[200] += 1
        except RequestError as error:
            assert str(error)
            found[error.status] += 1
    assert found[200] and found[400] and found[422]
