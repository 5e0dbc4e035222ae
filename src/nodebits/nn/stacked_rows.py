"""Rows of several tensors at one site, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.engine.formats.dense import Dense
from nodebits.engine.rows import Rows
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.functional import AnyRows, Site, quantize_rows


def stacked(site: Site, parts: Sequence[Tensor]) -> AnyRows:
    """What a site makes of tensors, as rows of one matrix; a range is that of all.

    Packed, each is packed by itself, so none of them needs to exist in float.

    Args:
        site: Of all.
        parts: float32 ``[N_k, C]``.

    Raises:
        ConfigError: If every row has a scale or a width of its own.
    """
    if len(parts) == 1:
        return quantize_rows(site, parts[0])
    if not isinstance(site, RowQuantizer) or site.bits is None:
        return quantize_rows(site, torch.cat(list(parts)))
    dense, affine = [], None
    for part in parts:
        rows = quantize_rows(site, part)
        if not isinstance(rows, Rows) or not isinstance(rows.data, Dense) or rows.by_row:
            raise ConfigError(
                f"site {site.site_name!r} holds rows of several types: it needs one width and "
                "scale for all, or one per column"
            )
        dense.append(rows.data)
        affine = rows.affine
    assert affine is not None
    first = dense[0]
    joined = torch.cat([one.packed for one in dense])
    return Rows(Dense(joined, first.bits, first.num_cols, first.coding), affine)
