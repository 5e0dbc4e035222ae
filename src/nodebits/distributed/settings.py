"""How a graph is divided; nothing here imports torch, so that a command's help does not wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nodebits.core.options import Choices, Count

METHODS = ("range", "metis")


@dataclass(frozen=True, kw_only=True)
class Division:
    """Division.

    Attributes:
        parts: Number of processes that will run the model.
        by: range, or metis for fewer edges between processes (needs the extra metis).
        split_hubs: Divide the edges of nodes with more in-edges than this among all processes.
    """

    parts: Count
    by: Annotated[str, Choices(*METHODS)] = "range"
    split_hubs: Count | None = None
