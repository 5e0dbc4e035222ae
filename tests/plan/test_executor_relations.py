"""Steps on edges of several relations: the rows of all of them as one graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, same

from nodebits.core.errors import FileFormatError, GraphError, NodeIndexError
from nodebits.graph import Graph, Part, as_graph, joined_graph

# Nodes by type, and what relations lead from and to; the third type has none.
COUNTS = [7, 4, 0, 12]
BETWEEN = [(0, 0), (1, 0), (3, 1), (0, 3), (3, 3)]


def relations() -> list[Graph]:
    made = []
    for number, (source, target) in enumerate(BETWEEN):
        count = 0 if number == 2 else 9 + 5 * number
        ends = [torch.randint(COUNTS[side], (count,)) for side in (source, target)]
        made.append(as_graph(torch.stack(ends), COUNTS[source], COUNTS[target]))
    return made


def arguments(graphs: list[Graph], case: Case) -> list[Any]:
    return [
        [case.input(graph.indptr) for graph in graphs],
        [case.input(graph.indices) for graph in graphs],
        [graph.num_src for graph in graphs],
        [target for _, target in BETWEEN],
        COUNTS,
    ]


def joined(graphs: list[Graph]) -> Graph:
    parts = zip(graphs, BETWEEN, strict=True)
    return joined_graph([Part(graph, target) for graph, (_, target) in parts], COUNTS)


def test_one_graph_of_several() -> None:
    graphs = relations()
    case = Case()
    made = case.everywhere(*case.step("joined_rows", *arguments(graphs, case), outs=2))
    expected = joined(graphs)
    assert same(made[0], expected.indptr) and same(made[1], expected.indices)
    # What it means, edge by edge.
    rows: list[list[int]] = [[] for _ in range(sum(COUNTS))]
    first = 0
    for graph, (_, target) in zip(graphs, BETWEEN, strict=True):
        for source, to in graph.edge_index()[:, graph.edge_index()[1].argsort(stable=True)].T:
            rows[sum(COUNTS[:target]) + int(to)].append(first + int(source))
        first += graph.num_src
    assert [edge for row in rows for edge in row] == expected.indices.tolist()
    assert expected.indptr.diff().tolist() == [len(row) for row in rows]
    assert expected.num_src == first


def test_the_last_one_is_kept() -> None:
    graphs = relations()
    made = joined(graphs)
    assert joined(graphs) is made
    other = joined([graphs[0], *relations()[1:]])
    assert other is not made and joined(graphs) is not made


WRONG: dict[str, tuple[int, Any, type[Exception], str]] = {
    "fewer targets": (4, [7, 5, 0, 12], GraphError, "leads to 4 targets of a type with 5"),
    "below zero": (4, [7, 4, -1, 12], GraphError, "-1 targets"),
    "too many": (4, [7, 4, 2**31, 12], GraphError, "int32"),
    "few sources": (2, [6, 4, 12, 7, 12], NodeIndexError, "has 6 rows"),
    "sources below zero": (2, [7, 4, -12, 7, 12], GraphError, "-12 sources"),
    "no block": (3, [0, 0, 1, 4, 3], FileFormatError, "4 blocks of targets"),
    "a part too few": (3, [0, 0, 1, 3], FileFormatError, "every part has"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name: str) -> None:
    place, value, error, words = WRONG[name]
    graphs = relations()
    graphs[0].indices[0] = 6
    case = Case()
    given = arguments(graphs, case)
    given[place] = value
    ref = case.step("joined_rows", *given, outs=2)[0]
    with pytest.raises(error, match=words):
        case.run(ref)


def test_parts_must_fit_their_types() -> None:
    graph = as_graph(torch.zeros(2, 3, dtype=torch.int64), 4)
    with pytest.raises(GraphError, match="4 targets of a type with 5"):
        joined_graph([Part(graph, 0)], [5])
    with pytest.raises(GraphError, match="node indices are int32"):
        joined_graph([Part(graph, 0)], [4, 2**31])
