"""Quantizers that sit at sites, and their frozen forms."""

from nodebits.engine.sites import (
    DynamicRows,
    FloatRows,
    NearestRows,
    PerNodeMessageRows,
    PerNodeRows,
    RowQuantizer,
    ShiftedRows,
    StaticRows,
    register_rows,
    rows_from_config,
)
from nodebits.engine.weight import PackedWeight
from nodebits.nn.quantizers.base import FloatQuantizer, Quantizer, calibration
from nodebits.nn.quantizers.dynamic import DynamicRowQuantizer
from nodebits.nn.quantizers.edge import EdgeQuantizer, EdgeRows
from nodebits.nn.quantizers.learned import LearnedQuantizer
from nodebits.nn.quantizers.learned_range import LearnedRangeQuantizer
from nodebits.nn.quantizers.node import NodeQuantizer
from nodebits.nn.quantizers.node_message import NodeMessageQuantizer
from nodebits.nn.quantizers.node_raw import RawNodeQuantizer
from nodebits.nn.quantizers.observed import ObservedQuantizer
from nodebits.nn.quantizers.ranged import RangeQuantizer, RowScales
from nodebits.nn.quantizers.weight import (
    FloatWeightQuantizer,
    LearnedWeightQuantizer,
    ObservedWeightQuantizer,
    WeightQuantizer,
)

__all__ = [
    "DynamicRowQuantizer",
    "DynamicRows",
    "EdgeQuantizer",
    "EdgeRows",
    "FloatQuantizer",
    "FloatRows",
    "FloatWeightQuantizer",
    "LearnedQuantizer",
    "LearnedRangeQuantizer",
    "LearnedWeightQuantizer",
    "NearestRows",
    "NodeMessageQuantizer",
    "NodeQuantizer",
    "ObservedQuantizer",
    "ObservedWeightQuantizer",
    "PackedWeight",
    "PerNodeMessageRows",
    "PerNodeRows",
    "Quantizer",
    "RangeQuantizer",
    "RawNodeQuantizer",
    "RowQuantizer",
    "RowScales",
    "ShiftedRows",
    "StaticRows",
    "WeightQuantizer",
    "calibration",
    "register_rows",
    "rows_from_config",
]
