"""What a message computes, found by running it: on symbols that know products and nothing else.

A symbol stands for an argument with a row per edge. The layer's own function is run on symbols; if
all that it does is multiply one tensor of source rows with numbers per edge, the result says so.
Anything else (a sum, an activation, a draw, an attribute that is set) ends the run without a
result. So a form is recognised by what a class computes, not by its name, and an overriding
subclass is judged by its own function.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nodebits.nn.propagate.arguments import Call, nodes_first

# A prime that no other dimension is, so that edges are told from columns.
_EDGES = 1_000_003


class Product(NamedTuple):
    """A message ``x_j * w_1 * .. * f_1 * ..``.

    Attributes:
        rows: Argument of the source rows, such as ``x_j``.
        weights: Arguments with numbers per edge.
        factors: Arguments with numbers per target, such as ``norm_i``.
        heads: Numbers of an edge; number h multiplies the h-th of as many equal parts of a row.
        shape: Of an edge's message.
        stacked: Whether the rows are stacks of matrices, ``[*, N, C]``.
    """

    rows: str
    weights: tuple[str, ...]
    factors: tuple[str, ...]
    heads: int
    shape: tuple[int, ...]
    stacked: bool

    @property
    def is_rows(self) -> bool:
        """Whether the message is the source rows themselves."""
        return not self.weights and not self.factors


class _OtherOperation(Exception):
    """The message does more than multiply."""


_SHAPES = (Tensor.view, Tensor.reshape, Tensor.unsqueeze, torch.unsqueeze, torch.reshape)
_PRODUCTS = (Tensor.mul, torch.mul, torch.multiply, Tensor.multiply)
_LOOKS = (Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__)


class _Symbol(Tensor):
    """A tensor without values that knows what it is a product of."""

    rows: str | None
    weights: tuple[str, ...]
    heads: int

    @staticmethod
    def of(
        shape: torch.Size | tuple[int, ...],
        rows: str | None = None,
        weights: tuple[str, ...] = (),
        heads: int = 1,
    ) -> _Symbol:
        """A symbol of a shape."""
        made = torch.empty(shape, device="meta").as_subclass(_Symbol)
        made.rows, made.weights, made.heads = rows, weights, heads
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Follows views and products.

        Raises:
            _OtherOperation: On anything else.
        """
        with torch._C.DisableTorchFunctionSubclass():
            if func in _LOOKS or getattr(func, "__name__", "") == "__get__":
                return func(*args, **(kwargs or {}))
            if func in _SHAPES:
                first = args[0]
                shape = func(*args, **(kwargs or {})).shape
                if first.shape[0] != _EDGES or not shape or shape[0] != _EDGES:
                    raise _OtherOperation
                return _Symbol.of(shape, first.rows, first.weights, first.heads)
            if func in _PRODUCTS and len(args) == 2 and not kwargs:
                return _product(*args)
        raise _OtherOperation


_ASSIGNMENTS = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "or", "and", "xor")}


