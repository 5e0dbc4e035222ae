"""Rows of several tensors at one site, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebits.engine.affine import Affine
from nodebits.engine.formats.dense import Dense
from nodebits.engine.rows import Rows
from nodebits.engine.sites import RowQuantizer
from nodebits.nn.functional import AnyRows, Site, quantize_rows
from nodebits.nn.pairs import meeting


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
    rows = [quantize_rows(site, part) for part in parts]
    met = [meeting(one, site.site_name) for one in rows]
    sources = [one.summands.source for one in met if one.summands is not None]
    joined, source = torch.cat([one.packed for one in sources]), sources[0]
    scale, zero_point = rows[0].scale, met[0].zero_point
    by_column = max(scale.numel(), zero_point.numel()) > 1
    if by_column:
        affine = Affine(scale.expand(source.num_cols), zero_point, 1)
    else:
        affine = Affine(scale, zero_point)
    return Rows(Dense(joined, source.bits, source.num_cols, source.coding), affine)
