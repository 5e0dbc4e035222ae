"""Weight quantizers: signed codes, one scale per output channel, and their packed form."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nodebits import ops
from nodebits.core.affine import MIN_SCALE, check_bits, max_code, symmetric_qparams
from nodebits.core.grid import grid_qparams
from nodebits.core.observer import Observer
from nodebits.engine.weight import PackedWeight
from nodebits.nn.quantizers.replay import recomputing
from nodebits.ops.autograd import FakeQuantize, Gradient, ScaleGradient
from nodebits.ops.learned import LearnedWeightCodes


class WeightCodes(NamedTuple):
    """Integer weights float32 ``[M, K]``, scales ``[1]`` or ``[M]``: ``w ~ codes * scale``."""

    codes: Tensor
    scale: Tensor


class WeightQuantizer(nn.Module):
    """Base of weight quantizers.

    A code u in ``[0, 2^b - 1]`` stands for ``(u - 2^(b-1)) * s``, or, in midrise form, for the odd
    multiples ``(2u - 2^b + 1) * s / 2``: evenly around zero, without a level at zero, which keeps
    one and two bits useful.

    Args:
        bits: 1 to 8 (midrise: to 7, so that the odd codes fit 8 bits).
        midrise: See above.
        gradient: What values outside the range receive.
        keep_share: Share of weights left in float in a training step, drawn anew each time
            (quantization noise, nQAT: Fan et al. 2020); 0 for plain QAT.
    """

    def __init__(
        self,
        bits: int,
        *,
        midrise: bool = False,
        gradient: Gradient = Gradient.CLIP,
        keep_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.bits = check_bits(bits)
        self.midrise = midrise and bits < 8
        self.gradient = gradient
        self.keep_share = keep_share

    @property
    def max_magnitude(self) -> int:
        """Largest magnitude of a code as products see it; 0 where weights stay in float."""
        return max_code(self.bits) if self.midrise else 1 << (self.bits - 1)

    @property
    def center(self) -> float:
        """Zero point of the unsigned codes."""
        return max_code(self.bits) / 2 if self.midrise else float(1 << (self.bits - 1))

    @property
    def known(self) -> bool:
        """Whether there are scales already; where not, the first weights give them."""
        return True

    def scales(self, weight: Tensor) -> Tensor:
        """Positive scales ``[1]`` or ``[M]`` for ``weight`` ``[M, K]``."""
        raise NotImplementedError

    def forward(self, weight: Tensor) -> WeightCodes:
        """Quantizes ``weight`` ``[M, K]``."""
        scale = self.scales(weight)
        axis = -1 if scale.numel() == 1 else 0
        zero_point = torch.full_like(scale, self.center)
        unsigned: Tensor = FakeQuantize.apply(
            weight, scale, zero_point, axis, self.bits, int(self.gradient)
        )
        column = scale if axis == -1 else scale.view(-1, 1)
        if self.training and self.keep_share > 0:
            keep = torch.rand_like(weight) < self.keep_share
            unsigned = torch.where(keep, weight / column + self.center, unsigned)
        if self.midrise:
            return WeightCodes(2 * unsigned - max_code(self.bits), scale * 0.5)
        return WeightCodes(unsigned - self.center, scale)

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> PackedWeight:
        """Packs ``weight`` ``[M, K]``."""
        was_training = self.training
        self.eval()
        codes, scale = self(weight)
        self.train(was_training)
        if self.midrise:
            codes = (codes - 1) / 2
        fields = codes.to(torch.int16) & max_code(self.bits)
        packed = ops.pack(fields.to(torch.uint8), self.bits)
        return PackedWeight(
            packed,
            scale.expand(weight.size(0)).clone(),
            bits=self.bits,
            num_cols=weight.size(1),
            midrise=self.midrise,
        )

    def reset(self) -> None:
        """Forgets what was observed."""


class LearnedWeightQuantizer(WeightQuantizer):
    """One learned scale per output channel, initialised by a grid on the weights (LSQ).

    A channel of zeros (pruned, a padding row, or one that training starts at zero) tells nothing of
    its scale. It is kept at 0, stands for values of less than 2^-100, and is initialised by the
    first weights of the channel that are not zero.
    """

    initialized: Tensor

    def __init__(self, bits: int, num_channels: int, *, error: str = "mse", **options: Any) -> None:
        super().__init__(bits, **options)
        self.error = error
        self.scale = nn.Parameter(torch.ones(num_channels))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    @property
    def known(self) -> bool:
        return bool(self.initialized)

    @torch.no_grad()
    def _initialize(self, weight: Tensor) -> None:
        if not bool(self.initialized):
            self.scale.zero_()
            self.initialized.fill_(True)
        rows = ((self.scale == 0) & (weight != 0).any(1)).nonzero().view(-1)
        if rows.numel() == 0:
            return
        weight = weight[rows]
        form = "centered" if self.midrise else "symmetric"
        # Centred on zero, not on the mean: a weight code has no zero point.
        both = torch.cat([weight, -weight], 1) if self.midrise else weight
        self.scale[rows] = grid_qparams(both, self.bits, 0, form, self.error)[0]

    def forward(self, weight: Tensor) -> WeightCodes:
        if not self.training or self.keep_share > 0 or torch.compiler.is_compiling():
            return super().forward(weight)
        self._find_missing(weight)
        codes, scale = LearnedWeightCodes.apply(
            weight, self.scale, self.center, self.bits, int(self.gradient), self.midrise
        )
        return WeightCodes(codes, scale)

    def _find_missing(self, weight: Tensor) -> None:
        if not bool(self.initialized) or bool((self.scale == 0).any()):
            self._initialize(weight)

    def scales(self, weight: Tensor) -> Tensor:
        self._find_missing(weight)
        scale = self.scale.abs().clamp_min(MIN_SCALE)
        if self.training:
            factor = (weight.size(1) * max_code(self.bits)) ** -0.5
            scale = ScaleGradient.apply(scale, factor)
        return scale

    def reset(self) -> None:
        self.initialized.fill_(False)


class ObservedWeightQuantizer(WeightQuantizer):
    """Symmetric scale from an observer of the weights (axis -1 or 0)."""

    def __init__(self, bits: int, observer: Observer, **options: Any) -> None:
        super().__init__(bits, **options)
        self.observer = observer

    @property
    def known(self) -> bool:
        return self.observer.low.numel() > 0

    def scales(self, weight: Tensor) -> Tensor:
        if (self.training and not recomputing()) or self.observer.low.numel() == 0:
            self.observer.observe(weight)
        low, high = self.observer.range()
        extent = torch.maximum(low.abs(), high.abs())
        if self.midrise:
            return (2 * extent / max_code(self.bits)).clamp_min(MIN_SCALE)
        return symmetric_qparams(extent, self.bits)[0]

    def reset(self) -> None:
        self.observer.low = self.observer.low.new_empty(0)
        self.observer.high = self.observer.high.new_empty(0)


class FloatWeightQuantizer(WeightQuantizer):
    """Leaves the weights in float."""

    def __init__(self) -> None:
        super().__init__(8)
        self.register_buffer("one", torch.ones(1), persistent=False)

    @property
    def max_magnitude(self) -> int:
        return 0

    def forward(self, weight: Tensor) -> WeightCodes:
        """Returns ``weight`` with scale 1."""
        return WeightCodes(weight, self.get_buffer("one"))

    def freeze(self, weight: Tensor) -> PackedWeight:
        """Keeps the float weights."""
        return PackedWeight(
            weight.detach().clone(),
            weight.new_ones(weight.size(0)),
            bits=None,
            num_cols=weight.size(1),
            midrise=False,
        )
