"""Whether a plan may run graph by graph: no step lets one graph of a batch see another."""

from __future__ import annotations

from typing import Any

# These work row by row, or edge by edge, or sum by an index.
_BY_ROW = frozenset(
    ("csr", "self_loops", "self_loops_weighted", "degree", "inverse_degree", "deg_inv_sqrt",
     "targets", "in_order", "check_degree", "edge_codes", "check_finite", "feature_product",
     "pack_own", "gemm", "spmm", "rescale", "edge_softmax", "quantize_pack", "pack", "unpack",
     "gather_rows", "fused_spmm", "fused_gemm", "fused_extremum", "propagate",
     "neighbor_statistics", "pair_scores", "attention_codes", "rectified_sum",
     "rectified_softmax", "gated_sum", "quantize_pack_bucketed", "unpack_bucketed",
     "fused_gemm_bucketed", "nearest_group", "row_layout", "row_extent",
     "width_scale", "row_zero_point", "inverse_power", "zero_point_sum", "degree_bucket",
     "fields_at", "table_at", "add", "sub", "mul", "div", "relu",
     "neg", "abs", "reciprocal", "sqrt", "clamp_min", "clamp", "leaky_relu", "maximum", "minimum",
     "inverse", "clone", "float", "full", "gt", "lt", "ge", "le", "eq", "ne", "where",
     "segment_sum", "segment_max", "segment_min", "max_index", "exp", "log", "tanh", "sigmoid",
     "elu", "gelu", "silu", "expm1", "log1p", "rsqrt", "sin", "cos", "layer_norm",
     "embedding", "row_norm", "row_sum", "root")
)  # fmt: skip
# These work along the last axis of rows.
ROW_NORMS = frozenset(("row_norm", "row_sum"))
# These work along an axis, the argument at this place, which must not be that of the rows.
_ALONG = {"cat": 1, "slice": 1, "select": 1, "softmax": 1, "log_softmax": 1, "amax": 1, "amin": 1}
# These along several.
_OVER = {"sum": 1, "mean": 1, "norm": 1, "var": 1, "std": 1}


def parts_of(
    inputs: list[dict[str, Any]], steps: list[dict[str, Any]], outputs: Any, roles: dict[str, str]
) -> dict[str, Any] | None:
    """How a plan is cut by graphs; None where it is not to be.

    Args:
        inputs: Of the plan.
        steps: Likewise.
        outputs: Likewise.
        roles: Of the inputs, by name.
    """
    by_role = {roles.get(one["name"]): one["value"] for one in inputs}
    batch, nodes = by_role.get("batch"), by_role.get("node")
    # Weights of a graph are no argument, which a part would take rows of; rows of graphs are no
    # rows of nodes.
    if not {"graph", "row_per_graph"}.isdisjoint(roles.values()):
        return None
    if batch is None or nodes is None or not isinstance(outputs, dict) or "value" not in outputs:
        return None
    made = {f"v{value}" for step in steps for value in step["outs"]}
    made |= {f"v{one['value']}" for one in inputs}
    if not all(is_by_row(step, made) for step in steps):
        return None
    # The largest number of another index is one of the whole batch.
    if any(step["op"] == "max_index" and step["args"][0] != f"v{batch}" for step in steps):
        return None
    # Parts of packed features are no rows of nodes.
    if any(roles.get(one["name"].partition("/")[0]) == "packed" for one in inputs):
        return None
    rows = outputs["shape"][0] if outputs["shape"] else 1
    if rows is None:
        return {"batch": batch, "by": "graph"}
    return {"batch": batch, "by": "node"} if rows == f"d{nodes}.0" else None


def is_by_row(step: dict[str, Any], made: set[str]) -> bool:
    """Whether a step gives the rows of one graph whatever others are in the batch.

    Args:
        step: Of the plan.
        made: Names of the values that are no constants.
    """
    op, args = step["op"], step["args"]
    if op in _BY_ROW:
        return True
    if op == "graph_attention":  # without a batch every row looks at all
        return args[3] is not None
    if op == "expect":
        return _asks_for_any(*args)
    if op == "index_select":  # of a table that is the same for all rows
        return args[0] not in made
    if op == "view":  # rows stay rows
        return isinstance(args[1][0], str) or args[1][0] == -1
    axes = moved_axes(step)
    return axes is not None and 0 not in axes


def _asks_for_any(terms: list[Any], outcome: str) -> bool:
    """Whether a comparison only asks that there are some rows: the whole has, where a part has."""
    return len(terms) == 3 and (
        (terms[1:], outcome) in ([([0, f"={op}"], "=true") for op in ("gt", "ne")])
        or (terms[1:], outcome) in ([([0, f"={op}"], "=false") for op in ("le", "eq")])
    )


def moved_axes(step: dict[str, Any]) -> list[int] | None:
    """The axes that a step works along; None where it is none that works along some."""
    op, args = step["op"], step["args"]
    if op in _ALONG:
        return [int(args[_ALONG[op]])]
    if op == "layer_norm" or op in ROW_NORMS:
        return []
    return list(args[_OVER[op]]) if op in _OVER else None
