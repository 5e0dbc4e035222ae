"""Every registered layer on parts of a graph, in one group of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from layers import ELSEWHERE, NODES, SAMPLES, inputs, packed, trained
from ranks import ended, start
from torch import Tensor, nn

import nodebits
from nodebits.core.errors import ConfigError
from nodebits.distributed.files import read_part, write_parts
from nodebits.distributed.launch import gathered, joined
from nodebits.distributed.run import run_part

# What a layer is given beside rows of nodes and edges.
MORE: dict[str, list[str]] = {
    "graph": [],
    "features": ["edge_attr"],
    "relations": ["edge_type"],
    "start": ["x_0"],
}
#: Layers that do not run on parts, and what their error says.
REFUSED = {name: "the model has no plan, which ranks run" for name in ("SMPConv", "ElasticConv")}
# In-degree from which a node's edges are divided.
HUB = 3


class Start(nn.Module):
    """A layer that also reads the rows of the first one, called as others are."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, edge_index: Tensor, x_0: Tensor) -> Tensor:
        out: Tensor = self.layer(x, x_0, edge_index)
        return out


# Rows of features that differ, of layers whose names end in TYPES here.
FEW, TYPES = 2, " of types"


def case(
    kind: type[nn.Module], types: int | None = None
) -> tuple[nodebits.PackedModel, dict[str, Tensor]]:
    """A packed layer and its arguments by name."""
    if SAMPLES[kind].reads == "start":
        x, first, edge_index = inputs(kind)
        model = nodebits.convert(Start(trained(kind)))
        return model, {"x": x, "edge_index": edge_index, "x_0": first}
    names = ["x", "edge_index", *MORE[SAMPLES[kind].reads]]
    return packed(kind), dict(zip(names, inputs(kind, types=types), strict=True))


def check(folder: Path, world: int) -> None:
    """Every layer has the bits of one process, or is refused as listed."""
    torch.set_num_threads(1)
    cases = {k.__name__: case(k) for k, s in SAMPLES.items() if s.reads in MORE}
    for kind in (k for k, s in SAMPLES.items() if s.reads == "features"):
        cases[kind.__name__ + TYPES] = case(kind, FEW)
    divided = [(name, hub) for name in cases for hub in (None, HUB)]
    for name, hub in divided:
        given = dict(cases[name][1])
        edge_index = given.pop("edge_index")
        of_edges = {key: t for key, t in given.items() if key.startswith("edge")}
        of_nodes = {key: t for key, t in given.items() if key not in of_edges}
        parts = folder / f"{name} {hub}"
        write_parts(parts, edge_index, of_nodes, of_edges, world, split_hubs=hub, name=name)

    def work(rank: int) -> dict[Any, Any]:
        with joined(60.0) as ranks:
            return {key: found(*key, ranks) for key in divided}

    def found(name: str, hub: int | None, ranks: Any) -> Any:
        loaded = read_part(folder / f"{name} {hub}", ranks.rank)
        try:
            made = run_part(cases[name][0], loaded, world, 60.0)
        except ConfigError as error:
            return str(error)
        return gathered(made.outputs, loaded.part.nodes, NODES, ranks, 60.0), made.rounded

    (results, *others) = ended(start(world, work, folder), folder)
    assert isinstance(results, dict), (results, others)
    wrong = [key for key, result in results.items() if not _is_right(key[0], result, cases)]
    assert not wrong, {key: results[key] for key in wrong}
    assert len(cases) - len(REFUSED) > len(ELSEWHERE)


def _is_right(name: str, result: Any, cases: dict[str, Any]) -> bool:
    if isinstance(result, str):
        return name in REFUSED and REFUSED[name] in result
    model, given = cases[name]
    outputs, rounded = result
    expected = model.predict(**given)
    if torch.equal(outputs.view(torch.int32), expected.view(torch.int32)):
        return name not in REFUSED
    return bool(rounded) and torch.allclose(outputs, expected, rtol=1e-4, atol=1e-6)
