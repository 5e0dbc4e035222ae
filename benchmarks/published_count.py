"""Memory as SGQuant counts it (Feng et al. 2020, Table III), to stand beside the honest count.

Counted are the stored node-feature matrices alone, in decimal megabytes of four bytes per float:
no weights, edges, messages, attention values, scales or zero points. Which matrices, follows from
the table: GAT has its input and hidden rows, ``N (F + 64)``; AGNN its input, the first linear's
result, those of both propagations, and the logits, ``N (F + 3 * 16 + C)``. GCN's rows of the table
follow no rule (one is smaller than its input alone); here it has input and hidden rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nodebits.core.errors import UnknownNameError
from nodebits.models import ModelSpec
from nodebits.runtime.account import Account

FLOAT_BITS = 32


@dataclass(frozen=True)
class PublishedCount:
    """What Table III shows of a model.

    Attributes:
        elements: Values in the counted matrices.
        average_bits: Their mean width.
    """

    elements: int
    average_bits: float

    @property
    def float_mb(self) -> float:
        """Decimal megabytes in float32."""
        return 4 * self.elements / 1e6

    @property
    def mb(self) -> float:
        """Decimal megabytes at the average width."""
        return self.float_mb * self.average_bits / FLOAT_BITS

    @property
    def saving(self) -> float:
        """Float over quantized."""
        return FLOAT_BITS / self.average_bits


def counted_matrices(spec: ModelSpec) -> dict[str, int]:
    """Columns of the counted matrices, by the site that stores them.

    Raises:
        UnknownNameError: For models that SGQuant has not.
    """
    hidden, layers = spec.hidden_channels, spec.num_layers
    if spec.name == "agnn":
        inner = {f"convs.{layer}.message": hidden for layer in range(layers)}
        ends = {"lin2.input": hidden, "lin2.output": spec.out_channels}
        return {"lin1.input": spec.in_channels, **inner, **ends}
    if spec.name in ("gcn", "gat"):
        inner = {f"convs.{layer}.lin.input": hidden for layer in range(1, layers)}
        return {"convs.0.lin.input": spec.in_channels, **inner}
    raise UnknownNameError.for_name("SGQuant model", spec.name, ("agnn", "gat", "gcn"))


def published_count(
    spec: ModelSpec, num_nodes: int, bits: Mapping[str, float] | None = None
) -> PublishedCount:
    """Counts a model as SGQuant does.

    Args:
        spec: Architecture.
        num_nodes: N.
        bits: Mean width by site; sites that are missing count as float.

    Raises:
        UnknownNameError: For models that SGQuant has not.
    """
    columns = counted_matrices(spec)
    widths = bits or {}
    total = sum(columns.values())
    weighted = sum(cols * widths.get(site, FLOAT_BITS) for site, cols in columns.items())
    return PublishedCount(num_nodes * total, weighted / total)


def published_count_of(spec: ModelSpec, account: Account) -> PublishedCount:
    """The same for a packed model whose forward was accounted for."""
    bits = {f"{site.layer}.{site.site}": site.bits for site in account.sites}
    return published_count(spec, account.sites[0].num_rows, bits)


@dataclass(frozen=True)
class InputBaselines:
    """Bytes of a feature matrix stored without any quantization method.

    Attributes:
        dense: float32.
        sparse: CSR: int32 column and float32 value per entry, int64 row pointers; no value where
            all entries of a row are equal, but one float32 per row.
        bit_mask: One bit per value and one float32 per row; None where a row holds two different
            non-zero values, which a mask cannot say.
    """

    dense: int
    sparse: int
    bit_mask: int | None


def input_baselines(x: Tensor) -> InputBaselines:
    """What ``x`` ``[N, F]`` takes dense, sparse, and as a bit mask."""
    rows, cols = x.shape
    entries = int(x.count_nonzero())
    nonzero = x != 0
    top = x.masked_fill(~nonzero, float("-inf")).amax(1) if cols else x.new_zeros(rows)
    low = x.masked_fill(~nonzero, float("inf")).amin(1) if cols else x.new_zeros(rows)
    one_value = bool(((top == low) | ~nonzero.any(1)).all())
    values = 4 * rows if one_value else 4 * entries
    mask = rows * ((cols + 7) // 8) + 4 * rows if one_value else None
    return InputBaselines(4 * rows * cols, 4 * entries + values + 8 * (rows + 1), mask)
