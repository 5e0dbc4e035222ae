"""Paths of layers and sites, told to themselves."""

from __future__ import annotations

from torch import nn

from nodebits.engine.sites import RowQuantizer
from nodebits.nn.layer import QuantLayer
from nodebits.nn.norm import QuantBatchNorm


def name_sites(model: nn.Module) -> None:
    """Tells every layer, norm and frozen site its path, for reports and features packed ahead."""
    for path, module in model.named_modules():
        if isinstance(module, RowQuantizer):
            module.site_name = path
        elif isinstance(module, QuantLayer | QuantBatchNorm):
            module.layer_name = path
