"""The training loss: targets where there are any, the teacher everywhere."""

from __future__ import annotations

from torch import Tensor

from nodebits.tasks import Task


def training_loss(
    task: Task,
    logits: Tensor,
    labels: Tensor,
    labelled: Tensor | None,
    teacher: Tensor | None,
    distill: float,
) -> Tensor:
    """Returns ``(1 - distill) * loss(labelled rows) + distill * imitation(all rows)``.

    The teacher speaks about unlabelled rows too. On a citation graph that is twenty times as many
    rows as there are labels, and it is what lets one- and two-bit models keep the float accuracy.

    Args:
        task: What the loss and the imitation of a teacher are.
        logits: Student outputs, [rows, outputs].
        labels: Targets of every row; read only where ``labelled`` says so.
        labelled: Mask or indices of the rows with a training label; ``None`` for all.
        teacher: Teacher outputs, [rows, outputs]; ``None`` trains on labels alone.
        distill: Share of the teacher's part.
    """
    own = slice(None) if labelled is None else labelled
    supervised = task.loss(logits[own], labels[own])
    if teacher is None or distill == 0.0:
        return supervised
    return (1.0 - distill) * supervised + distill * task.imitation(logits, teacher)
