"""How a packed model runs: on which kernels, what is fused, what is read as sparse rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from nodebits import ops
from nodebits.core.packing import row_bytes
from nodebits.engine.sites.own import probably_sparse, sparse_share
from nodebits.nn.linear import QuantLinear
from nodebits.ops.backends.cpu.kernels import REFERENCE
from nodebits.runtime import PackedModel
from nodebits.runtime.account import SiteAccount
from nodebits.train.inputs import Inputs


def describe_backend() -> dict[str, Any]:
    """Returns who computes: ``operators`` (compiled or reference), ``isa``, ``threads``."""
    found = ops.describe()
    isa = str(found["isa"])
    return {
        "operators": "reference" if isa == REFERENCE else "compiled",
        "isa": isa,
        "forced": bool(found["forced"]),
        "threads": torch.get_num_threads(),
    }


def describe_forward(packed: PackedModel, inputs: Inputs) -> dict[str, Any]:
    """Runs a model and says how its layers passed on their results and read their inputs.

    The second forward is described: a layer whose result is read twice is only then known.

    Args:
        packed: The model.
        inputs: What it runs on.

    Returns:
        ``chains``: a result each, with the ``layers`` that it is the sum of, the ``readers`` that
        got it as packed rows, and where it existed as a float matrix its ``float_reason`` and
        ``float_bytes``. ``raw_inputs``: a site each that reads the features themselves, with
        ``sparse``, the ``reason``, and the bytes of its codes dense and (where it is) sparse.

    Raises:
        NodebitsError: If the inputs do not fit the model.
    """
    inputs.call(packed.predict)
    account = inputs.call(packed.account)
    chains = [
        {**asdict(chain), "fused": not chain.float_reason, "float_bytes": chain.float_bytes}
        for chain in account.chains
    ]
    readers = [site for site in account.sites if site.raw]
    raw = [_raw_input(packed, site, inputs.x, site is readers[0]) for site in readers]
    return {"chains": chains, "raw_inputs": raw}


def _raw_input(
    packed: PackedModel, site: SiteAccount, x: torch.Tensor, first: bool
) -> dict[str, Any]:
    share = float(x.count_nonzero()) / max(x.numel(), 1)
    if site.granularity == "float":
        dense = 4 * site.elements
    elif site.rows_per_width is None:
        dense = site.num_rows * row_bytes(site.num_cols, int(site.bits))
    else:
        dense = site.bytes
    return {
        "layer": site.layer,
        "site": site.site,
        "sparse": site.sparse,
        "share_not_zero": share,
        "dense_bytes": dense,
        "sparse_bytes": site.bytes if site.sparse else None,
        "reason": _reason(packed, site, x, share, first),
    }


def _reason(
    packed: PackedModel, account: SiteAccount, x: torch.Tensor, share: float, first: bool
) -> str:
    modules = dict(packed.module.named_modules())
    layer = modules[account.layer]
    site = getattr(layer, account.site)
    figure = f"{100 * share:.1f}% of the values are not zero"
    if account.sparse:
        limit = 100 * sparse_share(int(account.bits))
        return f"{figure}; sparse rows pay up to {limit:.1f}%"
    if site.bits is None:
        return "the site is left in float"
    if not isinstance(layer, QuantLinear):
        return "a neighbour sum reads it; only products take sparse rows"
    if not first:
        return "another site read the features before; only the first one takes sparse rows"
    if not site.own_scales:
        return (
            f"its scales, one per {account.granularity}, are stored in the model; sparse rows take "
            "theirs from the features"
        )
    if site.signed:
        return "codes of both signs have a zero point, which would fill the zeros"
    if not probably_sparse(x, int(account.bits)):
        limit = 100 * sparse_share(int(account.bits))
        return f"{figure}, in a sample of rows too; sparse rows pay up to {limit:.1f}%"
    if bool((x < 0).any()):
        return "the features hold values below zero"
    return f"{figure}, but in some block of rows too many"
