"""A task on pairs of nodes: edges with targets, and links among pairs that are none."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import is_undirected

from nodebits.core.errors import ConfigError, LabelError, NodeIndexError, ShapeError
from nodebits.data.pairs import (
    RANKED_AMONG,
    absent_pairs,
    edge_parts,
    link_parts,
    seeded,
    wrong_targets,
)
from nodebits.tasks import Task, find_task, task_names
from nodebits.train.graph_checks import checked_graph, refuse_overlap
from nodebits.train.inputs import Inputs
from nodebits.train.problem import SPLITS, Forward, Problem, Split, Step, other_fields

# Times that pairs without an edge are drawn, as many as there are links; an epoch takes one draw.
_ROUNDS = 5


class PairProblem(Problem):
    """A task on pairs of nodes, trained full batch or on the batches of a loader.

    The model is given the pairs as ``edge_label_index`` ``[2, P]`` and returns a row for each;
    :class:`nodebits.models.PairModel` makes such a model of one of nodes.
    """

    def __init__(
        self,
        train: Data,
        val: Data,
        test: Data | None = None,
        task: str | Task = "link",
        *,
        loader: Iterable[Data] | None = None,
        seed: int = 0,
    ) -> None:
        """Checks the three parts, as PyG's ``RandomLinkSplit`` gives them.

        Args:
            train: ``edge_index`` of messages, ``edge_label_index`` and ``edge_label`` of pairs.
                For links without pairs that are none, those are drawn.
            val: Likewise, for selection.
            test: Likewise; None where nothing is tested.
            task: Of edges or links; see ``nodebits tasks``.
            loader: Gives the training batches, as PyG's ``LinkNeighborLoader`` does; None trains on
                the whole graph.
            seed: Of the pairs that are drawn.

        Raises:
            ConfigError: The task is of another level, or a part has no pairs.
            ShapeError: Pairs or targets have another shape.
            NodeIndexError: A pair names a node that does not exist.
            LabelError: Targets are not what the task takes.
            OverlappingSplitsError: A pair is in two parts.
        """
        self.task = find_task(task)
        if not self.task.level.pairs:
            known = [*task_names(find_task("edge").level), *task_names(find_task("link").level)]
            raise ConfigError(
                f"task {self.task.name!r} is of {self.task.level.unit}s, the data are pairs of "
                f"nodes: use one of {', '.join(known)}"
            )
        given = [train, val] if test is None else [train, val, test]
        parts = [checked_graph(part, split) for split, part in zip(SPLITS, given, strict=False)]
        asked = [self._pairs(part, split) for split, part in zip(SPLITS, parts, strict=False)]
        pairs, labels = [own for own, _ in asked], [targets for _, targets in asked]
        self._links, self._rounds = pairs[0].size(1), 0
        if self.task.level.absent:
            self._draw(parts, pairs, labels, loader is None, seed)
        self._parts, self.pairs = parts, torch.cat(pairs, dim=1)
        self._loader, self.loader_draws = loader, loader is not None
        self.labels = torch.cat(labels)
        first = 0
        self.indices = {}
        self._all: dict[Split, Tensor] = {}
        for split, part in zip(SPLITS, pairs, strict=False):
            rows = torch.arange(first, first + part.size(1), device="cpu")
            self._all[split] = rows
            # Of the drawn pairs the first draw alone is measured.
            self.indices[split] = (
                rows[: 2 * self._links] if split == "train" and self._rounds else rows
            )
            first += part.size(1)
        self.indices.setdefault("test", torch.zeros(0, dtype=torch.int64, device="cpu"))
        self.finish()
        if not self.task.level.absent:
            self._refuse_overlap()

    @classmethod
    def of_graph(cls, data: Data, task: str | Task = "link", seed: int = 0) -> PairProblem:
        """A graph's edges by its masks, or of links the split that ``RandomLinkSplit`` draws.

        Args:
            data: Of edges as ``edge_label`` and masks with a row per edge; of links the graph.
            task: Of edges or links.
            seed: Of what is drawn.
        """
        kind = find_task(task)
        data = checked_graph(data, "data")
        if not isinstance(data.edge_index, Tensor):
            raise ConfigError("pairs of nodes are predicted from edge_index, which data lacks")
        parts = link_parts(data, kind, seed) if kind.level.absent else edge_parts(data)
        return cls(*parts, kind, seed=seed)

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Yields one step of all training pairs and a draw of those that are none, or the loader's.

        A batch of a loader whose rows of the whole are not known, since it draws pairs itself, has
        no rows to look a teacher up.
        """
        del batch_size
        if self._loader is not None:
            yield from self._sampled()
            return
        rows = self._all["train"]
        if self._rounds:
            links = self._links
            number = int(torch.randint(self._rounds, (1,), generator=generator, device="cpu"))
            start = links * (1 + number)
            rows = torch.cat([rows[:links], rows[start : start + links]])
        yield Step(self._inputs("train", rows), self.labels[rows], None, rows)

    def logits(self, forward: Forward, split: Split | None = None) -> Tensor:
        """Runs the graph of a split on its pairs, or all three in order."""
        if split is not None:
            return forward(self._inputs(split, self.indices[split]))
        return torch.cat([forward(self._inputs(name, rows)) for name, rows in self._all.items()])

    def example(self, split: Split = "test") -> Inputs:
        """Returns the graph and the pairs of a split."""
        rows = self.indices[split]
        return self._inputs(split if len(rows) else "train", rows if len(rows) else None)

    def _inputs(self, split: Split, rows: Tensor | None) -> Inputs:
        part = self._parts[SPLITS.index(split)]
        rows = self.indices[split] if rows is None else rows
        return _inputs(part, self.pairs[:, rows])

    def _sampled(self) -> Iterator[Step]:
        assert self._loader is not None
        for batch in self._loader:
            if not isinstance(batch, Data):
                raise ConfigError(f"the loader gave a {type(batch).__name__}, not a PyG Data")
            if "dst_neg_index" in batch:
                batch = _of_triplets(batch, self.task)
            pairs, labels = self._pairs(batch, "train")
            if not len(labels):
                continue
            rows = batch.input_id if "input_id" in batch else pairs.new_zeros(0)
            if len(rows) != len(labels):
                rows = pairs.new_zeros(0)
            yield Step(_inputs(batch, pairs), labels, None, rows)

    def _pairs(self, part: Data, split: str) -> tuple[Tensor, Tensor]:
        """Pairs and targets of a part."""
        pairs = part.edge_label_index if "edge_label_index" in part else None
        good = isinstance(pairs, Tensor) and pairs.dim() == 2 and pairs.size(0) == 2
        if pairs is None or not good or pairs.dtype not in (torch.int64, torch.int32):
            found = "missing" if pairs is None else f"{getattr(pairs, 'dtype', type(pairs))}"
            if isinstance(pairs, Tensor):
                found += f" {list(pairs.shape)}"
            raise ShapeError(
                f"{split}: edge_label_index is {found}: it must hold node numbers [2, pairs]"
            )
        pairs = pairs.long()
        nodes, count = int(part.num_nodes or 0), pairs.size(1)
        outside = (pairs < 0) | (pairs >= nodes)
        if bool(outside.any()):
            side, column = outside.nonzero()[0].tolist()
            raise NodeIndexError(
                f"{split}: edge_label_index[{side}, {column}] is {int(pairs[side, column])}, but "
                f"nodes are numbered 0 to {nodes - 1}"
            )
        label = part.edge_label if "edge_label" in part else None
        if label is None and self.task.level.absent:
            label = torch.ones(count, device="cpu")
        if isinstance(label, Tensor) and label.dim() and label.size(0) != count:
            raise LabelError(f"{split}: edge_label has {label.size(0)} rows for {count} pairs")
        return pairs, self.task.targets(label, count, split)

    def _draw(
        self,
        parts: Sequence[Data],
        pairs: list[Tensor],
        labels: list[Tensor],
        train: bool,
        seed: int,
    ) -> None:
        """Adds pairs without an edge to the parts that have none.

        Training gets several draws, each of as many as there are links; others one, or of a ranking
        some for every link.
        """
        known = [edges for part in parts if isinstance(edges := part.edge_index, Tensor)]
        edges = torch.cat([*known, *pairs], dim=1)
        if all(is_undirected(own) for own in known):
            # Of hidden edges a part names one direction; the other is no pair without an edge.
            edges = torch.cat([edges, edges.flip(0)], dim=1)
        links = [own.size(1) for own in pairs]
        with seeded(seed):
            for place, part in enumerate(parts):
                if bool(self.task.is_absent(labels[place]).any()) or (place == 0 and not train):
                    continue
                ranked = self.task.queries and place > 0
                rounds = RANKED_AMONG if ranked else _ROUNDS if place == 0 else 1
                wrong, targets = self._absent(
                    pairs[place], labels[place], edges, int(part.num_nodes or 0), rounds
                )
                whole = wrong.size(1) // links[place]
                if not whole and not ranked:
                    raise ConfigError(
                        f"{SPLITS[place]}: {wrong.size(1)} pairs of nodes have no edge, for "
                        f"{links[place]} links: too few to learn the difference from. Give "
                        "edge_label with zeros for pairs of your own"
                    )
                if place == 0:
                    self._rounds = whole
                used = wrong.size(1) if ranked else whole * links[place]
                pairs[place] = torch.cat([pairs[place], wrong[:, :used]], dim=1)
                labels[place] = torch.cat([labels[place], targets[:used]])

    def _absent(
        self, links: Tensor, labels: Tensor, edges: Tensor, nodes: int, rounds: int
    ) -> tuple[Tensor, Tensor]:
        """Pairs without an edge, ``rounds`` per link, and their targets."""
        count = links.size(1)
        if not self.task.queries:
            wrong = absent_pairs(edges, nodes, rounds * count)
            return wrong, labels.new_zeros(wrong.size(1), *labels.shape[1:])
        labels[:, 1] = torch.arange(count, device="cpu")
        wrong, query = wrong_targets(links, edges, nodes, rounds)
        targets = labels.new_zeros(wrong.size(1), labels.size(1))
        targets[:, 1] = query.to(labels.dtype)
        # Those of one draw together, so that every draw has a pair of most links.
        order = torch.argsort(torch.arange(len(query), device="cpu") % rounds, stable=True)
        return wrong[:, order], targets[order]

    def _refuse_overlap(self) -> None:
        """Refuses pairs that are trained on and asked for; direction matters."""
        nodes = max(int(part.num_nodes or 0) for part in self._parts)
        key = self.pairs[0] * nodes + self.pairs[1]
        held = {split: key[rows] for split, rows in self.indices.items()}
        if key.unique().numel() == key.numel():
            return
        refuse_overlap(held, self.task.level.unit)


def _of_triplets(batch: Data, task: Task) -> Data:
    """A batch of ``neg_sampling="triplet"`` with its pairs in the form of the others."""
    batch = copy.copy(batch)
    source, wrong = batch.src_index, batch.dst_neg_index.view(len(batch.src_index), -1)
    query = torch.arange(len(source), device=source.device)
    asked = query.repeat_interleave(wrong.size(1))
    links = torch.stack([source, batch.dst_pos_index])
    others = torch.stack([source[asked], wrong.reshape(-1)])
    batch.edge_label_index = torch.cat([links, others], dim=1)
    label = torch.cat([torch.ones_like(query), torch.zeros_like(asked)])
    queries = torch.cat([query, asked])
    batch.edge_label = torch.stack([label, queries], dim=1) if task.queries else label
    return batch


def _inputs(part: Data, pairs: Tensor) -> Inputs:
    others = {k: v for k, v in other_fields(part).items() if k != "edge_label_index"}
    return Inputs(part.x, part.edge_index, others={**others, "edge_label_index": pairs}, data=None)
