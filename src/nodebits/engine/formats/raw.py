"""Raw features that a product packs as it goes, unless someone might write to them before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from nodebits import ops
from nodebits.core.observer import FEATURES, check_finite
from nodebits.core.own_scale import OwnScale
from nodebits.core.recorded import recorded
from nodebits.engine.affine import Affine
from nodebits.engine.formats.base import Format, Summands, register_format
from nodebits.engine.stage import Stage, weight_record
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Epilogue, Product, Sink
from nodebits.ops.feature_product import fused_gemm_features

Packed = tuple[Format, Affine]


@register_format
@dataclass(frozen=True)
class Raw(Format):
    """A feature matrix, each of whose rows will bring its own scale.

    Attributes:
        x: float32 ``[N, C]``.
        own: How rows become codes.
        pack: Packs the features as they are when it is called.
    """

    name: ClassVar[str] = "raw"
    layout: ClassVar[None] = None
    transient: ClassVar[bool] = True
    x: Tensor
    own: OwnScale
    pack: Callable[[Tensor], Packed]
    _packed: list[Packed] = field(default_factory=list, repr=False, compare=False)

    def settled(self, affine: Affine) -> Packed:
        return self.settle()

    def settle(self) -> Packed:
        """Packs the features as they are now; once.

        Raises:
            NonFiniteError: If they hold NaN or infinity.
        """
        if not self._packed:
            self._packed.append(self.pack(self.x))
        return self._packed[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.size(0), self.x.size(1)

    @property
    def nbytes(self) -> int:
        return self.x.nbytes

    def codes(self, affine: Affine) -> Tensor:
        data, own = self.settle()
        return data.codes(own)

    def summands(self, affine: Affine) -> Summands | None:
        data, own = self.settle()
        return data.summands(own)

    def product(self, affine: Affine, weight: PackedWeight, bias: Tensor | None) -> Stage:
        shape = self.x.size(0), weight.num_rows
        records = (self, weight, bias)
        return Stage(_run, records, shape, self.x.device, lambda: self._products(weight, bias))

    def _products(self, weight: PackedWeight, bias: Tensor | None) -> list[Product]:
        data, own = self.settle()
        stage = data.product(own, weight, bias)
        assert stage is not None and stage.products is not None
        return stage.products()

    def run(self, weight: PackedWeight, bias: Tensor | None, sink: Sink) -> list[Tensor]:
        """What a sink makes of the product.

        Raises:
            NonFiniteError: If a feature is NaN or infinite.
        """
        outputs = [list(column) for column in zip(*sink.outputs, strict=True)] or [[]] * 7
        return recorded(
            "feature_product", lambda: self._run(weight, bias, sink),
            self.x, self.own.bits, self.own.signed, *weight_record(weight), weight.scale,
            weight.col_sum, bias, sink.relu, *outputs, sink.post_scale, sink.post_shift,
            *self.own.trims,
        )  # fmt: skip

    def _run(self, weight: PackedWeight, bias: Tensor | None, sink: Sink) -> list[Tensor]:
        if not self._packed:
            offset = weight.col_sum * self.own.zero_point if self.own.signed else None
            epilogue = Epilogue(weight.scale, offset, bias=bias)
            made = fused_gemm_features(self.x, self.own, weight_record(weight), epilogue, sink)
            if not made.finite:
                check_finite(self.x, FEATURES)
            if self.own.signed or not made.negative:
                return made.results
        return ops.fused_gemm(self._products(weight, bias), sink)


def _run(data: Raw, weight: PackedWeight, bias: Tensor | None, sink: Sink) -> list[Tensor]:
    return data.run(weight, bias, sink)
