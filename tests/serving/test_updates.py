"""A graph that changes while it is asked about."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nodebits.serving.errors import RequestError
from nodebits.serving.requests import read_change
from nodebits.serving.sessions import session_of
from nodebits.serving.settings import Limits
from packed_models import FEATURES, NODES

from .conftest import loaded_case, run, serving
from .test_requests import FACTS

X = [[0.5] * FEATURES]


@pytest.fixture
def begun(case, tmp_path):
    loaded = loaded_case(case)

    def make():
        session = session_of(loaded.packed, loaded.problem.example(), tmp_path / "log")
        return replace(loaded, session=session)

    return make


def test_answers_follow_the_graph_also_after_the_end(begun, case, tmp_path):
    async def first():
        async with serving(begun(), tmp_path / "m") as (client, service):
            post = client.post
            added = await post({"add_nodes": {"x": X * 2}}, path="/update")
            assert added.json()["added"] == [NODES, NODES + 1]
            assert added.json()["nodes"] == NODES + 2
            new = {"add_edges": [[NODES, 0], [1, NODES + 1]]}
            assert (await post(new, path="/update")).status == 200
            removed = {"remove_edges": [case.edge_index[:, 0].tolist()]}
            assert (await post(removed, path="/update")).status == 200
            changed = {"set_features": {"nodes": [3], "x": X}}
            assert (await post(changed, path="/update")).status == 200
            gone = await post({"remove_edges": [[NODES, NODES + 1]]}, path="/update")
            assert gone.status == 422 and "no such edge" in gone.json()["error"]
            sampled = await post({"nodes": [1], "num_neighbors": [1]})
            assert sampled.status == 422 and "POST /update" in sampled.json()["error"]
            assert not await service.reload() and "--log" in service.failure
            session = service.served.loaded.session
            whole = case.packed.predict(session.features, session.graph())
            answer = await post({"nodes": [0, NODES, NODES + 1]})
            assert torch.equal(torch.tensor(answer.json()["outputs"]), whole[[0, NODES, NODES + 1]])
            page = (await client.get(f"/?node={NODES + 1}")).body.decode()
            assert f"Node <b>{NODES + 1}</b>" in page
            return answer.json()["outputs"]

    async def second():
        async with serving(begun(), tmp_path / "m") as (client, _):
            await client.post({"remove_nodes": [5]}, path="/update")
            removed = await client.post({"nodes": [5]})
            assert removed.status == 422 and "removed" in removed.json()["error"]
            return (await client.post({"nodes": [0, NODES, NODES + 1]})).json()["outputs"]

    before = run(first())
    assert len(before) == len(run(second()))


def test_without_a_log_nothing_changes(case, tmp_path):
    async def work():
        async with serving(loaded_case(case), tmp_path / "m") as (client, _):
            return await client.post({"add_edges": [[0, 1]]}, path="/update")

    refused = run(work())
    assert refused.status == 404 and "--log" in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "must have one of add_edges"),
        ({"add_edges": [[0, 1]], "remove_edges": []}, 422, "must have one of"),
        ({"add_edges": [[0, 40]]}, 422, "add_edges[0] is 40"),
        ({"add_edges": [[0, 1]], "edge_weight": [1]}, 422, "the field 'edge_weight'"),
        ({"add_nodes": [[1, 2, 3]]}, 422, "expected an object"),
        ({"add_nodes": {"x": [[1, 2]]}}, 422, "3 numbers"),
        ({"set_features": {"x": [[1, 2, 3]]}}, 422, "set_features.nodes is None"),
        ({"set_features": {"nodes": [1, 2], "x": [[1, 2, 3]]}}, 422, "2 nodes and features of 1"),
        ({"remove_nodes": ["a"]}, 422, "remove_nodes[0] is 'a'"),
        ({"remove_nodes": [1] * 61}, 413, "60 at most"),
    ],
)  # fmt: skip
def test_changes_that_are_none(body, status, words):
    with pytest.raises(RequestError) as refused:
        read_change(json.dumps(body).encode(), FACTS, Limits(max_nodes=60, max_edges=30))
    assert refused.value.status == status and words in str(refused.value)


def test_edges_with_weights_bring_theirs():
    facts = replace(FACTS, of_edges={"edge_weight": 0})
    given = {"add_edges": [[0, 1]], "edge_weight": [0.5]}
    change = read_change(json.dumps(given).encode(), facts, Limits())
    assert change.kind == "add_edges" and change.tensors[1].tolist() == [0.5]
    with pytest.raises(RequestError, match="edge_weight is missing"):
        read_change(b'{"add_edges": [[0, 1]]}', facts, Limits())
