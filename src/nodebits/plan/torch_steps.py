"""Which operators of torch are which steps.

Exact ones give torch's bits on every machine (single IEEE operations, copies, sums in a stated
order). Others are rounded by torch as its vector library does: a plan names them, and within
nodebits torch computes them. An operator without a step of its own is one that only torch runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits.plan.plan import DTYPES
from nodebits.plan.trace import leaves

FACTORIES = frozenset(
    ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "arange", "zeros_like",
     "ones_like", "full_like", "empty", "new_empty", "empty_like")
)  # fmt: skip

# Operators that repeat a smaller operand by themselves.
BROADCASTING = frozenset(("add", "sub", "rsub", "mul", "div", "maximum", "minimum"))

# Operators that give the same bits whatever the strides of their arguments: they copy, compare, or
# round every entry by itself as IEEE does.
ANY_STRIDES = BROADCASTING | frozenset(
    ("_to_copy", "_unsafe_view", "abs", "all", "amax", "amin", "any", "argmax", "argmin", "argsort",
     "as_strided", "cat", "ceil", "clamp", "clamp_max", "clamp_min", "clone", "constant_pad_nd",
     "contiguous", "copy", "diagonal", "eq", "expand", "flip", "floor", "full_like", "gather", "ge",
     "gt", "hardtanh", "index", "index_select", "isfinite", "isinf", "isnan", "le", "leaky_relu",
     "logical_and", "logical_not", "logical_or", "lt", "masked_fill", "max", "min", "nan_to_num",
     "ne", "neg", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "permute",
     "reciprocal", "relu", "repeat", "reshape", "roll", "round", "select", "sgn", "sign", "slice",
     "sort", "split", "split_with_sizes", "sqrt", "squeeze", "stack", "t", "threshold", "topk",
     "transpose", "tril", "triu", "trunc", "unbind", "unfold", "unsqueeze", "view", "where",
     "zeros_like")
)  # fmt: skip

_NO_END = (1 << 63) - 1
# Beyond it a double does not hold every integer.
_MOST_WHOLE = 1 << 53
Given = dict[str, Any]


class Found(NamedTuple):
    """A step for a call."""

    op: str
    args: list[Any]
    approx: bool = False


def bound(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Given:
    """The arguments of a call by name, defaults included."""
    given: Given = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            given[argument.name] = args[i]
        elif argument.name in keywords:
            given[argument.name] = keywords[argument.name]
        elif argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def in_place_twin(func: Any) -> Any:
    """The operator that returns what ``func`` writes; None where there is none."""
    name = func._opname
    if not name.endswith("_") or name.startswith("_"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    for overload in () if packet is None else packet.overloads():
        found = getattr(packet, overload)
        # Overloads of the two are called differently: what they take says which belong together.
        if _takes(found) == _takes(func) and not found._schema.is_mutable:
            return found
    return None


def _takes(func: Any) -> list[tuple[str, str]]:
    return [(argument.name, str(argument.type)) for argument in func._schema.arguments]


def step_of(func: Any, given: Given, made: list[Tensor]) -> Found:
    """The step that repeats a call.

    Args:
        func: A functional operator of torch.
        given: Its arguments by name.
        made: Its results.
    """
    tensors = [t for t in (*leaves(given), *made) if isinstance(t, Tensor)]
    known = all(t.dtype in DTYPES for t in tensors)
    make = _STEPS.get(func._opname) if known else None
    found = None if make is None else make(given, made[0])
    if found is not None:
        return found
    plain = {
        name: value for name, value in given.items() if name not in ("is_expanded", "from_zero")
    }
    if given.get("is_expanded"):
        plain["index"] = given["index"].view(-1, *[1] * (made[0].dim() - 1)).expand_as(made[0])
    name = f"{func.namespace}.{func._opname}.{func._overloadname}"
    named = [[key, value] for key, value in plain.items()]
    return Found("torch", [name, named])


def _floats(given: Given, *names: str) -> bool:
    """Whether these are float32 tensors, or numbers."""
    for name in names:
        value = given[name]
        if isinstance(value, Tensor):
            if value.dtype != torch.float32:
                return False
        elif isinstance(value, bool) or not isinstance(value, int | float):
            return False
    return True


def _unary(op: str, approx: bool = False) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        return Found(op, [given["self"]], approx) if _floats(given, "self") else None

    return make


def _add(given: Given, out: Tensor) -> Found | None:
    x, by = given["self"], given["other"]
    whole = isinstance(by, int) and not isinstance(by, bool) and given.get("alpha", 1) == 1
    if whole and out.dtype == x.dtype == torch.int64:
        return Found("shift", [x, by])
    return _binary("add")(given, out)


def _binary(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        if given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
            return None
        if not _floats(given, "self", "other") or out.dtype != torch.float32:
            return None
        return Found(op, [_number(given["self"]), _number(given["other"])])

    return make


def _rsub(given: Given, out: Tensor) -> Found | None:
    """``other - self``, as ``1 - x`` is written."""
    return _binary("sub")({**given, "self": given["other"], "other": given["self"]}, out)


def _number(value: Any) -> Any:
    """A number as the float that it is beside floats."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _pow(given: Given, out: Tensor) -> Found | None:
    """A square, which torch computes as a product."""
    plain = _floats(given, "self") and given["exponent"] == 2
    return Found("mul", [given["self"], given["self"]]) if plain else None


