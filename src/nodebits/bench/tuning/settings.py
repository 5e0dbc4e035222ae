"""What ``nodebits tune`` is told; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodebits.core.fields import check_fields
from nodebits.core.options import Choices, Count


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Tiles.

    Attributes:
        device: Device whose kernels are tuned.
        nodes: Rows of the matrices.
        degree: Edges of a node.
        columns: Columns of a row, comma-separated.
        bits: Widths, comma-separated.
        only: Only calls whose name has one of these parts, comma-separated.
        cache: Cache folder, in which the file is written.
    """

    device: Annotated[str, Choices("cuda")] = "cuda"
    nodes: Count = 100_000
    degree: Count = 16
    columns: tuple[int, ...] = (64, 128, 256)
    bits: tuple[int, ...] = (8, 4, 2, 1)
    only: tuple[str, ...] = ()
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Rejects values of another type or outside their range, naming the field.

        Raises:
            ConfigError: Names the field.
        """
        check_fields(self)
