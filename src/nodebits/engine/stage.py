"""A stage: rows go in, integers are added up, and a sink reads them. Not run before that is known.

It holds a fused operator and its records but the sink; :mod:`nodebits.engine.pending` adds that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nodebits import ops
from nodebits.engine.weight import PackedWeight
from nodebits.ops import Product, Sink, Weight


class Stage(NamedTuple):
    """One call of a fused operator.

    Attributes:
        operator: Takes the records and a sink.
        records: Its arguments but the sink.
        shape: Of the result.
        device: Of the result.
        products: The dense products that it sums, where others may join them in one call.
        terms: How many products those are.
    """

    operator: Callable[..., list[Tensor]]
    records: tuple[Any, ...]
    shape: tuple[int, int]
    device: torch.device
    products: Callable[[], list[Product]] | None = None
    terms: int = 1

    def run(self, sink: Sink) -> list[Tensor]:
        """What the sink's quantizers make of it, or its float rows."""
        return self.operator(*self.records, sink)


def of_products(products: list[Product]) -> Stage:
    """A sum of dense products."""
    first = products[0]
    return Stage(
        ops.fused_gemm, (products,), first.shape, first.device, lambda: products, len(products)
    )


def joined(one: Stage, other: Stage) -> Stage | None:
    """A sum of dense products with one more; None where that is not possible.

    Terms are added from left to right: a sum may grow by one term, two sums must not merge.
    """
    if one.products is None or other.products is None or other.terms > 1:
        return None
    if one.shape != other.shape:
        return None
    return of_products([*one.products(), *other.products()])


def weight_record(weight: PackedWeight) -> Weight:
    """A weight as operators read it."""
    assert weight.bits is not None
    return Weight(weight.packed, weight.bits, weight.midrise)
