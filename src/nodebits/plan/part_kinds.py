"""What the values of a plan are to a rank that has some nodes and all edges into these.

Its edges come in the order of their targets, and what belongs to them does too. So what is made
edge by edge can be made of own edges alone, of rows of both ends: those of targets are its own, and
those of sources it has once other ranks have sent theirs. Which rows a step reads of sources is all
that has to be known of it.
"""

from __future__ import annotations

from typing import Any

from nodebits.plan.kinds import SOURCES, Kind, RowKinds, value_of, values_of
from nodebits.plan.plan import Plan
from nodebits.plan.trace import leaves

#: Where among the arguments of a step one lies, the place in a list last.
Place = tuple[int, ...]
# What reads rows of sources and is no sum that is merged of shares, by the same places.
_GATHERED: dict[str, tuple[Place, ...]] = {
    "pair_scores": ((4,),),
    "modulated_sum": ((4,),),
    "gated_product": ((4, 0), (4, 2)),
    "fused_outer_sum": ((4,),),
}
_READ = {op: tuple([(place,) for place in places]) for op, places in SOURCES.items()} | _GATHERED
# What has rows of edges: one for each, with those of loops behind them, or each of them once.
_OF_EDGES = ("edge", "looped", "table")
#: What counts edges, or adds up their weights, by source: what ranks find is added.
COUNTED = "source_degree"


