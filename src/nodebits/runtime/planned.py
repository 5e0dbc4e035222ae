"""One plan of a packed model, and how the arguments of a call become its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodebits.engine.packed_input import packed_ahead
from nodebits.engine.sites import RowQuantizer
from nodebits.graph import Graph
from nodebits.graph.adjacency import as_graph
from nodebits.ops.backends.cpu import kernels as backend
from nodebits.plan.adjacency import Given, is_simple
from nodebits.plan.containers import at_place
from nodebits.plan.device.backends import backend_of
from nodebits.plan.device.runner import DeviceRunner
from nodebits.plan.example import Argument
from nodebits.plan.native import NativeRunner
from nodebits.plan.packed_rows import tensors_of
from nodebits.plan.plan import Plan, step_name
from nodebits.plan.trim import trimmed
from nodebits.runtime.places import CPU
from nodebits.runtime.traced import OperatorPlan


def runner_of(plan: Plan, module: nn.Module, device: torch.device) -> Any:
    """What runs a plan on a device."""
    if device.type == "cpu":
        return NativeRunner(plan, module)
    return DeviceRunner(plan, module, device)


# From this many edges on a graph is kept from call to call, with what was made of it.
_KEPT_EDGES = 1 << 15
# What stands for a result that only the module can give.
NOTHING = object()


class Planned:
    """One plan, and how arguments become its inputs.

    Attributes:
        plan: The plan; its constants are on the CPU.
        device: Where it runs.
        runner: Runs it there.
        operator: What torch's operator is given of the plan; None before somebody asks.
    """

    def __init__(self, plan: Plan, module: nn.Module, device: torch.device = CPU) -> None:
        self.plan, self._module, self.device = plan, module, device
        self._trimmed: dict[int, tuple[dict[int, int], Any] | None] = {}
        self.runner = runner_of(plan, module, device)
        self._rounds = bool(plan.leaves)  # by torch, for which strides matter
        about = plan.about
        inputs = {one["name"]: one for one in about["inputs"]}
        arguments = [Argument.from_json(one) for one in about["arguments"]]
        # A place is an argument, and keys of what it holds.
        self._inputs = [
            (*_split(a.place), a.role, a.of, inputs[a.name]) for a in arguments if a.name in inputs
        ]
        self._packed = [
            (a.place, a.name, a.of, {n: one["value"] for n, one in inputs.items() if "/" in n})
            for a in arguments
            if a.role == "packed"
        ]
        sites = (m for m in module.modules() if isinstance(m, RowQuantizer))
        self._sites = {site.site_name: site for site in sites} if self._packed else {}
        self.operator: OperatorPlan | None = None

    def run(self, args: Sequence[Any], keywords: Mapping[str, Any], use_graphs: bool = True) -> Any:
        """The result; :data:`NOTHING` where the module has to be asked.

        Args:
            args: By position.
            keywords: By name.
            use_graphs: Whether CUDA graphs may be made.
        """
        given = self._values(args, keywords)
        if given is None:
            return NOTHING
        if isinstance(self.runner, DeviceRunner):
            return self.runner.run(given[0], use_graphs)
        return self.runner.run(*given)

    def run_sampled(
        self, args: Sequence[Any], keywords: Mapping[str, Any], reached: Sequence[int]
    ) -> Any:
        """The rows of the seeds of a sample; :data:`NOTHING` where only all rows can be had.

        Args:
            args: As for :meth:`run`.
            keywords: Likewise.
            reached: Nodes of the sample after the seeds, and after each hop.
        """
        hops = len(reached) - 1
        if hops not in self._trimmed:
            made = trimmed(self.plan, hops)
            runner = None if made is None else runner_of(made.plan, self._module, self.device)
            self._trimmed[hops] = None if made is None or runner is None else (made.levels, runner)
        found, given = self._trimmed[hops], self._values(args, keywords)
        if found is None or given is None:
            return NOTHING
        levels, runner = found
        values = {
            value: torch.tensor([reached[hop]], device="cpu") for hop, value in levels.items()
        }
        return runner.run({**given[0], **values})

    def running(self, use_graphs: bool) -> dict[str, Any]:
        """What runs it, see :meth:`nodebits.PackedModel.running`."""
        steps = self.plan.about["steps"]
        graphs = "use_graphs is False" if not use_graphs else "of the CPU there are none"
        if use_graphs and isinstance(self.runner, DeviceRunner):
            graphs = self.runner.graphs()
        told = [(step_name(step), backend_of(step, self.device)) for step in steps]
        return {"device": str(self.device), "steps": told, "graphs": graphs}

    def _values(
        self, args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> tuple[dict[int, Tensor], Any] | None:
        """What the plan is given, and what is kept with its graph; None where it does not fit."""
        values: dict[int, Tensor] = {}
        counts: dict[Any, int] = {}  # of nodes and edges, by type
        graphs: list[tuple[Any, Any, Any]] = []
        edges = 0
        for place, name, of, numbers in self._packed:
            rows = at_place(args, keywords, place)
            for site in rows.rows:
                packed_ahead(self._sites[site], rows)  # refuses those of another model
            counts[of] = rows.shape[0]
            for key, t in tensors_of(name, rows).items():
                if key in numbers:
                    values[numbers[key]] = t if t.is_contiguous() else t.contiguous()
        for top, keys, role, of, about in self._inputs:
            value = args[top] if type(top) is int else keywords[top]
            for key in keys:
                value = value[key]
            if role in ("edges", "graph"):
                value = value.graph if type(value) is Given else value
                graphs.append((value, of, about))
                count = value.indices.numel() if isinstance(value, Graph) else value.size(1)
                if self.device.type == "cpu":  # where to look at all edges is cheap
                    edges += count
                if isinstance(value, Graph):
                    edges += _KEPT_EDGES  # all are kept, where one is
            elif "/" in about["name"]:
                continue
            else:
                if value.is_floating_point() and value.dtype != torch.float32:
                    value = value.float()
                if not value.is_contiguous():
                    features = role == "node" and value.dim() == 2  # the module has a copy too
                    if self._rounds and value.is_floating_point() and not features:
                        return None
                    value = value.contiguous()
                values[about["value"]] = value
                if role in ("number", "row_per_graph"):
                    if role == "number" and [*value.shape] != about["shape"]:
                        return None
                    continue
                count = value.size(0)
            if counts.setdefault(of, count) != count:
                return None
        kept: list[Graph] = []
        keep = edges >= _KEPT_EDGES
        for given, of, about in graphs:
            # Written out: this is done in every call.
            plain = not keep and given.dim() == 2 and given.size(0) == 2
            if plain and given.is_contiguous():
                values[about["value"]] = given
                continue
            sizes = counts.get(of[0]), counts.get(of[-1])
            if not self._set_edges(given, sizes, about, keep, values, kept):
                return None
        held = len(kept) == len(graphs) and self.device.type == "cpu"
        return values, _store(kept) if held else None

    def _set_edges(
        self,
        given: Any,
        sizes: tuple[int | None, int | None],
        about: Mapping[str, Any],
        keep: bool,
        values: dict[int, Tensor],
        kept: list[Graph],
    ) -> bool:
        """Adds edges to ``values``, and their graph to those that are kept; False if it cannot."""
        parts = about.get("graph")
        if isinstance(given, Graph):
            sizes = (
                given.num_src if sizes[0] is None else sizes[0],
                given.num_dst if sizes[1] is None else sizes[1],
            )
        src, dst = sizes
        if src is not None and dst is not None and (isinstance(given, Graph) or (parts and keep)):
            known = type(given) is Graph and given.checked and given.num_src == src
            fits = known and given.indptr.numel() == dst + 1
            graph = given if fits else as_graph(given, src, dst)
            if not is_simple(graph):
                return False
            if parts is None or about["value"] in self.runner.reads:
                values[about["value"]] = graph.cached("edge_index", graph.edge_index)
            if parts is not None:
                values[parts["indptr"]] = graph.indptr
                values[parts["indices"]] = graph.indices
                # Also where no step reads it: rows of which a part is missing would be made again.
                perm = graph.perm
                values[parts["perm"]] = _places(graph) if perm is None else perm
                if "weight" in parts and graph.edge_weight is not None:
                    values[parts["weight"]] = graph.edge_weight.detach().contiguous()
            kept.append(graph)
            return True
        if given.dim() != 2 or given.size(0) != 2:
            return False
        values[about["value"]] = given if given.is_contiguous() else given.contiguous()
        return True


def _split(place: Any) -> tuple[Any, tuple[Any, ...]]:
    return (place[0], place[1:]) if isinstance(place, tuple) else (place, ())


def _store(graphs: list[Graph]) -> Any:
    """What is kept with graphs that belong together; it is not that of one of them alone."""
    first, rest = graphs[0], graphs[1:]
    if not rest:
        return first.cached("plan store", backend.graph_store)
    others, store = first.cached("plan stores", lambda: [(), None])
    if len(others) != len(rest) or any([a is not b for a, b in zip(others, rest, strict=True)]):
        store = backend.graph_store()
        first.cached("plan stores", list)[:] = [tuple(rest), store]
    return store


def _places(graph: Graph) -> Tensor:
    made: Tensor = graph.cached(
        "no perm", lambda: torch.arange(graph.num_edges, device=graph.device)
    )
    return made
