"""Steps that fail for some numbers, which a plan keeps though nobody reads their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nodebits.plan.trace import Ref, Step, TextArgument, Trace, leaves

# Steps that refuse numbers beyond what they are numbers of, by the name that torch has for them.
_INDEXING = frozenset(
    ("embedding", "gather", "index", "index_add", "index_put", "index_select", "scatter",
     "scatter_add", "scatter_reduce", "segment_max", "segment_min", "segment_sum", "take")
)  # fmt: skip
# Steps whose result is a part of what they are given, or the same in another form.
_PARTS = frozenset(
    ("_to_copy", "clone", "expand", "flip", "select", "slice", "transpose", "unsqueeze", "view")
)


def checks_index(step: Step, trace: Trace, edges: Iterable[str]) -> bool:
    """Whether a step fails for some values of an index.

    Those of edges are checked where rows are made of them.

    Args:
        step: One of the steps of ``trace``.
        trace: The trace.
        edges: Names of the inputs that are edges.
    """
    if _name(step) not in _INDEXING:
        return False
    inputs = {trace.inputs.get(name) for name in edges}
    return any(not _is_part(value, inputs, trace) for value in _indices(step, trace))


def _name(step: Step) -> str:
    return str(step.args[0].text.split(".")[1]) if step.op == "torch" else step.op


def _indices(step: Step, trace: Trace) -> Iterator[int]:
    named = step.args[1] if step.op == "torch" else [(None, arg) for arg in step.args]
    for name, value in named:
        if name == TextArgument("self"):
            continue
        for leaf in leaves([value]):
            if isinstance(leaf, Ref) and not trace.dtypes[leaf.value].is_floating_point:
                yield leaf.value


def _is_part(value: int, inputs: set[int | None], trace: Trace) -> bool:
    """Whether a value is a part of one of the inputs."""
    while value not in inputs:
        step = next((s for s in trace.steps if value in s.outs), None)
        if step is None or _name(step) not in _PARTS:
            return False
        refs = [leaf.value for leaf in leaves(step.args) if isinstance(leaf, Ref)]
        if len(refs) != 1:
            return False
        value = refs[0]
    return True
