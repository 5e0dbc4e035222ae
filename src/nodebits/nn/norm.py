"""Batch norms: in evaluation ``y * scale + shift``, the same two roundings in every form.

torch's own evaluation rounds in another order, which no fused operator could follow. A layer's
result that waits (:mod:`nodebits.engine.pending`) takes the norm along; who reads the result
without the norm gets it without. So nothing is read off a container, and a norm may follow
anything.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm as PyGBatchNorm

from nodebits.core.errors import ShapeError
from nodebits.engine.chain import ColumnAffine
from nodebits.engine.loaded import check_values
from nodebits.engine.pending import waiting
from nodebits.nn.evaluation import evaluates, is_swapped


@evaluates(nn.BatchNorm1d)
class QuantBatchNorm(nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` whose evaluation is one multiplication and one addition.

    Training, and evaluation without running statistics, are torch's own. Frozen it holds ``scale``
    as ``weight`` and ``shift`` as ``bias``; mean 0, variance 1 and ``eps`` 0 make it the same
    function for whoever reads its attributes.

    Attributes:
        frozen: Whether only scale and shift are left.
        layer_name: Path in a packed model.
    """

    frozen: bool = False
    layer_name: str = ""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x`` ``[N, C]`` or ``[N, C, L]``.

        Raises:
            ShapeError: If ``x`` has another number of columns, in evaluation.
        """
        if not self.frozen and (self.training or not self._has_statistics):
            return super().forward(x)
        self._check_input_dim(x)
        if x.size(1) != self.num_features:
            raise ShapeError(
                f"batch norm {self.layer_name or type(self).__name__} got {x.size(1)} columns, "
                f"expected {self.num_features}"
            )
        scale, shift = self.scale_and_shift()
        rows = waiting(x)
        if rows is not None:
            noted = rows.note_affine(ColumnAffine(scale, shift, self.layer_name))
            if noted is not None:
                return noted
        shape = (-1, *[1] * (x.dim() - 2))
        return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @property
    def _has_statistics(self) -> bool:
        return self.running_mean is not None and self.running_var is not None

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What evaluation multiplies by and adds, ``[C]`` each."""
        if self.frozen:
            return self.weight, self.bias
        assert self.running_mean is not None and self.running_var is not None
        # Square root and division are rounded correctly everywhere; a reciprocal root is not.
        deviation = torch.sqrt(self.running_var + self.eps)
        scale = 1 / deviation if self.weight is None else self.weight / deviation
        shift = -self.running_mean * scale
        return scale, shift if self.bias is None else self.bias + shift

    @torch.no_grad()
    def freeze(self) -> None:
        """Keeps scale and shift alone; nothing happens where the norm follows the batch."""
        if self.frozen or not self._has_statistics:
            return
        scale, shift = self.scale_and_shift()
        self.weight = nn.Parameter(scale.clone(), requires_grad=False)
        self.bias = nn.Parameter(shift.clone(), requires_grad=False)
        self._fill_statistics()
        self.num_batches_tracked = None
        self.affine, self.track_running_stats, self.eps = True, False, 0.0
        self.frozen = True

    def _fill_statistics(self) -> None:
        self.register_buffer("running_mean", torch.zeros_like(self.bias), persistent=False)
        self.register_buffer("running_var", torch.ones_like(self.weight), persistent=False)

    def check_loaded(self) -> None:
        """Checks scale and shift, read from a file, and puts the statistics beside them.

        Raises:
            FileFormatError: If one is not finite.
        """
        check_values(self.weight, "weight", False)
        check_values(self.bias, "bias", False)
        self._fill_statistics()


@evaluates(PyGBatchNorm)
class _SingleRowBatchNorm(PyGBatchNorm):  # type: ignore[misc]  # PyG has no types here
    """PyG's batch norm that takes single rows: in evaluation they are nothing special."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x`` ``[N, C]``."""
        result: Tensor = super().forward(x) if self.training else self.module(x)
        return result


def batch_norm_of(model: nn.Module, path: str) -> tuple[str, nn.BatchNorm1d | None]:
    """Path and module of the batch norm at ``path``, inside PyG's if that is there; else None."""
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return path, None
    if isinstance(module, PyGBatchNorm):
        path, module = f"{path}.module", module.module
    return path, module if isinstance(module, nn.BatchNorm1d) else None


def frozen_norms(model: nn.Module) -> list[str]:
    """Paths of the batch norms of which only scale and shift are left."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, QuantBatchNorm) and module.frozen
    ]


def reevaluated(model: nn.Module) -> list[str]:
    """Paths of what else :mod:`nodebits.nn.evaluation` made another class of."""
    batch_norms = (QuantBatchNorm, _SingleRowBatchNorm)
    return [
        path
        for path, module in model.named_modules()
        if is_swapped(module) and not isinstance(module, batch_norms)
    ]
