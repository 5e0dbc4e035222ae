"""A folder of tables as arrays: roles of columns, ids, features, targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nodebits.core.errors import ConfigError, FileFormatError
from nodebits.data.own import roles
from nodebits.data.own.columns import Schema, described, features, schema_of, strange, targets
from nodebits.data.own.options import SplitRule, split_rule
from nodebits.data.own.tables import Cells, Table, find_table, read_table
from nodebits.data.sources.base import Request
from nodebits.tasks import find_task
from nodebits.tasks.classification import Classification

# Of nodes without a column of features; both work on graphs that nobody has seen.
_DEGREES = "features: 1 and log2(1 + degree)"


def folder_parts(folder: Path, request: Request) -> dict[str, Any]:
    """Reads ``nodes``, ``edges`` and, of many graphs, ``graphs``; the parts that ``build`` takes.

    Ids may be anything: they are mapped to numbers in the order of the rows. Column roles are
    guessed from names, or said by ``request.own``; ``notes`` of the parts says which is what.

    Raises:
        DataNotFoundError: There are no edges.
        FileFormatError: A table is malformed, an id is unknown or stands twice, or a column is
            text; names file and line.
        ConfigError: A column that the request names is nowhere.
    """
    tables = {name: find_table(folder, name) for name in ("nodes", "edges", "graphs", "pairs")}
    read = {name: read_table(path) for name, path in tables.items() if path is not None}
    # A table without rows is there too, and false.
    edges = read["edges"] if "edges" in read else read_table(folder / "edges.csv")
    _refuse_unknown(folder, read, request)
    return _Folder(folder, read, edges, request).parts()


class _Folder:
    """What is known while the tables of a folder are read."""

    def __init__(
        self, folder: Path, read: dict[str, Table], edges: Table, request: Request
    ) -> None:
        self.folder, self.request, self.read, self.edges = folder, request, read, edges
        self.schema = request.own.schema or {}
        self.ends = roles.end_columns(edges)
        self.nodes = read["nodes"] if "nodes" in read else self._nodes_of_edges()
        self.graphs = read.get("graphs")
        self.said: list[str] = []
        self.about: dict[str, Any] = {}
        self.rule = split_rule(request.split, request.seed_given)

    def parts(self) -> dict[str, Any]:
        """The arrays."""
        nodes = self.nodes
        if not len(nodes) and not self.request.own.asks:
            raise FileFormatError(f"{nodes.path} has no rows: there is nothing to learn from")
        ids = self._ids(nodes, roles.id_column(nodes), "nodes")
        place = {name: number for number, name in enumerate(ids.tolist())}
        parts: dict[str, Any] = {"edge_index": self._ends(self.edges, self.ends, place)}
        of_graph = roles.graph_column(nodes)
        owner, names = self._targets_of()
        row_ids = ids
        if of_graph is not None:
            row_ids = self._many(parts, of_graph, owner, ids)
        elif self.graphs is not None:
            raise FileFormatError(
                f"{self.graphs.path} is there, and {nodes.path} does not say which graph a node is "
                "of: add a column graph"
            )
        split = None if owner is None else roles.split_column(owner, names)
        if owner is not None and not self.request.own.asks:
            self._read_rows(parts, owner, names, split)
        taken = {c for c in (roles.id_column(nodes), of_graph) if c is not None}
        if owner is nodes or owner is None:
            taken |= {*names, *((split,) if split else ())}
        parts["x"] = self._features(nodes, taken, parts["edge_index"])
        self._edge_columns(parts, names if owner is self.edges else (), split)
        if "pairs" in self.read:
            pairs = self.read["pairs"]
            parts["edge_label_index"] = self._ends(pairs, roles.end_columns(pairs), place)
        if self.schema.get("classes"):
            self.about["classes"] = list(self.schema["classes"])
        parts |= {"ids": row_ids.tolist(), "about": self.about}
        parts["notes"] = f"Columns: {'; '.join(self.said)}." if self.said else ""
        return parts

    def _ids(self, table: Table, column: str | None, what: str) -> Cells:
        if column is None:
            return np.array([str(row) for row in range(len(table))], dtype=str)
        ids = table.column(column)
        _, first, count = np.unique(ids, return_index=True, return_counts=True)
        if (count > 1).any():
            twice = str(ids[first[int((count > 1).argmax())]])
            row = int(np.flatnonzero(ids == twice)[1])
            raise FileFormatError(f"{table.place(row)}: the {column} {twice!r} stands twice")
        self.said.append(f"{what} by {column}")
        return ids

    def _nodes_of_edges(self) -> Table:
        """Nodes without a table of their own: those that edges name."""
        ends = np.concatenate([self.edges.columns[name] for name in self.ends])
        ids = np.unique(ends)
        numeric = all(text.lstrip("-").isdecimal() for text in ids.tolist())
        ids = np.array(sorted(ids.tolist(), key=int if numeric else str), dtype=str)
        return Table(self.edges.path, {"id": ids}, np.ones(len(ids), dtype=np.int64))

    def _ends(self, table: Table, ends: tuple[str, str], place: dict[str, int]) -> Cells:
        sides = []
        for name in ends:
            cells = table.column(name)
            numbers = [place.get(cell, -1) for cell in cells.tolist()]
            side = np.array(numbers, dtype=np.int64)
            if (side < 0).any():
                row = int((side < 0).argmax())
                raise FileFormatError(
                    f"{table.place(row)}: {name!r} is {str(cells[row])!r}, which is no node of "
                    f"{self.nodes.path.name}"
                )
            sides.append(side)
        self.said.append(f"{table.path.stem} from {ends[0]} to {ends[1]}")
        return np.stack(sides)

    def _many(self, parts: dict[str, Any], of_graph: str, owner: Table | None, ids: Cells) -> Cells:
        """Numbers of graphs for the nodes; returns the ids of rows."""
        cells = self.nodes.column(of_graph)
        if self.graphs is not None:
            known = self._ids(self.graphs, roles.id_column(self.graphs, graphs=True), "graphs")
        else:
            _, first = np.unique(cells, return_index=True)
            known = cells[np.sort(first)]
        place = {name: number for number, name in enumerate(known.tolist())}
        batch = np.array([place.get(cell, -1) for cell in cells.tolist()], dtype=np.int64)
        if (batch < 0).any():
            row = int((batch < 0).argmax())
            raise FileFormatError(
                f"{self.nodes.place(row)}: {of_graph!r} is {str(cells[row])!r}, which is no graph "
                "of the table of graphs"
            )
        empty = np.bincount(batch, minlength=len(known)) == 0
        if self.graphs is not None and empty.any():
            # Graphs are counted by their nodes, so the last ones would be lost.
            row = int(empty.argmax())
            raise FileFormatError(
                f"{self.graphs.place(row)}: graph {str(known[row])!r} has no nodes in "
                f"{self.nodes.path.name}: give it some, or remove the row"
            )
        parts["batch"] = batch
        self.said.append(f"graph of a node by {of_graph}")
        task = self.request.task
        of_nodes = task is not None and not find_task(task).level.many_graphs
        return ids if (owner is self.nodes and self.graphs is None) or of_nodes else known

    def _targets_of(self) -> tuple[Table | None, tuple[str, ...]]:
        """The table that is predicted about, and its target columns."""
        wanted = self.request.own.target or tuple(self.schema.get("target", ()))
        level = None if self.request.task is None else find_task(self.request.task).level
        order = [self.graphs, self.nodes, self.edges]
        if level is not None:
            graphs = self.nodes if self.graphs is None else self.graphs
            order = [self.edges if level.pairs else graphs]
            if level.unit == "node":
                order = [self.nodes]
        for table in order:
            if table is None:
                continue
            ends = self.ends if table is self.edges else ()
            if wanted:
                if all(name in table.columns and name not in ends for name in wanted):
                    return table, wanted
                continue
            names = roles.target_columns(table, ends)
            if names:
                return table, names
        if level is not None and (level.absent or self.request.own.asks):
            return (self.edges if level.pairs else None), ()
        if self.request.own.asks:
            return None, ()
        found = [f"{t.path.name} ({', '.join(t.columns)})" for t in order if t is not None]
        what = f"no table has the target {', '.join(wanted)}" if wanted else "no column 'label'"
        raise FileFormatError(
            f"{self.folder}: {what}; there are {', '.join(found)}. Name the column to predict "
            "(target), or predict links (task link)"
        )

    def _read_rows(
        self, parts: dict[str, Any], owner: Table, names: Sequence[str], split: str | None
    ) -> None:
        """Targets and split of the rows of a table."""
        if names:
            task = None if self.request.task is None else find_task(self.request.task)
            classes = None if task is None else isinstance(task, Classification)
            y, labels = targets(owner, names, classes, self.schema.get("classes"))
            parts["edge_label" if owner is self.edges else "y"] = y
            if y.dtype.kind == "i":
                parts["unknown"] = y < 0
            self.about["target"] = list(names)
            self.said.append(f"target {', '.join(names)}")
            if labels is not None:
                self.about["classes"] = labels
                shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
                self.said.append(f"classes {shown}")
        if split is not None:
            parts["split"] = np.array(roles.split_numbers(owner, split))
            self.said.append(f"split {split}")
        parts["columns"] = {
            "split": lambda name: np.array(roles.split_numbers(owner, name)),
            "time": lambda name: _times(owner, name),
        }

    def _features(self, nodes: Table, taken: set[str], edges: Cells) -> Cells:
        known = _read_schema(self.schema.get("columns"))
        if known is None:
            out = {*taken, *self.request.own.ignore, *_named_by(self.rule)}
            known = schema_of(nodes, [name for name in nodes.columns if name not in out])
        self.about["columns"] = _kept(known)
        if known:
            made = features(nodes, known)
            self.said += [*described(known), *strange(nodes, known)]
            return made
        self.said.append(_DEGREES)
        degree = np.bincount(edges[1], minlength=len(nodes))
        return np.stack([np.ones(len(nodes)), np.log2(1 + degree)], axis=1).astype(np.float32)

    def _edge_columns(self, parts: dict[str, Any], names: Sequence[str], split: str | None) -> None:
        """Weights of edges, and features of the columns that are left."""
        edges = self.edges
        weight = roles.weight_column(edges)
        out = {*self.ends, *names, *self.request.own.ignore, *_named_by(self.rule), weight, split}
        out |= {roles.one_of(edges, ("id", "edge_id", "graph", "graph_id"))}
        if weight is not None and weight not in self.request.own.ignore and weight not in names:
            parts["edge_weight"] = edges.numbers(weight)
            self.said.append(f"weight of an edge {weight}")
        left = [name for name in edges.columns if name not in out]
        known = _read_schema(self.schema.get("edge_columns"))
        schema = schema_of(edges, left) if known is None else known
        self.about["edge_columns"] = _kept(schema)
        if schema:
            parts["edge_attr"] = features(edges, schema)
            self.said.append(f"features of an edge: {', '.join(described(schema))}")
            self.said += strange(edges, schema)


def _kept(schema: Schema) -> list[list[Any]]:
    """A schema for a model's file, whose objects do not keep the order of their keys."""
    return [[name, categories] for name, categories in schema.items()]


