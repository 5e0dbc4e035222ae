"""Tools that record one forward are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv

import nodebits
from nodebits.core.errors import UnsupportedLayerError

TOOLS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "torch.export": lambda model, args: torch.export.export(model, args),
    "torch.jit.trace": lambda model, args: torch.jit.trace(model, args),
    "torch.jit.script": lambda model, args: torch.jit.script(model),
}


@pytest.mark.parametrize("layer", (GCNConv(4, 3), nn.Linear(4, 3)), ids=("conv", "linear"))
@pytest.mark.parametrize("tool", TOOLS)
def test_translation_is_refused(tool: str, layer: nn.Module) -> None:
    x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
    args = (x,) if isinstance(layer, nn.Linear) else (x, edge_index)
    prepared = nodebits.prepare(layer.eval(), nodebits.UniformConfig(mode="ptq"))
    nodebits.calibrate(prepared, *args)
    packed = nodebits.convert(prepared)
    for model in (prepared, packed.module):
        with pytest.raises(UnsupportedLayerError, match=rf"{tool}.*torch\.compile.*float"):
            TOOLS[tool](model, args)
        with torch.no_grad():
            model(*args)  # the refusal leaves the model as it was
