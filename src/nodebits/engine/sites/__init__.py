"""Frozen quantizers, by kind; files name the kind."""

from nodebits.engine.sites.base import (
    RowQuantizer,
    register_rows,
    row_fields,
    row_kinds,
    rows_from_config,
)
from nodebits.engine.sites.buckets import (
    DegreeBucketDynamicRows,
    DegreeBucketMessageRows,
    DegreeBucketRows,
)
from nodebits.engine.sites.fixed import (
    CodedRows,
    FloatRows,
    FloorRows,
    ShiftedRows,
    StaticRows,
    UnusedRows,
)
from nodebits.engine.sites.node import NearestRows, PerNodeMessageRows, PerNodeRows
from nodebits.engine.sites.own import DynamicRows

__all__ = [
    "CodedRows",
    "DegreeBucketDynamicRows",
    "DegreeBucketMessageRows",
    "DegreeBucketRows",
    "DynamicRows",
    "FloatRows",
    "FloorRows",
    "NearestRows",
    "PerNodeMessageRows",
    "PerNodeRows",
    "RowQuantizer",
    "ShiftedRows",
    "StaticRows",
    "UnusedRows",
    "register_rows",
    "row_fields",
    "row_kinds",
    "rows_from_config",
]
