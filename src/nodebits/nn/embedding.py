"""Embedding tables: a weight whose rows are looked up, each with a scale of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    NodeIndexError,
    ShapeError,
    UnsupportedLayerError,
)
from nodebits.core.file_fields import SIZE, Optional, Options
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.decoded import weight_values
from nodebits.nn.layer import QuantLayer
from nodebits.nn.linear import check_weight
from nodebits.nn.placement import Placement, SiteInfo
from nodebits.nn.quantizers.base import Quantizer
from nodebits.nn.quantizers.weight import WeightQuantizer
from nodebits.nn.registry import register_layer


@register_layer(nn.Embedding)
class QuantEmbedding(QuantLayer):
    """``y_i = Q(W)[ids_i]``: the site ``weight``, one scale per row of the table.

    Packed, only the rows that are asked for are decoded. ``weight`` read from outside, as models
    without features do, is the parameter in training and the quantized table in evaluation.

    Attributes:
        num_embeddings: Rows of the table.
        embedding_dim: Its columns.
        padding_idx: Row that is not trained, or None.
    """

    layer_type = "Embedding"
    options: ClassVar[Options] = {
        "num_embeddings": SIZE,
        "embedding_dim": SIZE,
        "padding_idx": Optional(SIZE),
    }
    packed_parameters = ("weight",)
    quantized_weight: WeightQuantizer | PackedWeight
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        for option in ("max_norm", "sparse", "scale_grad_by_freq"):
            if getattr(module, option):
                return f"it has {option}={getattr(module, option)!r}, which a quantized table lacks"
        return None

    def place_quantizers(self, place: Placement, path: str) -> None:
        shape = self.embedding_dim, self.num_embeddings
        site = SiteInfo(path, "Embedding", "weight", "weight", *shape)
        self.quantized_weight = place.weight(site)

    @property
    def weight(self) -> Tensor:
        """The table, float32 ``[num_embeddings, embedding_dim]``."""
        return weight_values(self.quantized_weight, self._parameters["weight"], self.described)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
        self._parameters["weight"] = parameter

    def _codes(self) -> tuple[Tensor, Tensor]:
        if isinstance(self.quantized_weight, PackedWeight):
            return self.quantized_weight.codes(), self.quantized_weight.scale
        codes, scale = self.quantized_weight(self._parameters["weight"])
        return codes, scale.expand(self.num_embeddings)

    def forward(self, input: Tensor) -> Tensor:
        """Looks up rows.

        Args:
            input: int ``[*]``, numbers of rows.

        Returns:
            float32 ``[*, embedding_dim]``.

        Raises:
            ShapeError: If the numbers are not a tensor of integers.
            NodeIndexError: If one is not below ``num_embeddings``: names position and value.
        """
        given: object = input
        if not isinstance(given, Tensor) or given.dtype not in (torch.int64, torch.int32):
            name = self.layer_name or "an embedding"
            got = f"a {type(given).__name__}"
            if isinstance(given, Tensor):
                got = f"{given.dtype} {list(given.shape)}"
            raise ShapeError(f"{name} takes int64 ids, got {got}")
        try:
            if isinstance(self.quantized_weight, PackedWeight):
                rows = self.quantized_weight.rows(input.reshape(-1))
            else:
                codes, scale = self._codes()
                ids = input.reshape(-1)
                rows = F.embedding(ids, codes, self.padding_idx) * scale[ids].view(-1, 1)
        except (IndexError, RuntimeError):
            self._check(input)
            raise
        return rows.view(*input.shape, self.embedding_dim)

    def _check(self, ids: Tensor) -> None:
        outside = (ids < 0) | (ids >= self.num_embeddings)
        if bool(outside.any()):
            at = outside.nonzero()[0].tolist()
            raise NodeIndexError(
                f"{self.layer_name or 'an embedding'}: id {int(ids[tuple(at)])} at {at} is outside "
                f"of the table, which has rows 0 to {self.num_embeddings - 1}"
            )

    def freeze(self) -> None:
        super().freeze()
        if isinstance(self.quantized_weight, WeightQuantizer):
            table = self._parameters["weight"]
            if table is None:
                raise UnsupportedLayerError("an embedding without a table cannot be converted")
            self.quantized_weight = self.quantized_weight.freeze(table)
            self._parameters["weight"] = None

    def check_loaded(self) -> None:
        shape = (self.num_embeddings, self.embedding_dim)
        check_weight(self.quantized_weight, shape, "table")
        if self.padding_idx is not None and self.padding_idx >= self.num_embeddings:
            raise FileFormatError(
                f"padding_idx is {self.padding_idx}: the table has {self.num_embeddings} rows"
            )

    def input_sites(self) -> list[Quantizer | RowQuantizer]:
        """See :meth:`QuantLayer.input_sites`: none, ids are not packed."""
        return []

    def adopt(self, module: Any) -> None:
        """See :meth:`QuantLayer.adopt`; the table must fit."""
        shape = (self.num_embeddings, self.embedding_dim)
        if (module.num_embeddings, module.embedding_dim) != shape:
            raise ConfigError(
                f"an embedding of the module has a table {module.num_embeddings} x "
                f"{module.embedding_dim}, that of the file is {shape[0]} x {shape[1]}"
            )
        super().adopt(module)

    def reset_parameters(self) -> None:
        """Draws the table anew, as torch does, and forgets its scales."""
        super().reset_parameters()
        table = self._parameters["weight"]
        if table is not None:
            with torch.no_grad():
                table.normal_()
                if self.padding_idx is not None:
                    table[self.padding_idx].fill_(0)
