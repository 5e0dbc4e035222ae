"""The training loss: labels where there are any, the teacher everywhere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def training_loss(
    logits: Tensor,
    labels: Tensor,
    labelled: Tensor | None,
    teacher: Tensor | None,
    distill: float,
) -> Tensor:
    """Returns ``(1 - distill) * CE(labelled rows) + distill * KL(teacher, student over all rows)``.

    The teacher speaks about unlabelled rows too. On a citation graph that is twenty times as many
    rows as there are labels, and it is what lets one- and two-bit models keep the float accuracy.

    Args:
        logits: Student outputs, [rows, classes].
        labels: A class for every row; read only where ``labelled`` says so.
        labelled: Mask or indices of the rows with a training label; ``None`` for all.
        teacher: Teacher outputs, [rows, classes]; ``None`` trains on labels alone.
        distill: Share of the teacher's part.
    """
    if labelled is not None:
        supervised = F.cross_entropy(logits[labelled], labels[labelled])
    else:
        supervised = F.cross_entropy(logits, labels)
    if teacher is None or distill == 0.0:
        return supervised
    imitation = F.kl_div(
        F.log_softmax(logits, dim=-1),
        F.log_softmax(teacher, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return (1.0 - distill) * supervised + distill * imitation
