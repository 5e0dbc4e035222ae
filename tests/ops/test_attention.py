"""graph_attention: torch's attention of every graph, and bits that nothing beside it changes."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import assert_all_levels_agree
from torch.nn import functional as F

from nodebits import ops
from nodebits.core.errors import GraphError, ShapeError


@pytest.mark.parametrize("heads", [1, 4])
def test_it_is_torchs_attention_graph_by_graph(heads: int) -> None:
    sizes = [1, 7, 2, 40]
    batch = torch.repeat_interleave(torch.tensor([0, 1, 4, 5]), torch.tensor(sizes))
    q, k, v = (torch.randn(50, 16) for _ in range(3))
    made = assert_all_levels_agree(ops.graph_attention, q, k, v, batch, heads)
    begin = 0
    for size in sizes:
        rows = slice(begin, begin + size)
        parts = [t[rows].view(size, heads, -1).transpose(0, 1) for t in (q, k, v)]
        want = F.scaled_dot_product_attention(*parts).transpose(0, 1).reshape(size, 16)
        torch.testing.assert_close(made[rows], want)
        alone = ops.graph_attention(q[rows], k[rows], v[rows], None, heads)
        assert torch.equal(alone, made[rows])
        begin += size


def test_large_scores_do_not_overflow() -> None:
    x = torch.randn(9, 4) * 1e4
    made = assert_all_levels_agree(ops.graph_attention, x, x, x, None, 2)
    assert bool(made.isfinite().all())


def test_what_is_refused() -> None:
    x = torch.randn(4, 6)
    with pytest.raises(GraphError, match="falls at node 2"):
        ops.graph_attention(x, x, x, torch.tensor([0, 1, 0, 1]), 2)
    with pytest.raises(ShapeError, match="divide 6 columns"):
        ops.graph_attention(x, x, x, None, 4)
    with pytest.raises(ShapeError, match="not alike"):
        ops.graph_attention(x, x[:3], x, None, 2)