class PartKinds(RowKinds):
    """The kinds of all values of a plan, where nodes and edges are those of a rank.

    Attributes:
        sources: Of each step, values whose rows of other nodes it reads, by their place.
        numbering: Values that number a graph's edges in their order.
    """

    def __init__(self, plan: Plan, kinds: dict[int, Kind], graphs: list[list[int]]) -> None:
        self.sources: list[dict[Place, int]] = []
        self.numbering = {places for *_, places in graphs}
        self._indices = {indices for _, indices, _ in graphs}
        self._targets: set[int] = set()
        self._looped: set[int] = set()  # places of edges and loops
        self._tables: set[int] = set()  # rows of edges in a table
        super().__init__(plan, kinds, graphs)

    @classmethod
    def _of_edge_inputs(cls, inputs: list[dict[str, Any]], pointer: int) -> dict[int, Kind]:
        return {one["value"]: Kind("edge", len(one["shape"]), pointer) for one in inputs}

    def _look(self, step: dict[str, Any]) -> bool:
        made = self._made(step)
        if made:
            self.kinds.update(zip(step["outs"], made, strict=True))
        by_row = bool(made) or super()._look(step)
        self.sources.append(self._sources_of(step) if by_row else {})
        return by_row

    def _look_at_graph(self, op: str, args: list[Any], outs: list[int]) -> None:
        super()._look_at_graph(op, args, outs)
        if op.startswith("self_loops"):
            self._indices.add(outs[1])
        if op == "self_loops_placed":
            self._looped.add(outs[2])
        if op == "targets":
            self._targets.add(outs[0])

    def _sources_of(self, step: dict[str, Any]) -> dict[Place, int]:
        op, args = step["op"], step["args"]
        if op == "index_select" and value_of(args[2]) in self._indices:
            return {(0,): int(args[0][1:])}
        found = {place: value_of(_at(args, place)) for place in _READ.get(op, ())}
        return {place: n for place, n in found.items() if n is not None and self.axis(n) == "node"}

    def _made(self, step: dict[str, Any]) -> list[Kind] | None:
        """What a step makes of the edges into own nodes; None for others."""
        op, args, outs = step["op"], step["args"], step["outs"]
        if op == "by_relation":
            return self._relations(args, outs)
        if op in ("full", "arange"):
            return self._of_size(step)
        if op == "distinct_rows":
            return self._distinct(args, outs)
        kind: Kind | None = None
        if op == "index_select":
            kind = self._selected(args)
        elif op == "cat":
            kind = self._joined(args)
        elif op == "segment_sum":
            kind = self._summed(args)
        elif op == COUNTED:
            counts = value_of(args[0]) in self._indices and isinstance(args[1], str)
            weights = [self._kind(weight) == self._kind(args[0]) for weight in args[2:]]
            counts = counts and all(weights)
            kind = Kind("node") if counts and self.counts_nodes(args[1]) else None
        elif op in _GATHERED:
            kind = self._gathered(op, args)
        return None if kind is None else [kind]

    def _relations(self, args: list[Any], outs: list[int]) -> list[Kind] | None:
        rows = [value_of(arg) for arg in args[:3]]
        if rows not in self.graphs or self._kind(args[3]) != self._kind(args[1]):
            return None
        self._indices.update(outs[1::2])
        return [
            Kind("edge", 1, outs[at - 1]) if at % 2 else Kind("pointer") for at in range(len(outs))
        ]

    def _distinct(self, args: list[Any], outs: list[int]) -> list[Kind] | None:
        """Rows that edges have, and which one each of them has."""
        rows, places = self._kind(args[0]), self._kind(args[1])
        if rows is None or places is None or rows.axis != "edge" or places.axis != "edge":
            return None
        loops = self._kind(args[3]) if len(args) > 3 else None
        known = loops == Kind("node", 2) if len(args) > 3 else rows.pointer == places.pointer
        if not known or value_of(args[1]) not in self.numbering | self._looped:
            return None
        self._tables.update(outs[1:])
        return [Kind("table", 2, places.pointer), places, places]

    def _of_size(self, step: dict[str, Any]) -> list[Kind] | None:
        self._look_at_size(step)
        kind = self.kinds.get(step["outs"][0])
        if step["op"] == "arange":
            if kind is None or kind.axis != "edge":  # nodes have other numbers in other parts
                return None
            self.numbering.add(step["outs"][0])
        return None if kind is None else [kind]

    def _selected(self, args: list[Any]) -> Kind | None:
        """Rows of either end of every edge, or those of edges in their order."""
        index, kind, edges = value_of(args[2]), self._kind(args[0]), self._kind(args[2])
        if args[1] != 0 or kind is None or edges is None or value_of(args[0]) in self._numbers:
            return None
        if kind.axis == "node" and index in self._indices | self._targets:
            return Kind("edge", kind.rank, edges.pointer)
        if kind.axis == "looped" and index in self._looped:
            return Kind("edge", kind.rank, edges.pointer)
        if kind.axis == "table" and index in self._tables:
            return Kind("edge", kind.rank, edges.pointer)
        # By places, which are those that there are.
        same = kind == Kind("edge", kind.rank, edges.pointer)
        return kind if same and index in self.numbering else None

    def _joined(self, args: list[Any]) -> Kind | None:
        """Rows of edges, as they were given, and behind them those of loops."""
        if args[1] != 0 or len(args[0]) != 2:
            return None
        edges, nodes = map(self._kind, args[0])
        given = edges is not None and edges.pointer in {pointer for pointer, *_ in self.graphs}
        if edges is None or not given or edges.axis != "edge" or nodes != Kind("node", edges.rank):
            return None
        return edges._replace(axis="looped")

    def _summed(self, args: list[Any]) -> Kind | None:
        """Sums of the rows of a target's edges, which are added in their order."""
        kind, edges = self._kind(args[0]), self._kind(args[1])
        if kind is None or edges is None or value_of(args[1]) not in self._targets:
            return None
        whole = isinstance(args[2], str) and self.counts_nodes(args[2])
        fits = whole and kind == Kind("edge", kind.rank, edges.pointer)
        return Kind("node", kind.rank) if fits else None

    def _gathered(self, op: str, args: list[Any]) -> Kind | None:
        known = [self.kinds.get(n) for n in values_of(args) if n not in self.constants]
        if None in known or self._rank_of_sum(op, args) is None:
            return None
        return Kind("edge", 2, int(args[0][1:])) if op == "pair_scores" else Kind("node", 2)

    def _kind(self, leaf: Any) -> Kind | None:
        number = value_of(leaf)
        return None if number is None else self.kinds.get(number)

    @property
    def _numbers(self) -> set[int]:
        """Values that are numbers of nodes or edges, which are others in other parts."""
        return self._indices | self._targets | self._looped | self._tables | self.numbering

    def _of_edges(self, step: dict[str, Any]) -> Kind | None:
        read = [n for n in values_of(step["args"]) if n not in self.constants]
        known = [kind for n in read if (kind := self.kinds.get(n)) is not None]
        if len(known) < len(read) or not known or known[0].axis not in _OF_EDGES:
            return None
        sizes = (leaf for leaf in leaves(step["args"]) if isinstance(leaf, str))
        if step["op"] != "view" and any(leaf[0] in "dn" for leaf in sizes):
            return None
        rank = self._rank_of_rows(step, known) if self._numbers.isdisjoint(read) else None
        return None if rank is None else known[0]._replace(rank=rank)

    def _are_alike(self, known: list[Kind]) -> bool:
        return len({kind._replace(rank=0) for kind in known}) == 1

    def _counts(self, size: str, kind: Kind) -> bool:
        if kind.axis not in ("looped", "table"):
            return super()._counts(size, kind)
        number, axis = size[1:].split(".")
        counted = self.kinds.get(int(number))
        return axis == "0" and counted is not None and counted._replace(rank=kind.rank) == kind

    def _is_summed(self, number: int, op: str, args: list[Any]) -> bool:
        kind, own = self.kinds[number], Kind("edge", 0, int(args[0][1:]))
        of_own_edges = kind._replace(rank=0) == own
        if number in {value_of(_at(args, place)) for place in _READ[op]}:
            # Rows of edges are their own sources, where these are numbered in their order.
            if value_of(args[1]) in self._tables:
                return kind.axis == "table"
            of_edges = value_of(args[1]) in self.numbering
            return of_own_edges if of_edges else kind.axis == "node"
        return of_own_edges or kind.axis in ("node", "looped", "table")


def _at(args: list[Any], place: Place) -> Any:
    """What lies at a place among arguments."""
    found: Any = args
    for at in place:
        found = found[at]
    return found
