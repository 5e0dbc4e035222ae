"""Whether runs of a plan may be recorded: its sizes are those of its arguments, padded or not.

A CUDA graph repeats what was recorded on the same sizes. So arguments are padded with nodes that no
edge leads to, as one more graph of the batch; the rows of the others must not notice
(:mod:`nodebits.plan.parts`). No size may follow from values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nodebits.plan.parts import is_by_row
from nodebits.plan.plan import PYTHON, Plan, step_name
from nodebits.plan.run import values_of
from nodebits.plan.trace import leaves

# Further steps of which padding changes no row: those of edges, of sources, and elementwise ones.
_MORE = frozenset(
    ("source_degree", "times", "filled", "fingerprint", "number", "expect", "gated_product",
     "fused_outer_sum", "modulated_sum", "distinct_rows")
)  # fmt: skip
# Their bytes follow from values.
_BY_WIDTH = frozenset(
    ("quantize_pack_bucketed", "unpack_bucketed", "fused_gemm_bucketed", "row_layout", "own_nodes",
     "own_nodes_or", "fields_at", "table_at", "row_extent", "width_scale", "row_zero_point",
     "inverse_power", "zero_point_sum", "degree_bucket", "nearest_group")
)  # fmt: skip
# Torch adds in another order where there are more rows.
_ROUNDED = frozenset(("sum", "mean", "norm", "var", "std"))
# Those that are told how many rows there are, and make or check no more of it.
_SIZED = frozenset(
    ("csr", "self_loops", "self_loops_weighted", "view", "full", "segment_sum", "segment_max",
     "segment_min", "source_degree", "fingerprint", "number", "expect")
)  # fmt: skip
# What makes numbers of nodes and edges, and what keeps them.
_PLACES = frozenset(
    ("csr", "self_loops", "self_loops_weighted", "targets", "edge_index", "distinct_rows")
)
_SAME = frozenset(("select", "view", "clone"))
_LOOPS = ("self_loops", "self_loops_weighted")
_ROLES = frozenset(
    ("node", "edges", "graph", "edge", "batch", "row_per_graph", "number", "constant", "packed")
)


def why_not_fixed(plan: Plan) -> str | None:
    """Why no run of a plan may be recorded, in words; None where they may."""
    return next(_reasons(plan.about), None)


def _reasons(about: dict[str, Any]) -> Iterator[str]:
    yield from _of_arguments(about)
    made = {f"v{out}" for step in about["steps"] for out in step["outs"]}
    made |= {f"v{one['value']}" for one in about["inputs"]}
    places = _given_places(about)
    for step in about["steps"]:
        lookup = step["op"] == "index_select" and step["args"][1:] in [[0, one] for one in places]
        why = None if lookup else _of_step(step, made)
        if why is not None:
            yield f"step {step_name(step)!r}: {why}"
        if step["op"] in _PLACES or (step["op"] in _SAME and step["args"][0] in places):
            places.update(f"v{out}" for out in step["outs"])
    yield from _of_counts(about)
    if not all(_has_known_rows(one, about) for one in _outputs(about["outputs"])):
        yield "nothing tells how many rows its result has"


def _given_places(about: dict[str, Any]) -> set[str]:
    """Values that hold numbers of nodes, edges or graphs: of those that are no padding, theirs."""
    roles = {one["name"]: one["role"] for one in about["arguments"]}
    inputs = [i for i in about["inputs"] if roles.get(i["name"]) in ("edges", "graph", "batch")]
    parts = [part for one in inputs for part in one.get("graph", {}).items()]
    found = {f"v{one['value']}" for one in inputs}
    return found | {f"v{number}" for part, number in parts if part in ("indices", "perm")}


def _of_arguments(about: dict[str, Any]) -> Iterator[str]:
    arguments = about["arguments"]
    if any(any(one.get("of", ())) for one in arguments):
        yield "its arguments are by type"
    roles = [one["role"] for one in arguments]
    odd = sorted(set(roles) - _ROLES)
    if odd:
        yield f"its arguments have the roles {', '.join(odd)}"
    if sum(role in ("edges", "graph") for role in roles) != 1:
        yield "its forward takes no edges, or several sets of them"
    if not {"node", "packed"} & set(roles):
        yield "its forward takes no features of nodes"
    if any(one["name"].startswith("level ") for one in about["inputs"]):
        yield "it is of samples, each of which has other sizes"
    names = [one["name"] for one in about["inputs"] if "/" in one["name"]]
    if any(name.endswith(("/widths", "/indptr")) for name in names):
        yield "its features are packed by width, or without their zeros"


def _of_step(step: dict[str, Any], made: set[str]) -> str | None:
    op, args = step["op"], step["args"]
    if op in PYTHON:
        return "torch or the module runs it, and nothing is known of its rows"
    if op in _BY_WIDTH:
        return "the bytes of rows of several widths follow from values"
    if op in _ROUNDED and step.get("approx"):
        return "torch adds in another order where there are more rows"
    if op == "graph_attention":
        return "its definition asks how many nodes each graph has"
    if op in _LOOPS and not (isinstance(args[3], str) and args[3][0] == "d"):
        return "it takes loops away, or gives them to some of the nodes"
    sized = any(_is(leaf, "d") or _is(leaf, "n") for leaf in leaves(args))
    if sized and op not in _SIZED:
        return "its result follows from sizes"
    if not (is_by_row(step, made) or op in _MORE):
        return "a row of its result may follow from other rows"
    return None


def _of_counts(about: dict[str, Any]) -> Iterator[str]:
    """Of sizes that are values: the number of graphs is known beforehand, others are not."""
    counts = graph_counts(about)
    numbers = {out for s in about["steps"] if s["op"] == "number" for out in s["outs"]}
    for step in about["steps"]:
        plain = values_of([one for one in leaves(step["args"]) if _is(one, "v")])
        if plain & (counts | numbers):
            yield f"step {step_name(step)!r}: it reads a number that follows from sizes"
        sizes = values_of([one for one in leaves(step["args"]) if _is(one, "n")])
        if sizes - counts - numbers:
            yield f"step {step_name(step)!r}: its size follows from values"
        if step["op"] == "max_index" and not set(step["outs"]) <= counts:
            yield f"step {step_name(step)!r}: it is no number of graphs"
        if step["op"] == "expect" and not _of_inputs(step, about):
            yield f"step {step_name(step)!r}: it compares sizes that are not those of arguments"


def _has_known_rows(output: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether an output has a row for each node, edge or graph, or sizes that are always the same.

    All other sizes must be numbers.
    """
    rows, others = (output["shape"] or [1])[0], output["shape"][1:]
    if not all(isinstance(size, int) for size in others):
        return False
    if rows is None:
        return bool(graph_counts(about))
    if isinstance(rows, int):
        return True
    roles = {one["name"]: one["role"] for one in about["arguments"]}
    axes = {"node": 0, "edge": 0, "edges": 1, "graph": 1}
    known = {f"d{i['value']}.{axes.get(roles.get(i['name'], ''), 0)}" for i in about["inputs"]}
    return rows in known


def _is(leaf: Any, kind: str) -> bool:
    return isinstance(leaf, str) and leaf[0] == kind


def _of_inputs(step: dict[str, Any], about: dict[str, Any]) -> bool:
    inputs = {one["value"] for one in about["inputs"]}
    return values_of(step["args"][0]) <= inputs


def graph_counts(about: dict[str, Any]) -> set[int]:
    """Values that are the largest number of a graph."""
    roles = {one["name"]: one["role"] for one in about["arguments"]}
    batches = {f"v{i['value']}" for i in about["inputs"] if roles.get(i["name"]) == "batch"}
    found = (s for s in about["steps"] if s["op"] == "max_index" and s["args"][0] in batches)
    return {out for step in found for out in step["outs"]}


def _outputs(about: Any) -> Iterator[dict[str, Any]]:
    if isinstance(about, list):
        for part in about:
            yield from _outputs(part)
    elif "value" in about:
        yield about
    elif "items" in about:
        yield from _outputs([part for _, part in about["items"]])
    elif "dict" in about or "tuple" in about:
        yield from _outputs([*about["dict"].values()] if "dict" in about else about["tuple"])
