"""What passes through the sites of frozen layers, for accounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nodebits.core.context import current, opened
from nodebits.core.row_layout import RowLayout
from nodebits.engine.rows import Rows
from nodebits.engine.sites.base import RowQuantizer


@dataclass(frozen=True)
class SiteRecord:
    """One activation tensor of a recorded forward; see :func:`recording`."""

    site: str
    bits: int | None
    granularity: str
    num_rows: int
    num_cols: int
    scale_bytes: int
    layout: RowLayout | None = None  # where rows have widths of their own
    sparse_bytes: int | None = None  # where only the codes that are not zero are kept
    raw: bool = False  # whether these are the features that the model was given


@contextmanager
def recording() -> Iterator[list[SiteRecord]]:
    """Collects what this thread passes through the sites of frozen layers while it is open."""
    records: list[SiteRecord] = []
    with opened(records=(*current().records, records)):
        yield records


def record(
    site: RowQuantizer,
    num_rows: int,
    num_cols: int,
    rows: Rows | None = None,
    raw: bool = False,
    num_scales: int | None = None,
) -> None:
    """Adds a tensor to the open recordings.

    Args:
        site: Where it was quantized.
        num_rows: Its rows.
        num_cols: Its columns.
        rows: The packed rows, where their size is not a function of the numbers above.
        raw: Whether these are the features that the model was given.
        num_scales: What the scales are counted by, where it is not ``num_rows``.
    """
    for records in current().records:
        size = site.scale_bytes(num_rows if num_scales is None else num_scales)
        layout = None if rows is None else rows.layout
        sparse = None if rows is None or rows.data.packs_zeros else rows.data.nbytes
        records.append(
            SiteRecord(
                site.site_name,
                site.bits,
                site.granularity,
                num_rows,
                num_cols,
                size,
                layout,
                sparse,
                raw,
            )
        )
