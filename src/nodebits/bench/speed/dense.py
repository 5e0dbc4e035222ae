"""Dense products of rows and a weight matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nodebits import ops
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, measure
from nodebits.core.errors import ConfigError
from nodebits.core.packing import row_bytes

_CHECKED_ROWS = 64
# torch's integer linear takes weights of 8 bits only.
_TORCH_BITS = 8


def measure_dense(
    shape: tuple[int, int, int], bits: Sequence[int], protocol: Protocol
) -> list[Row]:
    """Measures ``[N, K] x [K, M]``: rows of b bits with weights of b bits (2 bits for b = 1).

    Results are fresh ``[N, M]`` matrices: float32, halves, or int32 for ours. ``packed result``
    is the product as models run it, rescaled and quantized to rows of b bits in the same pass.

    Args:
        shape: N, K and M.
        bits: Widths of our rows.
        protocol: How to measure.

    Raises:
        ConfigError: If a size is below 1.
    """
    if min(shape) < 1:
        raise ConfigError(f"shape is {'x'.join(map(str, shape))}: sizes must be at least 1")
    name = "x".join(map(str, shape))
    return measure("dense", name, _Product(shape, protocol).candidates(bits), protocol)


class _Product:
    def __init__(self, shape: tuple[int, int, int], protocol: Protocol) -> None:
        self.device, self.card = protocol.device, protocol.card
        num_rows, depth, num_out = shape
        generator = torch.Generator().manual_seed(0)
        self.size = num_rows, depth, num_out
        drawn = torch.randn(num_out, depth, generator=generator, device="cpu")
        self.weight = drawn.to(self.device)
        self.generator = generator
        self._x: Tensor | None = None

    @property
    def x(self) -> Tensor:
        if self._x is None:
            drawn = torch.randn(*self.size[:2], generator=self.generator, device="cpu")
            self._x = drawn.to(self.device)
        return self._x

    def _moved(self, row: int, weight: int, value: float) -> int:
        num_rows, _, num_out = self.size
        return num_rows * row + round(num_rows * num_out * value) + num_out * weight

    def candidates(self, bits: Sequence[int]) -> list[Candidate]:
        num_rows, depth, num_out = self.size
        floats = 4 * num_rows * (depth + num_out)
        found = [
            Candidate(
                "torch linear float32",
                "float32",
                self._float32,
                32,
                self._moved(4 * depth, 4 * depth, 4),
                floats,
            ),
            Candidate(
                "torch linear bfloat16",
                "float",
                lambda: self._half(torch.bfloat16),
                16,
                self._moved(2 * depth, 2 * depth, 2),
                floats + floats // 2,
            ),
            Candidate(
                "torch quantized linear 8",
                "integer",
                self._torch_quantized,
                _TORCH_BITS,
                self._moved(depth, depth, 1),
                floats + floats // 4,
            ),
        ]
        if self.card:  # float16 is slow on processors, and torch's integers are theirs alone
            half = partial(self._half, torch.float16)
            found[2] = replace(found[1], impl="torch linear float16", build=half)
        for width in bits:
            weight_bits = max(width, 2)
            for packed in (False, True):
                result = row_bytes(num_out, width) / num_out if packed else 4
                moved = self._moved(row_bytes(depth, width), row_bytes(depth, weight_bits), result)
                found.append(
                    Candidate(
                        f"nodebits u{width} x s{weight_bits}{', packed result' * packed}",
                        "nodebits",
                        self._ours(width, weight_bits, packed),
                        width,
                        moved,
                        floats + moved,
                    )
                )
        return found

    def _float32(self) -> Call:
        x = self.x
        return lambda: functional.linear(x, self.weight)

    def _half(self, dtype: torch.dtype) -> Call:
        x, weight = self.x.to(dtype), self.weight.to(dtype)
        return lambda: functional.linear(x, weight)

    def _torch_quantized(self) -> Call:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            x = torch.quantize_per_tensor(self.x, 8 / 255, 128, torch.quint8)
            weight = torch.quantize_per_tensor(self.weight, 8 / 255, 0, torch.qint8)
        namespace: Any = torch.ops.quantized
        packed = namespace.linear_prepack(weight, None)
        return lambda: namespace.linear(x, packed, 1.0, 128)

    def _ours(self, bits: int, weight_bits: int, packed: bool) -> Callable[[], Call]:
        num_out, depth = self.weight.shape

        def build() -> Call:
            top = (1 << bits) - 1
            x = ops.quantize_pack(
                self.x,
                torch.tensor([8.0 / top], device=self.device),
                torch.tensor([top / 2], device=self.device),
                -1,
                bits,
            )
            half = 1 << (weight_bits - 1)
            codes = (self.weight * (half / 4)).round().clamp(-half, half - 1).to(torch.int8)
            weight = ops.pack(codes.view(torch.uint8) & (2 * half - 1), weight_bits)
            source, factor = ops.Source(x, bits, depth), ops.Weight(weight, weight_bits)
            unit = ops.Epilogue(torch.ones(num_out, device=self.device))
            # Four deviations of the result on either side.
            # On the CPU, whose bits those of a card must be, and which multiplies int64.
            first = ops.unpack(x[:_CHECKED_ROWS].cpu(), bits, depth)
            exact = first.long() @ codes.cpu().long().t()
            scale = (exact.float().std() * 8 / top).clamp_min(1.0).view(1)
            zero = top / 2 - exact.float().mean().view(1) / scale
            there = scale.to(self.device), zero.to(self.device)
            sink = ops.Sink(outputs=[ops.Output(*there, bits)])

            def product() -> Tensor:
                return ops.gemm(source, factor)

            def packed_product() -> Tensor:
                return ops.fused_gemm([ops.Product(source, factor, unit)], sink)[0]

            call = packed_product if packed else product
            expected = exact.int()
            if packed:
                expected = ops.quantize_pack(exact.float(), scale, zero, -1, bits)
            if not torch.equal(call()[:_CHECKED_ROWS].cpu(), expected):
                raise RuntimeError("the product is wrong: not a speed to report")
            return call

        return build
