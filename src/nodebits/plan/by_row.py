"""A plan whose steps are run for some rows alone, as often as somebody asks.

An integer step gives the same row whatever other rows are computed with it. So the rows that an
update changed, or those that fit the memory, are computed by the steps of the plan, on those rows
and the edges into them. Where rows come from is said by a :class:`RowSource`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nodebits.graph import Graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.ops.records import Source
from nodebits.plan.kinds import OF_GRAPH, SOURCES, RowKinds, value_of, values_of
from nodebits.plan.plan import Plan, step_name
from nodebits.plan.reference import meaning
from nodebits.plan.run import results
from nodebits.plan.shares import share_of
from nodebits.plan.sizes import computed
from nodebits.plan.trace import leaves, mapped

# Rows are checked when they are given, degrees before an edge is accepted.
CHECKS = ("check_finite", "check_degree", "expect")
_LOOPS = ("self_loops", "self_loops_weighted")
# Torch computes each of their rows by itself, whatever stands beside it.
_SAME_IN_ANY_ROW = ("layer_norm",)


class NotByRow(Exception):
    """A plan that cannot be run for some rows; its text says why, as the end of a sentence.

    Attributes:
        layer: Where that is: a layer by its path, or the model.
    """

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(why)
        self.layer = f"layer {path!r}" if path else "the model"

    @classmethod
    def of_step(cls, step: str, path: str = "") -> NotByRow:
        """For a step that stands in the way.

        Args:
            step: Its name.
            path: Of its module.
        """
        return cls(f"its forward has {step!r}, which is not known to work row by row", path)


@dataclass(frozen=True)
class Topology:
    """The edges that a pointer of a plan stands for.

    Attributes:
        loops: Whether every node has a loop of its own, last in its row, in place of others.
        weight: Value of the weights that the loops are added to, or None.
        fill: Weight of a loop where none was there.
        weighted: Whether loops are made with weights.
    """

    loops: bool = False
    weight: int | None = None
    fill: float = 1.0
    weighted: bool = False


class EdgeRows(NamedTuple):
    """The edges into some rows.

    Attributes:
        indptr: int64 ``[r + 1]``.
        indices: int32 ``[e]``, sources by their number in the whole graph.
        weight: float32 ``[e]``, or None.
    """

    indptr: Tensor
    indices: Tensor
    weight: Tensor | None = None


class RowSource(Protocol):
    """Who has the rows of all values."""

    def rows(self, value: int, index: Tensor) -> Tensor:
        """Some rows of a value of nodes."""

    def edges(self, index: Tensor, loops: bool) -> EdgeRows:
        """The edges into some nodes; with ``loops`` without weights and with a loop for each."""

    def degrees(self, index: Tensor, loops: bool) -> Tensor:
        """Numbers of these edges alone, int64 ``[r]``."""

    def table(self, value: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of a value that hold those of ``indices``, and where: int32 ``[e]``."""