def _read_schema(kept: Any) -> Schema | None:
    if kept is None:
        return None
    try:
        return {
            str(name): None if categories is None else [str(text) for text in categories]
            for name, categories in kept
        }
    except (TypeError, ValueError) as error:
        raise FileFormatError(
            f"the model's file says of the columns of its data {str(kept)[:60]!r}: it must be "
            "pairs of a name and categories"
        ) from error


def _times(table: Table, name: str) -> Cells:
    """A column as times: numbers, or dates in the order of the calendar."""
    cells = table.column(name)
    try:
        return table.numbers(name)
    except FileFormatError:
        try:
            return cells.astype("datetime64[s]").astype(np.int64)
        except ValueError as error:
            raise FileFormatError(
                f"{table.path}: {name!r} holds neither numbers nor dates such as 2026-01-31 "
                f"({error})"
            ) from error


def _named_by(rule: SplitRule) -> tuple[str, ...]:
    return (rule.column,) if rule.column else ()


def _refuse_unknown(folder: Path, read: dict[str, Table], request: Request) -> None:
    known = {name for table in read.values() for name in table.columns}
    for name in (*request.own.ignore, *_named_by(split_rule(request.split, request.seed_given))):
        if name not in known:
            raise ConfigError(f"{folder} has no column {name!r}; it has {', '.join(sorted(known))}")
