"""Widths that nodes have: how many of each, and how they go with the in-degree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebits.core.row_layout import RowLayout
from nodebits.engine.sites import RowQuantizer
from nodebits.train.inputs import Inputs


def width_histograms(module: nn.Module) -> list[dict[str, Any]]:
    """Nodes of each width 1 to 8, for every site whose nodes have widths of their own."""
    return [
        {
            "site": name,
            "nodes": list(layout.counts),
            "mean": layout.mean_bits,
        }
        for name, layout in _sites(module)
    ]


def widths_by_degree(module: nn.Module, degree: Tensor) -> list[dict[str, Any]]:
    """Mean width of the nodes of each degree class: 0, 1, 2-3, 4-7, and so on by powers of two.

    Args:
        module: A packed model's module.
        degree: In-degrees, ``[N]``.
    """
    found = []
    for name, layout in _sites(module):
        widths = layout.widths
        if widths.numel() != degree.numel():
            continue
        classes = torch.where(degree > 0, degree.clamp_min(1).log2().floor() + 1, 0.0).long()
        table = []
        for number in classes.unique().tolist():
            members = widths[classes == number].float()
            low = 0 if number == 0 else 1 << (number - 1)
            high = 0 if number == 0 else (1 << number) - 1
            table.append(
                {
                    "degrees": str(low) if low == high else f"{low}-{high}",
                    "nodes": members.numel(),
                    "mean_width": float(members.mean()),
                }
            )
        found.append({"site": name, "classes": table})
    return found


def describe_widths(module: nn.Module, example: Inputs) -> dict[str, Any]:
    """Both, for the graph of ``example``; empty lists where no node has a width of its own."""
    count = example.x.size(0)
    degree = torch.bincount(example.edge_index[1], minlength=count).float()
    return {
        "histograms": width_histograms(module),
        "by_degree": widths_by_degree(module, degree),
    }


def _sites(module: nn.Module) -> list[tuple[str, RowLayout]]:
    sites = ((n, m.own_layout) for n, m in module.named_modules() if isinstance(m, RowQuantizer))
    return [(name, layout) for name, layout in sites if layout is not None]
