"""Rows of a sample: taken by the card from packed ones of the host, or copied as floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nodebits import ops
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, measure
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows


def measure_host_rows(
    size: tuple[int, int], batch: int, bits: Sequence[int], protocol: Protocol
) -> list[Row]:
    """Measures how long rows of the host's memory take to a card.

    Args:
        size: Nodes and columns of the features.
        batch: Rows that a sample asks for.
        bits: Widths.
        protocol: How to measure.

    Raises:
        RuntimeError: Packed rows are others than on the CPU.
    """
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, size[0], (batch,), generator=generator, device="cpu")
    x = torch.randn(*size, generator=generator, device="cpu")
    there = index.to(protocol.device)

    def copied() -> Tensor:
        return x.index_select(0, index).to(protocol.device)

    candidates = [Candidate("float rows of the host, copied", "float32", lambda: copied, 32)]
    candidates += [
        Candidate(f"nodebits u{width} of the host", "nodebits", _taken(x, there, width), width)
        for width in bits
    ]
    name = f"{batch} of {size[0]}x{size[1]}"
    with torch.no_grad():
        return measure("rows", name, candidates, protocol)


def _taken(x: Tensor, index: Tensor, bits: int) -> Callable[[], Call]:
    def build() -> Call:
        # Four standard deviations to both sides, as calibration on these rows would choose.
        top = (1 << bits) - 1
        scale = torch.tensor([8.0 / top], device="cpu")
        zero = torch.tensor([top / 2], device="cpu")
        packed = ops.quantize_pack(x, scale, zero, -1, bits)
        rows = Rows.dense(packed, bits, x.size(1), scale, zero)
        kept = PackedInput({"input": rows}, (x.size(0), x.size(1))).on_host(index.device)
        expected = rows.selected(index.cpu()).dequantize()
        if not torch.equal(kept.selected(index).rows["input"].dequantize().cpu(), expected):
            raise RuntimeError(f"rows of {bits} bits differ from those of the CPU")
        return lambda: kept.selected(index)

    return build
