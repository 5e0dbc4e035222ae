"""Attention between all rows (``torch.nn.MultiheadAttention``): its linear maps on integers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodebits import ops
from nodebits.core.errors import ShapeError, UnsupportedLayerError
from nodebits.core.file_fields import FLAG, SIZE, Integer, Options
from nodebits.engine.pending import settle
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.functional import check_product, linear, quantize_rows
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer
from nodebits.nn.translation import refuse_translation
from nodebits.ops.autograd import dense_product, unrounded

_PARTS = ("query", "key", "value")


@register_layer(nn.MultiheadAttention)
class QuantMultiheadAttention(QuantLayer):
    """``torch.nn.MultiheadAttention`` with sites.

    Sites: ``query``, ``key`` and ``value`` for the rows of three inputs and ``query_weight``,
    ``key_weight`` and ``value_weight`` for their maps; ``out_proj`` is a layer of its own. Rows
    that are query, key and value at once have the site ``query`` alone. Scores and their softmax
    are floats: prepared and packed agree to rounding.

    Attributes:
        embed_dim: E, channels of queries and results.
        kdim: Channels of keys.
        vdim: Channels of values.
        num_heads: Heads; they divide E.
        bias: Whether the maps have a bias.
        batch_first: Whether batches come before rows.
        add_zero_attn: Whether a row of zeros is added to keys and values.
    """

    layer_type = "MultiheadAttention"
    options: ClassVar[Options] = {
        "embed_dim": SIZE,
        "kdim": SIZE,
        "vdim": SIZE,
        "num_heads": Integer(1),
        "bias": FLAG,
        "batch_first": FLAG,
        "add_zero_attn": FLAG,
    }
    query: Quantizer | RowQuantizer
    key: Quantizer | RowQuantizer
    value: Quantizer | RowQuantizer
    query_weight: WeightQuantizer | PackedWeight
    key_weight: WeightQuantizer | PackedWeight
    value_weight: WeightQuantizer | PackedWeight
    in_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    out_proj: nn.Module
    _qkv_same_embed_dim: bool
    embed_dim: int
    kdim: int
    vdim: int
    num_heads: int
    head_dim: int
    batch_first: bool
    add_zero_attn: bool
    dropout: float
    derived_options: ClassVar = {"bias": lambda module: module.in_proj_bias is not None}
    packed_parameters = (
        "in_proj_weight",
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
    )
    optional_sites = ("key", "value")

    def place_quantizers(self, place: Placement, path: str) -> None:
        for part, width in zip(_PARTS, (self.embed_dim, self.kdim, self.vdim), strict=True):
            kind = self.layer_type
            site = SiteInfo(path, kind, "input", part, width, optional=part != "query")
            weight = SiteInfo(path, kind, "weight", f"{part}_weight", width, self.embed_dim)
            setattr(self, part, place.activation(site))
            setattr(self, f"{part}_weight", place.weight(weight))
            check_product(getattr(self, part), getattr(self, f"{part}_weight"), width, path)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends, see ``torch.nn.MultiheadAttention``.

        Raises:
            ShapeError: If rows have another width than the layer was made for.
            ConfigError: If ``is_causal`` is given without ``attn_mask``, as in torch.
        """
        refuse_translation("a quantized attention layer")
        query, key, value = settle(query), settle(key), settle(value)
        same_key, same_value = _is(key, query), _is(value, query)
        single = query.dim() == 2
        rows = [
            x.unsqueeze(1 if not self.batch_first else 0) if single else x
            for x in (query, key, value)
        ]
        if self.batch_first:
            rows = [x.transpose(0, 1) for x in rows]
        q = self._map(rows[0], 0, "query")
        k = self._map(rows[1], 1, "query" if same_key else "key")
        v = self._map(rows[2], 2, "query" if same_value else "value")
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        k, v, mask = self._extended(k, v, mask)
        q, k, v = (self._by_head(x) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = dense_product(q, k.transpose(-2, -1)) / math.sqrt(self.head_dim)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, dropout) if dropout else weights
            out = dense_product(weights, v)
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            with unrounded(q):
                out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = out.permute(2, 0, 1, 3).reshape(q.size(2), q.size(0), self.embed_dim)
        result: Tensor = self.out_proj(out)
        if single:
            return result.squeeze(1), None if weights is None else weights.squeeze(0)
        return (result.transpose(0, 1) if self.batch_first else result), weights

    def runs_by_graph(self, x: Tensor) -> bool:
        """Whether :meth:`by_graph` may stand for the forward on rows ``[N, E]``.

        It has no gradient, no keys beside those of the rows, and no hooks are called in it.
        """
        plain = self.bias_k is None and not self.add_zero_attn and x.dtype == torch.float32
        alike = self.kdim == self.vdim == self.embed_dim == x.size(-1) and x.dim() == 2
        hooked = self._forward_hooks or self._forward_pre_hooks
        return plain and alike and not hooked and not (torch.is_grad_enabled() and x.requires_grad)

    def by_graph(self, x: Tensor, batch: Tensor | None) -> Tensor:
        """Attention of every row to those of its graph: :func:`nodebits.ops.graph_attention`.

        Args:
            x: float32 ``[N, E]``.
            batch: int64 or int32 ``[N]``, ascending; None for one graph.

        Returns:
            float32 ``[N, E]``.

        Raises:
            GraphError: If ``batch`` falls.
        """
        refuse_translation("a quantized attention layer")
        if batch is not None and batch.dtype == torch.int32:
            batch = batch.long()
        rows = quantize_rows(self.query, x)
        q, k, v = (self._product(rows, part) for part in range(3))
        made: Tensor = self.out_proj(ops.graph_attention(q, k, v, batch, self.num_heads))
        return made

    def _map(self, x: Tensor, part: int, site: str) -> Tensor:
        """Rows ``[L, B, K]`` at a site, mapped to ``[L, B, E]``."""
        width = (self.embed_dim, self.kdim, self.vdim)[part]
        if x.size(-1) != width:
            raise ShapeError(
                f"layer {self.described} got {_PARTS[part]} of shape {list(x.shape)}, expected "
                f"rows of {width}"
            )
        rows = quantize_rows(getattr(self, site), x.reshape(-1, width))
        return self._product(rows, part).view(*x.shape[:2], self.embed_dim)

    def _product(self, rows: Any, part: int) -> Tensor:
        """Rows of a site, mapped to ``[rows, E]``."""
        weight = getattr(self, f"{_PARTS[part]}_weight")
        if not isinstance(weight, PackedWeight):
            weight = weight(self._weight(part))
        bias = None if self.in_proj_bias is None else self.in_proj_bias.chunk(3)[part]
        made: Tensor = settle(linear(rows, weight, bias))
        return made

    def _weight(self, part: int) -> Tensor:
        """The float weight of a map."""
        if self.in_proj_weight is not None:
            return self.in_proj_weight.chunk(3)[part]
        weight: Tensor | None = self._parameters[f"{_PARTS[part][0]}_proj_weight"]
        if weight is None:
            raise UnsupportedLayerError("an attention layer without weights cannot be converted")
        return weight

    def _mask(
        self, attention: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor
    ) -> Tensor | None:
        """What is added to the scores: float, to be broadcast to ``[B, H, L, S]``; or None."""
        (length, batch), sources = q.shape[:2], k.size(0)
        mask = None
        if attention is not None:
            mask = _floats(attention, q)
            mask = mask if mask.dim() == 2 else mask.view(batch, self.num_heads, length, sources)
        if padding is not None:
            hidden = _floats(padding, q).view(batch, 1, 1, sources)
            mask = hidden if mask is None else mask + hidden
        return mask

    def _extended(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with what the layer adds to every one: learned rows, a row of zeros."""
        more = 0
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(1, k.size(1), -1)])
            v = torch.cat([v, self.bias_v.expand(1, v.size(1), -1)])
            more += 1
        if self.add_zero_attn:
            k, v = (torch.cat([x, x.new_zeros(1, *x.shape[1:])]) for x in (k, v))
            more += 1
        return k, v, mask if mask is None or not more else F.pad(mask, (0, more))

    def _by_head(self, x: Tensor) -> Tensor:
        """``[B, H, L, E / H]``."""
        return x.view(*x.shape[:2], self.num_heads, self.head_dim).permute(1, 2, 0, 3)

    def freeze(self) -> None:
        super().freeze()
        for part, name in enumerate(_PARTS):
            quantizer = getattr(self, f"{name}_weight")
            if isinstance(quantizer, WeightQuantizer):
                setattr(self, f"{name}_weight", quantizer.freeze(self._weight(part)))
        for name in self.packed_parameters:
            self.register_parameter(name, None)

    def check_loaded(self) -> None:
        for name, width in zip(_PARTS, (self.embed_dim, self.kdim, self.vdim), strict=True):
            check_weight(getattr(self, f"{name}_weight"), (self.embed_dim, width), name)

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        return [self.query]

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.embed_dim}, heads={self.num_heads}"


def _is(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same rows in the same memory."""
    where = one.data_ptr() == other.data_ptr() and one.device == other.device
    return one is other or (where and one.shape == other.shape and one.stride() == other.stride())


def _floats(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as what is added to scores: minus infinity where a bool says not to look."""
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
