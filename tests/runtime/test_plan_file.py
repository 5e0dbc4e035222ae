"""What a file says of the plan that it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, RGCNConv

import nodebits
from nodebits import lite
from nodebits.core.errors import ConfigError
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


def test_the_first_call_tells_what_a_file_s_plan_is_of(tmp_path: Path) -> None:
    """Of a model that asks for more than features and edges, trained by a loop of one's own."""
    x, edges = torch.randn(40, 6), torch.randint(0, 40, (2, 150))
    kinds = torch.randint(0, 3, (150,))
    prepared = nodebits.prepare(RGCNConv(6, 4, 3), nodebits.UniformConfig(bits=8))
    prepared(x, edges, kinds).sum().backward()
    packed = nodebits.convert(prepared.eval())
    packed.save(tmp_path / "unknown.safetensors")
    with pytest.raises(ConfigError, match="a guess: call predict once"):
        lite.load(tmp_path / "unknown.safetensors")
    expected = packed.predict(x, edges, kinds)
    packed.save(tmp_path / "known.safetensors")
    found = lite.load(tmp_path / "known.safetensors").predict(
        *(t.numpy() for t in (x, edges, kinds))
    )
    assert torch.equal(torch.from_numpy(found), expected)