class _NothingInPlace(TorchFunctionMode):
    """Ends a run that would write to a tensor of the layer."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__")
        if writes or name in _ASSIGNMENTS or name in ("__setitem__", "__set__"):
            raise _OtherOperation
        return func(*args, **(kwargs or {}))


def _product(one: Any, other: Any) -> _Symbol:
    if not isinstance(one, _Symbol) or not isinstance(other, _Symbol):
        raise _OtherOperation
    if one.rows is None and other.rows is None and one.shape == other.shape:
        return _Symbol.of(one.shape, None, one.weights + other.weights)
    rows, weight = (one, other) if other.rows is None else (other, one)
    if rows.rows is None or weight.rows is not None:
        raise _OtherOperation
    heads = _heads(rows.shape, weight.shape)
    if heads > 1 and rows.heads > 1 and heads != rows.heads:
        raise _OtherOperation
    heads = max(heads, rows.heads)
    return _Symbol.of(rows.shape, rows.rows, rows.weights + weight.weights, heads)


def _heads(rows: torch.Size, weight: torch.Size) -> int:
    """How many numbers of an edge meet how many equal parts of its row."""
    if weight.numel() == 0 or len(weight) > len(rows):
        raise _OtherOperation
    padded = (1,) * (len(rows) - len(weight)) + tuple(weight)
    axis = tuple(rows).index(_EDGES)
    if padded[axis] != _EDGES or any(size != 1 for size in padded[:axis]):
        raise _OtherOperation
    parts, inner = tuple(rows[axis + 1 :]), padded[axis + 1 :]
    last = max((i for i, size in enumerate(inner) if size != 1), default=-1)
    # A number for every column is a row of the edge, no weight of it.
    if inner[: last + 1] != parts[: last + 1] or (last >= 0 and last == len(parts) - 1):
        raise _OtherOperation
    return int(torch.Size(parts[: last + 1]).numel())


def traced(layer: Any, call: Call) -> Product | None:
    """The product that the layer's ``message`` is for these arguments; None where it is none.

    Args:
        layer: A layer that passes messages.
        call: What its ``propagate`` was given.
    """
    inspector = layer.inspector
    asked = inspector.get_param_names("message")
    if any(name in layer.special_args for name in asked):
        return None
    given: dict[str, Any] = {}
    for name in asked:
        value = _argument(name, call)
        if value is not _MISSING:
            given[name] = value
    stand_in, before = _stand_in(layer)
    try:
        with torch.random.fork_rng(devices=()), _NothingInPlace():
            made = stand_in.message(**inspector.collect_param_data("message", given))
    except Exception:  # whatever a function does with tensors that hold no values
        return None
    unchanged = _contents(stand_in) == before
    if not unchanged or not isinstance(made, _Symbol) or made.rows is None:
        return None
    axis = tuple(made.shape).index(_EDGES)
    plain = tuple(name for name in made.weights if name[-2:] != "_i")
    factors = tuple(name for name in made.weights if name[-2:] == "_i")
    shape = tuple(made.shape[axis + 1 :])
    return Product(made.rows, plain, factors, made.heads, shape, axis > 0)


_MISSING = object()


def _argument(name: str, call: Call) -> Any:
    """What stands for an argument: a symbol for a row per edge, else the value."""
    if name[-2:] in ("_i", "_j"):
        value = call.at_end(name[:-2], call.end(name)) if name[:-2] in call.values else _MISSING
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if nodes_first(value, call.node_dim):
            shape = (_EDGES, *value.shape[1:])
        elif call.node_dim == -2 and value.dim() > 2:
            shape = (*value.shape[:-2], _EDGES, value.size(-1))
        else:
            return value
        return _Symbol.of(shape, name) if name[-1] == "j" else _Symbol.of(shape, None, (name,))
    value = call.values.get(name, _MISSING)
    per_edge = isinstance(value, Tensor) and value.dim() and value.size(0) == call.num_edges
    if per_edge and value.is_floating_point() and value.layout == torch.strided:
        return _Symbol.of((_EDGES, *value.shape[1:]), None, (name,))
    return value


def _stand_in(layer: Any) -> tuple[Any, dict[str, Any]]:
    """What a function may change in place of the layer, and what it holds before."""
    kind: Any = type(layer)
    made = kind.__new__(kind)
    for name, value in vars(layer).items():
        vars(made)[name] = copy.copy(value) if isinstance(value, _CONTAINERS) else value
    return made, _contents(made)


_CONTAINERS = (list, dict, set)


def _contents(module: Any) -> dict[str, Any]:
    """Attributes by identity, those of containers by their parts."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, dict):
            found[name] = [(key, id(part)) for key, part in value.items()]
        elif isinstance(value, list | set):
            found[name] = [id(part) for part in value]
        else:
            found[name] = id(value)
    return found
