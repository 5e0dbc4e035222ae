"""A plan on the nodes of one rank, with the bits of the plan on all of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.core.signature import names_of
from nodebits.distributed.exchange import (
    Exchange,
    from_rank,
    least_of_ranks,
    of_all_ranks,
)
from nodebits.distributed.files import LoadedPart
from nodebits.distributed.partition import Part
from nodebits.distributed.progress import Progress
from nodebits.distributed.split import SplitSums
from nodebits.distributed.works import Work, Works, works_of
from nodebits.engine.sites.widths import NodeWidths
from nodebits.plan.kinds import value_of
from nodebits.plan.plan import Plan, step_name
from nodebits.plan.reference import meaning
from nodebits.plan.run import evaluated, results
from nodebits.plan.shares import WEIGHT
from nodebits.plan.trace import mapped
from nodebits.runtime import PackedModel

# Nodes and edges of the example that a plan is made on, as far as there are so many.
_EXAMPLE = 1 << 12


@dataclass(frozen=True)
class Found:
    """What a rank has at the end.

    Attributes:
        outputs: float32 ``[n, ...]``, rows in the order of ``part.nodes``.
        sent: Bytes that this rank sent to others: rows, and shares of hubs.
        layers: Sums over neighbours.
        resumed: Layer that the run began with; 0 is the first.
        rounded: Steps whose last bits depend on where in a tensor a value lies.
    """

    outputs: Tensor
    sent: int
    layers: int
    resumed: int
    rounded: list[str]


def run_part(
    packed: PackedModel,
    loaded: LoadedPart,
    world: int = 1,
    timeout: float = 60.0,
    progress: Progress | None = None,
    model: str = "",
) -> Found:
    """Runs a model on the nodes of this rank; all ranks must call it.

    Args:
        packed: The model, the same on all ranks.
        loaded: The part of this rank.
        world: Number of ranks.
        timeout: Of the process group, for errors.
        progress: Where finished layers are kept, and taken from; None keeps none.
        model: What tells the model from others; default: its tensors.

    Raises:
        ConfigError: The model cannot run on parts, names the step or site; or ranks differ.
        RankError: Another rank ended or is stuck.
        NodebitsError: As :meth:`PackedModel.predict`.
    """
    if world != loaded.contents.parts:
        raise ConfigError(
            f"the graph is in {loaded.contents.parts} parts, and there are {world} processes: "
            f"torchrun --nproc-per-node {loaded.contents.parts}, or divide it anew"
        )
    for name, site in packed.module.named_modules():
        if isinstance(site, NodeWidths) and site.bound and not site.fallback:
            raise ConfigError(
                f"site {name} has parameters for every node of one graph, which parts of it have "
                "not: run this model in one process"
            )
    _check_names(packed, loaded)
    told = (model or _told(packed), loaded.contents.id)
    all_told = of_all_ranks((told, loaded.part.indices.numel()), timeout)
    if len({one for one, _ in all_told}) > 1:
        raise ConfigError("ranks have different models, or parts of different graphs")
    # An example has edges; this rank may have none.
    maker = max(range(len(all_told)), key=lambda rank: all_told[rank][1])
    made = _plan(packed, loaded) if loaded.rank == maker else ""
    plan = from_rank(maker, made, timeout)
    works = works_of(plan)
    assert isinstance(plan, Plan)
    kept = -1
    if progress is not None:
        kept = least_of_ranks(max(progress.layers(), default=-1), timeout)
        # One that is further than others has its last layers twice; one that has less begins anew.
        has = kept in progress.layers()
        kept = kept if least_of_ranks(int(has), timeout) else -1
    runner = _Runner(plan, works, loaded, Exchange(loaded.part, world, timeout), progress)
    with torch.no_grad():
        outputs = runner.run(kept)
    return Found(outputs, runner.exchange.sent, works.layers, max(kept, 0), works.rounded)


def _names(packed: PackedModel, loaded: LoadedPart) -> tuple[Sequence[str], set[str]]:
    """Names of features and edges in the model's forward, and all that the part has of it."""
    leading = names_of(packed.module.forward)[:2]
    return leading, {*leading[1:], *loaded.of_nodes, *loaded.of_edges}


