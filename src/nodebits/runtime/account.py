"""What a packed model stores: bits and bytes per site, with and without scales."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nodebits.nn.chain import ChainRecord
from nodebits.nn.functional import SiteRecord
from nodebits.nn.quantizers.weight import PackedWeight


@dataclass(frozen=True)
class SiteAccount:
    """One activation tensor or weight.

    Attributes:
        layer: Path of the layer.
        site: ``input``, ``message``, ``attention``, ``output``, ``quantized_weight`` or
            ``att_weight``.
        bits: Width, 32 for float; the mean where rows have widths of their own.
        granularity: ``tensor``, ``column``, ``row``, ``channel`` or ``float``.
        num_rows: Rows of the tensor.
        num_cols: Columns.
        bytes: Bytes of the packed codes.
        scale_bytes: Bytes of its scales, and of the widths of its rows.
        rows_per_width: Rows of each width 1 to 8, where they differ; else None.
        sparse: Whether only the codes that are not zero are kept, with their columns.
        raw: Whether these are the features that the model was given.
    """

    layer: str
    site: str
    bits: float
    granularity: str
    num_rows: int
    num_cols: int
    bytes: int
    scale_bytes: int
    rows_per_width: tuple[int, ...] | None = None
    sparse: bool = False
    raw: bool = False

    @property
    def elements(self) -> int:
        """Values in the tensor."""
        return self.num_rows * self.num_cols


@dataclass(frozen=True)
class Account:
    """Counts over all activation tensors of one forward, input included.

    Attributes:
        average_bits: Sum of bits x elements over sum of elements; float tensors count 32.
        average_bits_with_scales: The same with the bits of scales and widths added.
        activation_bytes: Packed codes and scales of all activation tensors.
        float_activation_bytes: The same tensors in float32.
        weight_bytes: Packed weights and their scales.
        float_weight_bytes: The same weights in float32.
        sites: One entry per activation tensor.
        weights: One entry per weight.
        chains: How every layer's result was passed on.
    """

    average_bits: float
    average_bits_with_scales: float
    activation_bytes: int
    float_activation_bytes: int
    weight_bytes: int
    float_weight_bytes: int
    sites: list[SiteAccount]
    weights: list[SiteAccount]
    chains: list[ChainRecord]


def weight_sites(module: nn.Module) -> list[SiteAccount]:
    """Accounts for every packed weight of ``module``."""
    result = []
    for path, child in module.named_modules():
        if isinstance(child, PackedWeight):
            layer, _, site = path.rpartition(".")
            result.append(
                SiteAccount(
                    layer,
                    site,
                    child.bits or 32,
                    "float" if child.bits is None else "channel",
                    child.num_rows,
                    child.num_cols,
                    child.packed.numel() * child.packed.element_size(),
                    4 * child.num_rows,
                )
            )
    return result


def account_of(module: nn.Module, records: list[SiteRecord], chains: list[ChainRecord]) -> Account:
    """Adds up a recorded forward.

    Args:
        module: The model's module.
        records: What :func:`nodebits.nn.functional.recording` collected.
        chains: What :func:`nodebits.nn.chain.deferring` collected.
    """
    sites = []
    for record in records:
        if record.granularity == "float" and record.site.rpartition(".")[2] == "output":
            continue  # a result that no recipe quantizes; the next layer's input counts it
        layer, _, site = record.site.rpartition(".")
        layout = record.layout
        bits: float = record.bits or 32 if layout is None else layout.mean_bits
        if record.sparse_bytes is not None:
            size = record.sparse_bytes
        elif layout is None:
            size = record.num_rows * ((record.num_cols * (record.bits or 32) + 7) // 8)
        else:
            size = layout.bytes(record.num_cols)
        sites.append(
            SiteAccount(
                layer,
                site,
                bits,
                record.granularity,
                record.num_rows,
                record.num_cols,
                size,
                record.scale_bytes,
                None if layout is None else layout.counts,
                record.sparse_bytes is not None,
                record.raw,
            )
        )
    elements = max(sum(site.elements for site in sites), 1)
    bits_total = sum(site.bits * site.elements for site in sites)
    scale_bits = 8 * sum(site.scale_bytes for site in sites)
    weights = weight_sites(module)
    return Account(
        average_bits=bits_total / elements,
        average_bits_with_scales=(bits_total + scale_bits) / elements,
        activation_bytes=sum(site.bytes + site.scale_bytes for site in sites),
        float_activation_bytes=4 * elements,
        weight_bytes=sum(w.bytes + w.scale_bytes for w in weights),
        float_weight_bytes=sum(4 * w.elements for w in weights),
        sites=sites,
        weights=weights,
        chains=chains,
    )
