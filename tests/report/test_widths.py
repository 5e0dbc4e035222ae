"""Widths of nodes as reports show them."""

from __future__ import annotations

import torch

from nodebits.engine.sites import PerNodeRows
from nodebits.report.widths import width_histograms, widths_by_degree


def test_histogram_and_trend() -> None:
    widths = torch.tensor([1, 1, 2, 8, 4])
    module = torch.nn.Sequential(PerNodeRows(widths, False, scale=torch.ones(5)))
    assert width_histograms(module) == [
        {"site": "0", "nodes": [2, 1, 0, 1, 0, 0, 0, 1], "mean": 3.2}
    ]
    found = widths_by_degree(module, torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]))
    assert [tuple(row.values()) for row in found[0]["classes"]] == [
        ("0", 1, 1.0),
        ("1", 1, 1.0),
        ("2-3", 2, 5.0),
        ("8-15", 1, 4.0),
    ]
    assert widths_by_degree(module, torch.ones(4)) == []