def _check_names(packed: PackedModel, loaded: LoadedPart) -> None:
    """Refuses a part that has what the model does not take, or lacks what it needs.

    Raises:
        ConfigError: Names it.
    """
    forward = packed.module.forward
    leading, has = _names(packed, loaded)
    try:
        if leading[:1] and leading[0] not in has:
            raise TypeError(f"missing a required argument: {leading[0]!r}")
        inspect.signature(forward).bind(**dict.fromkeys(has))
    except TypeError as error:
        raise ConfigError(
            f"the parts have {', '.join(sorted(has))}, and forward of "
            f"{type(packed.module).__name__} takes ({', '.join(names_of(forward))}): {error}. "
            "Divide the data with this model"
        ) from None


def _plan(packed: PackedModel, loaded: LoadedPart) -> Plan | str:
    """The plan of a call with what the part has, made on the nodes of this rank.

    That of other calls may read less: a model without its edge weights has other outputs.
    """
    leading, has = _names(packed, loaded)
    part, whole = loaded.part, loaded.part.nodes.numel()
    # Rows up to the one in which the example has edges enough.
    count = int(torch.searchsorted(part.indptr, min(_EXAMPLE, int(part.indptr[-1]))))
    count = min(max(count, _EXAMPLE), whole)
    held = int(part.indptr[count])
    rows = torch.arange(count, device="cpu").repeat_interleave(part.indptr[: count + 1].diff())
    # Any sources do for an example, and features of other ranks are not here.
    edges = torch.stack([part.indices[:held].long() % max(count, 1), rows])
    given = {name: value[:count] for name, value in loaded.of_nodes.items()}
    given |= {name: value[:held] for name, value in loaded.of_edges.items()}
    made = packed.plan(given.pop(leading[0]), edges, **given)
    if isinstance(made, Plan):
        return made
    known = packed.plan()
    if isinstance(known, Plan) and {one["name"] for one in known.about["arguments"]} == has:
        return known
    return made


