"""The operators in torch: what each of them means. Every compiled kernel returns the same bytes.

Float steps are float32 and elementwise, one torch operation each, so that nothing is contracted
into a fused multiply-add; integer sums are associative. Only the two reductions of
:func:`fake_quantize_backward` may differ in rounding. Works on any device; speed is no aim here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nodebits.core.errors import GraphError
from nodebits.core.packing import pack, row_bytes, unpack

# Elements gathered at once by the neighbour sums.
_CHUNK = 1 << 24


def _along(t: Tensor, axis: int) -> Tensor:
    """A flat scale or zero point, shaped to broadcast over ``[N, C]``."""
    return t.view(-1, 1) if axis == 0 else t.view(1, -1)


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    """``clamp(rne(x / scale + zero_point), 0, 2^bits - 1)`` as float32 ``[N, C]``; NaN gives 0."""
    v = x / _along(scale, axis) + _along(zero_point, axis)
    v = torch.where(v.isnan(), torch.zeros_like(v), v)
    # +0 instead of -0, which rounding leaves for small negative values.
    return v.round().clamp(0.0, float((1 << bits) - 1)).abs()


def quantize_pack(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    bits: int,
    row_factor: Tensor | None = None,
) -> Tensor:
    """Codes of ``x * row_factor``, packed."""
    if row_factor is not None:
        x = x * row_factor.view(-1, 1)
    return pack(fake_quantize(x, scale, zero_point, axis, bits).to(torch.uint8), bits)


def fake_quantize_backward(
    grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Straight-through gradients; the sums run in float64.

    Returns:
        ``grad / scale`` where the gradient passes, 0 elsewhere; and the gradients of the scale and
        the zero point, one per value of the axis.
    """
    qmax = float((1 << bits) - 1)
    s = _along(scale, axis)
    v = x / s + _along(zero_point, axis)
    if mode == 2:
        code = v.round()
        inside = (code > 0) & (code < qmax)
    else:
        inside = (v >= 0) & (v <= qmax)
    zero = torch.zeros_like(grad)
    masked = torch.where(inside, grad, zero)
    grad_x = (grad if mode == 1 else masked) / s
    if mode != 1:
        grad_x = torch.where(inside, grad_x, zero)
    per_scale = torch.where(inside, -(masked * (x / s) / s), zero).double()
    per_zero = masked.double()
    if axis == -1:
        return grad_x, per_scale.sum().view(1).float(), per_zero.sum().view(1).float()
    return grad_x, per_scale.sum(1 - axis).float(), per_zero.sum(1 - axis).float()


def weight_values(packed: Tensor, bits: int, num_cols: int, midrise: bool) -> Tensor:
    """Two's complement fields c to int32 ``[M, num_cols]``: ``c``, or ``2c + 1`` (midrise)."""
    sign = 1 << (bits - 1)
    c = (unpack(packed, bits, num_cols).to(torch.int32) ^ sign) - sign
    return 2 * c + 1 if midrise else c


def gemm(
    x_packed: Tensor, x_bits: int, num_cols: int, w_packed: Tensor, w_bits: int, midrise: bool
) -> Tensor:
    """Integer product int32 ``[N, M]``; float64 holds every partial sum exactly."""
    x = unpack(x_packed, x_bits, num_cols).double()
    w = weight_values(w_packed, w_bits, num_cols, midrise).double()
    return (x @ w.t()).to(torch.int64).to(torch.int32)


def _bucket_rows(order: Tensor, counts: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """(width, nodes in the bucket's order) of every bucket that is not empty."""
    for bits, nodes in enumerate(order.long().split(list(counts)), start=1):
        if nodes.numel():
            yield bits, nodes


def quantize_pack_bucketed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    widths: Tensor,
    position: Tensor,
    row_factor: Tensor | None = None,
) -> Tensor:
    """Buckets one after another, uint8 ``[bytes]``."""
    parts = [x.new_empty(0, dtype=torch.uint8)]
    for bits in range(1, 9):
        nodes = (widths == bits).nonzero().view(-1)
        rows = x.new_zeros((nodes.numel(), row_bytes(x.size(1), bits)), dtype=torch.uint8)
        rows[position[nodes].long()] = quantize_pack(
            x[nodes],
            scale[nodes] if axis == 0 else scale,
            zero_point[bits - 1].expand(nodes.numel() if axis == 0 else 1),
            axis,
            bits,
            None if row_factor is None else row_factor[nodes],
        )
        parts.append(rows.reshape(-1))
    return torch.cat(parts)


