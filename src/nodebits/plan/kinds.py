"""What the values of a plan are: rows of nodes, of edges, or of no such thing.

A step works *row by row* where every row of its result follows from the same rows of its node
values, and for a sum over neighbours from rows of its sources. Such a step can be run for some rows
alone: for those that a sample's seeds need (:mod:`nodebits.plan.trim`), that an update changed, or
that fit the memory (:mod:`nodebits.plan.by_row`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from nodebits.plan.parts import ROW_NORMS, moved_axes
from nodebits.plan.plan import Plan
from nodebits.plan.trace import leaves

# Steps that give a row for each row of their node values, by the schema of an operator.
_ROWS = frozenset(
    ("quantize_pack", "pack_own", "pack", "unpack", "gemm", "rescale", "fused_gemm",
     "feature_product", "embedding")
)  # fmt: skip
# Sums over neighbours: the places of what is read of the sources.
SOURCES: dict[str, tuple[int, ...]] = {
    "fused_spmm": (4,),
    "spmm": (4,),
    "edge_softmax": (2,),
    "fused_extremum": (4,),
    "neighbor_statistics": (4,),
    "attention_codes": (4,),
    "gated_sum": (4, 12),
    "rectified_sum": (4,),
    "rectified_softmax": (4,),
}
# Those that give a row for every edge first.
_OF_EDGES = ("edge_softmax", "attention_codes")
# What these make of a graph as a whole: a row per node, or rows of edges.
OF_GRAPH = {
    "degree": ("node",),
    "inverse_degree": ("node",),
    "deg_inv_sqrt": ("node",),
    "self_loops": ("pointer", "edge"),
    "self_loops_weighted": ("pointer", "edge", "edge"),
    "self_loops_placed": ("pointer", "edge", "edge"),
    "in_order": ("edge",),
    "targets": ("edge",),
    "edge_codes": ("edge", "node", "node"),
}
_ELEMENTWISE = frozenset(
    ("add", "sub", "mul", "div", "relu", "neg", "abs", "reciprocal", "sqrt", "root", "clamp_min",
     "clamp", "leaky_relu", "maximum", "minimum", "inverse", "clone", "float", "gt", "lt",
     "ge", "le", "eq", "ne", "where", "logical_not", "exp", "log", "tanh", "sigmoid", "elu",
     "gelu", "silu", "softplus", "times", "filled", "expm1", "log1p", "rsqrt", "sin", "cos", "pow")
)  # fmt: skip
_SUMS = ("sum", "mean", "norm", "amax", "amin")
# What works on all rows and gives one for each.
_WHOLE = {"propagate": 2, "graph_attention": 2}
# What gives rows of edges, in the numbers of all edges and nodes.
_TO_EDGES = ("pair_scores", "index_select", "edge_softmax")
_RANKS = {
    "pack_own": (2, 1),
    "edge_softmax": (0, 2),
    "attention_codes": (0, 2),
    "edge_codes": (0, 2, 2),
}


class Kind(NamedTuple):
    """What the first axis of a value is: ``node``, ``edge`` of a pointer, or a ``pointer``.

    A ``table`` has rows that edges of a pointer have, each once.

    One of ``all`` is made of all rows, and has 1 of them or as many as there are nodes. One that is
    ``looped`` has the rows of edges, and behind them one for the loop of every node.
    """

    axis: str
    rank: int = 1
    pointer: int = -1


def _inputs(about: dict[str, Any]) -> dict[int, Kind]:
    """What the inputs are that have rows of nodes, also packed ones."""
    numbers = {one["name"]: one["value"] for one in about["inputs"]}
    ranks = {one["name"]: len(one["shape"]) for one in about["inputs"]}
    found = {}
    for argument in about["arguments"]:
        name = argument["name"]
        if argument["role"] == "node":
            found[numbers[name]] = Kind("node", ranks[name])
        if argument["role"] != "packed":
            continue
        for key in (key for key in numbers if key.startswith(f"{name}/")):
            site, _, field = key.rpartition("/")
            if f"{site}/widths" in numbers:  # whose rows lie by width, not one after another
                continue
            pointer = numbers.get(f"{site}/indptr")  # of rows without their zeros
            if field == "indptr":
                found[numbers[key]] = Kind("pointer")
            elif pointer is not None and field in ("indices", "values"):
                found[numbers[key]] = Kind("edge", 1, pointer)
            else:
                found[numbers[key]] = Kind("node", ranks[key])
    return found


class RowKinds:
    """The kinds of all values of a plan.

    Args:
        plan: Of a forward with one set of edges.
        kinds: Of the inputs that have rows of nodes.
        graphs: Pointers, sources and places of the edges' rows, wherever these are made.

    Attributes:
        about: The plan's JSON.
        kinds: By value; what is not there is none of them.
        constants: Tensors by value.
        first: The first input with a row per node.
        graphs: As given.
        given: Values of ``kinds`` that no step makes.
        by_row: Whether each step works row by row.
    """

    def __init__(self, plan: Plan, kinds: dict[int, Kind], graphs: list[list[int]]) -> None:
        self.about = plan.about
        self.first = next((v for v, kind in kinds.items() if kind.axis == "node"), -1)
        self.constants = {
            int(number): plan.constants[name] for number, name in self.about["constants"].items()
        }
        self.graphs = graphs
        made = (step for step in self.about["steps"] if step["op"] == "csr")
        self._edges = {step["args"][0] for step in made if step["outs"] in graphs}
        self.kinds = dict(kinds)
        for pointer, *others in graphs:
            self.kinds[pointer] = Kind("pointer")
            self.kinds.update({value: Kind("edge", 1, pointer) for value in others})
        self.given = tuple(self.kinds)
        self.by_row = [self._look(step) for step in self.about["steps"]]

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """Of a plan with one set of edges and rows of nodes; None for others."""
        about = plan.about
        roles = {a["name"]: a["role"] for a in about["arguments"]}
        edges = [
            f"v{i['value']}" for i in about["inputs"] if roles.get(i["name"]) in ("edges", "graph")
        ]
        # Its rows are made once for every set of weights.
        graphs = [s["outs"] for s in about["steps"] if s["op"] == "csr" and s["args"][0] in edges]
        kinds = _inputs(about)
        if len(edges) != 1 or not graphs or not kinds:
            return None
        of_edges = [one for one in about["inputs"] if roles.get(one["name"]) == "edge"]
        return cls(plan, kinds | cls._of_edge_inputs(of_edges, graphs[0][0]), graphs)

    @classmethod
    def _of_edge_inputs(cls, inputs: list[dict[str, Any]], pointer: int) -> dict[int, Kind]:
        """What inputs with a row for each edge are: in an order of their own."""
        return {}

    def axis(self, value: int | None) -> str:
        """``node``, ``edge``, ``pointer``, ``all``, or an empty text for what is none of them."""
        kind = None if value is None else self.kinds.get(value)
        return "" if kind is None else kind.axis

    def _look(self, step: dict[str, Any]) -> bool:
        """Whether a step works row by row; notes what its results are."""
        op, args, outs = step["op"], step["args"], step["outs"]
        if op in OF_GRAPH:
            self._look_at_graph(op, args, outs)
            return False
        if op in _WHOLE:
            self.kinds.update({out: Kind("node", _WHOLE[op]) for out in outs})
            return False
        if op == "csr":
            return False
        if op in ("full", "arange"):
            self._look_at_size(step)
            return False
        of_edges = self._of_edges(step)
        if of_edges is not None:
            ranks = _RANKS.get(op, (of_edges.rank,) * len(outs))
            self.kinds.update(
                {n: of_edges._replace(rank=r) for n, r in zip(outs, ranks, strict=True)}
            )
            return True
        rank = self._rank(step)
        if rank is None:
            self._look_at_all(step)
            self._look_at_edges(step)
            return False
        for out, axis_rank in zip(outs, _RANKS.get(op, (rank,) * len(outs)), strict=True):
            edges = op in _OF_EDGES and out == outs[0]
            pointer = value_of(args[0]) if op in SOURCES else None
            self.kinds[out] = (
                Kind("edge", 2, -1 if pointer is None else pointer)
                if edges
                else Kind("node", axis_rank)
            )
        return True

    def _of_edges(self, step: dict[str, Any]) -> Kind | None:
        """What a step makes that works edge by edge on values of edges alone; None for others."""
        op, args = step["op"], step["args"]
        known = {self.kinds.get(n) for n in values_of(args) if n not in self.constants}
        kind = known.pop() if len(known) == 1 else None
        if kind is None or kind.axis != "edge":
            return None
        if op == "view":
            whole = self._keeps_rows(args[1], kind)
            return kind._replace(rank=len(args[1])) if whole else None
        plain = op in _ELEMENTWISE and not step.get("approx")
        sized = any(isinstance(leaf, str) and leaf[0] in "dn" for leaf in leaves(args))
        alike = all(self._broadcasts(n, kind.rank) for n in values_of(args))
        return kind if plain and alike and not sized else None

    def _counts(self, size: str, kind: Kind) -> bool:
        """Whether a size is the number of rows of a kind."""
        nodes = kind.axis == "node"
        return self.counts_nodes(size) if nodes else kind.pointer in self.edges_counted(size)

    def edges_counted(self, size: str) -> set[int]:
        """Pointers whose number of edges a size (``dVALUE.AXIS``) is."""
        number, axis = size[1:].split(".")
        kind = self.kinds.get(int(number))
        if f"v{number}" in self._edges and axis == "1":
            return {pointer for pointer, *_ in self.graphs}
        return {kind.pointer} if axis == "0" and kind is not None and kind.axis == "edge" else set()

    def _look_at_size(self, step: dict[str, Any]) -> None:
        """Notes what has a number for every node or edge, and follows from how many there are."""
        shape = step["args"][0] if isinstance(step["args"][0], list) else [step["args"][0]]
        size, rest = shape[0], shape[1:]
        if not isinstance(size, str) or size[0] != "d" or any(isinstance(n, str) for n in rest):
            return
        pointers = self.edges_counted(size)
        if self.counts_nodes(size):
            self.kinds[step["outs"][0]] = Kind("node", len(shape))
        elif len(pointers) == 1:
            self.kinds[step["outs"][0]] = Kind("edge", len(shape), pointers.pop())

    def _look_at_edges(self, step: dict[str, Any]) -> None:
        """Notes rows of edges that a step makes of all rows there are."""
        op, args, outs = step["op"], step["args"], step["outs"]
        known = [self.kinds.get(n) for n in values_of(args) if n not in self.constants]
        kinds = [kind for kind in known if kind is not None]
        edges = {kind.pointer for kind in kinds if kind.axis == "edge"}
        if len(kinds) < len(known) or len(edges) != 1 or any(k.axis == "all" for k in kinds):
            return
        pointer = edges.pop()
        if op in _TO_EDGES:
            if op == "index_select" and [kind.axis for kind in kinds] != ["node", "edge"]:
                return
            rank = kinds[0].rank if op == "index_select" else 2
            self.kinds[outs[0]] = Kind("edge", rank, pointer)
            self.kinds.update({out: Kind("node", 2) for out in outs[1:]})
        elif op in _ELEMENTWISE and all(kind.axis == "edge" for kind in kinds):
            rank = max(kind.rank for kind in kinds)
            if all(self._broadcasts(n, rank) for n in values_of(args)):
                self.kinds[outs[0]] = Kind("edge", rank, pointer)

    def _look_at_all(self, step: dict[str, Any]) -> None:
        """Notes what a step makes that works on all rows at once, as far as that is known."""
        op, args, outs = step["op"], step["args"], step["outs"]
        kinds = [self.kinds.get(n) for n in values_of(args) if n not in self.constants]
        if not outs or not kinds or any(k is None or k.axis not in ("node", "all") for k in kinds):
            return
        known = [kind for kind in kinds if kind is not None]
        if op in _SUMS and args[2] is True:  # whose dimensions stay
            self.kinds[outs[0]] = Kind("all", known[0].rank)
        nodes = {kind.rank for kind in known if kind.axis == "node"}
        if op in _ELEMENTWISE and len(nodes) == 1:
            rank = nodes.pop()
            # A value of any other first dimension could not be broadcast over the rows.
            lower = all(kind.rank <= rank for kind in known)
            if lower and all(self._broadcasts(n, rank) for n in values_of(args)):
                self.kinds[outs[0]] = Kind("node", rank)
        elif op in _ELEMENTWISE and not nodes:
            self.kinds[outs[0]] = Kind("all", max(kind.rank for kind in known))

    def _look_at_graph(self, op: str, args: list[Any], outs: list[int]) -> None:
        pointer = outs[0] if op.startswith("self_loops") else self._pointer_of(args)
        if pointer is None:
            return
        for out, axis in zip(outs, OF_GRAPH[op], strict=True):
            rank = 2 if op == "edge_codes" else 1
            self.kinds[out] = Kind(axis, rank, pointer if axis == "edge" else -1)

    def _pointer_of(self, args: list[Any]) -> int | None:
        for arg in args:
            number = value_of(arg)
            kind = None if number is None else self.kinds.get(number)
            if kind is not None and kind.axis == "pointer":
                return number
            if kind is not None and kind.axis == "edge":
                return kind.pointer
        return None

    def _rank(self, step: dict[str, Any]) -> int | None:
        """Dimensions of the results of a step that works row by row; None for others."""
        op, args = step["op"], step["args"]
        known = [self.kinds.get(n) for n in values_of(args) if n not in self.constants]
        if not known or None in known:
            return None
        if op != "view" and any(isinstance(leaf, str) and leaf[0] in "dn" for leaf in leaves(args)):
            return None
        if op in SOURCES:
            return self._rank_of_sum(op, args)
        return self._rank_of_rows(step, [kind for kind in known if kind is not None])

    def _rank_of_rows(self, step: dict[str, Any], known: list[Kind]) -> int | None:
        """The same of a step on rows of one kind, those of values that are no constants."""
        op, args, ranks = step["op"], step["args"], {kind.rank for kind in known}
        if not self._are_alike(known):
            return None
        if op == "view":
            return len(args[1]) if self._keeps_rows(args[1], known[0]) else None
        if op in _ROWS:
            return 2
        if op == "index_select":  # rows of a table that is the same for all nodes
            table = self.constants.get(value_of(args[0]) or 0)
            return None if table is None or ranks != {1} or args[1] != 0 else table.dim()
        if len(ranks) != 1:
            return None
        rank = ranks.pop()
        if op in _ELEMENTWISE:
            return rank if all(self._broadcasts(n, rank) for n in values_of(args)) else None
        if op == "slice" and args[1:] == [0, 0, None, 1]:  # of all rows
            return rank
        axes = moved_axes(step)
        if axes is None or any((a if a >= 0 else a + rank) <= 0 for a in axes):
            return None
        if op == "select":
            return rank - 1
        if op == "layer_norm":
            return rank if len(args[1]) < rank else None
        if op in ROW_NORMS:
            return rank if rank > 1 else None
        keeps = op not in ("sum", "mean", "norm", "var", "std", "amax", "amin") or args[-1] is True
        return rank if keeps else rank - len(axes)

    def _rank_of_sum(self, op: str, args: list[Any]) -> int | None:
        pointer = value_of(args[0])
        if pointer is None or self.kinds[pointer].axis != "pointer":
            return None
        edges = [value_of(args[1])]
        if op != "edge_softmax":
            if args[3] is not None:
                return None
            edges.append(value_of(args[2]))
        for number in edges:
            kind = None if number is None else self.kinds.get(number)
            if number is not None and (kind is None or kind != Kind("edge", kind.rank, pointer)):
                return None
        rest = values_of(args[2:] if op == "edge_softmax" else args[4:])
        rest = [number for number in rest if number not in self.constants]
        return 2 if all(self._is_summed(number, op, args) for number in rest) else None

    def _is_summed(self, number: int, op: str, args: list[Any]) -> bool:
        """Whether a sum over neighbours may read a value, besides edges and their weights."""
        return self.kinds[number].axis == "node"

    def _are_alike(self, known: list[Kind]) -> bool:
        return all(kind.axis == "node" for kind in known)

    def _keeps_rows(self, shape: list[Any], kind: Kind) -> bool:
        first, rest = shape[0], shape[1:]
        rows = (first == -1 and kind.axis == "node") or (
            isinstance(first, str) and first[0] == "d" and self._counts(first, kind)
        )
        return rows and all(isinstance(n, int) and n != -1 for n in rest)

    def counts_nodes(self, size: str) -> bool:
        """Whether a size (``dVALUE.AXIS``) is the number of nodes."""
        number, axis = size[1:].split(".")
        kind = self.kinds.get(int(number))
        return axis == "0" and kind is not None and kind.axis == "node"

    def _broadcasts(self, number: int, rank: int) -> bool:
        constant = self.constants.get(number)
        return (
            constant is None
            or constant.dim() < rank
            or (constant.dim() == rank and constant.size(0) == 1)
        )


def value_of(leaf: Any) -> int | None:
    """The number of a value, of an argument that is one."""
    return int(leaf[1:]) if isinstance(leaf, str) and leaf[0] == "v" else None


def values_of(args: Any) -> list[int]:
    """The numbers of all values among arguments."""
    return [number for leaf in leaves(args) if (number := value_of(leaf)) is not None]
