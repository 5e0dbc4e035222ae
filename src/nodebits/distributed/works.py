"""What a plan asks of a rank that has some of the nodes: which steps need rows of others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nodebits.core.errors import ConfigError
from nodebits.plan.kinds import OF_GRAPH, Kind, value_of
from nodebits.plan.part_kinds import PartKinds, Place
from nodebits.plan.plan import Plan, step_name
from nodebits.plan.rounds import stepwise
from nodebits.plan.run import values_of
from nodebits.plan.shares import SHARES, WEIGHT, is_divisible
from nodebits.plan.trace import leaves


@dataclass(frozen=True)
class Work:
    """One step.

    Attributes:
        step: Of the plan.
        sources: Values whose rows of other nodes it reads, by their place among the arguments;
            empty of other steps.
        of_features: Whether it follows from features, and not from the graph alone.
        kept: Where it reads rows of others: values that this and later steps read, and that follow
            from features.
        layer: Number of the step among those that read rows of others; of other steps that of the
            next one.
        dead: Values that no later step reads.
    """

    step: dict[str, Any]
    sources: dict[Place, int]
    of_features: bool
    kept: tuple[int, ...]
    layer: int
    dead: tuple[int, ...]


@dataclass(frozen=True)
class Works:
    """All steps.

    Attributes:
        plan: The plan, its rounds of propagation as steps.
        steps: In their order.
        kinds: What values are, see :class:`nodebits.plan.kinds.Kind`.
        edges: The value that is the set of edges.
        graphs: Values of its rows: pointer, sources and places, wherever the plan makes them.
        numbering: Values that number a graph's edges in their order.
        rounded: Steps whose last bits depend on where in a tensor a value lies, by name.
        whole: Values of which hubs need the rows of all their sources: a step that is not merged of
            shares reads them.
        spread: Codes of edges that each rank makes of its own nodes' edges into hubs.
        merged: Pointers of edges whose sums may be merged: all that a node has, loops or not.
    """

    plan: Plan
    steps: list[Work]
    kinds: dict[int, Kind]
    edges: int
    graphs: list[list[int]]
    numbering: frozenset[int]
    rounded: list[str]
    whole: frozenset[int]
    spread: frozenset[int]
    merged: frozenset[int]

    @property
    def layers(self) -> int:
        """Number of steps that read rows of other nodes."""
        return sum(bool(work.sources) for work in self.steps)

    def merges(self, work: Work) -> bool:
        """Whether a sum of hubs is merged of what ranks make of their own nodes' rows."""
        if not work.sources or not _is_merged(work.step, self.spread, self.merged):
            return False
        apart = {value_of(work.step["args"][WEIGHT]), *work.step["outs"]} & self.spread
        # Rows that have come for another step need no sums besides.
        return bool(apart) or not set(work.sources.values()) <= self.whole


def works_of(plan: Plan | str) -> Works:
    """What each step asks for.

    Raises:
        ConfigError: There is no plan, or a step takes the rows of all nodes together; names it.
    """
    if isinstance(plan, str):
        raise ConfigError(f"the model has no plan, which ranks run: {plan}")
    plan = stepwise(plan)
    about = plan.about
    found = PartKinds.of(plan)
    if found is None:
        raise ConfigError(_no_rows(about))
    constants = {int(number) for number in about["constants"]}
    kept = [  # a part has its rows already
        one
        for one in zip(about["steps"], found.by_row, found.sources, strict=True)
        if one[0]["outs"] not in found.graphs
    ]
    steps, sources = [step for step, *_ in kept], [read for *_, read in kept]
    bad = [step for step, row, _ in kept if not (row or _is_local(step, constants))]
    if bad:
        raise ConfigError(_of_all(step_name(bad[0]), len(bad)))
    result = about["outputs"].get("value")
    if result not in found.kinds or found.kinds[result].axis != "node":
        raise ConfigError(
            "the model does not return a row for each node of one graph: ranks that have some of "
            "the nodes cannot run it"
        )
    edges = next(iter(_edges_of(about)))
    inputs = [one["value"] for one in about["inputs"] if one["value"] != edges]
    works = _works(steps, sources, set(inputs), result)
    # Shares are of all edges but loops; others may have some of them.
    looped = {step["outs"][0] for step in steps if step["op"].startswith("self_loops")}
    merged = frozenset(looped | {pointer for pointer, *_ in found.graphs})
    spread = _spread(works, merged)
    others = (work for work in works if work.sources and not _is_merged(work.step, spread, merged))
    return Works(
        plan,
        works,
        found.kinds,
        edges,
        found.graphs,
        frozenset(found.numbering),
        sorted({step_name(step) for step in steps if step.get("approx")}),
        frozenset(value for work in others for value in work.sources.values()),
        spread,
        merged,
    )


