"""A quantizer whose scale (and zero point) is trained with the weights: learned step size, LSQ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodebits.core.affine import MIN_SCALE, Codes, check_bits
from nodebits.core.errors import ConfigError, NotCalibratedError
from nodebits.core.grid import grid_qparams
from nodebits.core.observer import check_finite
from nodebits.nn.quantizers.base import Quantizer, drop_rows, keep_float
from nodebits.nn.quantizers.rows import RowQuantizer, StaticRows
from nodebits.ops.autograd import FakeQuantize, Gradient, ScaleGradient


class LearnedQuantizer(Quantizer):
    """Learned scale per tensor or column, initialised by a grid on the first batch.

    The gradient of the scale is LSQ's, multiplied by ``1 / sqrt(n * qmax)`` with n the values per
    scale (Esser et
    al. 2020, section 2.2). A first batch without negative values makes the codes unsigned (zero
    point 0).

    Args:
        bits: 1 to 8.
        num_columns: C for one scale per column, None for one per tensor.
        centered: Learn the zero point too, starting with levels evenly around the mean; else
            symmetric.
        error: Error of the initial grid, ``"mse"`` or ``"mae"``.
        gradient: What values outside the range receive.
        protectable: See :class:`Quantizer`.
    """

    initialized: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bits: int,
        num_columns: int | None = None,
        *,
        centered: bool = False,
        error: str = "mse",
        gradient: Gradient = Gradient.CLIP,
        protectable: bool = False,
    ) -> None:
        super().__init__()
        if gradient is Gradient.PASS:
            raise ConfigError(
                "a learned scale needs a clipped gradient: use Gradient.CLIP or STRICT"
            )
        self.bits: int = check_bits(bits)
        self.axis = -1 if num_columns is None else 1
        self.centered, self.error = centered, error
        self.gradient = gradient
        self.protectable = protectable
        size = num_columns or 1
        self.scale = nn.Parameter(torch.ones(size))
        if centered:
            self.zero_point = nn.Parameter(torch.zeros(size))
        else:
            self.register_buffer("zero_point", torch.zeros(size))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        check_finite(x, "a tensor to be quantized")
        unsigned = bool((x >= 0).all())
        form = "unsigned" if unsigned else "centered" if self.centered else "symmetric"
        scale, zero_point = grid_qparams(x, self.bits, self.axis, form, self.error)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        self.initialized.fill_(True)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns ``(scale, zero_point)``, the scale positive.

        Raises:
            NotCalibratedError: Before the first batch.
        """
        if not bool(self.initialized):
            raise NotCalibratedError(
                "a learned scale has seen no data: train the prepared model or call "
                "nodebits.calibrate(model, x, edge_index) before evaluating or converting it"
            )
        return self.scale.abs().clamp_min(MIN_SCALE), self.zero_point

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`."""
        rows = self.protected_rows(x)
        if self.observing and not bool(self.initialized):
            self._initialize(drop_rows(x.detach(), rows))
        scale, zero_point = self.qparams()
        if self.training:
            count = max(x.numel() // scale.numel(), 1)
            factor = (count * ((1 << self.bits) - 1)) ** -0.5
            scale = ScaleGradient.apply(scale, factor)
            if self.centered:
                zero_point = ScaleGradient.apply(zero_point, factor)
        codes: Tensor = FakeQuantize.apply(
            x, scale, zero_point, self.axis, self.bits, int(self.gradient)
        )
        if rows is not None:
            codes = keep_float(codes, x, scale, zero_point, rows)
        return Codes(codes, scale, zero_point, self.bits)

    def freeze(self) -> RowQuantizer:
        """See :meth:`Quantizer.freeze`."""
        scale, zero_point = self.qparams()
        return StaticRows(scale, zero_point, self.bits)

    def reset(self) -> None:
        """See :meth:`Quantizer.reset`."""
        self.initialized.fill_(False)
