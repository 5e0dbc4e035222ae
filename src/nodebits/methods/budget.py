"""The average bitwidth of a model in training, and how it is brought to a target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from nodebits.core.distributed import sum_over_ranks, world_size
from nodebits.core.errors import ConfigError
from nodebits.nn.quantizers import NodeQuantizer, Quantizer, RawNodeQuantizer

# The price of a bit starts low and moves by this share per step at an average off by 100 %.
_FIRST_PRICE = 0.02
_RATE = 0.1


@dataclass(frozen=True)
class _Tensor:
    """One activation tensor of the last forward."""

    quantizer: Quantizer
    num_rows: int
    num_cols: int

    @property
    def elements(self) -> int:
        return self.num_rows * self.num_cols

    def bits(self) -> float:
        """Mean width."""
        if isinstance(self.quantizer, NodeQuantizer | RawNodeQuantizer):
            return self.quantizer.mean_bits()
        return float(self.quantizer.bits or 32)

    def scale_bits(self) -> int:
        if isinstance(self.quantizer, NodeQuantizer | RawNodeQuantizer):
            return self.quantizer.scale_cost(self.num_rows)
        if self.quantizer.bits is None:
            return 0
        return 32 * {-1: 1, 0: self.num_rows, 1: self.num_cols}[self.quantizer.axis]


def _of_all_ranks(tensors: list[_Tensor]) -> list[_Tensor]:
    """The same tensors with the rows of all ranks; observations become their mean."""
    learned = [t.quantizer for t in tensors if isinstance(t.quantizer, NodeQuantizer)]
    observed = [q.get_buffer(name) for q in learned for name in ("impact", "usage")]
    device = next((b.device for t in tensors for b in t.quantizer.buffers()), None)
    rows = torch.tensor([float(t.num_rows) for t in tensors], dtype=torch.float64, device=device)
    parts = [rows, *(o.double().reshape(-1) for o in observed)]
    total = sum_over_ranks(torch.cat(parts)).split([p.numel() for p in parts])
    for buffer, values in zip(observed, total[1:], strict=True):
        buffer.copy_((values / world_size()).view_as(buffer))
    return [replace(t, num_rows=int(n)) for t, n in zip(tensors, total[0], strict=True)]


class Budget:
    """What the activation tensors of the last forward take, by one way to count.

    Args:
        model: A prepared model that ran forward.
        count: See ``A2QConfig``.
        shared: Whether sizes, and what sites observed, are those of all ranks of a distributed
            training together; a collective then.
    """

    def __init__(self, model: nn.Module, count: str, *, shared: bool = False) -> None:
        self.count = count
        self.tensors = [
            _Tensor(m, *m.last_shape)
            for m in model.modules()
            if isinstance(m, Quantizer) and m.last_shape is not None
        ]
        if shared and world_size() > 1:
            self.tensors = _of_all_ranks(self.tensors)
        self.learned = [t for t in self.tensors if isinstance(t.quantizer, NodeQuantizer)]
        if count == "published":
            self.tensors = [t for t in self.learned if type(t.quantizer) is NodeQuantizer]

    @property
    def known(self) -> bool:
        """Whether the model has run, so that sizes are known."""
        return bool(self.tensors)

    @property
    def settled(self) -> bool:
        """Whether all widths are fixed."""
        return all(bool(t.quantizer.get_buffer("fixed")) for t in self.learned)

    def average(self) -> float:
        """Bits per value."""
        if self.count == "published":
            return sum(t.bits() for t in self.tensors) / len(self.tensors)
        bits = sum(t.bits() * t.elements for t in self.tensors)
        if self.count == "all":
            bits += sum(t.scale_bits() for t in self.tensors)
        return bits / max(sum(t.elements for t in self.tensors), 1)

    def move_price(self, target: float) -> None:
        """Raises the price of a bit where the average is above the target, else lowers it.

        Local errors of different sites are weighed by what they do to the task's loss: the local
        gradient says which row of a site needs bits, not which site.
        """
        quantizers = [t.quantizer for t in self.learned]
        impacts = [float(q.get_buffer("impact")) for q in quantizers]
        mean = sum(impacts) / max(len(impacts), 1)
        if min(impacts, default=0.0) > 0.0:
            for quantizer, impact in zip(quantizers, impacts, strict=True):
                # The root: a first-order estimate is right about the order, not about the factor.
                quantizer.get_buffer("weight").fill_((impact / mean) ** 0.5)
        off = max(-1.0, min(1.0, self.average() / target - 1.0))
        for tensor in self.learned:
            price = tensor.quantizer.get_buffer("price")
            start = float(price) or _FIRST_PRICE
            price.fill_(min(max(start * (1.0 + _RATE * off), 1e-6), 1e3))

    @torch.no_grad()
    def settle(self, target: float) -> None:
        """Fixes all widths so that the average is the target or just below it.

        What training learned is which node needs more than another: one shift of all widths, the
        least that meets the target, keeps that order.

        Raises:
            ConfigError: If the target cannot be met with every learned width at 1 bit.
        """
        open_ = [t.quantizer for t in self.learned if not bool(t.quantizer.get_buffer("fixed"))]
        quantizers = [q for q in open_ if isinstance(q, NodeQuantizer)]
        if not quantizers:
            return
        learned = [q.width.data.clone() for q in quantizers]

        def average_at(delta: float) -> float:
            for quantizer, width in zip(quantizers, learned, strict=True):
                quantizer.width.data = (width - delta).clamp(1, 8)
            return self.average()

        low, high = -8.0, 8.0
        least = average_at(high)
        if least > target:
            raise ConfigError(
                f"target_bits {target:g} cannot be met: with every learned width at 1 bit the "
                f"average ({self.count}) is {least:.2f}; raise the target, lower message_bits, "
                "attention_bits or raw_bits, or count otherwise"
            )
        for _ in range(40):
            middle = (low + high) / 2
            if average_at(middle) <= target:
                high = middle
            else:
                low = middle
        average_at(high)
        for quantizer in quantizers:
            quantizer.settle(0.0)
