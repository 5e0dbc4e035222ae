"""Names that options take, known without importing what they name: that takes seconds."""

from __future__ import annotations

METHODS = ("a2q", "degree-quant", "sgquant", "smp", "uniform")
MODELS = (
    "agnn",
    "appnp",
    "dagnn",
    "deepgcn",
    "elastic",
    "gat",
    "gcn",
    "gcnii",
    "gin",
    "sage",
    "smp",
)
