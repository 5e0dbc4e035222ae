"""Predictions as files: a row each with its id, by the suffix of the name."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from nodebits.tasks import Task

Columns = dict[str, Any]


def rows_of(
    task: Task, ids: Sequence[str] | None, pairs: Tensor | None, numbers: Sequence[int]
) -> Columns:
    """Columns that say which row is which: ids where data have them, else numbers.

    Args:
        task: Of the model.
        ids: Of nodes or graphs.
        pairs: ``[2, P]`` of a task on pairs of nodes, whose columns are source and target.
        numbers: Of the rows that are written.
    """
    if pairs is None:
        return {task.level.unit: [str(n) if ids is None else ids[n] for n in numbers]}
    sides = {"source": pairs[0].tolist(), "target": pairs[1].tolist()}
    return {
        side: [str(n) if ids is None else ids[n] for n in (own[row] for row in numbers)]
        for side, own in sides.items()
    }


def columns_of(task: Task, outputs: Tensor, classes: Sequence[str] | None) -> Columns:
    """What the task says of outputs; classes by the labels that the data have for them."""
    columns: Columns = {name: value.numpy() for name, value in task.columns(outputs).items()}
    if classes is not None and "class" in columns:
        columns["class"] = [classes[number] for number in columns["class"].tolist()]
    return columns


def as_npy(task: Task, outputs: Tensor, rows: Columns, columns: Columns) -> bytes:
    """Predictions alone, such as class numbers."""
    import numpy as np

    del rows, columns
    buffer = io.BytesIO()
    np.save(buffer, task.predictions(outputs).numpy(), allow_pickle=False)
    return buffer.getvalue()


def as_csv(task: Task, outputs: Tensor, rows: Columns, columns: Columns) -> bytes:
    """A header and a line per row; floats in the fewest digits that read back the same."""
    import csv

    del task, outputs
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*rows, *columns])
    # An element of a float32 array is shortest; a Python float would show a float64's digits.
    cells = [[str(value) for value in column] for column in columns.values()]
    writer.writerows(zip(*rows.values(), *cells, strict=True))
    return stream.getvalue().encode()


def as_parquet(task: Task, outputs: Tensor, rows: Columns, columns: Columns) -> bytes:
    """The same columns, typed."""
    from nodebits.data.extras import require

    del task, outputs
    arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({**rows, **columns}), buffer)
    return buffer.getvalue()


FORMATS: Mapping[str, Callable[[Any, Any, Columns, Columns], bytes]] = {
    ".npy": as_npy,
    ".csv": as_csv,
    ".parquet": as_parquet,
}
