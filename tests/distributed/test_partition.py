from __future__ import annotations

import pytest
import torch

from nodebits.core.errors import ConfigError
from nodebits.distributed.partition import divided, owners
from nodebits.distributed.settings import METHODS
from nodebits.graph import as_graph
from packed_models import NODES, small_graph


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [1, 2, 3, 8, NODES])
def test_parts_have_every_node_and_edge_once(method, parts):
    _, edges = small_graph()
    graph = as_graph(edges, NODES)
    owner = owners(graph, parts, method)
    assert owner.bincount(minlength=parts).min() >= 1
    made = list(divided(graph, owner, parts))
    nodes, seen = torch.cat([part.nodes for part in made]), []
    assert nodes.sort().values.tolist() == list(range(NODES))
    assert torch.cat([part.edges for part in made]).sort().values.tolist() == list(
        range(edges.size(1))
    )
    for rank, part in enumerate(made):
        # What arrives from others, in the order in which they send it.
        halo = [other.nodes[other.send.split(other.send_counts)[rank]] for other in made]
        assert [rows.numel() for rows in halo] == part.receive and part.receive[rank] == 0
        number = torch.cat([part.nodes, *halo])
        targets = part.nodes.repeat_interleave(part.indptr.diff())
        assert torch.equal(
            edges[:, part.edges], torch.stack([number[part.indices.long()], targets])
        )
        inside = part.indices[: int(part.indptr[part.inner])]
        assert not inside.numel() or int(inside.max()) < part.nodes.numel()
        seen.append(part.indices.numel())
    if method == "range" and parts == 2:
        assert max(seen) < 0.7 * sum(seen)


def test_metis_sends_less_than_ranges_of_shuffled_nodes():
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(90) % 3
    ends = torch.randint(0, 90, (2, 4000), generator=generator)
    edges = ends[:, group[ends[0]] == group[ends[1]]]
    graph = as_graph(edges, 90)
    rows = {
        method: sum(sum(part.receive) for part in divided(graph, owners(graph, 3, method), 3))
        for method in METHODS
    }
    assert rows["metis"] == 0 < rows["range"]


def test_what_cannot_be_divided():
    graph = as_graph(small_graph()[1], NODES)
    for parts in (0, NODES + 1):
        with pytest.raises(ConfigError, match="expected 1 to 40"):
            owners(graph, parts)
    with pytest.raises(ConfigError, match="use one of range, metis"):
        owners(graph, 2, "random")
    with pytest.raises(ConfigError, match="as many of both"):
        owners(as_graph(torch.tensor([[0], [1]]), 3, 2), 2)
