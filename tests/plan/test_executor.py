"""Steps of the operators: the bits of their definitions, on every level and thread count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executor_case import Case, reference, same
from torch import Tensor

from nodebits import ops

OPS = torch.ops.nodebits
BITS = [1, 2, 3, 4, 8]


def packed_rows(rows: int, cols: int, bits: int) -> Tensor:
    return ops.pack(torch.randint(0, 1 << bits, (rows, cols), dtype=torch.uint8), bits)


def random_csr(rows: int, sources: int, edges: int) -> tuple[Tensor, Tensor, Tensor]:
    ends = torch.randint(0, rows, (edges,)), torch.randint(0, sources, (edges,))
    return tuple(ops.coo_to_csr(ends[0], ends[1], rows))  # type: ignore[return-value]


def sink(cols: int, outputs: int, rows: int, mixed: str = "") -> list[Any]:
    """relu, and the arguments of quantizers: a scale per tensor and per column in turn."""
    scale, zero, bits, factor = [], [], [], []
    widths: list[Any] = [None] * outputs
    position: list[Any] = [None] * outputs
    shift: list[Any] = [None] * outputs
    for i in range(outputs):
        n = 1 if i % 2 == 0 else cols
        scale.append(torch.rand(n) * 3 + 0.1)
        zero.append(torch.rand(1) * 4)
        bits.append((4, 8, 2, 1)[i % 4])
        factor.append(torch.rand(rows) if i % 2 else None)
        if mixed:
            widths[i] = torch.randint(1, 5, (rows,), dtype=torch.uint8)
            zero[i] = torch.rand(8) * 2
            if mixed == "shift":
                shift[i] = torch.randint(0, 4, (rows,), dtype=torch.uint8)
            else:
                scale[i] = torch.rand(rows) + 0.1
                position[i] = torch.empty(rows, dtype=torch.int32)
                for b in range(1, 5):
                    at = (widths[i] == b).nonzero().view(-1)
                    position[i][at] = torch.arange(at.numel(), dtype=torch.int32)
    return [scale, zero, bits, factor, widths, position, shift]


def as_list(made: Any) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)


def check(op: str, args: list[Any], outs: int) -> list[Tensor]:
    """A plan of one step with every tensor as an input, and with every tensor as a constant."""
    expected = as_list(reference(getattr(OPS, op), *args))
    assert len(expected) == outs
    made: list[Tensor] = []
    for as_input in (True, False):
        case = Case()

        def place(arg: Any, case: Case = case, as_input: bool = as_input) -> Any:
            if isinstance(arg, list):
                return [place(item) for item in arg]
            if isinstance(arg, Tensor):
                return case.input(arg) if as_input else case.constant(arg)
            return arg

        placed = [place(arg) for arg in args]
        refs = case.step(op, *placed, outs=outs)
        made = case.everywhere(*as_refs(refs))
        for got, want in zip(made, expected, strict=True):
            assert same(got, want), op
    return made


def as_refs(refs: Any) -> list[str]:
    return [refs] if isinstance(refs, str) else refs


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_fused_spmm(bits: int, outputs: int) -> None:
    rows, sources, cols = 23, 31, 33
    indptr, indices, _ = random_csr(rows, sources, 150)
    args = [indptr, indices, None, None, packed_rows(sources, cols, bits), bits, cols, 0]
    args += [None, None, packed_rows(rows, cols, bits), torch.tensor(1.5)]
    args += [torch.rand(1), torch.rand(cols), None, torch.rand(rows, 1), torch.randn(cols)]
    args += [True, *sink(cols, outputs, rows), torch.rand(cols), torch.randn(cols)]
    check("fused_spmm", args, max(outputs, 1))


@pytest.mark.parametrize("heads", [1, 4])
def test_fused_spmm_weighted(heads: int) -> None:
    rows, cols = 23, 32
    indptr, indices, _ = random_csr(rows, rows, 150)
    weight = torch.randint(0, 256, (150, heads), dtype=torch.uint8)
    args: list[Any] = [indptr, indices, weight, None, packed_rows(rows, cols, 4), 4, cols, 0]
    args += [torch.randint(1, 5, (rows,), dtype=torch.int32)]
    args += [torch.randint(-5, 5, (rows,), dtype=torch.int32), None, None]
    args += [torch.rand(cols), torch.rand(1), torch.rand(rows, heads), torch.rand(rows, 1), None]
    args += [False, *sink(cols, 2, rows), None, None]
    check("fused_spmm", args, 2)


@pytest.mark.parametrize("products", [1, 2])
@pytest.mark.parametrize("mixed", ["", "shift", "position"])
def test_fused_gemm(products: int, mixed: str) -> None:
    rows, cols = 29, 20
    depths, bits, w_bits = [37, 64][:products], [4, 2][:products], [4, 3][:products]
    midrise = [False, True][:products]
    args: list[Any] = [
        [packed_rows(rows, k, b) for k, b in zip(depths, bits, strict=True)],
        bits,
        depths,
        [0] * products,
        [packed_rows(cols, k, b) for k, b in zip(depths, w_bits, strict=True)],
        w_bits,
        midrise,
        [torch.rand(cols) for _ in depths],
        [torch.randn(cols), None][:products],
        [None] * products,
        [None, torch.rand(rows, 1)][:products],
        [None, torch.randn(cols)][:products],
        True,
        *sink(cols, 2, rows, mixed),
        None,
        None,
    ]
    check("fused_gemm", args, 2)


def test_gemm_spmm_rescale_and_pack() -> None:
    rows, cols = 21, 19
    indptr, indices, _ = random_csr(rows, rows, 90)
    check("gemm", [packed_rows(rows, 40, 5), 5, 40, 0, packed_rows(cols, 40, 4), 4, False], 1)
    check("spmm", [indptr, indices, None, None, packed_rows(rows, cols, 4), 4, cols, 0], 1)
    weight = torch.randint(0, 256, (90, 1), dtype=torch.uint8)
    check("spmm", [indptr, indices, weight, None, packed_rows(rows, cols, 8), 8, cols, 0], 1)
    acc = torch.randint(-(1 << 20), 1 << 20, (rows, cols), dtype=torch.int32)
    check("rescale", [acc, torch.rand(cols), torch.rand(1), torch.rand(rows, 1), None, None], 1)
    codes = torch.randint(0, 8, (rows, cols), dtype=torch.uint8)
    check("pack", [codes, 3], 1)
    check("unpack", [ops.pack(codes, 3), 3, cols], 1)
    index = torch.randint(0, rows, (50,), dtype=torch.int32)
    for axis, n in ((-1, 1), (0, rows), (1, cols)):
        scale, zero = torch.rand(n), torch.rand(1)
        check("gather_rows", [ops.pack(codes, 3), 3, cols, 0, index, 3, 40, scale, zero, axis], 1)
        x = torch.randn(rows, cols)
        check("quantize_pack", [x, scale + 0.1, zero, axis, 4, torch.rand(rows)], 1)
        check("quantize_pack", [x, scale + 0.1, zero, axis, 4, None], 1)


@pytest.mark.parametrize("heads", [1, 3])
def test_edge_softmax(heads: int) -> None:
    indptr, indices, _ = random_csr(17, 19, 80)
    args = [indptr, indices, torch.randn(19, heads), torch.randn(17, heads), 0.2, 8]
    check("edge_softmax", args, 2)


@pytest.mark.parametrize("coefficients", [[0.0, 0.0, 0.0], [0.0, 0.5]])
def test_propagate(coefficients: list[float]) -> None:
    indptr, indices, _ = random_csr(40, 40, 160)
    sums = sum(2 if c else 1 for c in coefficients)
    args: list[Any] = [indptr, indices, None, None, torch.randn(40, 7), torch.rand(40)]
    args += [torch.rand(sums, 7) + 0.1, torch.rand(sums, 7), torch.rand(sums, 7)]
    check("propagate", [*args, [4] * sums, coefficients, False, 0.1], 1)


def test_operators_without_rows_or_edges() -> None:
    indptr, indices = torch.zeros(6, dtype=torch.int64), torch.empty(0, dtype=torch.int32)
    args: list[Any] = [indptr, indices, None, None, packed_rows(5, 9, 4), 4, 9, 0]
    tail = [None] * 4 + [torch.rand(9), None, None, None, None, False]
    check("fused_spmm", args + tail + [[] for _ in range(7)] + [None, None], 1)
    check("spmm", args, 1)
    check("gemm", [packed_rows(0, 40, 5), 5, 40, 0, packed_rows(3, 40, 4), 4, False], 1)
    check("quantize_pack", [torch.empty(0, 4), torch.rand(1), torch.rand(1), -1, 4, None], 1)
    check("edge_softmax", [indptr, indices, torch.randn(5, 2), torch.randn(5, 2), 0.2, 8], 2)
