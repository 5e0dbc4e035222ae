"""What a packed model stores: bits and bytes per site, with and without scales."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nodebits.engine.chain import ChainRecord
from nodebits.engine.recording import SiteRecord
from nodebits.engine.weight import PackedWeight
from nodebits.runtime.float_layers import FloatTensor, float_layers, float_values


@dataclass(frozen=True)
class SiteAccount:
    """One activation tensor or weight.

    Attributes:
        layer: Path of the layer.
        site: ``input``, ``message``, ``attention``, ``output``, ``quantized_weight`` or
            ``att_weight``; the name of the value for what is stored in float.
        bits: Width, 32 for float32; the mean where rows have widths of their own.
        granularity: ``tensor``, ``column``, ``row``, ``channel`` or ``float``.
        num_rows: Rows of the tensor.
        num_cols: Columns.
        bytes: Bytes of the packed codes.
        scale_bytes: Bytes of its scales, and of the widths of its rows.
        rows_per_width: Rows of each width 1 to 8, where they differ; else None.
        sparse: Whether only the codes that are not zero are kept, with their columns.
        raw: Whether these are the features that the model was given.
        at_site: False for what no quantizer can sit at: what float layers read and hold, and the
            biases of quantized layers.
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
    at_site: bool = True

    @property
    def elements(self) -> int:
        """Values in the tensor."""
        return self.num_rows * self.num_cols


@dataclass(frozen=True)
class Account:
    """Counts over a model and all activation tensors of one forward, input included.

    Layers that stayed in float count with all that they read and hold: entries of ``sites`` and
    ``weights`` whose ``granularity`` is ``float`` and whose ``at_site`` is false. Published counts
    leave them out; figures named ``site`` or ``quantized`` do too.

    Attributes:
        average_bits: Sum of bits x elements over sum of elements; float32 tensors count 32.
        average_bits_with_scales: The same with the bits of scales and widths added.
        average_site_bits: ``average_bits`` over the tensors at sites alone.
        average_site_bits_with_scales: Likewise.
        activation_bytes: Codes, scales and floats of all activation tensors.
        float_activation_bytes: The same tensors in float32.
        weight_bytes: Packed weights, their scales, biases, and all that float layers hold.
        float_weight_bytes: The same with float32 in place of packed weights.
        quantized_weight_bytes: Packed weights and their scales alone.
        sites: One entry per activation tensor, those at sites first.
        weights: One entry per weight, those at sites first.
        chains: How every layer's result was passed on.
        float_layers: Class names of the layers that stayed in float, by path.
    """

    average_bits: float
    average_bits_with_scales: float
    average_site_bits: float
    average_site_bits_with_scales: float
    activation_bytes: int
    float_activation_bytes: int
    weight_bytes: int
    float_weight_bytes: int
    quantized_weight_bytes: int
    sites: list[SiteAccount]
    weights: list[SiteAccount]
    chains: list[ChainRecord]
    float_layers: dict[str, str]


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


def float_weights(module: nn.Module) -> list[SiteAccount]:
    """Accounts for every stored value of ``module`` that is not at a site."""
    return [_float_entry(value) for value in float_values(module)]


def _float_entry(tensor: FloatTensor) -> SiteAccount:
    size = tensor.num_rows * tensor.num_cols * tensor.item_bytes
    return SiteAccount(
        tensor.layer,
        tensor.name,
        8 * tensor.item_bytes,
        "float",
        tensor.num_rows,
        tensor.num_cols,
        size,
        0,
        at_site=False,
    )


def account_of(
    module: nn.Module,
    records: list[SiteRecord],
    float_inputs: list[FloatTensor],
    chains: list[ChainRecord],
) -> Account:
    """Adds up a recorded forward.

    Args:
        module: The model's module.
        records: What :func:`nodebits.nn.functional.recording` collected.
        float_inputs: What :func:`~nodebits.runtime.float_layers.recording_float_inputs` collected.
        chains: What :func:`nodebits.engine.chain.deferring` collected.
    """
    at_sites = [
        _site_entry(record)
        for record in records
        # A result that no recipe quantizes: the next layer's input counts it.
        if record.granularity != "float" or record.site.rpartition(".")[2] != "output"
    ]
    sites = at_sites + [_float_entry(tensor) for tensor in float_inputs]
    packed = weight_sites(module)
    weights = packed + float_weights(module)
    average, with_scales = _average_bits(sites)
    site_average, site_with_scales = _average_bits(at_sites)
    return Account(
        average_bits=average,
        average_bits_with_scales=with_scales,
        average_site_bits=site_average,
        average_site_bits_with_scales=site_with_scales,
        activation_bytes=_bytes(sites),
        float_activation_bytes=4 * sum(site.elements for site in sites),
        weight_bytes=_bytes(weights),
        float_weight_bytes=sum(4 * w.elements if w.at_site else w.bytes for w in weights),
        quantized_weight_bytes=_bytes(packed),
        sites=sites,
        weights=weights,
        chains=chains,
        float_layers=float_layers(module),
    )


def _site_entry(record: SiteRecord) -> SiteAccount:
    layer, _, site = record.site.rpartition(".")
    layout = record.layout
    bits: float = record.bits or 32 if layout is None else layout.mean_bits
    if record.sparse_bytes is not None:
        size = record.sparse_bytes
    elif layout is None:
        size = record.num_rows * ((record.num_cols * (record.bits or 32) + 7) // 8)
    else:
        size = layout.bytes(record.num_cols)
    return SiteAccount(
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


def _average_bits(sites: list[SiteAccount]) -> tuple[float, float]:
    """Mean width of a value, and the same with the bits of scales and widths."""
    elements = max(sum(site.elements for site in sites), 1)
    bits = sum(site.bits * site.elements for site in sites)
    scales = 8 * sum(site.scale_bytes for site in sites)
    return bits / elements, (bits + scales) / elements


def _bytes(entries: list[SiteAccount]) -> int:
    return sum(entry.bytes + entry.scale_bytes for entry in entries)
