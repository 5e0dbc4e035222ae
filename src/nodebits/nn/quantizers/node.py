"""Rows that learn a bitwidth and a range each: the quantizers of A2Q (Zhu et al., ICLR 2023).

A row i has a width ``b_i`` and a range ``r_i``; its step is ``s_i = r_i / (2^b_i - 1)`` (twice that
where codes stand for both signs). Learning range and width instead of step and width is the same
family of quantizers, but the step follows when the width moves, and the error of a row tells its
width something even where nothing is clipped. Both are kept as logarithms and clamped: ranges are
positive, widths in [1, 8], by construction.

**Local gradient** (node tasks): range and width descend the row's own error ``E_i = mean_j
|x_q,ij - x_ij|``, the task loss reaches x alone, by a straight-through estimator that is zero
outside the range. **Task gradient** (graph tasks): they get the gradient of the loss.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nodebits import ops
from nodebits.core.affine import MIN_SCALE, Codes
from nodebits.core.distributed import rows_of_all_ranks, world_size
from nodebits.core.errors import ConfigError, NotCalibratedError
from nodebits.core.row_layout import WIDTH_BITS
from nodebits.engine.by_width import groups_bytes, row_extent
from nodebits.engine.sites import NearestRows, PerNodeRows, RowQuantizer
from nodebits.graph.scope import current_scope
from nodebits.nn.quantizers.per_node import PerNode, codes_of
from nodebits.nn.quantizers.row_gradients import RowFakeQuantize, local_error
from nodebits.ops.autograd import RoundSTE

# A table of scales spans this many octaves, whatever its number of bits.
SCALE_OCTAVES = 16
# Logarithm of a range below which a row held nothing when it was found.
NOTHING = math.log2(MIN_SCALE) + 1
_TRIES = 12  # ranges tried per row at the first batch, as shares of its largest value


class NodeQuantizer(PerNode):
    """A width and a scale per row, learned; for ``input`` sites.

    What a row is, is decided by the first batch: a node of one graph, or, where the training loop
    says that rows come from a batch of graphs, a member of one of ``groups`` groups, the one whose
    range is nearest to the row's largest value (Nearest Neighbour Strategy).

    Args:
        initial_bits: Width that all rows start with.
        groups: Number of groups where rows belong to no fixed graph.
        gradient: ``"local"``, ``"task"``, or ``"auto"``: local for nodes, task for groups.
        scale_bits: Bits that a stored scale takes: 32, or fewer for a table of
            ``2^scale_bits`` scales over 16 octaves.
        fallback: Whether other graphs than that of training are served by nearest pairs.
        protectable: See :class:`Quantizer`.
    """

    nearest: Tensor
    fixed: Tensor
    price: Tensor
    weight: Tensor
    impact: Tensor
    usage: Tensor
    origin: Tensor

    def __init__(
        self,
        initial_bits: float = 4.0,
        *,
        groups: int = 1000,
        gradient: str = "auto",
        scale_bits: int = 8,
        fallback: bool = False,
        protectable: bool = False,
    ) -> None:
        super().__init__(fallback, ("width", "log_range", "usage"))
        self.initial_bits, self.groups = initial_bits, groups
        self.gradient, self.scale_bits = gradient, scale_bits
        self.protectable = protectable
        self.width = nn.Parameter(torch.empty(0))
        self.log_range = nn.Parameter(torch.empty(0))
        self.register_buffer("nearest", torch.zeros((), dtype=torch.bool))
        self.register_buffer("fixed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("price", torch.zeros(()))
        self.register_buffer("weight", torch.ones(()))
        self.register_buffer("impact", torch.zeros(()))
        self.register_buffer("origin", torch.zeros(()))
        self.register_buffer("usage", torch.zeros(0))
        self._top: Tensor | None = None
        self.local_error: Tensor | None = None
        self.width_cost: Tensor | None = None

    # --- state ---

    @property
    def num_rows(self) -> int:
        """Nodes, or groups; 0 before the first batch."""
        return self.width.numel()

    def __getstate__(self) -> dict[str, Any]:
        # Part of the last forward's graph, which a copy of the module has no use for.
        return {**self.__dict__, "local_error": None, "width_cost": None}

    def row_top(self, x: Tensor) -> Tensor | None:
        top = self._top
        return top if top is not None and top.size(0) == x.size(0) else None

    def reset(self) -> None:
        super().reset()
        self.width.data = self.width.data.new_empty(0)
        self.log_range.data = self.log_range.data.new_empty(0)
        self.fixed.fill_(False)

    @property
    def settled(self) -> bool:
        started = bool(self.nearest) or not bool((self.log_range <= NOTHING).any())
        return bool(self.signed) and started

    def join(self, x: Tensor) -> Tensor:
        """See :meth:`Quantizer.join`: values of the same nodes, unless rows are of many graphs."""
        return rows_of_all_ranks(x) if _of_batch() else super().join(x)

    def collect(self, x: Tensor) -> Tensor:
        """See :meth:`Quantizer.collect`: further calls are further values of the same nodes."""
        if _of_batch():
            seen: Tensor = self.seen.add(x)
            return seen
        return super().collect(x)

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        """See :meth:`Quantizer.estimate`: sign, table of scales, and a range per node or group."""
        scope = current_scope()
        self.signed.fill_(bool((x < 0).any()))
        self.nearest.fill_(scope.batch is not None)
        if scope.batch is None and not self.seen:
            self._note_graph()
        largest = row_extent(x, bool(self.signed))
        # The middle of the table of scales: the step of a typical row at the first width.
        typical = largest[largest > MIN_SCALE]
        middle = float(typical.median().log2()) if typical.numel() else 0.0
        self.origin.fill_(round(middle - self.initial_bits - SCALE_OCTAVES / 2))
        extent = self._extents(x, largest)
        self.log_range.data = extent.log2()
        self.width.data = torch.full_like(extent, float(self.initial_bits))
        self.usage = torch.full_like(extent, 0.0 if bool(self.nearest) else 1.0)

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        """See :meth:`Quantizer.follow`: a sign that appears, rows that held nothing before."""
        turned = not bool(self.signed) and bool((x < 0).any())
        empty = self.log_range <= NOTHING
        if not turned and (bool(self.nearest) or not bool(empty.any())):
            return
        if bool(empty.all()):
            self.estimate(x)
            return
        self.signed.fill_(bool(self.signed) or turned)
        found = self._extents(x, row_extent(x, bool(self.signed))).log2()
        if bool(self.nearest):  # both by rank: groups are what their order says
            order = self.log_range.argsort(stable=True)
            found = torch.empty_like(found).index_copy_(0, order, found)
        wider = torch.maximum(self.log_range, found)
        self.log_range.copy_(wider if turned else torch.where(empty, wider, self.log_range))

    @torch.no_grad()
    def widen(self, x: Tensor) -> None:
        """See :meth:`Quantizer.widen`: ranges of rows that hold more than twice as much."""
        self.follow(x)
        if bool(self.nearest):
            return
        found = self._extents(x, row_extent(x, bool(self.signed))).log2()
        self.log_range.copy_(torch.where(found > self.log_range + 1, found, self.log_range))

    def _extents(self, x: Tensor, largest: Tensor) -> Tensor:
        """Range of every node or group, positive."""
        extent = self._first_ranges(x, largest).clamp_min(MIN_SCALE)
        if bool(self.nearest):
            extent = torch.quantile(
                _sample(extent), torch.linspace(0, 1, self.groups, device=extent.device)
            )
        return extent

    def _first_ranges(self, x: Tensor, largest: Tensor) -> Tensor:
        """Range of least error per row at the first width, ``[N]``."""
        widths = torch.full_like(largest, self.initial_bits).round()
        best, error = largest, torch.full_like(largest, torch.inf)
        for share in range(1, _TRIES + 1):
            extent = largest * (share / _TRIES)
            step, zero_point, top = self._steps(extent.clamp_min(MIN_SCALE).log2(), widths)
            codes = torch.round(x / step + zero_point).clamp_min(0).minimum(top)
            found = ((codes - zero_point) * step - x).square().mean(1)
            best = torch.where(found < error, extent, best)
            error = torch.minimum(found, error)
        return best

    # --- widths ---

    def rounded_widths(self) -> Tensor:
        """Width of every node or group, float32 integers in [1, 8]."""
        return self.width.detach().clamp(1, 8).round()

    def mean_bits(self) -> float:
        """Mean width over nodes, or over the rows that the groups served."""
        if self.num_rows == 0:
            return float(self.initial_bits)
        weight = self.usage if float(self.usage.sum()) > 0 else torch.ones_like(self.usage)
        return float((self.rounded_widths() * weight).sum() / weight.sum())

    @torch.no_grad()
    def settle(self, delta: float) -> None:
        """Fixes the widths at ``round(b - delta)``; scales and ranges go on learning."""
        self.width.data = (self.width.data - delta).clamp(1, 8).round()
        self.fixed.fill_(True)

    # --- forward ---

    def _widths(self) -> Tensor:
        width = self.width.detach() if bool(self.fixed) else self.width
        rounded: Tensor = RoundSTE.apply(width.clamp(1, 8))
        return rounded

    def _steps(self, log_range: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(step, zero point, top code) of rows, ``[N, 1]`` each, the step as it is stored."""
        top = torch.exp2(widths) - 1
        log_step = log_range - top.log2() + float(self.signed)
        step = self._stored(log_step, widths)
        zero_point = top * (0.5 if bool(self.signed) else 0.0)
        return step.view(-1, 1), zero_point.view(-1, 1), top.view(-1, 1)

    def scale_table(self) -> Tensor:
        """All scales that can be stored, float32 ``[2^scale_bits]``."""
        count = 1 << self.scale_bits
        exponent = torch.arange(count, dtype=torch.float64, device=self.origin.device) * (
            SCALE_OCTAVES / count
        )
        return torch.exp2(exponent + float(self.origin)).float()

    def scale_index(self, log_step: Tensor) -> Tensor:
        """Position of the nearest scale (by ratio) in :meth:`scale_table`."""
        per_octave = (1 << self.scale_bits) / SCALE_OCTAVES
        position = (log_step.detach() - self.origin) * per_octave
        return position.round().clamp(0, (1 << self.scale_bits) - 1).long()

    def _stored(self, log_step: Tensor, widths: Tensor) -> Tensor:
        """The step as a packed row has it, with the gradient of ``2^log_step``."""
        if self.scale_bits == 32:
            return torch.exp2(log_step)
        chosen = self.scale_table()[self.scale_index(log_step)]
        # The value of the table, the gradient of the exponential.
        return chosen * torch.exp2(log_step - log_step.detach())

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(log range, width) of every row of ``x``; differentiable in both."""
        if not bool(self.nearest):
            return self.log_range, self._widths()
        limits = torch.exp2(self.log_range.detach())
        order = limits.argsort(stable=True)
        extent = row_extent(x.detach(), bool(self.signed))
        group = order[ops.nearest_group(extent, limits[order]).long()]
        if self.observing:
            count = torch.bincount(group, minlength=self.num_rows).float()
            self.usage.mul_(0.9).add_(count, alpha=0.1)
        return self.log_range[group], self._widths()[group]

    def _local(self) -> bool:
        return self.gradient == "local" or (self.gradient == "auto" and not bool(self.nearest))

    def _fits(self, x: Tensor) -> bool:
        return bool(self.nearest) or x.size(0) == self.num_rows

    def _ready(self, x: Tensor) -> bool:
        """Initializes at the first batch; False where ``x`` belongs to another graph."""
        if self.num_rows == 0:
            if self.training and world_size() > 1:
                raise NotCalibratedError(
                    "a width per row has parameters whose number follows from data, and "
                    "DistributedDataParallel needs to know them: call nodebits.calibrate(model, x, "
                    "edge_index) on every rank before wrapping the model"
                )
            if self.observing:
                self.observe(x.detach())
            if self.num_rows == 0:
                self._refuse_unseen()
        elif self.observing and self._fits(x):
            self.observe(x.detach())
        if self._fits(x):
            return True
        self._check_graph(x)
        return False

    def forward(self, x: Tensor) -> Codes:
        if not self._ready(x):
            self._top = None
            return codes_of(self.freeze(), x)
        log_range, widths = self._select(x)
        step, zero_point, top = self._steps(log_range, widths)
        if self.training:
            self._learn(x.detach(), step, zero_point, top, widths)
        if self._local():
            step, zero_point, top = step.detach(), zero_point.detach(), top.detach()
        self._top = top.detach()
        one = x.new_ones(1)
        codes: Tensor = RowFakeQuantize.apply(x, one, step, zero_point, top)
        if self.training:
            self._watch(codes, step.detach(), x)
        codes = self._protect(codes, x / step + zero_point)
        return self.touch(Codes(codes, step, zero_point, self.bits))

    def _protect(self, codes: Tensor, unrounded: Tensor) -> Tensor:
        """Rows that Degree-Quant's mask protects in this step keep their float values."""
        rows = self.protected_rows(codes)
        if rows is None or rows.numel() == 0:
            return codes
        mask = codes.new_zeros(codes.size(0), 1, dtype=torch.bool)
        mask[rows] = True
        return torch.where(mask, unrounded, codes)

    def _learn(
        self, x: Tensor, step: Tensor, zero_point: Tensor, top: Tensor, widths: Tensor
    ) -> None:
        """Keeps what :meth:`penalty` adds to the loss."""
        cost, error = widths.mean(), None
        if self._local():
            error = self.weight * local_error(x, step, zero_point, top)
        if self.observing:  # a second run for gradients saves the same tensors, and adds nothing
            self.width_cost, self.local_error = cost, error

    def _watch(self, codes: Tensor, scale: Tensor, x: Tensor) -> None:
        """Observes how much the task's loss changes per relative error at this site.

        Only the ratio between sites is used, see ``methods.budget``: errors of rows within a site
        compare as they are, but one of a logit and one of a hidden feature do not.
        """
        if not codes.requires_grad:
            return
        size = x.detach().abs().mean()

        def observe(grad: Tensor) -> None:
            found = (grad / scale).abs().mean() * size
            first = float(self.impact) == 0.0
            self.impact.copy_(found if first else 0.9 * self.impact + 0.1 * found)

        codes.register_hook(observe)

    def penalty(self) -> Tensor:
        """Mean error of the rows (local gradient) plus price times mean width.

        Raises:
            ConfigError: If the forward kept no gradients for it.
        """
        total = self.price.new_zeros(())
        error = self.local_error
        if error is not None and torch.is_grad_enabled() and self.log_range.requires_grad:
            if not error.requires_grad:
                raise ConfigError(
                    f"site {self.site_name!r}: the forward ran without gradients, so that nothing "
                    "would reach ranges and widths of rows; with torch.utils.checkpoint pass "
                    "use_reentrant=False"
                )
        if self.local_error is not None:
            total = total + self.local_error
        if self.width_cost is not None and not bool(self.fixed):
            total = total + self.price * self.width_cost
        self.local_error = self.width_cost = None
        return total

    # --- inference ---

    @torch.no_grad()
    def freeze(self) -> RowQuantizer:
        if self.num_rows == 0:
            raise NotCalibratedError("a width per row needs data: train or calibrate the model")
        widths = self.rounded_widths()
        signed = bool(self.signed)
        if bool(self.nearest):
            step = self._steps(self.log_range, widths)[0].view(-1)
            limits = torch.exp2(self.log_range)
            order = limits.argsort(stable=True)
            return NearestRows(step[order], widths[order], signed, limits[order])
        log_step = self.log_range - (torch.exp2(widths) - 1).log2() + float(signed)
        return PerNodeRows(
            widths,
            signed,
            scale=torch.exp2(log_step) if self.scale_bits == 32 else None,
            scale_bits=self.scale_bits,
            scale_index=None if self.scale_bits == 32 else self.scale_index(log_step),
            scale_table=None if self.scale_bits == 32 else self.scale_table(),
            fingerprint=int(self.fingerprint),
            fallback=self.fallback,
        )

    def scale_cost(self, num_rows: int) -> int:
        """Bits of scales and widths for ``num_rows`` rows, as the frozen form counts them."""
        if bool(self.nearest):
            return 8 * groups_bytes(num_rows, self.num_rows)
        table = 0 if self.scale_bits == 32 else 32 << self.scale_bits
        return num_rows * (WIDTH_BITS + self.scale_bits) + table


def _of_batch() -> bool:
    """Whether rows are those of a batch of graphs, rather than the nodes of one."""
    return current_scope().batch is not None


@torch.no_grad()
def _sample(values: Tensor, most: int = 100_000) -> Tensor:
    return values if values.numel() <= most else values[:: values.numel() // most + 1]