def unpack_bucketed(
    packed: Tensor, order: Tensor, counts: Sequence[int], num_cols: int, shift: Tensor | None = None
) -> Tensor:
    """Codes in node order, uint8 ``[N, num_cols]``, shifted left by ``shift``."""
    codes = packed.new_empty((order.numel(), num_cols))
    begin = 0
    for bits, nodes in _bucket_rows(order, counts):
        size = nodes.numel() * row_bytes(num_cols, bits)
        rows = packed[begin : begin + size].view(nodes.numel(), -1)
        codes[nodes] = unpack(rows, bits, num_cols)
        begin += size
    return codes if shift is None else codes << shift.view(-1, 1)


def nearest_group(extent: Tensor, limits: Tensor) -> Tensor:
    """Position of the nearest of ascending ``limits``, the smaller of two as near; NaN gives 0."""
    at = torch.searchsorted(limits, extent)
    at = torch.where(extent.isnan(), torch.zeros_like(at), at)
    last = limits.numel() - 1
    low, high = limits[(at - 1).clamp_min(0)], limits[at.clamp_max(last)]
    below = (at > last) | ((at > 0) & (extent - low <= high - extent))
    return (at - below.long()).to(torch.int32)


def check_indptr(indptr: Tensor, num_edges: int) -> None:
    """Raises GraphError unless ``indptr`` describes rows of ``num_edges`` edges."""
    descents = (indptr[1:] < indptr[:-1]).any()
    if int(indptr[0]) != 0 or int(indptr[-1]) != num_edges or bool(descents):
        raise GraphError(
            f"indptr must start at 0, not decrease and end at the number of edges, {num_edges}"
        )


def _edge_rows(indptr: Tensor, num_edges: int) -> Tensor:
    """Row of every edge."""
    check_indptr(indptr, num_edges)
    degree = indptr[1:] - indptr[:-1]
    return torch.repeat_interleave(
        torch.arange(degree.numel(), device=indptr.device), degree, output_size=num_edges
    )


def spmm(indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int) -> Tensor:
    """int32 ``[R, C]``: sum of the codes of each row's edges."""
    weight = torch.ones((indices.numel(), 1), dtype=torch.uint8, device=indices.device)
    return spmm_weighted(indptr, indices, packed, bits, num_cols, weight)


