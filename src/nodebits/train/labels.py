"""Labels of a classification task: one class per node or graph, checked before they are used."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from nodebits.train.errors import LabelError

_ONLY_CLASSES = (
    "fit trains classification, one class per {unit}; regression and several targets per {unit} "
    "are not supported"
)


def node_labels(y: Any, num_nodes: int) -> Tensor:
    """Returns the classes of all nodes, int64 ``[num_nodes]``.

    Args:
        y: Integer or bool ``[num_nodes]`` or ``[num_nodes, 1]``.
        num_nodes: Number of nodes.

    Raises:
        LabelError: ``y`` is missing, real-valued, or not one class per node.
    """
    y = _tensor(y, "data", "node")
    if y.dim() == 2 and y.size(1) != 1:
        raise LabelError(
            f"data: y has shape {list(y.shape)}: {_only('node')}. Of one-hot rows: "
            "data.y = data.y.argmax(1)"
        )
    if y.numel() != num_nodes or y.dim() not in (1, 2):
        raise LabelError(f"data: y has {y.numel()} labels for {num_nodes} nodes")
    return _whole(y.reshape(-1), "data", "node")


def graph_label(y: Any, number: int) -> int:
    """Returns the class of one graph.

    Args:
        y: An integer or bool, or a tensor of one.
        number: The graph's number, for errors.

    Raises:
        LabelError: As :func:`node_labels`.
    """
    place = f"graph {number}"
    y = _tensor(y, place, "graph")
    if y.numel() != 1:
        raise LabelError(f"{place}: y has shape {list(y.shape)}: {_only('graph')}")
    return int(_whole(y.reshape(-1), place, "graph"))


def check_classes(labels: Tensor, rows: Tensor, classes: int | None, split: str, unit: str) -> None:
    """Checks the labels of a split against the model's outputs.

    Args:
        labels: int64, a class for every row of the data set.
        rows: Numbers of the rows of the split.
        classes: Number of outputs of the model; ``None`` checks the sign alone.
        split: Name of the split, for errors.
        unit: ``"node"`` or ``"graph"``, for errors.

    Raises:
        LabelError: Names the first row whose label is no class.
    """
    own = labels[rows]
    bad = own < 0
    if classes is not None:
        bad = bad | (own >= classes)
    if not bool(bad.any()):
        return
    place = int(bad.nonzero()[0])
    value, row = int(own[place]), int(rows[place])
    reason = f"classes are numbered from 0; leave unlabelled {unit}s out of the split"
    if value >= 0 and classes is not None:
        reason = (
            f"the model has {classes} output(s), for classes 0 to {classes - 1}: give its last "
            f"layer {int(own.max()) + 1} outputs, or number the classes from 0 without gaps"
        )
    raise LabelError(f"{unit} {row} ({split} split): y is {value}, but {reason}")


def _tensor(y: Any, place: str, unit: str) -> Tensor:
    if isinstance(y, Tensor):
        if y.layout is not torch.strided:
            raise LabelError(f"{place}: y is sparse: {_only(unit)}. Use y.to_dense()")
        return y
    if y is None:
        raise LabelError(f"{place}: y is missing: training needs a class per {unit}")
    if isinstance(y, numbers.Number):
        return torch.tensor(y)
    try:
        return torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LabelError(
            f"{place}: y is a {type(y).__name__}, not a tensor of classes: {_only(unit)}"
        ) from error


def _whole(y: Tensor, place: str, unit: str) -> Tensor:
    if y.is_floating_point() or y.is_complex():
        fractional = (y.real != y.real.round()).nonzero()
        first = int(fractional[0]) if len(fractional) else 0
        where = f"y[{first}] is {y[first].item():g}" if unit == "node" else f"y is {y[0].item():g}"
        raise LabelError(
            f"{place}: y holds {y.dtype} ({where}): {_only(unit)}. Where whole numbers mean "
            "classes: data.y = data.y.long()"
        )
    return y.to(torch.int64)


def _only(unit: str) -> str:
    return _ONLY_CLASSES.format(unit=unit)