def _told(packed: PackedModel) -> str:
    """What tells a model from others: its tensors."""
    found = hashlib.sha256()
    for name, value in packed.module.state_dict().items():
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        works: Works,
        loaded: LoadedPart,
        exchange: Exchange,
        progress: Progress | None,
    ) -> None:
        about = plan.about
        self._works, self._part, self._progress = works, loaded.part, progress
        self.exchange, self._result = exchange, about["outputs"]["value"]
        self._places = {places for *_, places in works.graphs}
        self._split: SplitSums | None = None
        if loaded.contents.hubs:
            self._split = SplitSums(loaded.part, loaded.rank, exchange)
        self._values = {int(n): plan.constants[name] for n, name in about["constants"].items()}
        self._constants = frozenset(self._values)
        self._take_graph(loaded.part)
        self._take_inputs(about, loaded)
        self._tables: dict[int, Tensor] = {}

    def _take_graph(self, part: Part) -> None:
        count = part.indices.numel()
        places = torch.arange(count, device="cpu")
        for graph in self._works.graphs:
            self._values.update(zip(graph, (part.indptr, part.indices, places), strict=True))
        # Steps ask how many edges there are; none reads their ends, which the rows above have.
        self._values[self._works.edges] = torch.empty((2, count), device="meta")

    def _take_inputs(self, about: dict[str, Any], loaded: LoadedPart) -> None:
        roles = {one["name"]: one["role"] for one in about["arguments"]}
        for one in about["inputs"]:
            name, role = one["name"], roles.get(one["name"])
            if one["value"] == self._works.edges:
                continue
            held = loaded.of_edges if role == "edge" else loaded.of_nodes
            if name not in held:
                raise ConfigError(
                    f"the model reads {name} as a row for each {role}, which the parts do not "
                    "have: divide the data with this model"
                )
            value = held[name]
            floats = value.is_floating_point()
            self._values[one["value"]] = (value.float() if floats else value).contiguous()

    def run(self, first: int) -> Tensor:
        """Outputs of own nodes.

        Args:
            first: Layer whose values are in files, -1: none is.
        """
        if first > 0 and self._progress is not None:
            self._values.update(self._progress.load(first))
        for work in self._works.steps:
            done = work.layer < first or (work.layer == first and not work.sources)
            if first > 0 and done and work.of_features:
                continue
            if not work.sources:
                made = self._made(work.step["op"], self._args(work))
            else:
                if self._progress is not None and 0 < work.layer != first:
                    kept = {number: self._values[number] for number in work.kept}
                    self._progress.save(work.layer, kept)
                made = self._sum(work)
            self._values.update(zip(work.step["outs"], made, strict=False))
            self._forget(work)
        return self._values[self._result]

    def _forget(self, work: Work) -> None:
        """Lets go of values that nobody reads any more; their sizes may be asked for."""
        for number in work.dead:
            self._tables.pop(number, None)
            value = self._values.get(number)
            if value is not None and number not in self._constants and number != self._result:
                self._values[number] = value.to("meta")

    def _args(self, work: Work) -> list[Any]:
        return [evaluated(arg, self._values.__getitem__) for arg in work.step["args"]]

    @staticmethod
    def _made(op: str, args: list[Any]) -> list[Tensor]:
        return [value.detach() for value in results(meaning(op)(*args))]

    def _sum(self, work: Work) -> list[Tensor]:
        """A sum over neighbours: of inner nodes while rows of others are on their way."""
        part = self._part
        count, inner = part.nodes.numel(), part.inner
        what = f"layer {work.layer + 1} of {self._works.layers} ({step_name(work.step)})"
        missing = [
            value for value in dict.fromkeys(work.sources.values()) if value not in self._tables
        ]
        whole = self._works.whole if self._split is not None else ()
        arriving = [
            self.exchange.begin(self._values[value], what, value in whole) for value in missing
        ]
        merging = None
        if self._split is not None and self._works.merges(work):
            count -= part.hubs.count
            args = self._rows(work, count, part.nodes.numel(), self._values)
            merging = self._split.begin(work, args, self._spread_codes(work), what)
        made: list[list[Tensor]] = []
        if inner and arriving:
            made.append(self._made(work.step["op"], self._rows(work, 0, inner, self._values)))
        self._tables |= {value: one.wait() for value, one in zip(missing, arriving, strict=True)}
        first = inner if made else 0
        if first < count or not (made or merging):
            made.append(self._made(work.step["op"], self._rows(work, first, count, self._tables)))
        if merging is not None:
            of_hubs = merging.wait()
            made.append(of_hubs if merging.codes is None else [merging.codes, *of_hubs])
        if len(made) == 1:
            return made[0]
        return [torch.cat(pieces) for pieces in zip(*made, strict=True)]

    def _spread_codes(self, work: Work) -> Tensor | None:
        """Codes of own nodes' edges into hubs of others, which stand behind those of own hubs."""
        number = value_of(work.step["args"][WEIGHT])
        if number not in self._works.spread:
            return None
        codes = self._values[number]
        return codes[codes.size(0) - self._part.hubs.indices.numel() :]

    def _rows(self, work: Work, begin: int, end: int, tables: Mapping[int, Tensor]) -> list[Any]:
        """Arguments of a sum for some of the own nodes.

        Args:
            work: The sum.
            begin: The first node.
            end: The one after the last.
            tables: Rows of sources by value, with those of other ranks where these nodes read them.
        """

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, str) or leaf[0] != "v":
                return evaluated(leaf, self._values.__getitem__)
            number = int(leaf[1:])
            value, kind = self._values[number], self._works.kinds.get(number)
            if kind is None:
                return value
            if kind.axis == "pointer":
                return value[begin : end + 1] - value[begin]
            if kind.axis == "edge":
                pointer = self._values[kind.pointer]
                some = value[int(pointer[begin]) : int(pointer[end])]
                # What places point to is cut alike.
                return some - pointer[begin] if number in self._places else some
            return value[begin:end]

        return [
            tables[work.sources[place]] if place in work.sources else mapped(arg, one)
            for place, arg in enumerate(work.step["args"])
        ]
