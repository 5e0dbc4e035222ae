"""What the functions of a layer ask for, and what ``propagate`` was given to answer with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from inspect import Parameter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv.message_passing import FUSE_AGGRS
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor, to_edge_index

from nodebits.core.errors import GraphError, ShapeError

# Of PyG's sparse adjacency, what takes the place of an argument that was not given.
_OF_VALUES = ("edge_weight", "edge_attr", "edge_type")


class Reads(NamedTuple):
    """The arguments of a layer's functions.

    Attributes:
        lifted: Names of tensors of nodes that are lifted to edges, without suffix.
        both: Those of them that are lifted from both ends.
        plain: Names read as they are, but for those that PyG itself fills.
    """

    lifted: tuple[str, ...]
    both: frozenset[str]
    plain: tuple[str, ...]


def reads(arguments: Iterable[str]) -> Reads:
    """Sorts names such as ``x_j``, ``alpha_i``, ``edge_attr``."""
    ends: dict[str, set[str]] = {}
    plain = []
    for argument in arguments:
        if argument[-2:] in ("_i", "_j"):
            ends.setdefault(argument[:-2], set()).add(argument[-1])
        else:
            plain.append(argument)
    both = frozenset(name for name, found in ends.items() if len(found) == 2)
    return Reads(tuple(ends), both, tuple(dict.fromkeys(plain)))


def message_arguments(module: Any) -> list[str]:
    """What ``message`` and ``aggregate`` ask for."""
    names: list[str] = module.inspector.get_flat_param_names(
        ["message", "aggregate"], exclude=module.special_args
    )
    return names


def edge_arguments(module: Any) -> list[str]:
    """What ``edge_update`` asks for; nothing where the layer has none."""
    names: list[str] = module.inspector.get_param_names("edge_update", exclude=module.special_args)
    return names


class Call(NamedTuple):
    """A call of ``propagate`` or ``edge_updater``.

    Attributes:
        edge_index: int ``[2, E]``.
        size: Sources and targets as PyG counts them, by row of ``edge_index``; None if not known.
        values: The further arguments.
        source: Row of ``edge_index`` that holds the ends called j.
        node_dim: Dimension of nodes.
    """

    edge_index: Tensor
    size: tuple[int | None, int | None]
    values: dict[str, Any]
    source: int
    node_dim: int

    @property
    def num_edges(self) -> int:
        """E."""
        return self.edge_index.size(1)

    def end(self, argument: str) -> int:
        """Row of ``edge_index`` that an argument with a suffix is taken by."""
        return self.source if argument[-1] == "j" else 1 - self.source

    def at_end(self, name: str, end: int) -> Any:
        """What was given under a name for the nodes of one end."""
        value = self.values.get(name, Parameter.empty)
        return value[end] if is_pair(value) else value

    def directed(self) -> Tensor:
        """``edge_index`` with the ends called j first."""
        return self.edge_index if self.source == 0 else self.edge_index.flip(0)

    def counts(self) -> tuple[int, int]:
        """Number of nodes called j and of nodes called i."""
        j, i = self.size[self.source], self.size[1 - self.source]
        if j is None and i is None:  # nothing is lifted: edges alone say it
            j = int(self.edge_index.max()) + 1 if self.num_edges else 0
        return int((i if j is None else j) or 0), int((j if i is None else i) or 0)


def is_pair(value: Any) -> bool:
    """Whether ``value`` is one tensor (or None) for each end."""
    return isinstance(value, tuple | list) and len(value) == 2


def by_row(module: Any, arguments: Sequence[str], values: dict[str, Any]) -> dict[str, Any]:
    """Pairs of tensors in the order of the rows of ``edge_index`` that take them.

    PyG's code for a class takes ``x_j`` of the first of a pair and ``x_i`` of the second whatever
    the flow is; all functions here, and PyG's definition, take them by row.

    Args:
        module: The layer.
        arguments: What its functions ask for.
        values: What they are given.
    """
    if module.flow == "source_to_target":
        return values
    lifted = reads(arguments).lifted
    turned = {name: values[name][::-1] for name in lifted if is_pair(values.get(name))}
    return {**values, **turned}


def call_of(
    module: Any, arguments: Sequence[str], adjacency: Any, size: Any, values: dict[str, Any]
) -> Call:
    """A call on plain edges, whatever form they were given in.

    Args:
        module: The layer.
        arguments: What its functions ask for.
        adjacency: As PyG takes it.
        size: Likewise.
        values: Likewise.

    Raises:
        ShapeError: If tensors of nodes disagree about their number.
        GraphError: If PyG takes no such adjacency, or a matrix has values that the float layer uses
            and single messages do not.
    """
    try:
        known = list(module._check_input(adjacency, size))
    except ValueError as error:
        raise GraphError(f"layer {module.described}: {error}") from None
    source = 0 if module.flow == "source_to_target" else 1
    values = dict(values)
    if is_sparse(adjacency):
        indices, given = to_edge_index(adjacency)
        # Weights that a layer made itself are values of its matrix by then: EGConv's "symnorm".
        made = ["symnorm_weight"] if "symnorm" in getattr(module, "aggregators", ()) else []
        if is_torch_sparse_tensor(adjacency) and not {*_OF_VALUES, *made} & set(arguments):
            _refuse_values(module, indices, given)
        adjacency = indices.flip(0)
        for name in (*_OF_VALUES, *made):
            if values.get(name) is None and (name != "edge_attr" or given.dim() > 1):
                values[name] = given
    elif isinstance(adjacency, EdgeIndex):
        adjacency = adjacency.as_tensor()
    known = counted(module, arguments, values, known)
    return Call(adjacency, (known[0], known[1]), values, source, module.node_dim)


def _refuse_values(module: Any, indices: Tensor, values: Tensor) -> None:
    """Refuses values other than 1 where PyG's product of matrices would multiply with them."""
    aggregation = module.aggr if isinstance(module.aggr, str) else None
    fused = aggregation in FUSE_AGGRS and module.inspector.implements("message_and_aggregate")
    off = (values != 1).nonzero() if fused else values[:0]
    if not off.numel():
        return
    at = int(off[0, 0])
    raise GraphError(
        f"layer {module.described} has no edge weights in its messages, but the adjacency has the "
        f"value {float(values[at]):.6g} for the edge from node {int(indices[1, at])} to node "
        f"{int(indices[0, at])}: leave the values out, "
        "torch_geometric.utils.to_edge_index(adjacency)[0].flip(0) is the edge_index"
    )