def _may_merge(step: dict[str, Any], merged: frozenset[int]) -> bool:
    return is_divisible(step) and value_of(step["args"][0]) in merged


def _is_merged(step: dict[str, Any], spread: frozenset[int], merged: frozenset[int]) -> bool:
    of_edges = step["op"] in SHARES and SHARES[step["op"]].of_edges
    return _may_merge(step, merged) and (not of_edges or step["outs"][0] in spread)


def _spread(works: list[Work], merged: frozenset[int]) -> frozenset[int]:
    """Codes of edges that nothing but sums that are merged of shares reads, as their weights."""
    made = {
        work.step["outs"][0]
        for work in works
        if work.sources and _may_merge(work.step, merged) and SHARES[work.step["op"]].of_edges
    }
    for work in works:
        step = work.step
        mine = bool(work.sources) and _may_merge(step, merged)
        weighs = mine and not SHARES[step["op"]].of_edges
        for place, arg in enumerate(step["args"]):
            if not (weighs and place == WEIGHT and value_of(arg) is not None):
                made -= values_of(arg)
    return frozenset(made)


def _edges_of(about: dict[str, Any]) -> list[int]:
    """Values of the inputs that are edges."""
    roles = {one["name"]: one["role"] for one in about["arguments"]}
    return [i["value"] for i in about["inputs"] if roles.get(i["name"]) in ("edges", "graph")]


def _no_rows(about: dict[str, Any]) -> str:
    """Why nothing is known of the rows of a plan."""
    edges = _edges_of(about)
    if len(edges) != 1:
        return (
            f"the model reads {len(edges)} sets of edges, and parts have the nodes and edges of "
            "one: run this model in one process"
        )
    readers = [step for step in about["steps"] if f"v{edges[0]}" in leaves(step["args"])]
    readers = [step for step in readers if step["op"] != "csr"]
    if readers:
        return _of_all(step_name(readers[0]), len(readers), "ends of all edges")
    return (
        "the model's plan reads no features with a row for each node, or sums over no edges: run "
        "this model in one process"
    )


def _of_all(name: str, count: int, what: str = "rows of all nodes") -> str:
    return (
        f"the step {name!r} of the model's plan takes the {what} together, and a rank has its own "
        f"alone ({count} such step(s)): run this model in one process"
    )


def _is_local(step: dict[str, Any], constants: set[int]) -> bool:
    """Whether a step that is not row by row means the same where there are some of the rows."""
    if step["op"] in OF_GRAPH or step["op"] in ("check_degree", "check_finite"):
        return True
    if step["op"] == "module":
        return False
    read = values_of(step["args"])
    sized = any(isinstance(leaf, str) and leaf[0] in "dn" for leaf in leaves(step["args"]))
    return read <= constants and not sized


def _works(
    steps: list[dict[str, Any]], sources: list[dict[Place, int]], features: set[int], result: int
) -> list[Work]:
    reads = [values_of(step["args"]) for step in steps]
    last = {number: place for place, read in enumerate(reads) for number in read}
    last[result] = len(steps)
    of_features, of_features_steps = set(features), []
    for step in steps:
        # Sizes are known without the values.
        names = (leaf for leaf in leaves(step["args"]) if isinstance(leaf, str))
        follows = any(name[0] == "v" and int(name[1:]) in of_features for name in names)
        of_features_steps.append(follows)
        of_features |= set(step["outs"]) if follows else set()
    works, layer = [], 0
    made: set[int] = set()
    for place, (step, read) in enumerate(zip(steps, sources, strict=True)):
        kept: tuple[int, ...] = ()
        if read:
            kept = tuple(sorted(n for n in made & of_features if last.get(n, -1) >= place))
        dead = tuple(n for n in _numbers(reads[place], step["outs"]) if last.get(n, -1) <= place)
        works.append(Work(step, read, of_features_steps[place], kept, layer, dead))
        layer += bool(read)
        made |= set(step["outs"])
    return works


def _numbers(read: Iterable[int], outs: Iterable[int]) -> list[int]:
    return sorted({*read, *outs})