def spmm_weighted(
    indptr: Tensor, indices: Tensor, packed: Tensor, bits: int, num_cols: int, weight: Tensor
) -> Tensor:
    """int32 ``[R, C]``: weighted sum; head ``h`` of ``weight [E, H]`` weighs its C / H columns."""
    num_rows, num_edges, heads = indptr.numel() - 1, indices.numel(), weight.size(1)
    rows = _edge_rows(indptr, num_edges)
    codes = unpack(packed, bits, num_cols).to(torch.int32)
    out = codes.new_zeros((num_rows, num_cols))
    step = max(1, _CHUNK // max(1, num_cols))
    for e in range(0, num_edges, step):
        part = slice(e, min(e + step, num_edges))
        message = codes.index_select(0, indices[part])
        factor = weight[part].to(torch.int32)
        if heads == 1:
            message = message * factor
        else:
            grouped = message.view(-1, heads, num_cols // heads) * factor.unsqueeze(-1)
            message = grouped.view(-1, num_cols)
        out.index_add_(0, rows[part], message)
    return out


def rescale(
    acc: Tensor,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """``((acc - row_offset * col_offset) * col_scale) * row_scale + bias``, in this order."""

    def spread(t: Tensor) -> Tensor:
        return t if t.size(1) == 1 else t.repeat_interleave(acc.size(1) // t.size(1), dim=1)

    y = acc.to(torch.float32)
    if col_offset is not None:
        y = y - (col_offset if row_offset is None else spread(row_offset) * col_offset)
    y = y * col_scale
    if row_scale is not None:
        y = y * spread(row_scale)
    return y if bias is None else y + bias


def propagate(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    factor: Tensor | None,
    scale: Tensor,
    zero_point: Tensor,
    made_with: Tensor,
    bits: Sequence[int],
    coefficients: Sequence[float],
    laplacian: bool,
    teleport: float,
) -> Tensor:
    """Step after step, each with the operators above; see ``nodebits.ops.propagate``."""
    degree = indptr.diff().float().view(-1, 1)
    column = None if factor is None else factor.view(-1, 1)
    rounds = iter(range(len(bits)))

    def neighbor_sum(values: Tensor) -> Tensor:
        i = next(rounds)
        packed = quantize_pack(values, scale[i], made_with[i], 1, bits[i], factor)
        acc = spmm(indptr, indices, packed, bits[i], x.size(1))
        return rescale(acc, scale[i], zero_point[i], degree, column, None)

    state, pull = x, teleport * x
    for coefficient in coefficients:
        stepped = neighbor_sum(state) * (1 - teleport) + pull
        if coefficient != 0.0:
            change = stepped - state
            spread = neighbor_sum(change)
            stepped = stepped + (change - spread if laplacian else spread) * coefficient
        state = stepped
    return state


def finish(
    y: Tensor,
    relu: bool,
    scale: list[Tensor],
    zero_point: list[Tensor],
    out_bits: list[int],
    row_factor: list[Tensor | None],
    widths: list[Tensor | None],
    position: list[Tensor | None],
    shift: list[Tensor | None],
    post_scale: Tensor | None,
    post_shift: Tensor | None,
) -> list[Tensor]:
    """Float rows, or what each quantizer makes of them, after an optional affine and ReLU."""
    if post_scale is not None and post_shift is not None:
        y = y * post_scale + post_shift
    if relu:
        y = torch.relu(y)
    if not out_bits:
        return [y]
    out = []
    for i, bits in enumerate(out_bits):
        s, z, factor, width = scale[i], zero_point[i], row_factor[i], widths[i]
        if width is None:
            out.append(quantize_pack(y, s, z, -1 if s.numel() == 1 else 1, bits, factor))
        else:
            out.append(_mixed(y, s, z, factor, width, position[i], shift[i]))
    return out


def _mixed(
    y: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    factor: Tensor | None,
    widths: Tensor,
    position: Tensor | None,
    shift: Tensor | None,
) -> Tensor:
    """Rows of several widths: in buckets (a scale per row), or as shifted bytes."""
    if position is not None:
        return quantize_pack_bucketed(y, scale, zero_point, 0, widths, position, factor)
    assert shift is not None
    power = torch.exp2(-shift.float())
    factor = power if factor is None else factor * power
    axis = -1 if scale.numel() == 1 else 1
    codes = y.new_empty(y.shape, dtype=torch.uint8)
    for bits in range(1, 9):
        nodes = (widths == bits).nonzero().view(-1)
        zeros = zero_point[bits - 1 : bits]
        made = fake_quantize(y[nodes] * factor[nodes].view(-1, 1), scale, zeros, axis, bits)
        codes[nodes] = made.to(torch.uint8)
    return codes << shift.view(-1, 1)


def fused_spmm(
    indptr: Tensor,
    indices: Tensor,
    packed: Tensor,
    bits: int,
    num_cols: int,
    weight: Tensor | None,
    acc_scale: Tensor | None,
    acc_offset: Tensor | None,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
    own: Tensor | None,
    own_factor: Tensor | None,
) -> Tensor:
    """The float rows of a neighbour sum; :func:`finish` goes on from them."""
    if weight is None:
        acc = spmm(indptr, indices, packed, bits, num_cols)
    else:
        acc = spmm_weighted(indptr, indices, packed, bits, num_cols, weight)
    if acc_scale is not None:
        acc = acc * acc_scale.view(-1, 1)
    if acc_offset is not None:
        acc = acc + acc_offset.view(-1, 1)
    y = rescale(acc, col_scale, col_offset, row_offset, row_scale, bias)
    if own is not None and own_factor is not None:
        centred = unpack(own, bits, num_cols).to(torch.float32)
        if col_offset is not None:
            centred = centred - col_offset
        y = y + own_factor * (centred * col_scale)
    return y


def fused_gemm(
    x_packed: list[Tensor],
    x_bits: list[int],
    num_cols: list[int],
    w_packed: list[Tensor],
    w_bits: list[int],
    midrise: list[bool],
    col_scale: list[Tensor],
    col_offset: list[Tensor | None],
    row_scale: list[Tensor | None],
    bias: list[Tensor | None],
) -> Tensor:
    """The sum of the float rows of several products, added from left to right."""
    total: Tensor | None = None
    for i in range(len(x_packed)):
        acc = gemm(x_packed[i], x_bits[i], num_cols[i], w_packed[i], w_bits[i], midrise[i])
        y = rescale(acc, col_scale[i], col_offset[i], None, row_scale[i], bias[i])
        total = y if total is None else total + y
    assert total is not None
    return total


def fused_gemm_bucketed(
    packed: Tensor,
    order: Tensor,
    counts: Sequence[int],
    num_cols: int,
    w_packed: Tensor,
    w_bits: int,
    midrise: bool,
    col_scale: Tensor,
    col_offset: Tensor | None,
    row_offset: Tensor | None,
    row_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The float rows of a product of rows of several widths."""
    codes = unpack_bucketed(packed, order, counts, num_cols)
    acc = gemm(codes, 8, num_cols, w_packed, w_bits, midrise)
    return rescale(acc, col_scale, col_offset, row_offset, row_scale, bias)


def exp_nonpositive(t: Tensor) -> Tensor:
    """``exp(t)`` for ``t <= 0``, the same float32 on every backend; exp(-87) below it and for NaN.

    ``t = k ln 2 + r`` with ln 2 split in two floats, a Taylor polynomial of degree 6 on
    ``|r| <= 0.347`` (relative error below 2e-7), and ``2^k`` put together in the exponent bits.
    """
    t = torch.where(t > -87.0, t, torch.full_like(t, -87.0))
    k = (t * 1.44269504088896341).round()
    r = (t - k * 0.693359375) - k * -2.12194440e-4
    p = torch.full_like(r, 1.3888889e-3)
    for c in (8.3333333e-3, 4.1666668e-2, 1.6666667e-1, 0.5, 1.0, 1.0):
        p = p * r + c
    return p * ((k.to(torch.int32) + 127) << 23).view(torch.float32)


def edge_softmax(
    indptr: Tensor,
    indices: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    bits: int,
) -> tuple[Tensor, Tensor]:
    """Codes ``rne(exp(e - max_row) * qmax)`` uint8 ``[E, H]`` and their row sums int32 ``[R, H]``.

    ``e = leaky_relu(score_src[j] + score_dst[i])``. A NaN score counts as -inf; a row whose maximum
    is infinite gets codes 0.
    """
    num_rows, heads = indptr.numel() - 1, score_src.size(1)
    rows = _edge_rows(indptr, indices.numel())
    qmax = float((1 << bits) - 1)
    e = score_src.index_select(0, indices) + score_dst.index_select(0, rows)
    e = torch.where(e > 0, e, e * negative_slope)
    e = torch.where(e.isnan(), torch.full_like(e, -torch.inf), e)
    top = e.new_full((num_rows, heads), -torch.inf)
    if e.numel():
        top.scatter_reduce_(0, rows.view(-1, 1).expand_as(e), e, "amax")
    v = exp_nonpositive(e - top.index_select(0, rows)) * qmax
    codes = torch.where(v < qmax, v, torch.full_like(v, qmax)).round()
    row_sum = torch.zeros((num_rows, heads), dtype=torch.int32, device=e.device)
    row_sum.index_add_(0, rows, codes.to(torch.int32))
    return codes.to(torch.uint8), row_sum


def coo_to_csr(row: Tensor, col: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Stable sort of edges by row: indptr int64, indices int32 and the permutation int64."""
    perm = torch.argsort(row, stable=True)
    indptr = torch.zeros(num_rows + 1, dtype=torch.int64, device=row.device)
    indptr[1:] = torch.bincount(row, minlength=num_rows).cumsum(0)
    return indptr, col.index_select(0, perm).to(torch.int32), perm
