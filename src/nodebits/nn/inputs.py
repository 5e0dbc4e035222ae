"""What enters a layer: a float matrix, or features that were packed ahead."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.masked import MaskedTensor

from nodebits.core.errors import ShapeError
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.pending import waiting
from nodebits.engine.sites.base import RowQuantizer
from nodebits.nn.quantizers.base import Quantizer

Features = Tensor | PackedInput


class NamedLayer(Protocol):
    """What messages name."""

    @property
    def described(self) -> str:
        """Path and class."""
        ...


def as_features(x: Any, layer: NamedLayer) -> Features:
    """``x`` in float32, in which quantized layers compute, also within ``torch.autocast``.

    Raises:
        ShapeError: If it is no tensor of floats; names the layer.
    """
    known = x if isinstance(x, PackedInput) else waiting(x)
    if known is not None:
        return known
    if isinstance(x, Tensor):
        check_holder(x, f"layer {layer.described}")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() == 0:
        what = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        ids = isinstance(x, Tensor) and not x.is_complex() and not x.is_floating_point()
        raise ShapeError(
            f"layer {layer.described} got {what}: expected a float tensor [num_nodes, channels]"
            f"{'; ids go through an embedding first' if ids else ''}"
        )
    return x if x.dtype == torch.float32 else x.float()


def check_holder(x: Tensor, reader: str) -> None:
    """Refuses tensors that are no array of values: nested and masked ones, and the meta device.

    Raises:
        ShapeError: Names the reader, what it got and what to pass.
    """
    if x.is_nested:
        raise ShapeError(
            f"{reader} got a nested tensor: join its parts (torch.cat(x.unbind()), or "
            "torch_geometric.data.Batch for graphs)"
        )
    if x.is_meta:
        raise ShapeError(
            f"{reader} got a tensor on the meta device, which holds no values: move the data to "
            "the CPU"
        )
    if isinstance(x, MaskedTensor):
        raise ShapeError(f"{reader} got a MaskedTensor: pass x.to_tensor(0.0)")


def check_rows(site: Quantizer | RowQuantizer, x: Any) -> None:
    """Refuses what is no float matrix.

    Raises:
        ShapeError: Names the site, where it has a name, and what it got.
    """
    if isinstance(x, PackedInput) or waiting(x) is not None:
        return
    name = f"site {site.site_name!r}" if getattr(site, "site_name", "") else "a quantized layer"
    if not isinstance(x, Tensor):
        raise ShapeError(f"features are a {type(x).__name__} at {name}: expected a float tensor")
    if x.layout != torch.strided:
        raise ShapeError(
            f"features are a sparse matrix ({x.layout}) at {name}: pass x.to_dense(), codes are "
            "kept as sparse rows by themselves where that is smaller"
        )
    if not x.is_floating_point() or x.dim() != 2:
        hint = "" if x.is_floating_point() else "; ids go through an embedding first"
        raise ShapeError(
            f"features are {x.dtype} {list(x.shape)} at {name}: expected a float tensor "
            f"[num_nodes, channels]{hint}"
        )
