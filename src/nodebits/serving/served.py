"""One version of a model with its data: what it answers, whoever asks."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from nodebits.core.errors import NodebitsError, OutOfMemoryError, OutputError
from nodebits.core.signature import names_of
from nodebits.engine.sites.widths import NodeWidths
from nodebits.graph import Graph, as_graph
from nodebits.graph.loops import EDGE_INDEX
from nodebits.ops.selection import take_rows
from nodebits.plan.plan import Plan
from nodebits.plan.trim import reach
from nodebits.runtime import PackedModel
from nodebits.serving.errors import RequestError, busy
from nodebits.serving.neighborhood import part_around
from nodebits.serving.questions import (
    Change,
    Graphs,
    KnownRows,
    NewNodes,
    Pairs,
    Question,
    SampledRows,
)
from nodebits.serving.requests import Facts
from nodebits.session.session import GraphSession
from nodebits.tasks import Task
from nodebits.train import Problem, predict_logits
from nodebits.train.evaluate import forward_of
from nodebits.train.inputs import Inputs
from nodebits.train.problem import other_fields

_log = logging.getLogger("nodebits.serving")
_logged: set[tuple[type, int | None]] = set()


@dataclass(frozen=True)
class Loaded:
    """A model and data, as they come from files.

    Attributes:
        packed: The model.
        task: What it predicts.
        name: Of the data.
        problem: The data; None for a model of graphs that come with the requests.
        ids: What own data call their nodes.
        classes: What own data call their classes.
        session: The graph as it changes, in place of the data's; None where it stays as it is.
    """

    packed: PackedModel
    task: Task
    name: str
    problem: Problem | None = None
    ids: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    session: GraphSession | None = None


class Served:
    """A loaded model, ready to answer.

    Attributes:
        loaded: Model and data.
        version: What the model file is told by.
        table: Outputs of every node, computed once by the whole forward; None for other tasks.
        facts: What requests are compared with.
    """

    def __init__(self, loaded: Loaded, version: str) -> None:
        """Runs the model on its data.

        Raises:
            NodebitsError: It does not run.
        """
        self.loaded, self.version = loaded, version
        self._forward = forward_of(loaded.packed)
        self._inputs: Inputs | None = None
        self._graph: Graph | None = None
        self._reach: int | str | None = "unknown"
        self.table: Tensor | None = None
        level = loaded.task.level
        if loaded.problem is not None and not level.many_graphs:
            self._inputs = loaded.problem.example()
            if loaded.session is None and not level.pairs:
                self.table = predict_logits(loaded.packed, loaded.problem).contiguous()
        self._read = {} if self._inputs is None else _read(self._inputs, loaded.packed)
        self.facts = self._facts()

    # --- answers ---

    def answer(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        """JSON for every question, or why there is none; those of a kind are computed together."""
        found: list[bytes | Exception] = [RequestError(422, "it was not answered")] * len(questions)
        for place, question in enumerate(questions):
            if isinstance(question, Change):  # in the order in which they came
                found[place] = self._changed(question)
        for kind, method in self._methods().items():
            places = [i for i, question in enumerate(questions) if type(question) is kind]
            asked = [questions[i] for i in places]
            if asked:
                answers = self._tried(method, asked)
                for place, question, outputs in zip(places, asked, answers, strict=True):
                    found[place] = self._told(question, outputs)
        return found

    def _changed(self, change: Change) -> bytes | Exception:
        """Changes the graph of the session; what is told is on the disk."""
        session = self.loaded.session
        if session is None:
            return RequestError(404, "the graph does not change here: start with --log FOLDER")
        try:
            made = getattr(session, change.kind)(*change.tensors)
        except Exception as error:
            return _refusal(error)
        self.facts = replace(self.facts, rows=session.num_nodes)
        told: dict[str, Any] = {
            "model": self.version,
            "nodes": session.num_nodes,
            "edges": session.num_edges,
        }
        if isinstance(made, Tensor):
            told["added"] = made.tolist()
        return json.dumps(told).encode()

    def _methods(self) -> dict[type, Callable[[Any], list[Tensor]]]:
        return {
            KnownRows: self._of_rows,
            SampledRows: self._of_samples,
            Pairs: self._of_pairs,
            NewNodes: self._of_new_nodes,
            Graphs: self._of_graphs,
        }

    def _tried(
        self, method: Callable[[Any], list[Tensor]], asked: Sequence[Question]
    ) -> list[Tensor | Exception]:
        """Answers of one forward; where that fails, each is asked alone, to tell whose fault."""
        try:
            return list(method(asked))
        except Exception as error:
            if len(asked) == 1:
                return [_refusal(error)]
        return [self._tried(method, [question])[0] for question in asked]

    def _told(self, question: Question, outputs: Tensor | Exception) -> bytes | Exception:
        if isinstance(outputs, Exception):
            return outputs
        finite = outputs.isfinite().reshape(outputs.size(0), math.prod(outputs.shape[1:])).all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            return RequestError(422, f"the model's output of row {row} is not finite")
        task, classes = self.loaded.task, self.loaded.classes
        predictions = task.predictions(outputs).tolist()
        if classes is not None and "class" in task.columns(outputs[:1]):
            predictions = [classes[number] for number in predictions]
        told = {
            "model": self.version,
            "task": task.name,
            "rows": self._names(question, outputs.size(0)),
            "predictions": predictions,
            "outputs": outputs.tolist(),
        }
        return json.dumps(told, separators=(",", ":")).encode()

    def _names(self, question: Question, count: int) -> list[Any]:
        if isinstance(question, KnownRows):
            return question.names
        if isinstance(question, Pairs):
            pairs: list[Any] = question.pairs.t().tolist()
            return pairs if question.names is None else question.names
        first = self.facts.rows if isinstance(question, NewNodes) else 0
        return list(range(first, first + count))

    # --- outputs ---

    def _of_rows(self, asked: Sequence[KnownRows]) -> list[Tensor]:
        ids = torch.cat([question.rows for question in asked])
        session = self.loaded.session
        if session is not None:
            rows = session.predict(ids)
        else:
            assert self.table is not None
            rows = take_rows(self.table, ids)
        return list(rows.split([question.rows.numel() for question in asked]))

    def _of_samples(self, asked: Sequence[SampledRows]) -> list[Tensor]:
        inputs, packed = self._data(), self.loaded.packed
        given, others = inputs.arguments(packed)
        names = names_of(packed.module.forward)[2:]
        others = {**dict(zip(names, given[2:], strict=False)), **others}
        return [
            packed.predict_nodes(
                self._csr(), inputs.x, q.rows, q.num_neighbors, seed=q.seed, **others
            )
            for q in asked
        ]

    def _of_pairs(self, asked: Sequence[Pairs]) -> list[Tensor]:
        inputs = self._data()
        pairs = torch.cat([question.pairs for question in asked], 1)
        others = {**inputs.others, "edge_label_index": pairs}
        outputs = self._forward(Inputs(inputs.x, inputs.edge_index, None, others))
        return list(outputs.split([question.pairs.size(1) for question in asked]))

    def _of_new_nodes(self, asked: Sequence[NewNodes]) -> list[Tensor]:
        depth = self._depth()
        if depth is None:
            return [self._whole_with(question) for question in asked]
        graph, inputs = self._csr(), self._data()
        parts = [part_around(graph, question, depth) for question in asked]
        xs, edges, total = [], [], 0
        starts = []
        for question, part in zip(asked, parts, strict=True):
            xs += [question.x.to(inputs.x.dtype), take_rows(inputs.x, part.known)]
            edges.append(part.edges + total)
            starts.append(total)
            total += question.x.size(0) + part.known.numel()
        others = self._of_edges(
            [
                (part.known_edges, question.of_edges, part.new_edges)
                for question, part in zip(asked, parts, strict=True)
            ]
        )
        outputs = self._forward(
            Inputs(torch.cat(xs), torch.cat(edges, 1), None, {**others, "num_nodes": total})
        )
        return [outputs[at : at + q.x.size(0)] for at, q in zip(starts, asked, strict=True)]

    def _whole_with(self, question: NewNodes) -> Tensor:
        """Outputs of new nodes from a forward on all nodes."""
        inputs, graph = self._data(), self._csr()
        every = torch.arange(graph.num_edges, device="cpu")
        edges = torch.empty((2, graph.num_edges), dtype=torch.int64, device="cpu")
        places = every if graph.perm is None else graph.perm
        edges[:, places] = torch.stack([graph.indices.long(), graph.rows])
        edges = torch.cat([edges, question.edges], 1)
        new = torch.arange(question.edges.size(1), device="cpu")
        others = self._of_edges([(every, question.of_edges, new)])
        x = torch.cat([inputs.x, question.x.to(inputs.x.dtype)])
        outputs = self._forward(Inputs(x, edges, None, {**others, "num_nodes": x.size(0)}))
        return outputs[graph.num_dst :]

    def _of_edges(
        self, parts: Sequence[tuple[Tensor, Mapping[str, Tensor], Tensor]]
    ) -> dict[str, Tensor]:
        """What edges have, of those of the data and of questions."""
        found = {}
        for name, values in self._read.items():
            pieces = []
            for known, new, places in parts:
                pieces += [values[known], new[name][places].to(values.dtype)]
            found[name] = torch.cat(pieces)
        return found

    def _of_graphs(self, asked: Sequence[Graphs]) -> list[Tensor]:
        given = [graph for question in asked for graph in question.graphs]
        batch: Any = Batch.from_data_list(
            [Data(x=graph.x, edge_index=graph.edges, **graph.others) for graph in given]
        )
        counts = {"batch_size": len(given), "num_graphs": len(given)}
        inputs = Inputs(batch.x, batch.edge_index, batch.batch, other_fields(batch) | counts, batch)
        outputs = self._forward(inputs)
        if outputs.dim() < 1 or outputs.size(0) != len(given):
            raise RequestError(
                422, f"the model returned {list(outputs.shape)} for {len(given)} graphs"
            )
        return list(outputs.split([len(question.graphs) for question in asked]))

    # --- what is known of the data ---

    def _data(self) -> Inputs:
        assert self._inputs is not None
        return self._inputs

    def _csr(self) -> Graph:
        """The graph, of arrays that versions share and what is made of them for this one."""
        if self._graph is None:
            rows = self._data().x.size(0)
            made = as_graph(self._data().edge_index, rows, rows)
            self._graph = Graph(
                made.indptr, made.indices, made.num_src, made.perm, made.edge_weight, made.form
            )
            self._graph.checked = True
        return self._graph

    def _depth(self) -> int | None:
        """How far a row of the model looks; None where every node may matter."""
        if isinstance(self._reach, str):
            # Of a call with what the data have: another one may look less far.
            given, others = self._data().arguments(self.loaded.packed)
            plan = self.loaded.packed.plan(*given, **others)
            self._reach = reach(plan) if isinstance(plan, Plan) else None
        return self._reach

    def _facts(self) -> Facts:
        loaded, level = self.loaded, self.loaded.task.level
        module, spec = loaded.packed.module, loaded.packed.spec
        integers = any(isinstance(m, nn.Embedding) for m in module.modules())
        x = None if self._inputs is None else self._inputs.x
        columns = None if spec is None else spec.in_channels
        rows = 0 if self.table is None else self.table.size(0)
        rows = rows if loaded.session is None else loaded.session.num_nodes
        if isinstance(x, Tensor):
            integers = not x.is_floating_point()
            columns = x.size(1) if x.dim() == 2 else columns
            rows = rows or x.size(0)
        ids = {} if loaded.ids is None else {name: i for i, name in enumerate(loaded.ids)}
        widths = {n: v.size(1) if v.dim() > 1 else 0 for n, v in self._read.items()}
        widths = _edge_columns(loaded.packed) if level.many_graphs else widths
        return Facts(rows, ids, columns, integers, self._kinds(level.unit), widths)

    def _kinds(self, unit: str) -> dict[str, str]:
        """Why each kind of question cannot be asked; empty where it can."""
        other = f"the model predicts {unit}s"
        nodes = other if self.table is None and self.loaded.session is None else ""
        return {
            "nodes": nodes,
            "num_neighbors": nodes or self._no_part(),
            "new_nodes": nodes or self._no_part() or self._no_new_nodes(),
            "pairs": "" if self.loaded.task.level.pairs and self._inputs is not None else other,
            "graphs": "" if self.loaded.task.level.many_graphs else other,
        }

    def _no_part(self) -> str:
        """Why the model is not asked on a part of its graph."""
        inputs, packed = self._data(), self.loaded.packed
        if self.loaded.session is not None:
            return "the graph changes here: add nodes and edges with POST /update"
        if not isinstance(inputs.x, Tensor):
            return "the data have nodes of several types"
        if self.table is None or self.table.size(0) != inputs.x.size(0):
            return "the data are many graphs"
        if any(value is inputs.data for value in inputs.arguments(packed)[0]):
            return "the model takes a whole Data"
        return ""

    def _no_new_nodes(self) -> str:
        inputs = self._data()
        rows = inputs.x.size(0)
        if as_graph(inputs.edge_index, rows, rows).form != EDGE_INDEX:
            return "the adjacency of the data is a sparse matrix"
        bound = [
            path
            for path, site in self.loaded.packed.module.named_modules()
            if isinstance(site, NodeWidths) and site.bound and not site.fallback
        ]
        if bound:
            return f"site {bound[0]} has parameters for every node of the data"
        others = [name for name in self._read if not name.startswith("edge")]
        return f"the model reads {others[0]} of every node" if others else ""


def _read(inputs: Inputs, packed: PackedModel) -> dict[str, Tensor]:
    """What else than features and edges the model reads of the data."""
    given, others = inputs.arguments(packed)
    taken = [*given, *others.values()]
    return {
        name: value
        for name, value in inputs.others.items()
        if isinstance(value, Tensor) and value.dim() and any(value is one for one in taken)
    }


def _edge_columns(packed: PackedModel) -> dict[str, int]:
    """Columns of what a model of graphs reads of edges, by name, as far as its plan tells."""
    plan = packed.plan()
    if not isinstance(plan, Plan):
        return {}
    of_edges = {one["name"] for one in plan.about["arguments"] if one["role"] == "edge"}
    shapes = {one["name"]: one["shape"] for one in plan.about["inputs"]}
    return {n: s[1] if len(s) > 1 else 0 for n, s in shapes.items() if n in of_edges}


def _refusal(error: Exception) -> Exception:
    """What an asker is told of an error in an answer."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, OutOfMemoryError):
        return busy("memory ran out for this request: ask for less at once")
    if isinstance(error, OutputError):
        return busy(f"the change was not made: {error}")
    if isinstance(error, NodebitsError):
        return RequestError(422, str(error))
    # The model's own code met what it does not take: the log has where, once for each place.
    text = " ".join(str(error).split())[:200]
    place = type(error), traceback.extract_tb(error.__traceback__)[-1].lineno
    first = place not in _logged
    _logged.add(place)
    _log.warning("a request could not be answered: %s", text, exc_info=error if first else None)
    return RequestError(422, f"the model does not take this: {type(error).__name__}: {text}")
