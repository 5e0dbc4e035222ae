"""What a file says of the plan that it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

import nodebits
from nodebits import lite
from packed_models import small_graph


class ByValues(nn.Module):
    """Goes on by what the features are, so that nothing can repeat it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(12, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.conv(x, edge_index)
        return result * (2.0 if result.tolist()[0][0] > 0 else 3.0)


def test_a_file_without_a_plan_says_why(tmp_path: Path) -> None:
    x, edges = small_graph()
    prepared = nodebits.prepare(ByValues(), nodebits.UniformConfig(bits=4, mode="ptq"))
    nodebits.calibrate(prepared, x, edges)
    reason = "it reads values of the data"
    nodebits.convert(prepared).save(tmp_path / "m")
    loaded = nodebits.load(tmp_path / "m", model=ByValues())
    assert reason in str(loaded.plan())
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "m", tmp_path / "again"):
        with pytest.raises(lite.errors.ConfigError, match=f"no plan.*{reason}"):
            lite.load(path)
