"""A plan for samples: every step computes the rows alone that the asked nodes need.

In a sample the nodes stand in order of the hop that reached them. What a node needs of a sum over
neighbours lies one hop further, so the rows that are needed of a value are always the first ones:
as many as there were after some hop, its *level*. A step at level k reads rows of level k, a sum
over neighbours sources of level k + 1. What a step is not known to do row by row gets and gives all
rows. Rows do not depend on other rows, so those that are left have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from nodebits.core.strict_json import to_json
from nodebits.plan.parts import moved_axes
from nodebits.plan.plan import Plan
from nodebits.plan.trace import leaves, mapped

# Steps that give a row for each row of their node values, by the schema of an operator.
_ROWS = frozenset(
    ("quantize_pack", "pack_own", "pack", "unpack", "gemm", "rescale", "fused_gemm",
     "feature_product")
)  # fmt: skip
# Sums over neighbours: the place of what is read of the sources.
_SOURCES = {
    "fused_spmm": 4,
    "spmm": 4,
    "edge_softmax": 2,
    "fused_extremum": 4,
    "neighbor_statistics": 4,
}
# What these make of a graph as a whole: a row per node, or rows of edges.
_OF_GRAPH = {
    "degree": ("node",),
    "inverse_degree": ("node",),
    "deg_inv_sqrt": ("node",),
    "self_loops": ("pointer", "edge"),
    "self_loops_weighted": ("pointer", "edge", "edge"),
    "in_order": ("edge",),
    "targets": ("edge",),
    "edge_codes": ("edge", "node", "node"),
}
_ELEMENTWISE = frozenset(
    ("add", "sub", "mul", "div", "relu", "neg", "abs", "reciprocal", "sqrt", "clamp_min", "clamp",
     "leaky_relu", "maximum", "minimum", "inverse", "clone", "float", "gt", "lt", "ge", "le", "eq",
     "ne", "where", "logical_not", "exp", "log", "tanh", "sigmoid", "elu", "gelu", "silu",
     "softplus", "times", "filled", "expm1", "log1p", "rsqrt", "sin", "cos", "pow")
)  # fmt: skip
_SUMS = ("sum", "mean", "amax", "amin")
# What works on all rows and gives one for each.
_WHOLE = {"propagate": 2}
_RANKS = {"pack_own": (2, 1), "edge_softmax": (0, 2), "edge_codes": (0, 2, 2)}


class _Kind(NamedTuple):
    """What the first axis of a value is: ``node``, ``edge`` of a pointer, or a ``pointer``.

    One of ``all`` is made of all rows, and has 1 of them or as many as there are nodes.
    """

    axis: str
    rank: int = 1
    pointer: int = -1


@dataclass(frozen=True)
class Trimmed:
    """A plan for samples of so many hops.

    Attributes:
        plan: With the inputs of the first one, and those of ``levels``.
        levels: Value, int64 ``[1]``, that holds the number of nodes after a hop, by hop.
    """

    plan: Plan
    levels: dict[int, int]


def trimmed(plan: Plan, hops: int) -> Trimmed | None:
    """The plan with fewer rows; its result has those of the seeds. None where that is all rows.

    Args:
        plan: Of a forward that returns a row per node.
        hops: Of the samples.
    """
    about = plan.about
    graphs = [i["graph"] for i in about["inputs"] if "graph" in i]
    kinds = _inputs(about)
    if len(graphs) != 1 or not kinds or "value" not in about["outputs"]:
        return None
    return _Trimming(plan, about, kinds, graphs[0], hops).run()


def _inputs(about: dict[str, Any]) -> dict[int, _Kind]:
    """What the inputs are that have rows of nodes, also packed ones."""
    numbers = {one["name"]: one["value"] for one in about["inputs"]}
    ranks = {one["name"]: len(one["shape"]) for one in about["inputs"]}
    found = {}
    for argument in about["arguments"]:
        name = argument["name"]
        if argument["role"] == "node":
            found[numbers[name]] = _Kind("node", ranks[name])
        if argument["role"] != "packed":
            continue
        for key in (key for key in numbers if key.startswith(f"{name}/")):
            site, _, field = key.rpartition("/")
            if f"{site}/widths" in numbers:  # whose rows lie by width, not one after another
                continue
            pointer = numbers.get(f"{site}/indptr")  # of rows without their zeros
            if field == "indptr":
                found[numbers[key]] = _Kind("pointer")
            elif pointer is not None and field in ("indices", "values"):
                found[numbers[key]] = _Kind("edge", 1, pointer)
            else:
                found[numbers[key]] = _Kind("node", ranks[key])
    return found


class _Trimming:
    def __init__(
        self,
        plan: Plan,
        about: dict[str, Any],
        kinds: dict[int, _Kind],
        graph: dict[str, int],
        hops: int,
    ) -> None:
        self._plan, self._about, self._hops = plan, about, hops
        self._first = next((v for v, kind in kinds.items() if kind.axis == "node"), -1)
        self._constants = {
            int(number): plan.constants[name] for number, name in about["constants"].items()
        }
        self._kinds = dict(kinds)
        self._kinds[graph["indptr"]] = _Kind("pointer")
        for name in ("indices", "perm"):
            self._kinds[graph[name]] = _Kind("edge", 1, graph["indptr"])
        self._levels = dict.fromkeys(self._kinds, hops)
        self._need: dict[int, int] = {}
        self._by_row: list[bool] = []
        self._made: dict[tuple[int, int], int] = {}
        self._steps: list[dict[str, Any]] = []
        self._level_values: dict[int, int] = {}
        numbers = [self._first, *self._kinds, *self._constants]
        self._next: int = 1 + max([*numbers, *(o for s in about["steps"] for o in s["outs"])])

    def run(self) -> Trimmed | None:
        steps, result = self._about["steps"], self._about["outputs"]["value"]
        for step in steps:
            self._by_row.append(self._look(step))
        if result not in self._kinds or self._kinds[result].axis != "node":
            return None
        self._need[result] = 0
        wanted = [self._ask(*pair) for pair in list(zip(steps, self._by_row, strict=True))[::-1]]
        for step, by_row, level in zip(steps, self._by_row, wanted[::-1], strict=True):
            self._emit(step, by_row, level)
        outputs = {**self._about["outputs"], "value": self._at(result, 0)}
        inputs = self._about["inputs"] + [
            {"name": f"level {k}", "value": value, "dtype": "int64", "shape": [1]}
            for k, value in self._level_values.items()
        ]
        about = {
            **{key: part for key, part in self._about.items() if key != "parts"},
            "inputs": inputs,
            "steps": self._steps,
            "outputs": outputs,
        }
        text = to_json(about, separators=(",", ":"))
        return Trimmed(Plan(text, self._plan.constants), dict(self._level_values))

    def reach(self) -> int | None:
        """See the function of this name."""
        steps, result = self._about["steps"], self._about["outputs"]["value"]
        by_rows = [self._look(step) for step in steps]
        if result not in self._kinds or self._kinds[result].axis != "node":
            return None
        self._need[result], furthest = 0, 0
        for step, by_row in list(zip(steps, by_rows, strict=True))[::-1]:
            if not any(out in self._need for out in step["outs"]):
                continue  # nobody reads it, or it is a check
            if by_row:
                level = self._ask(step, by_row)
                furthest = max(furthest, level, *(at for _, at in self._wanted(step, True, level)))
            elif step["op"] in _OF_GRAPH:
                # Whose rows are of the edges into a node: as far as they are asked for.
                furthest = max(furthest, *(self._need.get(out, 0) for out in step["outs"]))
            elif step["op"] != "csr":
                return None
        return furthest

    # --- what the values are ---

    def _look(self, step: dict[str, Any]) -> bool:
        """Whether a step works row by row; notes what its results are."""
        op, args, outs = step["op"], step["args"], step["outs"]
        if op in _OF_GRAPH:
            self._look_at_graph(op, args, outs)
            return False
        if op in _WHOLE:
            self._kinds.update({out: _Kind("node", _WHOLE[op]) for out in outs})
            return False
        if op == "csr":
            return False
        rank = self._rank(step)
        if rank is None:
            self._look_at_all(step)
            return False
        for out, axis_rank in zip(outs, _RANKS.get(op, (rank,) * len(outs)), strict=True):
            edges = op == "edge_softmax" and out == outs[0]
            pointer = _value(args[0]) if op in _SOURCES else None
            self._kinds[out] = (
                _Kind("edge", 2, -1 if pointer is None else pointer)
                if edges
                else _Kind("node", axis_rank)
            )
        return True

    def _look_at_all(self, step: dict[str, Any]) -> None:
        """Notes what a step makes that works on all rows at once, as far as that is known."""
        op, args, outs = step["op"], step["args"], step["outs"]
        kinds = [self._kinds.get(n) for n in _values(args) if n not in self._constants]
        if not outs or not kinds or any(k is None or k.axis not in ("node", "all") for k in kinds):
            return
        known = [kind for kind in kinds if kind is not None]
        if op in _SUMS and args[2] is True:  # whose dimensions stay
            self._kinds[outs[0]] = _Kind("all", known[0].rank)
        nodes = {kind.rank for kind in known if kind.axis == "node"}
        if op in _ELEMENTWISE and len(nodes) == 1:
            rank = nodes.pop()
            # A value of any other first dimension could not be broadcast over the rows.
            lower = all(kind.rank <= rank for kind in known)
            if lower and all(self._broadcasts(n, rank) for n in _values(args)):
                self._kinds[outs[0]] = _Kind("node", rank)
        elif op in _ELEMENTWISE and not nodes:
            self._kinds[outs[0]] = _Kind("all", max(kind.rank for kind in known))

    def _look_at_graph(self, op: str, args: list[Any], outs: list[int]) -> None:
        pointer = outs[0] if op.startswith("self_loops") else self._pointer_of(args)
        if pointer is None:
            return
        for out, axis in zip(outs, _OF_GRAPH[op], strict=True):
            rank = 2 if op == "edge_codes" else 1
            self._kinds[out] = _Kind(axis, rank, pointer if axis == "edge" else -1)

    def _pointer_of(self, args: list[Any]) -> int | None:
        for arg in args:
            number = _value(arg)
            kind = None if number is None else self._kinds.get(number)
            if kind is not None and kind.axis == "pointer":
                return number
            if kind is not None and kind.axis == "edge":
                return kind.pointer
        return None

    def _rank(self, step: dict[str, Any]) -> int | None:
        """Dimensions of the results of a step that works row by row; None for others."""
        op, args = step["op"], step["args"]
        known = [self._kinds.get(n) for n in _values(args) if n not in self._constants]
        if not known or None in known:
            return None
        if op != "view" and any(isinstance(leaf, str) and leaf[0] in "dn" for leaf in leaves(args)):
            return None
        if op in _SOURCES:
            return self._rank_of_sum(op, args)
        if any(kind is None or kind.axis != "node" for kind in known):
            return None
        ranks = {kind.rank for kind in known if kind is not None}
        if op == "view":
            return len(args[1]) if self._keeps_rows(args[1]) else None
        if op in _ROWS:
            return 2
        if len(ranks) != 1:
            return None
        rank = ranks.pop()
        if op in _ELEMENTWISE:
            return rank if all(self._broadcasts(n, rank) for n in _values(args)) else None
        if op == "slice" and args[1:] == [0, 0, None, 1]:  # of all rows
            return rank
        axes = moved_axes(step)
        if axes is None or any((a if a >= 0 else a + rank) <= 0 for a in axes):
            return None
        if op == "select":
            return rank - 1
        if op == "layer_norm":
            return rank if len(args[1]) < rank else None
        keeps = op not in ("sum", "mean", "var", "std", "amax", "amin") or args[-1] is True
        return rank if keeps else rank - len(axes)

    def _rank_of_sum(self, op: str, args: list[Any]) -> int | None:
        pointer = _value(args[0])
        if pointer is None or self._kinds[pointer].axis != "pointer":
            return None
        edges = [_value(args[1])]
        if op != "edge_softmax":
            if args[3] is not None:
                return None
            edges.append(_value(args[2]))
        for number in edges:
            kind = None if number is None else self._kinds.get(number)
            if number is not None and (kind is None or kind != _Kind("edge", kind.rank, pointer)):
                return None
        rest = _values(args[2:] if op == "edge_softmax" else args[4:])
        for number in rest:
            if number not in self._constants and self._kinds[number].axis != "node":
                return None
        return 2

    def _keeps_rows(self, shape: list[Any]) -> bool:
        first, rest = shape[0], shape[1:]
        rows = first == -1 or (
            isinstance(first, str) and first[0] == "d" and self._counts_nodes(first)
        )
        return rows and all(isinstance(n, int) and n != -1 for n in rest)

    def _counts_nodes(self, size: str) -> bool:
        number, axis = size[1:].split(".")
        kind = self._kinds.get(int(number))
        return axis == "0" and kind is not None and kind.axis == "node"

    def _broadcasts(self, number: int, rank: int) -> bool:
        constant = self._constants.get(number)
        return (
            constant is None
            or constant.dim() < rank
            or (constant.dim() == rank and constant.size(0) == 1)
        )

    # --- how many rows are needed ---

    def _ask(self, step: dict[str, Any], by_row: bool) -> int:
        """The level of a step, from those of its results; asks its arguments for their rows."""
        level = max([self._need.get(out, 0) for out in step["outs"]], default=0)
        level = level if by_row else self._hops
        for number, at in self._wanted(step, by_row, level):
            if step["op"] != "check_finite":  # which looks at the rows that there are
                self._need[number] = max(self._need.get(number, 0), at)
        for out in step["outs"]:
            self._levels[out] = level
        return level

    def _wanted(self, step: dict[str, Any], by_row: bool, level: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []

        def note(number: int, at: int) -> int:
            found.append((number, at))
            return number

        self._change(step, by_row, level, note)
        return found

    def _change(
        self, step: dict[str, Any], by_row: bool, level: int, take: Callable[[int, int], int]
    ) -> list[Any]:
        """Arguments of a step, with ``take`` of every value that has rows and its level."""
        source = _SOURCES.get(step["op"], -1) if by_row else -1

        def changed(arg: Any, at: int) -> Any:
            def one(leaf: Any) -> Any:
                number = _value(leaf)
                if number is None or number not in self._kinds:
                    return leaf
                return f"v{take(number, at)}"

            return mapped(arg, one)

        further = min(level + 1, self._hops)
        return [
            changed(arg, further if place == source else level)
            for place, arg in enumerate(step["args"])
        ]

    # --- the new steps ---

    def _emit(self, step: dict[str, Any], by_row: bool, level: int) -> None:
        made: dict[str, Any] = {**step, "args": self._change(step, by_row, level, self._at)}
        if step["op"] == "view" and by_row:
            made["args"][1] = [f"d{_value(made['args'][0])}.0", *step["args"][1][1:]]
        elif not by_row:
            made["args"] = mapped(made["args"], self._whole_size)
        self._steps.append(made)

    def _whole_size(self, leaf: Any) -> Any:
        """A number of nodes, of a value that has all of them."""
        sized = isinstance(leaf, str) and leaf[0] == "d" and self._counts_nodes(leaf)
        return f"d{self._first}.0" if sized else leaf

    def _at(self, number: int, level: int) -> int:
        """A value's first rows, those of a level."""
        if self._levels[number] <= level:
            return number
        key = number, level
        if key not in self._made:
            kind, end = self._kinds[number], f"n{self._level(level)}+"
            if kind.axis == "node":
                stop = f"{end}0"
            elif kind.axis == "pointer":
                stop = f"{end}1"
            else:
                # The pointer of edges says how many of them these rows have.
                last = self._slice(kind.pointer, f"{end}0", f"{end}1")
                stop = f"n{last}+0"
            self._made[key] = self._slice(number, 0, stop)
        return self._made[key]

    def _slice(self, number: int, start: Any, stop: str) -> int:
        out: int = self._next
        self._next += 1
        self._steps.append(
            {"op": "slice", "args": [f"v{number}", 0, start, stop, 1], "outs": [out]}
        )
        return out

    def _level(self, level: int) -> int:
        if level not in self._level_values:
            self._level_values[level], self._next = self._next, self._next + 1
        return self._level_values[level]


def _value(leaf: Any) -> int | None:
    """The number of a value, of an argument that is one."""
    return int(leaf[1:]) if isinstance(leaf, str) and leaf[0] == "v" else None


def _values(args: Any) -> list[int]:
    return [number for leaf in leaves(args) if (number := _value(leaf)) is not None]


def reach(plan: Plan) -> int | None:
    """How far a row of the result looks: the edges into nodes of so many hops, and their rows.

    Args:
        plan: Of a forward that returns a row per node.

    Returns:
        Hops; nodes further away, and edges into them, change nothing. None where a step takes all
        rows together, so that every node may matter.
    """
    about = plan.about
    graphs = [i["graph"] for i in about["inputs"] if "graph" in i]
    kinds = _inputs(about)
    if len(graphs) != 1 or not kinds or "value" not in about["outputs"]:
        return None
    return _Trimming(plan, about, kinds, graphs[0], len(about["steps"]) + 1).reach()
