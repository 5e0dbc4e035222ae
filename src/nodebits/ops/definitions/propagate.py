"""K steps of APPNP, or of its constrained form, on packed codes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nodebits.core.affine import check_bits
from nodebits.core.errors import ShapeError
from nodebits.ops import checks
from nodebits.ops.definitions.products import spmm
from nodebits.ops.definitions.rows import quantize_pack
from nodebits.ops.operator import Result, operator
from nodebits.ops.records import Edges, Epilogue, Source


class Rounds(NamedTuple):
    """How the rows of every neighbour sum are made and read, in their order.

    Attributes:
        scale: float32 ``[S, C]``.
        zero_point: float32 ``[S, C]``, for reading codes.
        made_with: float32 ``[S, C]``, the zero point for making them.
        bits: S widths.
    """

    scale: Tensor
    zero_point: Tensor
    made_with: Tensor
    bits: list[int]

    def checked(self, sums: int, num_cols: int) -> Rounds:
        """Compared with the number of neighbour sums and the columns.

        Raises:
            ShapeError: If a type or shape does not fit.
            BitwidthError: If a width is not 1 to 8.
        """
        if len(self.bits) != sums or not sums:
            raise ShapeError(
                f"bits has {len(self.bits)} entries for {sums} neighbour sums: one per step, and "
                "one more for every step with a coefficient"
            )
        for width in self.bits:
            check_bits(width)
        made = []
        for name, t in zip(self._fields[:3], self[:3], strict=True):
            made.append(checks.tensor(t, name, torch.float32, 2))
            if list(t.shape) != [sums, num_cols]:
                raise ShapeError(f"{name} must be [{sums}, {num_cols}], got {list(t.shape)}")
        return Rounds(made[0], made[1], made[2], list(self.bits))

    def epilogue(self, i: int, edges: Edges, factor: Tensor | None) -> Epilogue:
        """How the sums of round i are read: a zero point per edge, a factor per target."""
        degree = edges.indptr.diff().float().view(-1, 1)
        column = None if factor is None else factor.view(-1, 1)
        return Epilogue(self.scale[i], self.zero_point[i], degree, column)


class Steps(NamedTuple):
    """What the steps do.

    Attributes:
        coefficients: K numbers; ``S = K +`` how many of them are not 0.
        laplacian: Which correction.
        teleport: alpha.
    """

    coefficients: list[float]
    laplacian: bool = False
    teleport: float = 0.1


class Propagate(NamedTuple):
    """K steps at once.

    A step is ``F_bar = A Q(F) (1 - teleport) + teleport x``; where its coefficient c is not 0,
    ``D = F_bar - F`` and ``F' = F_bar + c A Q(D)``, or ``F_bar + c (D - A Q(D))`` with
    ``laplacian``; else ``F' = F_bar``. ``A`` is the adjacency between two diagonal factors.
    Equal, bit for bit, to the operators called one after another.

    Args:
        edges: A square adjacency without weights.
        x: float32 ``[N, C]``, the first state and the teleport.
        factor: float32 ``[N]`` on both sides of the adjacency, or None.
        rounds: Quantization of every neighbour sum.
        steps: What they are.

    Returns:
        float32 ``[N, C]``.
    """

    edges: Edges
    x: Tensor
    factor: Tensor | None
    rounds: Rounds
    steps: Steps

    def checked(self) -> Propagate:
        x = checks.tensor(self.x, "x", torch.float32, 2)
        indptr, indices = checks.csr(self.edges.indptr, self.edges.indices)
        edges, factor = self.edges._replace(indptr=indptr, indices=indices), self.factor
        if x.size(0) != edges.num_rows:
            raise ShapeError(f"x has {x.size(0)} rows for a square adjacency of {edges.num_rows}")
        if edges.weight is not None:
            raise ShapeError(
                "edges of steps in one operator have no weight: run the steps one by one"
            )
        edges = edges.checked(x, "x", x.size(1))
        if factor is not None:
            factor = checks.tensor(factor, "factor", torch.float32, 1)
            if factor.numel() != edges.num_rows:
                raise ShapeError(f"factor has {factor.numel()} values for {edges.num_rows} rows")
        coefficients = list(self.steps.coefficients)
        sums = sum(2 if c != 0.0 else 1 for c in coefficients)
        rounds = self.rounds.checked(sums, x.size(1))
        steps = self.steps._replace(coefficients=coefficients)
        return Propagate(edges, x, factor, rounds, steps)

    def results(self) -> Result:
        return Result(tuple(self.x.shape), torch.float32)

    def compute(self) -> Tensor:
        edges, factor, rounds = self.edges, self.factor, self.rounds

        def neighbor_sum(values: Tensor, i: int) -> Tensor:
            bits = rounds.bits[i]
            affine = rounds.scale[i], rounds.made_with[i]
            packed = quantize_pack.reference(values, *affine, 1, bits, factor)
            acc = spmm.reference(edges, Source(packed, bits, values.size(1)))
            return rounds.epilogue(i, edges, factor).apply(acc)

        return run_steps(neighbor_sum, self.x, self.steps)


propagate = operator(Propagate)


def run_steps(neighbor_sum: Callable[[Tensor, int], Tensor], x: Tensor, steps: Steps) -> Tensor:
    """The steps around their neighbour sums, which are given the number of their round."""
    order = itertools.count()
    state = x
    pull = steps.teleport * x if steps.teleport else None
    for coefficient in steps.coefficients:
        stepped = neighbor_sum(state, next(order))
        if pull is not None:  # else x is not read
            stepped = stepped * (1 - steps.teleport) + pull
        if coefficient != 0.0:
            change = stepped - state
            spread = neighbor_sum(change, next(order))
            stepped = stepped + (change - spread if steps.laplacian else spread) * coefficient
        state = stepped
    return state
