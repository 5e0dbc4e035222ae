"""Predictions of several processes, each of which has a part of the graph."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nodebits.core.errors import ConfigError
from nodebits.distributed.exchange import of_all_ranks
from nodebits.distributed.files import Contents, read_part
from nodebits.distributed.launch import gathered, joined
from nodebits.distributed.progress import Progress
from nodebits.distributed.run import run_part
from nodebits.report.sites import open_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from nodebits.cli.settings import Predicted
    from nodebits.runtime import PackedModel


@dataclass(frozen=True)
class OfParts:
    """What the first process has at the end.

    Attributes:
        packed: The model.
        outputs: Of all nodes.
        contents: Of the folder of parts.
        sent: Bytes that each process sent.
        resumed: Layers that an earlier run had finished.
        rounded: Steps whose last bits depend on the division.
    """

    packed: PackedModel
    outputs: Tensor
    contents: Contents
    sent: list[int]
    resumed: int
    rounded: list[str]


def predict_parts(asked: Predicted, folder: Path) -> OfParts | None:
    """Runs this process's part; what all have found on rank 0, None elsewhere.

    Raises:
        ConfigError: An option is not of such runs, or the model cannot run on parts.
        RankError: Another process ended, or is stuck.
    """
    for name in ("features", "nodes", "split"):
        if getattr(asked, name) is not None:
            raise ConfigError(f"--{name} is not for parts of a graph ({folder}): leave it out")
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a class of the user's own may lie in the current folder
    with joined(asked.timeout) as ranks:
        packed = open_model(asked.model, asked.allow or ())
        digest = hashlib.sha256(asked.model.read_bytes()).hexdigest()
        loaded = read_part(folder, ranks.rank)
        progress = Progress(folder, ranks.rank, f"{digest} {loaded.contents.id}")
        found = run_part(packed, loaded, ranks.world, asked.timeout, progress, digest)
        nodes, total = loaded.part.nodes, loaded.contents.nodes
        outputs = gathered(found.outputs, nodes, total, ranks, asked.timeout)
        sent = of_all_ranks(found.sent, asked.timeout)
        progress.clear()
    if outputs is None:
        return None
    return OfParts(packed, outputs, loaded.contents, sent, found.resumed, found.rounded)
