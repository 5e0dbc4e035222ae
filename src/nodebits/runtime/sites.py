"""What every site of a model is: width, range, and what runs behind it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nodebits.core.affine import max_code
from nodebits.core.errors import NodebitsError, NothingToQuantizeError
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.conv import QuantConv
from nodebits.nn.embedding import QuantEmbedding
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import QuantLinear
from nodebits.nn.propagate.layer import QuantMessagePassing
from nodebits.nn.quantizers import FloatWeightQuantizer, Quantizer, WeightQuantizer
from nodebits.runtime.float_layers import float_layers
from nodebits.runtime.packed import PackedModel


@dataclass(frozen=True)
class SiteLine:
    """One site, or a layer without any.

    Attributes:
        path: Path of the site, as overrides match it; of the layer, where it stayed in float.
        bits: Width; 32 for float.
        granularity: What has a scale of its own: ``tensor``, ``column``, ``row`` ...
        low: Least value that a code stands for; None where it depends on the data, or no data
            passed yet.
        high: Largest one.
        runs: ``integer product``, ``integer sum``, ``look-up``, ``tiled``, ``at once`` (decoded
            rows of all edges) or ``float``.
    """

    path: str
    bits: int
    granularity: str
    low: float | None
    high: float | None
    runs: str

    @property
    def range(self) -> str:
        """``low`` and ``high`` in words."""
        if self.low is None or self.high is None:
            return "-"
        return f"{self.low:.4g} .. {self.high:.4g}"


class Sites(tuple[SiteLine, ...]):
    """Lines of a model, printed as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [("site", "bits", "scale per", "range", "runs")]
        rows += [(s.path, str(s.bits), s.granularity, s.range, s.runs) for s in self]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def sites(model: nn.Module) -> Sites:
    """Every site of a prepared or packed model, in the order of its layers.

    Args:
        model: What :func:`nodebits.prepare`, :func:`nodebits.convert` or :func:`nodebits.load`
            returned.

    Returns:
        The lines; printed, they are a table.

    Raises:
        NothingToQuantizeError: If the model has no sites.

    Example:
        >>> print(nodebits.sites(prepared))
    """
    module = model.module if isinstance(model, PackedModel) else model
    lines = list(_lines(module))
    if not lines:
        raise NothingToQuantizeError(
            f"{type(module).__name__} has no sites: call nodebits.prepare(model, config) first"
        )
    lines += [
        SiteLine(f"{path} ({kind})".lstrip(), 32, "float", None, None, "float")
        for path, kind in float_layers(module).items()
    ]
    return Sites(lines)


def runs_of(layer: QuantLayer) -> str:
    """What a layer runs on its codes."""
    if isinstance(layer, QuantMessagePassing | QuantConv):
        return layer.runs
    if isinstance(layer, QuantLinear):
        factors = (layer.input, layer.quantized_weight)
        return "float" if any(_bits(site) is None for site in factors) else "integer product"
    return "look-up" if isinstance(layer, QuantEmbedding) else "integer sum"


def _lines(module: nn.Module) -> Iterator[SiteLine]:
    for path, layer in module.named_modules():
        if not isinstance(layer, QuantLayer) or layer.float_reason:
            continue
        for name, site in layer.named_children():
            where = f"{path}.{name}" if path else name
            if isinstance(site, PackedWeight | WeightQuantizer):
                where = where.replace("quantized_weight", "weight")
                bits = _bits(site)
                scale = "channel" if bits else "float"
                runs = _runs(layer, name, bits)
                yield SiteLine(where, bits or 32, scale, None, None, runs)
            elif isinstance(site, Quantizer | RowQuantizer):
                line = _activation(where, site, layer)
                if line is not None:
                    yield line


def _bits(site: Quantizer | RowQuantizer | WeightQuantizer | PackedWeight) -> int | None:
    """Width of a site; None for float."""
    return None if isinstance(site, FloatWeightQuantizer) else site.bits


def _runs(layer: QuantLayer, site: str, bits: int | None) -> str:
    if not bits:
        return "float"
    return layer.runs_at(site) if isinstance(layer, QuantMessagePassing) else runs_of(layer)


def _activation(path: str, site: Quantizer | RowQuantizer, layer: QuantLayer) -> SiteLine | None:
    """None for a site that no data reaches, or that a method leaves out."""
    name = path.rpartition(".")[2]
    if name in layer.idle_sites:
        return None
    frozen = _frozen(site)
    if frozen is None and name in layer.optional_sites:
        return None
    if site.bits is None and name.endswith("output"):
        return None
    if isinstance(site, RowQuantizer):
        if site.granularity == "unused":
            return None
        granularity = site.granularity
    else:
        granularity = site.describe()
    low, high = _range(frozen)
    return SiteLine(path, site.bits or 32, granularity, low, high, _runs(layer, name, site.bits))


def _frozen(site: Quantizer | RowQuantizer) -> RowQuantizer | None:
    if isinstance(site, RowQuantizer):
        return site
    try:
        return copy.deepcopy(site).freeze()
    except NodebitsError:
        return None


def _range(site: RowQuantizer | None) -> tuple[float | None, float | None]:
    """Of fixed scales; None for others."""
    scale, zero_point = getattr(site, "scale", None), getattr(site, "zero_point", None)
    if site is None or not site.bits or not isinstance(scale, Tensor) or not scale.numel():
        return None, None
    if not isinstance(zero_point, Tensor) or zero_point.numel() not in (1, scale.numel()):
        return None, None
    with torch.no_grad():
        low = (-zero_point * scale).min()
        high = ((max_code(site.bits) - zero_point) * scale).max()
    return float(low), float(high)
