"""Edges by target: every target is in one tile with all of its edges."""

from __future__ import annotations

import itertools

import torch

from nodebits.engine.rows import Rows
from nodebits.graph import as_graph
from nodebits.nn.propagate.lifted import Lifted
from nodebits.nn.propagate.tiles import as_given, tiles_of
from nodebits.ops import pack


def test_tiles_keep_targets_whole() -> None:
    targets = torch.cat([torch.full((50,), 3), torch.randint(0, 20, (100,))])
    edges = torch.stack([torch.randint(0, 9, (150,)), targets])
    graph = as_graph(edges, 9, 25)
    tiles = list(tiles_of(graph, 16))
    assert tiles[0].first == 0 and tiles[-1].last == 25 and tiles[-1].end == 150
    for tile, after in itertools.pairwise(tiles):
        assert tile.last == after.first and tile.end == after.begin
    for tile in tiles:
        assert tile.last > tile.first
        assert tile.end - tile.begin <= 16 or tile.last - tile.first == 1
        assert tile.begin == graph.indptr[tile.first] and tile.end == graph.indptr[tile.last]


def test_rows_of_edges_go_back_in_the_given_order() -> None:
    edges = torch.randint(0, 6, (2, 40))
    graph = as_graph(edges, 6)
    values = torch.arange(40.0).view(-1, 1)
    assert torch.equal(as_given(values[graph.perm], graph), values)


def test_packed_rows_are_decoded_as_they_are_taken() -> None:
    for bits in (1, 2, 4, 8):
        for axis, length in ((-1, 1), (0, 11), (1, 6)):
            codes = torch.randint(0, 1 << bits, (11, 6), dtype=torch.uint8)
            scale, zero = torch.rand(length) + 0.1, torch.rand(length)
            rows = Rows.dense(pack(codes, bits), bits, 6, scale, zero, axis)
            lifted = Lifted(rows, torch.Size((11, 2, 3)))
            index = torch.randint(0, 11, (30,), dtype=torch.int32)
            expected = rows.dequantize().view(11, 2, 3)
            assert torch.equal(lifted.take(index, 4, 20), expected[index[4:20].long()])
            assert torch.equal(lifted.block(2, 5), expected[2:5])
            assert torch.equal(lifted.values, expected)
