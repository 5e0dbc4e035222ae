"""What operators are told: the edges, the rows that go in, and what follows the integer sum.

Every record checks itself. Its fields, in this order, are arguments of the schemas and of the
structs of ``csrc/bindings/records.h``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.codings.base import coding_of
from nodebits.core.errors import ShapeError
from nodebits.core.packing import unpack
from nodebits.core.places import check_places, check_shifts
from nodebits.ops import checks
from nodebits.ops.edge_blocks import known_blocks


class Edges(NamedTuple):
    """A CSR adjacency, rows of targets.

    Attributes:
        indptr: int64 ``[R + 1]``.
        indices: int32 ``[E]``, rows of the source; looked at once per tensor.
        weight: uint8 ``[E, H]``: head h weighs columns ``h * C / H ..``; None for unit weights.
        blocks: The same edges as :func:`nodebits.ops.edge_blocks` regrouped them, or None; not
            read with ``weight``.
    """

    indptr: Tensor
    indices: Tensor
    weight: Tensor | None = None
    blocks: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """R."""
        return self.indptr.size(0) - 1

    def checked(self, source: Tensor, name: str, num_cols: int) -> Edges:
        """Compared with the table of the sources and its columns.

        Raises:
            ShapeError: If a type or shape does not fit.
            NodeIndexError: If an edge leads outside of the table.
            GraphError: If ``blocks`` are those of another graph.
        """
        indptr, indices = checks.csr(self.indptr, self.indices)
        weight, blocks = self.weight, self.blocks
        checks.has_rows(indices, source, name)
        if weight is not None:
            weight = checks.tensor(weight, "weight", torch.uint8, 2)
            if weight.size(0) != indices.numel() or not weight.size(1) or num_cols % weight.size(1):
                raise ShapeError(
                    f"weight must be [{indices.numel()}, H] with H a divisor of {num_cols} "
                    f"columns, got {list(weight.shape)}"
                )
        if blocks is not None:
            blocks = known_blocks(blocks, indptr, indices, source.size(0))
        return Edges(indptr, indices, weight, blocks)


class Source(NamedTuple):
    """Packed rows of one width.

    Attributes:
        packed: uint8 ``[S, ceil(num_cols * bits / 8)]``.
        bits: 1 to 8.
        num_cols: C, or K of a product.
        coding: Number of the coding of the fields (:mod:`nodebits.core.codings`); 0 is unsigned.
    """

    packed: Tensor
    bits: int
    num_cols: int
    coding: int = 0

    def checked(self, name: str = "packed") -> Source:
        """Compared with width, shape and coding.

        Raises:
            BitwidthError: If the width is not 1 to 8.
            ShapeError: If the shape does not fit.
            CodingError: If there is no such coding, it has not this width, or a field in
                ``packed`` stands for no code.
        """
        packed = checks.packed_rows(self.packed, name, self.bits, self.num_cols)
        if self.coding:
            coding_of(self.coding).check_fields(packed, self.bits, self.num_cols, name)
        return self._replace(packed=packed)

    def codes(self) -> Tensor:
        """Unpacked, uint8 ``[S, C]``: what operators compute on."""
        plain = coding_of(self.coding).decode(self.packed, self.bits, self.num_cols)
        return unpack(plain, self.bits, self.num_cols)


class Other(NamedTuple):
    """Rows that meet those of a :class:`Source` at an edge: its fields under names of their own.

    Attributes:
        other: uint8 ``[N, ceil(other_cols * other_bits / 8)]``.
        other_bits: 1 to 8.
        other_cols: C, that of the source, where the two are compared or added.
        other_coding: Number of the coding of the fields.
    """

    other: Tensor
    other_bits: int
    other_cols: int
    other_coding: int = 0


class Value(NamedTuple):
    """Rows that are weighed by what others make of an edge: fields as those of :class:`Other`.

    Attributes:
        value: uint8 ``[S, ceil(value_cols * value_bits / 8)]``.
        value_bits: 1 to 8.
        value_cols: C, that of the source.
        value_coding: Number of the coding of the fields.
    """

    value: Tensor
    value_bits: int
    value_cols: int
    value_coding: int = 0


class Joined(NamedTuple):
    """Rows of edges that are added to those of a :class:`Source`; fields as of :class:`Other`.

    Attributes:
        joined: uint8 ``[M, ceil(joined_cols * joined_bits / 8)]``.
        joined_bits: 1 to 8.
        joined_cols: C, that of the source.
        joined_coding: Number of the coding of the fields.
        joined_order: int64 ``[E]``, the row of every edge; None where they come as the edges do.
    """

    joined: Tensor
    joined_bits: int
    joined_cols: int
    joined_coding: int = 0
    joined_order: Tensor | None = None


class Mixed(NamedTuple):
    """Rows of several widths, in buckets (:mod:`nodebits.core.row_layout`).

    Attributes:
        packed: uint8 ``[bytes]``.
        order: int32 ``[N]``, rows sorted by width and position.
        counts: Rows of each width 1 to 8.
        num_cols: C, or K of a product.
    """

    packed: Tensor
    order: Tensor
    counts: list[int]
    num_cols: int

    def checked(self) -> Mixed:
        """Raises ShapeError where the sizes are not those of the buckets."""
        order = checks.buckets(self.order, self.counts)
        packed = checks.bucketed(self.packed, self.counts, self.num_cols)
        return Mixed(packed, order, list(self.counts), self.num_cols)


class Weight(NamedTuple):
    """Packed rows of a weight.

    Attributes:
        w_packed: uint8 ``[M, ceil(K * w_bits / 8)]``, two's complement fields c.
        w_bits: 1 to 8.
        midrise: The weight is ``2c + 1`` instead of ``c`` (``w_bits`` up to 7).
    """

    w_packed: Tensor
    w_bits: int
    midrise: bool = False

    def checked(self, depth: int) -> Weight:
        """Compared with K columns.

        Raises:
            BitwidthError: If a width is not 1 to 8.
            ShapeError: If the shape does not fit.
            ValueError: If midrise values would not fit int8.
        """
        packed = checks.weight_rows(self.w_packed, self.w_bits, depth, self.midrise)
        return self._replace(w_packed=packed)


def spread_heads(per_head: Tensor, num_cols: int) -> Tensor:
    """``[N, H]`` -> ``[N, C]`` (or ``[N, 1]``, which broadcasts)."""
    if per_head.size(1) == 1:
        return per_head
    return per_head.repeat_interleave(num_cols // per_head.size(1), dim=1)


class Epilogue(NamedTuple):
    """``((float(acc) - row_offset * col_offset) * col_scale) * row_scale + bias`` in float32.

    Attributes:
        col_scale: float32 ``[C]``, or one value.
        col_offset: float32 ``[C]`` or one value; None subtracts nothing.
        row_offset: float32 ``[N, H]``, H groups of columns; None stands for 1.
        row_scale: float32 ``[N, H]`` or None.
        bias: float32 ``[C]``, one value or None.
    """

    col_scale: Tensor
    col_offset: Tensor | None = None
    row_offset: Tensor | None = None
    row_scale: Tensor | None = None
    bias: Tensor | None = None

    def checked(self, rows: int, cols: int) -> Epilogue:
        """Expanded to ``[cols]`` and ``[rows, H]``; raises ShapeError where something is not."""
        col_scale, col_offset, bias = checks.epilogue_columns(
            self.col_scale, self.col_offset, self.bias, cols
        )
        row_offset, row_scale = checks.row_factors((rows, cols), self.row_offset, self.row_scale)
        return Epilogue(col_scale, col_offset, row_offset, row_scale, bias)

    def apply(self, acc: Tensor) -> Tensor:
        """Of sums ``[N, C]``: float32, one rounding per operation, in the order written above."""
        num_cols = acc.size(1)
        y = acc.to(torch.float32)
        if self.col_offset is not None:
            rows, offset = self.row_offset, self.col_offset
            y = y - (offset if rows is None else spread_heads(rows, num_cols) * offset)
        y = y * self.col_scale
        if self.row_scale is not None:
            y = y * spread_heads(self.row_scale, num_cols)
        return y if self.bias is None else y + self.bias


class Product(NamedTuple):
    """A dense product and its epilogue."""

    source: Source
    weight: Weight
    epilogue: Epilogue

    @property
    def shape(self) -> tuple[int, int]:
        """Of its result."""
        return self.source.packed.size(0), self.weight.w_packed.size(0)

    @property
    def device(self) -> torch.device:
        """Of its result."""
        return self.source.packed.device

    def checked(self, place: int, expected: tuple[int, int] | None) -> Product:
        """Compared with the shape of the products before it.

        Args:
            place: Which product of a sum it is, for messages.
            expected: Shape of the others; None for the first.

        Raises:
            ShapeError: If something does not fit, or a row factor has several heads.
            BitwidthError: If a width is not 1 to 8.
        """
        source = self.source.checked("x_packed")
        weight = self.weight.checked(source.num_cols)
        rows, cols = source.packed.size(0), weight.w_packed.size(0)
        if expected is not None and expected != (rows, cols):
            raise ShapeError(
                f"product {place} has {rows} x {cols} results, the first {expected[0]} x "
                f"{expected[1]}"
            )
        epilogue = self.epilogue.checked(rows, cols)
        one_per_row(epilogue)
        return Product(source, weight, epilogue)


def one_per_row(epilogue: Epilogue) -> None:
    """Raises ShapeError unless the row factors have one value per row, as those of a product."""
    for name, t in (("row_offset", epilogue.row_offset), ("row_scale", epilogue.row_scale)):
        if t is not None and t.size(1) != 1:
            raise ShapeError(f"{name} of a product has one value per row, got {list(t.shape)}")


class Own(NamedTuple):
    """What a neighbour sum takes from its target: ``acc * acc_scale + acc_offset`` in int32, then
    ``y + own_factor * ((own_codes - col_offset) * col_scale)`` after the epilogue.

    Attributes:
        acc_scale: int32 ``[R]`` or None for 1.
        acc_offset: int32 ``[R]`` or None for 0.
        own: Packed rows ``[R]`` like those of the source, or None.
        own_factor: float32 ``[1]``, given with ``own``.
    """  # noqa: D205  one formula

    acc_scale: Tensor | None = None
    acc_offset: Tensor | None = None
    own: Tensor | None = None
    own_factor: Tensor | None = None

    def checked(self, rows: int, source: Source) -> Own:
        """Compared with the rows of the result; raises ShapeError where something differs."""
        own, factor = self.own, self.own_factor
        if (own is None) != (factor is None):
            raise ShapeError("own and own_factor come together")
        if own is not None and factor is not None:
            own = source._replace(packed=own).checked("own").packed
            if own.size(0) != rows:
                raise ShapeError(f"own has {own.size(0)} rows, the sum {rows}")
            dense = factor.dtype == torch.float32 and factor.layout == torch.strided
            if not dense or factor.numel() != 1:
                raise ShapeError("own_factor must be one float32 value")
            factor = checks.plain(factor.reshape(1))
        return Own(
            None
            if self.acc_scale is None
            else checks.of_rows(self.acc_scale, "acc_scale", torch.int32, rows),
            None
            if self.acc_offset is None
            else checks.of_rows(self.acc_offset, "acc_offset", torch.int32, rows),
            own,
            factor,
        )


class Output(NamedTuple):
    """A quantizer that reads a fused result.

    With ``widths`` it makes rows of several widths: with ``position`` those of
    :func:`nodebits.ops.quantize_pack_bucketed`, with ``shift`` bytes ``code << shift`` of values
    over ``scale * 2^shift``, which :func:`nodebits.ops.spmm` sums.

    Attributes:
        scale: float32 ``[1]`` or ``[C]``; with ``position`` ``[R]``.
        zero_point: As many values or one; with ``widths`` one per width, ``[8]``.
        out_bits: 1 to 8; not read with ``widths``.
        row_factor: float32 ``[R]``, multiplied first, or None.
        widths: uint8 ``[R]``, 1 to 8, or None.
        position: int32 ``[R]``, place of every row in the bucket of its width, or None.
        shift: uint8 ``[R]``, ``width + shift <= 8``, or None.
    """

    scale: Tensor
    zero_point: Tensor
    out_bits: int
    row_factor: Tensor | None = None
    widths: Tensor | None = None
    position: Tensor | None = None
    shift: Tensor | None = None

    def checked(self, rows: int, cols: int) -> Output:
        """Compared with a result ``[rows, cols]``.

        Raises:
            ShapeError: If something does not fit; the message names it.
            BitwidthError: If the width is not 1 to 8.
        """
        check_bits(self.out_bits, "out_bits")
        mixed, per_row = self.widths is not None, self.position is not None
        if (not mixed and (per_row or self.shift is not None)) or (
            mixed and per_row == (self.shift is not None)
        ):
            raise ShapeError("rows of several widths have widths and either a position or a shift")
        length = rows if per_row else 1 if self.scale.numel() == 1 else cols
        zeros = 8 if mixed else length
        for name, t, least, most in (
            ("scale", self.scale, length, length),
            ("zero_point", self.zero_point, 8 if mixed else 1, zeros),
        ):
            dense = t.dtype == torch.float32 and t.layout == torch.strided
            if not dense or t.numel() not in (least, most):
                raise ShapeError(
                    f"{name} of a result must be float32 [{most}]"
                    f"{'' if least == most else ' or one value'}, got {t.dtype} {list(t.shape)}"
                )
        made = Output(
            checks.flat(self.scale, length),
            checks.flat(self.zero_point, zeros),
            self.out_bits,
            None
            if self.row_factor is None
            else checks.of_rows(self.row_factor, "row_factor", torch.float32, rows),
            None
            if self.widths is None
            else checks.of_rows(self.widths, "widths", torch.uint8, rows),
            None
            if self.position is None
            else checks.of_rows(self.position, "position", torch.int32, rows),
            None if self.shift is None else checks.of_rows(self.shift, "shift", torch.uint8, rows),
        )
        if made.widths is not None and made.position is not None:
            check_places(made.widths, made.position)
        if made.widths is not None and made.shift is not None:
            check_shifts(made.widths, made.shift)
        return made


class Sink(NamedTuple):
    """How a fused operator goes on from its float rows.

    Attributes:
        relu: Whether negative values become 0.
        outputs: The quantizers that read the result; none for the float rows alone.
        post_scale: float32 ``[C]`` or None: ``y * post_scale + post_shift``, rounded twice, goes
            to the ReLU (an evaluated batch norm).
        post_shift: float32 ``[C]``, given with ``post_scale``.
    """

    relu: bool = False
    outputs: list[Output] = []  # noqa: RUF012  a default of a named tuple, never written to
    post_scale: Tensor | None = None
    post_shift: Tensor | None = None

    def checked(self, rows: int, cols: int) -> Sink:
        """Compared with a result ``[rows, cols]``; raises what its outputs raise."""
        scale, shift = self.post_scale, self.post_shift
        if (scale is None) != (shift is None):
            raise ShapeError("post_scale and post_shift come together")
        for name, t in (("post_scale", scale), ("post_shift", shift)):
            if t is None:
                continue
            dense = t.dtype == torch.float32 and t.layout == torch.strided
            if not dense or tuple(t.shape) != (cols,):
                raise ShapeError(f"{name} must be float32 [{cols}], got {t.dtype} {list(t.shape)}")
        return Sink(
            self.relu,
            [output.checked(rows, cols) for output in self.outputs],
            None if scale is None else checks.flat(scale, cols),
            None if shift is None else checks.flat(shift, cols),
        )


def check_devices(*records: object) -> None:
    """Raises ShapeError unless all tensors in the records are on one device."""
    named: list[tuple[str, Tensor]] = []
    for record in records:
        _collect("an argument", record, named)
    if named:
        checks.same_device(*named)


def _collect(name: str, value: object, into: list[tuple[str, Tensor]]) -> None:
    if isinstance(value, Tensor):
        into.append((name, value))
    elif isinstance(value, list):
        for part in value:
            _collect(name, part, into)
    elif isinstance(value, tuple):
        for field, part in zip(value._fields, value, strict=True):  # type: ignore[attr-defined]
            _collect(field, part, into)