class RowPlan:
    """A plan by rows.

    Args:
        plan: Of a forward on one graph.
        of_all: Whether steps may be run on all rows, and what is read of the edges that they give.

    Attributes:
        kinds: Of its values.
        steps: As in the plan.
        of_all: Steps that are run on all rows, since they are not known to work row by row.
        topologies: Edges by pointer.
        output: The value that is returned.
        weight: The input with a weight per edge, or None.
        most_edges: The largest in-degree whose sums are exact, by topology.

    Raises:
        NotByRow: If a step needs all rows, or the plan returns no row per node.
    """

    def __init__(self, plan: Plan, of_all: bool = False) -> None:
        kinds = RowKinds.of(plan)
        if kinds is None:
            raise _without_kinds(plan)
        self._may_take_all, self.of_all = of_all, set[int]()
        self.kinds, self.steps = kinds, kinds.about["steps"]
        self.constants = kinds.constants
        self.topologies = {pointer: Topology() for pointer, *_ in kinds.graphs}
        self._indices = {pointer: indices for pointer, indices, _ in kinds.graphs}
        self._makers: dict[int, int] = {}  # the step of every value of edges
        self.most_edges: dict[Topology, int] = {}
        self.weight = self._edge_input()
        paths = plan.paths or ("",) * len(self.steps)
        for number, (step, path) in enumerate(zip(self.steps, paths, strict=True)):
            self._check(number, step, path)
        #: Values that each step reads, and those but for the rows of neighbours.
        self.reads = [values_of(step["args"]) for step in self.steps]
        self.reads_own = [values_of(self._own_arguments(step)) for step in self.steps]
        #: Arguments of steps that are the same for all rows, by step and place.
        self.fixed = [
            {
                at: mapped(arg, self._constant)
                for at, arg in enumerate(step["args"])
                if self._is_fixed(arg)
            }
            for step in self.steps
        ]
        outputs = kinds.about["outputs"]
        if "value" not in outputs or self.axis(outputs["value"]) != "node":
            raise NotByRow("its forward returns something else than a row per node")
        self.output: int = outputs["value"]

    @staticmethod
    def _own_arguments(step: dict[str, Any]) -> list[Any]:
        places = SOURCES.get(step["op"], ())
        return [arg for at, arg in enumerate(step["args"]) if at not in places]

    def _is_fixed(self, arg: Any) -> bool:
        numbers = (leaf for leaf in leaves(arg) if isinstance(leaf, str) and leaf[0] != "=")
        return all(leaf[0] == "v" and int(leaf[1:]) in self.constants for leaf in numbers)

    def _constant(self, leaf: Any) -> Any:
        if not isinstance(leaf, str):
            return leaf
        return leaf[1:] if leaf[0] == "=" else self.constants[int(leaf[1:])]

    def _edge_input(self) -> int | None:
        roles = {a["name"]: a["role"] for a in self.kinds.about["arguments"]}
        found = [i["value"] for i in self.kinds.about["inputs"] if roles[i["name"]] == "edge"]
        others = [name for name, role in roles.items() if role not in ("node", "edges", "edge")]
        if others or len(found) > 1:
            odd = ", ".join(others) if others else "several arguments with a row per edge"
            raise NotByRow(f"its forward takes more than features, edges and their weights: {odd}")
        return found[0] if found else None

    def _check(self, number: int, step: dict[str, Any], path: str) -> None:
        op, args = step["op"], step["args"]
        if op == "self_loops_placed":  # whose features are rows of edges
            raise NotByRow.of_step(step_name(step), path)
        if op in _LOOPS:
            self._note_loops(step, path)
        elif op == "check_degree":
            topology = self.topologies[int(args[0][1:])]
            least = self.most_edges.get(topology, args[1])
            self.most_edges[topology] = min(least, args[1])
        edges = [out for out in step["outs"] if self.axis(out) == "edge"]
        self._makers.update(dict.fromkeys(edges, number))
        # Rows of edges that follow from all rows are numbered as all edges are.
        whole = any(self._makers.get(v) in self.of_all for v in values_of(args))
        if whole:
            self.of_all.add(number)
        if op in OF_GRAPH:
            unknown = any(out not in self.kinds.kinds for out in step["outs"])
            if unknown or (whole and op in (*_LOOPS, "in_order")):
                raise NotByRow.of_step(step_name(step), path)
            return
        known = op in CHECKS or op == "csr" or self.kinds.by_row[number] or whole
        if not known and self._may_take_all and self._is_known(step):
            self.of_all.add(number)
            known = True
        widths = any(
            isinstance(leaf, str) and self.axis(value_of(leaf)) == "all" for leaf in leaves(args)
        )
        if not known or widths:
            raise NotByRow.of_step(step_name(step), str(args[0][1:]) if op == "module" else path)

    def _is_known(self, step: dict[str, Any]) -> bool:
        """Whether all that a step reads and makes is rows of nodes or of edges."""
        read = [value for value in values_of(step["args"]) if value not in self.constants]
        known = {self.axis(value) for value in (*read, *step["outs"])}
        return known <= {"node", "edge", "pointer"}

    def _note_loops(self, step: dict[str, Any], path: str) -> None:
        weighted = step["op"] == "self_loops_weighted"
        args, (pointer, indices) = step["args"], step["outs"][:2]
        base = self.topologies.get(int(args[0][1:]))
        form = args[5:] if weighted else args[4:]
        counts = args[3] if isinstance(args[3], str) else "d-1.0"
        if base != Topology() or form not in ([], [f"={EDGE_INDEX}"]):
            raise NotByRow.of_step(f"{step['op']} of a matrix", path)
        if args[3] == 0:
            raise NotByRow.of_step(f"{step['op']} that are taken away", path)
        if not self.kinds.counts_nodes(counts):
            raise NotByRow.of_step(f"{step['op']} for some of the nodes", path)
        weight = value_of(args[2]) if weighted else None
        fill = float(args[4]) if weighted else 1.0
        self.topologies[pointer] = Topology(True, weight, fill, weighted)
        self._indices[pointer] = indices

    def fits(self, size: Callable[[int, int], int]) -> bool:
        """Whether the plan holds for data of these sizes, as its forward asks for them.

        Args:
            size: Of a value along an axis.
        """

        def told(leaf: Any) -> Any:
            if not isinstance(leaf, str):
                return leaf
            if leaf[0] == "=":
                return leaf[1:]
            value, axis = leaf[1:].split(".")
            return size(int(value), int(axis))

        for step in self.steps:
            if step["op"] == "expect":
                terms, outcome = step["args"]
                found = computed([told(term) for term in terms])
                if found is None or bool(found) is not (outcome == "=true"):
                    return False
        return True

    def axis(self, value: int | None) -> str:
        """What the first axis of a value is; an empty text where that is not known."""
        return self.kinds.axis(value)

    def reads_edges(self, number: int) -> bool:
        """Whether a step reads what belongs to edges, or where they begin."""
        return any(self.axis(value) in ("pointer", "edge") for value in self.reads[number])

    def is_whole(self, number: int) -> bool:
        """Whether a step is run on all rows: torch may round it by where a row stands."""
        step = self.steps[number]
        rounded = bool(step.get("approx")) and step["op"] not in _SAME_IN_ANY_ROW
        return rounded or number in self.of_all

    def is_sum(self, number: int) -> bool:
        """Whether a step reads rows of neighbours."""
        return self.steps[number]["op"] in SOURCES and number not in self.of_all

    def adds_up(self, number: int) -> bool:
        """Whether a step sums integers with weight one: of parts of the edges, then of all."""
        step = self.steps[number]
        return step["op"] in ("fused_spmm", "spmm") and step["args"][2] is None

    def packed_source(self, number: int, packed: Tensor) -> Source:
        """What such a sum reads, of some packed rows."""
        return Source(packed, *self.steps[number]["args"][5:8])

    def sources(self, number: int) -> list[int]:
        """The values whose rows a sum over neighbours reads."""
        step = self.steps[number]
        return [int(step["args"][place][1:]) for place in SOURCES[step["op"]]]

    def topology(self, number: int) -> Topology:
        """The edges that a step reads."""
        for value in self.reads[number]:
            kind = self.kinds.kinds.get(value)
            if kind is not None and kind.axis in ("pointer", "edge"):
                return self.topologies[value if kind.axis == "pointer" else kind.pointer]
        raise NotByRow.of_step(step_name(self.steps[number]))

    def maker(self, value: int) -> int | None:
        """The step that makes a value of edges; None for one of the inputs."""
        return self._makers.get(value)

    def is_indices(self, value: int) -> bool:
        """Whether a value is the sources of edges."""
        return value in self._indices.values()


