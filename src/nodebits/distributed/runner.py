"""The steps of a plan on the nodes of one rank, with the rows of other ranks that they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.distributed.exchange import Exchange
from nodebits.distributed.files import LoadedPart
from nodebits.distributed.partition import Part
from nodebits.distributed.progress import Progress
from nodebits.distributed.split import SplitSums
from nodebits.distributed.works import Work, Works
from nodebits.plan.kinds import value_of
from nodebits.plan.part_kinds import COUNTED
from nodebits.plan.plan import step_name
from nodebits.plan.reference import meaning, weights_by_source
from nodebits.plan.run import evaluated, results
from nodebits.plan.shares import WEIGHT
from nodebits.plan.trace import mapped


class Runner:
    """Runs the steps.

    Args:
        works: What each asks for.
        loaded: The part of this rank.
        exchange: With the others.
        progress: Where finished layers are kept; None keeps none.
    """

    def __init__(
        self,
        works: Works,
        loaded: LoadedPart,
        exchange: Exchange,
        progress: Progress | None,
    ) -> None:
        plan, about = works.plan, works.plan.about
        self._works, self._part, self._progress = works, loaded.part, progress
        self.exchange, self._result = exchange, about["outputs"]["value"]
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
            if work.step["op"] == COUNTED:
                made = [self._counts(*self._args(work))]
            elif not work.sources:
                made = self._made(work.step["op"], self._args(work))
            else:
                if self._progress is not None and 0 < work.layer != first:
                    kept = {number: self._values[number] for number in work.kept}
                    self._progress.save(work.layer, kept)
                what = f"layer {work.layer + 1} of {self._works.layers} ({step_name(work.step)})"
                made = self._read(work, what)
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

    def _counts(self, indices: Tensor, _: int, weight: Tensor | None = None) -> Tensor:
        """How many edges each own node is the source of, on all ranks, or their weights added."""
        hubs = self._part.hubs if self._split is not None else None
        rows = self._part.nodes.numel() + sum(self._part.receive)
        rows += sum(hubs.receive) if hubs is not None else 0
        if weight is None:
            counts = torch.bincount(indices, minlength=rows)
        else:
            counts = weights_by_source(indices, rows, weight)
        return self.exchange.add_up(counts, "counting edges by source", hubs is not None).float()

    def _read(self, work: Work, what: str) -> list[Tensor]:
        """What reads neighbours: of inner nodes, while rows of others are on their way."""
        part = self._part
        count, inner = part.nodes.numel(), part.inner
        missing = [v for v in dict.fromkeys(work.sources.values()) if v not in self._tables]
        whole = self._works.whole if self._split is not None else ()
        arriving = {v: self.exchange.begin(self._values[v], what, v in whole) for v in missing}
        merging = None
        if self._split is not None and self._works.merges(work):
            count -= part.hubs.count
            args = self._rows(work, count, part.nodes.numel(), self._values)
            merging = self._split.begin(work, args, self._spread_codes(work), what)
        made: list[list[Tensor]] = []
        if inner and arriving:
            made.append(self._made(work.step["op"], self._rows(work, 0, inner, self._values)))
        self._tables |= {value: rows.wait() for value, rows in arriving.items()}
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
        """Arguments of a step for some of the own nodes and the edges into them.

        Args:
            work: The step.
            begin: The first node.
            end: The one after the last.
            tables: Rows of sources by value, with those of other ranks where these nodes read them.
        """

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, str) or leaf[0] != "v":
                return evaluated(leaf, self._values.__getitem__)
            number = int(leaf[1:])
            value, kind = self._values[number], self._works.kinds.get(number)
            if kind is None or kind.axis in ("looped", "table"):
                return value
            if kind.axis == "pointer":
                return value[begin : end + 1] - value[begin]
            if kind.axis == "edge":
                pointer = self._values[kind.pointer]
                some = value[int(pointer[begin]) : int(pointer[end])]
                # What they number is cut alike.
                return some - pointer[begin] if number in self._works.numbering else some
            return value[begin:end]

        args = [mapped(arg, one) for arg in work.step["args"]]
        for (*lists, at), value in work.sources.items():
            holder = args
            for place in lists:
                holder = holder[place]
            holder[at] = tables[value]
        return args