def counted(
    module: Any, arguments: Sequence[str], values: dict[str, Any], known: Sequence[int | None]
) -> list[int | None]:
    """Numbers of nodes by row of ``edge_index``, from the tensors that are lifted.

    Args:
        module: The layer.
        arguments: What its functions ask for.
        values: What they are given.
        known: What is known before.

    Raises:
        ShapeError: If tensors disagree.
    """
    found = list(known)
    source = 0 if module.flow == "source_to_target" else 1
    for argument in arguments:
        if argument[-2:] not in ("_i", "_j"):
            continue
        end = source if argument[-1] == "j" else 1 - source
        value: Any = values.get(argument[:-2])
        ends = ((0, value[0]), (1, value[1])) if is_pair(value) else ((end, value),)
        for at, tensor in ends:
            if isinstance(tensor, Tensor):
                _count(found, at, tensor, argument[:-2], module)
    return found


def _count(known: list[int | None], end: int, tensor: Tensor, name: str, module: Any) -> None:
    if not -tensor.dim() <= module.node_dim < tensor.dim():
        raise ShapeError(
            f"layer {module.described} got {name!r} of shape {list(tensor.shape)}, whose nodes "
            f"would be dimension {module.node_dim}"
        )
    count = tensor.size(module.node_dim)
    if known[end] is None:
        known[end] = count
    elif known[end] != count:
        raise ShapeError(
            f"layer {module.described} got {name!r} of {count} nodes at end {end} of the edges, "
            f"where size or another tensor says {known[end]}"
        )


def matrix(x: Tensor, node_dim: int) -> Tensor:
    """``x`` with a row for every node: float32 ``[N, C]``, or ``[B * N, C]`` of a stack."""
    if x.dim() == 2 and node_dim in (0, -2):
        return x
    if node_dim == 0:
        return as_rows(x, x.size(0))
    return x.reshape(-1, x.size(-1))


def as_rows(values: Tensor, rows: int) -> Tensor:
    """``values`` as a matrix of so many rows; of none the other dimensions tell the columns."""
    return values.reshape(rows, -1 if rows else math.prod(values.shape[1:]))


def nodes_first(x: Tensor, node_dim: int) -> bool:
    """Whether the first dimension of ``x`` is that of nodes."""
    return node_dim in (0, -x.dim())


def is_edge_feature(value: Any, num_edges: int) -> bool:
    """Whether ``value`` is a row of several floats for every edge."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.dim() >= 2
        and value.size(0) == num_edges
        and value.numel() > num_edges
    )