class Part:
    """Some rows, for which steps are run.

    Args:
        plan: Whose steps.
        source: Who has the rows of their arguments.
        index: int64 ``[r]``, nodes, each once.
    """

    def __init__(self, plan: RowPlan, source: RowSource, index: Tensor) -> None:
        self._plan, self._source, self.index = plan, source, index
        self._edges: dict[Topology, EdgeRows] = {}
        self._made: dict[int, Tensor] = {}

    def run(self, number: int) -> list[Tensor]:
        """The rows of a step's results."""
        return results(meaning(self._plan.steps[number]["op"])(*self.arguments(number)))

    def finish(self, number: int, acc: Tensor) -> list[Tensor]:
        """The rows of a step that :meth:`RowPlan.adds_up`, of its integers.

        Args:
            number: Of the step.
            acc: int32 ``[r, C]``, sums over all edges into these rows.
        """
        args = self.arguments(number, with_edges=False)
        return share_of(self._plan.steps[number]["op"], args).finished([acc])

    def arguments(self, number: int, with_edges: bool = True) -> list[Any]:
        """What a step is given for these rows.

        Args:
            number: Of the step.
            with_edges: Whether a sum is given its edges and what they lead to; else None.
        """
        step = self._plan.steps[number]
        places = SOURCES[step["op"]] if self._plan.is_sum(number) else ()
        tables: dict[int, Tensor | None] = dict.fromkeys(places)
        indices = None
        if places and with_edges:
            found = self.edges(self._plan.topology(number)).indices
            for place, value in zip(places, self._plan.sources(number), strict=True):
                tables[place], indices = self._source.table(value, found)

        def change(leaf: Any) -> Any:
            value = value_of(leaf)
            if value is None:
                return self._other(leaf)
            if value in self._plan.constants:
                return self._plan.constants[value]
            if places and self._plan.is_indices(value):
                return indices
            if places and not with_edges and self._plan.axis(value) == "pointer":
                return None
            return self._value(value)

        fixed = self._plan.fixed[number]
        return [
            fixed[at] if at in fixed else tables[at] if at in tables else mapped(arg, change)
            for at, arg in enumerate(step["args"])
        ]

    def _other(self, leaf: Any) -> Any:
        if not isinstance(leaf, str):
            return leaf
        if leaf[0] == "=":
            return leaf[1:]
        pointers = self._plan.kinds.edges_counted(leaf)
        if not pointers:
            return self.index.numel()  # a number of nodes
        return self.edges(self._plan.topologies[pointers.pop()]).indices.numel()

    def _value(self, value: int) -> Tensor:
        kind = self._plan.kinds.kinds[value]
        if kind.axis == "node":
            return self._source.rows(value, self.index)
        if kind.axis == "pointer":
            return self._pointer(self._plan.topologies[value])
        if value not in self._made:
            self._make(value)
        return self._made[value]

    def _pointer(self, topology: Topology) -> Tensor:
        """Where the edges into each row begin; these are not looked at for it."""
        if topology in self._edges or topology.weighted:
            return self.edges(topology).indptr
        degrees = self._source.degrees(self.index, topology.loops)
        return torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])

    def _make(self, value: int) -> None:
        """What belongs to the edges into these rows."""
        number = self._plan.maker(value)
        op = "" if number is None else self._plan.steps[number]["op"]
        if number is None or op in ("csr", "in_order"):
            found = self.edges(Topology())
            self._made[value] = found.indices if self._plan.is_indices(value) else _weight(found)
        elif op in _LOOPS:
            pointer, indices, *weight = self._plan.steps[number]["outs"]
            found = self.edges(self._plan.topologies[pointer])
            self._made[indices] = found.indices
            if weight:
                self._made[weight[0]] = _weight(found)
        else:
            outs = self._plan.steps[number]["outs"]
            made = zip(outs, self.run(number), strict=True)
            self._made.update({v: t for v, t in made if self._plan.axis(v) == "edge"})

    def edges(self, topology: Topology) -> EdgeRows:
        """The edges into these rows."""
        if topology not in self._edges:
            if topology.weighted:
                self._edges[topology] = self._with_loops(topology)
            else:
                self._edges[topology] = self._source.edges(self.index, topology.loops)
        return self._edges[topology]

    def _with_loops(self, topology: Topology) -> EdgeRows:
        """Loops with weights, as the whole graph gets them: rows are numbered before others."""
        base = self.edges(Topology())
        weight = None if topology.weight is None else self._value(topology.weight)
        count = self.index.numel()
        numbers, places = torch.cat([self.index, base.indices.long()]).unique(return_inverse=True)
        local = torch.full_like(numbers, -1)
        local[places[:count]] = torch.arange(count, device="cpu")
        others = (local < 0).nonzero().view(-1)
        local[others] = torch.arange(count, count + others.numel(), device="cpu")
        back = torch.empty_like(numbers).index_copy(0, local, numbers)
        graph = Graph(
            base.indptr, local[places[count:]].int(), max(numbers.numel(), count), None, weight
        )
        graph.checked = True
        made = graph.with_self_loops(count, topology.fill)
        ones = (
            torch.ones(made.num_edges, device="cpu")
            if made.edge_weight is None
            else made.edge_weight
        )
        return EdgeRows(made.indptr, back[made.indices.long()].int(), ones)


def _weight(edges: EdgeRows) -> Tensor:
    if edges.weight is None:
        raise NotByRow("its forward reads edge weights, of which the graph has none")
    return edges.weight


def _without_kinds(plan: Plan) -> NotByRow:
    """Why nothing is known of the rows of a plan's values."""
    edges = [a["name"] for a in plan.about["arguments"] if a["role"] in ("edges", "graph")]
    if len(edges) != 1:
        return NotByRow(f"its forward takes {len(edges) or 'no'} sets of edges: one is expected")
    if not any(a["role"] in ("node", "packed") for a in plan.about["arguments"]):
        return NotByRow("its forward takes no features of nodes")
    for step in plan.about["steps"]:
        if step["op"] == "module":
            return NotByRow.of_step(step_name(step), str(step["args"][0][1:]))
    return NotByRow(
        "its forward makes other edges of those that it is given, and passes messages along these "
        "(so does flow='target_to_source')"
    )
