"""How features are packed; nothing here imports torch, so that a command's help does not wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nodebits.core.fields import check_fields
from nodebits.core.options import Choices, Count, Range, Width


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Packed features.

    Attributes:
        bits: Width of features, 1 to 8.
        granularity: What shares a scale: tensor, column, or row.
        sample_rows: Rows to take ranges from; default: all.
        seed: Of that sample.
        chunk_rows: Rows that are held in memory at once.
    """

    bits: Width = 4
    granularity: Annotated[str, Choices("tensor", "column", "row")] = "column"
    sample_rows: Count | None = None
    seed: Annotated[int, Range(0)] = 0
    chunk_rows: Count = 1 << 16

    def __post_init__(self) -> None:
        """Rejects values of another type or outside their range, naming the field.

        Raises:
            ConfigError: Names the field.
        """
        check_fields(self)
