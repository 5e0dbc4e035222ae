"""Predictions for some nodes from a sample of their neighbourhood."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.errors import ConfigError, GraphMismatchError, NonFiniteError, ShapeError
from nodebits.core.signature import names_of
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.sites.widths import NodeWidths
from nodebits.graph import as_graph
from nodebits.graph.sample import Sample, sample_neighbors
from nodebits.nn.inputs import check_holder
from nodebits.ops.selection import take_rows


def predict_nodes(
    module: nn.Module,
    predict: Callable[..., Any],
    graph: Any,
    features: Tensor | PackedInput,
    node_ids: Any,
    num_neighbors: Sequence[int],
    seed: int | None,
    replace: bool,
    inputs: Mapping[str, Any],
) -> Tensor:
    """See :meth:`nodebits.PackedModel.predict_nodes`.

    ``predict`` is given what was reached, what was sampled from, and the arguments of the module
    for the sample. It returns the rows of all of its nodes or those of its seeds, and which.
    """
    _check_model(module)
    num_nodes = _count(features)
    whole = as_graph(graph, num_nodes, num_nodes)
    drawn = sample_neighbors(whole, node_ids, num_neighbors, seed=seed, replace=replace)
    reader = _reader(module, features)
    sample = drawn if reader is None else drawn.to(reader)
    x: Any = (
        features.selected(sample.nodes)
        if isinstance(features, PackedInput)
        else take_rows(features, sample.nodes)
    )
    others = {
        name: _selected(name, value, drawn, num_nodes, whole.num_edges)
        for name, value in inputs.items()
    }
    if reader is not None:  # arguments lie where the graph does
        others = {n: v.to(reader) if isinstance(v, Tensor) else v for n, v in others.items()}
    try:
        result, of_seeds = predict(sample.reached, (graph, features), (x, sample.graph), others)
    except NonFiniteError as error:
        raise _of_node(error, x, sample) from error
    count = sample.nodes.numel()
    rows = sample.reached[0] if of_seeds else count
    if not isinstance(result, Tensor) or result.dim() < 1 or result.size(0) != rows:
        what = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ConfigError(
            f"the model returned {what} for a sample of {count} nodes: predict_nodes needs a model "
            "that returns a tensor with a row per node"
        )
    if count == 1 and not of_seeds and num_nodes > 1:
        # One row for one node may be one for the graph: two nodes tell.
        seen = int(sample.nodes[0])
        two = torch.tensor([seen, (seen + 1) % num_nodes], device="cpu")
        more = (num_neighbors, seed or 0, replace, inputs)
        predict_nodes(module, predict, whole, features, two, *more)
    return take_rows(result, sample.seeds)


def _check_model(module: nn.Module) -> None:
    """Refuses models that a sample of a graph cannot be given to."""
    names = names_of(module.forward)
    if len(names) < 2:
        raise ConfigError(
            f"forward of {type(module).__name__} takes ({', '.join(names)}): predict_nodes "
            "calls forward(x, edge_index)"
        )
    for path, site in module.named_modules():
        # Without a fingerprint rows are taken for the nodes wherever there are as many.
        if isinstance(site, NodeWidths) and site.bound:
            if site.fallback and int(site.fingerprint) != -1:
                continue
            raise GraphMismatchError(
                f"site {path!r} has parameters for every node of one graph, whose numbers a sample "
                "has not: predict on the whole graph and take rows of the result, or let the "
                "nearest of its pairs serve samples with model.serve_other_graphs()"
            )


def _reader(module: nn.Module, features: Any) -> torch.device | None:
    """The device that takes the features' rows from the host's memory; None where they lie on it.

    Raises:
        ConfigError: If the model is on another one.
    """
    reader: torch.device | None = getattr(features, "reader", None)
    if not isinstance(features, PackedInput) or reader is None:
        return None
    held = next(itertools.chain(module.parameters(), module.buffers()), None)
    at = reader if held is None else held.device
    if at.type != reader.type or reader.index not in (None, at.index):
        raise ConfigError(
            f"the features are read by {str(reader)!r}, but the model is on {str(at)!r}: move it "
            f"with model.to({str(reader)!r}), or call on_host({str(at)!r})"
        )
    return at


def _count(features: Any) -> int:
    """Number of nodes that have features."""
    if isinstance(features, PackedInput):
        if features.graph is not None:
            raise ConfigError(
                "the features were packed for a reordered graph, which is not sampled: call "
                "pack_input without it"
            )
        return features.shape[0]
    if not isinstance(features, Tensor):
        raise ShapeError(
            f"features are a {type(features).__name__}: expected a tensor [num_nodes, channels] "
            "(torch.from_numpy shares the memory of an array, also of a mapped one), or what "
            "pack_input returned"
        )
    check_holder(features, "predict_nodes")
    if features.layout != torch.strided:
        raise ShapeError(
            f"features are a sparse matrix ({features.layout}): pass x.to_dense(), or pack them "
            "ahead (pack_input), which keeps sparse rows by itself"
        )
    if not (2 if features.is_floating_point() else 1) <= features.dim() <= 2:
        raise ShapeError(
            f"features are {features.dtype} {list(features.shape)}: expected a float tensor "
            "[num_nodes, channels], or ids [num_nodes]"
        )
    return features.size(0)


def _selected(name: str, value: Any, sample: Sample, num_nodes: int, num_edges: int) -> Any:
    """What belongs to the sample of a further argument."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if name.startswith("edge"):
        if value.size(0) != num_edges:
            raise ShapeError(
                f"{name} has shape {list(value.shape)}: expected a row for each of the "
                f"{num_edges} edges, in the order of edge_index"
            )
        return take_rows(value, sample.edges)
    if value.size(0) != num_nodes:
        raise ShapeError(
            f"{name} has shape {list(value.shape)}: expected a row for each of the {num_nodes} "
            "nodes; what belongs to edges has a name that begins with 'edge'"
        )
    return take_rows(value, sample.nodes)


def _of_node(error: NonFiniteError, x: Any, sample: Sample) -> NonFiniteError:
    """The same error with the user's number of the node, where it is the features that it names."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return error
    bad = ~x.float().flatten(1).isfinite()
    if not bool(bad.any()):
        return error
    row, column = (int(i) for i in bad.nonzero()[0])
    return NonFiniteError(
        f"the features of node {int(sample.nodes[row])}, which the sample reads, hold "
        f"{x.flatten(1)[row, column].item()} in column {column}; {int(bad.sum())} value(s) of the "
        "sample are NaN or infinite: clean them before quantizing"
    )
