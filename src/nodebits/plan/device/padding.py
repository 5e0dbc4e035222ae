"""Arguments of a plan in the sizes of a bucket, and results without what is padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import PlanRefused
from nodebits.core.proven import recall, remember
from nodebits.graph.index_range import outside
from nodebits.plan.device.buckets import Sizes
from nodebits.plan.device.fixed import graph_counts
from nodebits.plan.plan import Plan
from nodebits.plan.run import evaluated
from nodebits.plan.sizes import OTHER_WAY, computed

_OF_EDGES = ("edges", "indices", "perm", "weight", "edge")
_WITH_ROWS = ("node", "batch", "row_per_graph", "indptr", *_OF_EDGES)


class Padding:
    """How the arguments of a plan are padded, which :func:`why_not_fixed` allows.

    Args:
        plan: The plan.
        device: Where its tensors are.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        about = plan.about
        self._device, self._outputs = device, about["outputs"]
        roles = {one["name"]: one["role"] for one in about["arguments"]}
        #: What each input has rows of, or is of the edges.
        self._kinds: dict[int, str] = {}
        self._expects = [step["args"] for step in about["steps"] if step["op"] == "expect"]
        self._counts = graph_counts(about)
        for one in about["inputs"]:
            name, value = one["name"], one["value"]
            role = roles.get(name) or roles[name.partition("/")[0]]
            of_graph = role in ("edges", "graph")
            kind = "node" if role == "packed" else "edges" if of_graph else role
            if of_graph and "/" in name:
                kind = "weight"
            self._kinds.setdefault(value, kind)
            if "graph" in one:
                parts = {number: part for part, number in one["graph"].items()}
                self._kinds.update(parts)

    def sizes(self, values: Mapping[int, Tensor]) -> Sizes | None:
        """Of the arguments; None where they do not tell.

        The number of graphs is looked at once for every tensor that says whose a node is.
        """
        nodes = edges = None
        graphs = 0
        for number, t in values.items():
            kind = self._kinds.get(number)
            if kind == "node":
                nodes = t.size(0)
            elif kind in ("edges", "indices", "edge"):
                edges = t.size(1) if kind == "edges" else t.size(0)
            elif kind == "batch":
                graphs = _graphs_of(t)
        return None if nodes is None or edges is None else Sizes(nodes, edges, graphs)

    def form(self, values: Mapping[int, Tensor]) -> tuple[Any, ...]:
        """What calls must have in common, besides their sizes, to use the same memory."""
        found = []
        for number, t in values.items():
            shape, kind = [*t.shape], self._kinds.get(number, "")
            if kind in _WITH_ROWS:
                shape[1 if kind == "edges" else 0] = -1
            found.append((number, t.dtype, *shape))
        return tuple(found)

    def check(self, values: Mapping[int, Tensor]) -> None:
        """Whether the plan is for arguments of these sizes, as they are without padding.

        Raises:
            PlanRefused: If its forward goes another way.
        """
        for terms, outcome in self._expects:
            found = computed(evaluated(terms, values.__getitem__))
            if found is None or bool(found) is not (outcome == "=true"):
                raise PlanRefused(OTHER_WAY)

    def buffers(self, values: Mapping[int, Tensor], sizes: Sizes) -> dict[int, Tensor]:
        """Memory for arguments like these in the sizes of a bucket."""
        made = {}
        for number, t in values.items():
            shape, rows = [*t.shape], self._rows(number, sizes)
            if rows is not None:
                shape[1 if self._kinds[number] == "edges" else 0] = rows
            made[number] = t.new_zeros(shape)
        return made

    def numbers(self, sizes: Sizes) -> dict[int, int]:
        """Values that are known of the sizes."""
        return dict.fromkeys(self._counts, sizes.graphs - 1)

    def _rows(self, number: int, sizes: Sizes) -> int | None:
        of = {"node": sizes.nodes, "batch": sizes.nodes, "row_per_graph": sizes.graphs}
        of["indptr"] = sizes.nodes + 1
        of.update(dict.fromkeys(_OF_EDGES, sizes.edges))
        return of.get(self._kinds.get(number, ""))

    def fill(
        self, buffers: Mapping[int, Tensor], values: Mapping[int, Tensor], real: Sizes, to: Sizes
    ) -> Tensor:
        """Writes arguments, and what is padding behind them.

        Args:
            buffers: As :meth:`buffers` made them.
            values: The arguments.
            real: Their sizes.
            to: Those of the buffers.

        Returns:
            Whether an edge leads to no node, bool ``[1]``.
        """
        bad = torch.zeros(1, dtype=torch.bool, device=self._device)
        source, target = self._edges(real, to)
        for number, t in values.items():
            kind, buffer = self._kinds.get(number, ""), buffers[number]
            if kind == "edges":
                wrong = outside(t, real.nodes, real.nodes)
                bad |= wrong.any()
                buffer[:, : real.edges].copy_(torch.where(wrong, 0, t))
                buffer[0, real.edges :].copy_(source)
                buffer[1, real.edges :].copy_(target)
                continue
            buffer[: t.size(0)].copy_(t) if t.dim() else buffer.copy_(t)
            if t.dim() == 0 or buffer.size(0) == t.size(0):
                continue
            rest = buffer[t.size(0) :]
            if kind == "indices":
                rest.copy_(source)
            elif kind == "perm":
                rest.copy_(self._numbers(real.edges, to.edges))
            elif kind == "indptr":
                ends = torch.arange(real.nodes, to.nodes, device=self._device)
                rest.copy_(real.edges + torch.searchsorted(target, ends, right=True))
            elif kind == "batch":
                rest.copy_(_spread(real.graphs, to.graphs, self._numbers(0, to.nodes - real.nodes)))
            else:
                rest.zero_()
        return bad

    def _numbers(self, first: int, last: int) -> Tensor:
        return torch.arange(first, last, device=self._device)

    def _edges(self, real: Sizes, to: Sizes) -> tuple[Tensor, Tensor]:
        """Sources and targets of padding: its nodes in a ring, in the order of targets."""
        count = to.nodes - real.nodes
        target = _spread(real.nodes, to.nodes, self._numbers(0, to.edges - real.edges))
        return real.nodes + (target - real.nodes + 1) % count, target

    def cut(self, result: Any, real: Sizes) -> Any:
        """Results in memory of their own, without rows of padding."""
        return _cut(self._outputs, result, lambda about, t: self._cut(about, t, real))

    def _cut(self, about: dict[str, Any], t: Tensor, real: Sizes) -> Tensor:
        size = about["shape"][0] if about["shape"] else 1
        if isinstance(size, int):
            return t.clone()
        if size is None:
            return t[: real.graphs].clone()
        of_edges = self._kinds.get(int(size[1:].partition(".")[0])) in _OF_EDGES
        return t[: real.edges if of_edges else real.nodes].clone()


def _cut(about: Any, result: Any, change: Any) -> Any:
    if isinstance(about, list):
        return [_cut(one, part, change) for one, part in zip(about, result, strict=True)]
    if "value" in about:
        return change(about, result)
    if "dict" in about:
        return {key: _cut(one, result[key], change) for key, one in about["dict"].items()}
    if "items" in about:
        parts = zip(about["items"], result.items(), strict=True)
        return {key: _cut(one, part, change) for (_, one), (key, part) in parts}
    if "tuple" in about:
        parts = zip(about["tuple"], result, strict=True)
        return tuple([_cut(one, part, change) for one, part in parts])
    return result


def _spread(first: int, last: int, numbers: Tensor) -> Tensor:
    """Numbers 0 to n as evenly as can be on those from ``first`` to ``last``, ascending."""
    return first + numbers * (last - first) // max(numbers.numel(), 1)


def _graphs_of(batch: Tensor) -> int:
    """How many graphs there are; looked at once per tensor."""
    known = recall("graphs", batch)
    if known is None:
        known = int(batch.max()) + 1 if batch.numel() else 0
        remember("graphs", known, batch)
    return int(known)
