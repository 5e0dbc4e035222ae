"""Attention between all rows: its maps on codes, its arguments those of torch's layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import nodebits
from nodebits.core.errors import ConfigError, ShapeError, UnsupportedLayerWarning
from nodebits.nn.multihead_attention import QuantMultiheadAttention

PTQ = nodebits.UniformConfig(bits=8, mode="ptq")
FLOAT = nodebits.UniformConfig(bits=32, attention_bits=32)


class Attends(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, **options)

    def forward(self, *args: Tensor, **keywords: Any) -> tuple[Tensor, Tensor | None]:
        found: tuple[Tensor, Tensor | None] = self.attn(*args, **keywords)
        return found


HIDDEN = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 5])
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "batch first": ({"batch_first": True}, {}),
    "no bias": ({"bias": False}, {}),
    "learned rows": ({"add_bias_kv": True, "add_zero_attn": True}, {"need_weights": False}),
    "other widths": ({"kdim": 6, "vdim": 4}, {}),
    "padding": ({}, {"key_padding_mask": HIDDEN}),
    "bool mask": ({}, {"attn_mask": torch.ones(4, 5).triu(2).bool(), "need_weights": False}),
    "float mask by head": ({}, {"attn_mask": torch.randn(6, 4, 5), "key_padding_mask": HIDDEN}),
    "by head": ({}, {"average_attn_weights": False}),
}


@pytest.mark.parametrize("name", CASES)
def test_arguments_are_those_of_torch(name: str, tmp_path: Path) -> None:
    options, keywords = CASES[name]
    widths = options.get("kdim", 8), options.get("vdim", 8)
    args = [torch.randn(4, 3, 8), torch.randn(5, 3, widths[0]), torch.randn(5, 3, widths[1])]
    if options.get("batch_first"):
        args = [x.transpose(0, 1).contiguous() for x in args]
    model = Attends(**options).eval()
    with torch.no_grad():
        expected = model(*args, **keywords)
        exact = nodebits.prepare(model, FLOAT).eval()(*args, **keywords)
        prepared = nodebits.prepare(model, PTQ)
        nodebits.calibrate(prepared, *args, **keywords)
        simulated = prepared.eval()(*args, **keywords)
    assert isinstance(prepared.attn, QuantMultiheadAttention)
    assert isinstance(prepared.attn, nn.MultiheadAttention)
    packed = nodebits.convert(prepared)
    found = packed.predict(*args, **keywords)
    for one, other, sim, want in zip(found, exact, simulated, expected, strict=True):
        assert (one is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(other, want)
            torch.testing.assert_close(one, sim, rtol=1e-5, atol=1e-5)
            assert 0 < (one - want).norm() < 0.03 * want.norm()
    packed.save(tmp_path / "model.safetensors")
    loaded = nodebits.load(tmp_path / "model.safetensors", model=Attends(**options))
    assert torch.equal(loaded.predict(*args, **keywords)[0], found[0])


def test_rows_that_are_all_three_have_one_site() -> None:
    model, x = Attends(), torch.randn(6, 8)
    prepared = nodebits.prepare(model, PTQ)
    nodebits.calibrate(prepared, x, x, x)
    paths = [site.path for site in nodebits.sites(prepared)]
    assert "attn.query" in paths and "attn.key_weight" in paths and "attn.key" not in paths
    packed = nodebits.convert(prepared)
    assert packed.module.attn.in_proj_weight is None
    assert packed.predict(x, x, x)[0].shape == (6, 8)
    with pytest.raises(ShapeError, match="expected rows of 8"):
        packed.predict(x, x[:, :4], x)


def test_its_weights_are_trained() -> None:
    model, x = Attends(), torch.randn(6, 3, 8)
    prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4)).train()
    prepared(x, x, x)[0].square().sum().backward()
    for name in ("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight"):
        assert dict(prepared.named_parameters())[name].grad.abs().sum() > 0


def test_what_stays_in_float_is_named() -> None:
    class Own(nn.MultiheadAttention):
        pass

    class Half(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    for attention in (Own(8, 2), nn.MultiheadAttention(8, 2)):
        model = nn.ModuleDict({"attn": attention, "lin": nn.Linear(8, 8)})
        if type(attention) is nn.MultiheadAttention:
            parametrize.register_parametrization(attention, "in_proj_weight", Half())
        with pytest.warns(UnsupportedLayerWarning, match="'attn'.*stays in float"):
            prepared = nodebits.prepare(model, PTQ)
        assert type(prepared["attn"].out_proj) is type(attention.out_proj)
    with pytest.raises(ConfigError, match="no site"):
        nodebits.prepare(Attends(), nodebits.UniformConfig(bits=8, overrides={"attn.in": 4}))