def _clamp(given: Given, out: Tensor) -> Found | None:
    low, high = given.get("min"), given.get("max")
    if isinstance(low, Tensor) or isinstance(high, Tensor) or not _floats(given, "self"):
        return None
    if high is None and low is not None:
        return Found("clamp_min", [given["self"], float(low)])
    if low is None or high is None:
        return None
    return Found("clamp", [given["self"], float(low), float(high)])


def _leaky_relu(given: Given, out: Tensor) -> Found | None:
    if not _floats(given, "self"):
        return None
    return Found("leaky_relu", [given["self"], float(given.get("negative_slope", 0.01))])


def _view(given: Given, out: Tensor) -> Found | None:
    x = given["self"]
    if x.dtype != out.dtype or not x.is_contiguous():
        return None
    return Found("view", [x, list(out.shape)])


def _joined(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        tensors = given["tensors"]
        if len({t.dtype for t in tensors}) > 1 or any(t.dim() != tensors[0].dim() for t in tensors):
            return None
        dim = int(given.get("dim", 0))
        return Found(op, [list(tensors), dim if dim >= 0 else dim + out.dim()])

    return make


def _slice(given: Given, out: Tensor) -> Found | None:
    x, dim = given["self"], int(given.get("dim", 0))
    dim += x.dim() if dim < 0 else 0
    start, end = given.get("start") or 0, given.get("end")
    # Beyond the end of these data may be within others; negative ones count from the end.
    end = None if end is None or end >= _NO_END else end
    return Found("slice", [x, dim, start, end, int(given.get("step", 1))])


def _select(given: Given, out: Tensor) -> Found | None:
    x, dim, index = given["self"], int(given["dim"]), int(given["index"])
    if index < 0:
        return None
    return Found("select", [x, dim + x.dim() if dim < 0 else dim, index])


def _transpose(given: Given, out: Tensor) -> Found | None:
    x = given["self"]
    one, other = (int(given[k]) % x.dim() for k in ("dim0", "dim1"))
    return Found("transpose", [x, one, other])


def _t(given: Given, out: Tensor) -> Found | None:
    x = given["self"]
    return Found("transpose", [x, 0, 1]) if x.dim() == 2 else None


def _copied(given: Given, out: Tensor) -> Found | None:
    x = given["self"]
    if x.dtype == out.dtype:
        return Found("clone", [x])
    if out.dtype == torch.float32 and x.dtype in (
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.bool,
    ):
        return Found("float", [x])
    return None


def _index_select(given: Given, out: Tensor) -> Found | None:
    if int(given["dim"]) != 0 or given["self"].dim() == 0:
        return None
    return Found("index_select", [given["self"], 0, given["index"]])


def _index(given: Given, out: Tensor) -> Found | None:
    """``x[rows]``; numbers below zero count from the end there."""
    x, index = given["self"], given["indices"]
    rows = index[0] if len(index) == 1 else None
    if rows is None or rows.dtype != torch.int64 or rows.dim() != 1 or x.dim() == 0:
        return None
    return None if bool((rows < 0).any()) else Found("index_select", [x, 0, rows])


def _filled(
    value: float | None, key: str = "fill_value"
) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        number = given[key] if value is None else value
        if out.dtype == torch.int64 and abs(number) < _MOST_WHOLE:
            return Found("full", [list(out.shape), int(number), "int64"])
        if out.dtype != torch.float32:
            return None
        return Found("full", [list(out.shape), float(number)])

    return make


def _arange(given: Given, out: Tensor) -> Found | None:
    end = given["end"]
    if "start" in given or not isinstance(end, int) or out.dtype not in _COUNTING:
        return None
    return Found("arange", [end, _COUNTING[out.dtype]])


_COUNTING = {torch.int32: "int32", torch.int64: "int64"}


def _segments(op: str) -> Callable[[Given, Tensor], Found | None]:
    """Sums of rows by an index; see the recorder for what ``is_expanded`` says."""

    def make(given: Given, out: Tensor) -> Found | None:
        source = given["src"] if "src" in given else given["source"]
        if source.dtype != torch.float32 or source.dim() not in (1, 2):
            return None
        if int(given["dim"]) % source.dim() != 0:
            return None
        by_row = given.get("is_expanded") or given["index"].dim() == 1
        if not by_row or given.get("alpha", 1) != 1:
            return None
        return Found(op, [source, given["index"], out.size(0)])

    return make


def _scatter_add(given: Given, out: Tensor) -> Found | None:
    return _segments("segment_sum")(given, out) if given.get("from_zero") else None


def _scatter_reduce(given: Given, out: Tensor) -> Found | None:
    op = {"amax": "segment_max", "amin": "segment_min"}.get(given["reduce"])
    if op is None or given.get("include_self", True) or not given.get("from_zero"):
        return None
    return _segments(op)(given, out)


def _max(given: Given, out: Tensor) -> Found | None:
    x = given["self"]
    return Found("max_index", [x]) if x.dtype == torch.int64 and x.dim() == 1 else None


def _compared(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        if not _floats(given, "self", "other"):
            return None
        return Found(op, [given["self"], _number(given["other"])])

    return make


def _where(given: Given, out: Tensor) -> Found | None:
    if "other" not in given or not _floats(given, "self", "other"):
        return None
    return Found("where", [given["condition"], given["self"], given["other"]])


def _extreme(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        dims = given.get("dim")
        if not _floats(given, "self") or not isinstance(dims, list | tuple) or len(dims) != 1:
            return None
        dim = int(dims[0]) % given["self"].dim()
        return Found(op, [given["self"], dim, bool(given.get("keepdim", False))])

    return make


def _reduced(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        dims = given.get("dim")
        if not _floats(given, "self") or given.get("dtype") is not None:
            return None
        rank = given["self"].dim()
        every = (
            list(range(rank)) if dims is None or len(dims) == 0 else [int(d) % rank for d in dims]
        )
        return Found(op, [given["self"], every, bool(given.get("keepdim", False))], True)

    return make


def _norm(given: Given, out: Tensor) -> Found | None:
    """The length of rows: the root of the sum of squares."""
    return _reduced("norm")(given, out) if given.get("ord", 2) == 2 else None


def _spread(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        dims, rank = given.get("dim"), given["self"].dim()
        if not _floats(given, "self"):
            return None
        every = (
            list(range(rank)) if dims is None or len(dims) == 0 else [int(d) % rank for d in dims]
        )
        correction = given.get("correction")
        number = 1.0 if correction is None else float(correction)
        return Found(op, [given["self"], every, number, bool(given.get("keepdim", False))], True)

    return make


def _softmax(op: str) -> Callable[[Given, Tensor], Found | None]:
    def make(given: Given, out: Tensor) -> Found | None:
        if not _floats(given, "self") or given.get("half_to_float"):
            return None
        return Found(op, [given["self"], int(given["dim"]) % out.dim()], True)

    return make


def _elu(given: Given, out: Tensor) -> Found | None:
    plain = given.get("alpha", 1) == given.get("scale", 1) == given.get("input_scale", 1) == 1
    return Found("elu", [given["self"]], True) if plain and _floats(given, "self") else None


def _gelu(given: Given, out: Tensor) -> Found | None:
    plain = given.get("approximate", "none") == "none" and _floats(given, "self")
    return Found("gelu", [given["self"]], True) if plain else None


def _layer_norm(given: Given, out: Tensor) -> Found | None:
    if not _floats(given, "input"):
        return None
    shape = [int(n) for n in given["normalized_shape"]]
    return Found(
        "layer_norm",
        [given["input"], shape, given["weight"], given["bias"], float(given["eps"])],
        True,
    )


_ROUNDED = (
    "exp", "log", "tanh", "sigmoid", "silu", "sin", "cos", "expm1", "log1p", "sqrt",
)  # fmt: skip
_STEPS: dict[str, Callable[[Given, Tensor], Found | None]] = {
    "add": _add,
    "sub": _binary("sub"),
    "rsub": _rsub,
    "mul": _binary("mul"),
    "div": _binary("div"),
    "maximum": _binary("maximum"),
    "minimum": _binary("minimum"),
    **{op: _unary(op) for op in ("relu", "neg", "abs", "reciprocal", "rsqrt")},
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "leaky_relu": _leaky_relu,
    **{op: _view for op in ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten")},
    "cat": _joined("cat"),
    "stack": _joined("stack"),
    "slice": _slice,
    "select": _select,
    "transpose": _transpose,
    "t": _t,
    "clone": _copied,
    "_to_copy": _copied,
    "contiguous": _copied,
    "index_select": _index_select,
    "index": _index,
    **{op: _filled(0.0) for op in ("zeros", "new_zeros", "zeros_like")},
    **{op: _filled(1.0) for op in ("ones", "new_ones", "ones_like")},
    **{op: _filled(None) for op in ("full", "new_full", "full_like")},
    "arange": _arange,
    "scatter_add": _scatter_add,
    "index_add": _scatter_add,
    "scatter_reduce": _scatter_reduce,
    "max": _max,
    **{op: _compared(op) for op in ("gt", "lt", "ge", "le", "eq", "ne")},
    "where": _where,
    "amax": _extreme("amax"),
    "amin": _extreme("amin"),
    **{op: _unary(op, True) for op in _ROUNDED},
    "sum": _reduced("sum"),
    "mean": _reduced("mean"),
    "linalg_vector_norm": _norm,
    "var": _spread("var"),
    "std": _spread("std"),
    "_softmax": _softmax("softmax"),
    "_log_softmax": _softmax("log_softmax"),
    "elu": _elu,
    "gelu": _gelu,
    "native_layer_norm": _layer_norm,
}
