"""A2Q (Zhu et al., ICLR 2023): every node learns its own bitwidth, up to an average that is given.

What follows the paper: a learned scale and width per node at ``input`` sites, driven by the local
gradient on node tasks and by the task gradient on graph tasks, where rows find the nearest of m
pairs; a learned scale per column at ``message`` sites; weights of 4 bits with a learned scale per
output channel; a memory penalty.

What differs: the target is an average bitwidth, and reached (the released targets cannot be); the
multiplier adapts; widths are fixed for the last part of training, at the target; a checkpoint above
the target is never selected. By default messages have widths per node too, and scales are stored
in 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError
from nodebits.methods.base import (
    RAW_MIN_COLUMNS,
    QuantConfig,
    raw_features_quantizer,
    register_method,
)
from nodebits.methods.budget import Budget
from nodebits.methods.degree_quant import DegreeProtection
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import (
    LearnedQuantizer,
    LearnedWeightQuantizer,
    NodeMessageQuantizer,
    NodeQuantizer,
    Quantizer,
    RawNodeQuantizer,
    WeightQuantizer,
)

_MESSAGES = ("node", "column")
_SUMMING = ("GCNConv", "GINConv", "SAGEConv", "GraphConv")


@register_method("a2q")
@dataclass(frozen=True)
class A2QConfig(QuantConfig):
    """Learned widths per node.

    ``bits`` is the target average unless ``target_bits`` gives a finer one. Widths of single sites
    (``input_bits`` and so on, or overrides) take a site out of what is learned.

    Attributes:
        target_bits: Average to reach; None for ``bits``.
        count: What is averaged. ``"codes"``: the codes of all activation tensors of a forward,
            input included, by size. ``"all"``: with the bits of scales and widths. ``"published"``:
            the paper's count, the mean over hidden ``input`` sites of the mean width over nodes.
        message: ``"node"``: a width and a power of two per node beside the scale per column;
            ``"column"``: the paper's, ``message_bits`` (default 4) with a scale per column.
        initial_bits: Width that training starts from.
        raw_bits: Largest mean width of raw features; None for the target (8 in the published
            count).
        scale_bits: Bits of a stored scale per node: 32, or 4 to 8 for a table.
        groups: Pairs for rows that belong to no fixed graph (graph tasks).
        gradient: ``"auto"``, ``"local"`` or ``"task"``; see ``NodeQuantizer``.
        fallback: Whether the model serves other graphs by its nearest pairs.
        p_min: Degree-Quant's protection probability of the lowest degrees.
        p_max: Of the highest; 0 (both) for no protection.
        settle: Share of training after which widths are fixed.
        width_lr: Learning rate of widths, in bits.
        range_lr: Learning rate of ranges, in octaves.
        weight_bits: As in :class:`QuantConfig`; 4 by default, as in the paper.
        dropout: As in :class:`QuantConfig`; none by default: a range that a row learns from values
            that dropout scaled up is too wide for the row as inference sees it.
    """

    target_bits: float | None = None
    count: str = "codes"
    message: str = "node"
    initial_bits: int = 4
    raw_bits: float | None = None
    scale_bits: int = 8
    groups: int = 1000
    gradient: str = "auto"
    fallback: bool = False
    p_min: float = 0.0
    p_max: float = 0.0
    settle: float = 0.5
    width_lr: float = 0.05
    range_lr: float = 0.03
    weight_bits: int | None = 4
    dropout: float | None = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1.0 <= self.target <= 8.0:
            raise ConfigError(f"target_bits is {self.target}: an average width is 1 to 8")
        for name, known in (
            ("count", ("codes", "all", "published")),
            ("message", _MESSAGES),
            ("gradient", ("auto", "local", "task")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}: use one of {', '.join(known)}"
                )
        if self.scale_bits != 32 and not 4 <= self.scale_bits <= 8:
            raise ConfigError(f"scale_bits is {self.scale_bits}: use 4 to 8, or 32")
        if not 1 <= self.initial_bits <= 8:
            raise ConfigError(f"initial_bits is {self.initial_bits}: a width is 1 to 8")
        if self.groups < 1:
            raise ConfigError(f"groups is {self.groups}: there must be at least one")
        if not 0.0 < self.settle < 1.0:
            raise ConfigError(f"settle is {self.settle}: a share of training, in (0, 1)")
        if not 0.0 <= self.p_min <= self.p_max <= 1.0:
            raise ConfigError(f"p_min={self.p_min}, p_max={self.p_max}: need 0 <= p_min <= p_max")

    @property
    def target(self) -> float:
        """The average to reach."""
        return float(self.bits if self.target_bits is None else self.target_bits)

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        raw = site.num_cols >= RAW_MIN_COLUMNS
        if site.kind == "input" and self._learned(site, self.input_bits):
            if raw:
                limit = 8.0 if self.count == "published" else self.target
                limit = limit if self.raw_bits is None else self.raw_bits
                return RawNodeQuantizer(limit, fallback=self.fallback)
            return NodeQuantizer(self._start, **self._options())
        if site.kind == "message" and site.num_cols > 0 and not raw:
            per_node = self.message == "node" and site.layer_type in _SUMMING
            if per_node and self._learned(site, self.message_bits):
                return NodeMessageQuantizer(site.num_cols, self._start, **self._options())
            width = self._message_width(site, bits)
            return LearnedQuantizer(width, site.num_cols, centered=width <= 2)
        made = raw_features_quantizer(site, self._message_width(site, bits))
        if made is not None:
            return made
        return LearnedQuantizer(bits, None, centered=bits <= 2)

    @property
    def _start(self) -> float:
        return float(max(self.initial_bits, round(self.target)))

    def _options(self) -> dict[str, Any]:
        return {
            "groups": self.groups,
            "gradient": self.gradient,
            "scale_bits": self.scale_bits,
            "fallback": self.fallback,
            "protectable": self.p_max > 0,
        }

    def _learned(self, site: SiteInfo, given: int | None) -> bool:
        """Whether nobody gave this site a width of its own."""
        return given is None and self.bits_at(site) == self.bits

    def _message_width(self, site: SiteInfo, bits: int) -> int:
        if site.kind != "message" or not self._learned(site, self.message_bits):
            return bits
        return 4

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        return LearnedWeightQuantizer(bits, site.num_channels, midrise=bits <= 2)

    def protection(self) -> DegreeProtection | None:
        return DegreeProtection(self.p_min, self.p_max) if self.p_max > 0 else None

    def penalty(self, model: nn.Module) -> Tensor:
        """See :meth:`QuantConfig.penalty`: local errors, and the price of width."""
        total = super().penalty(model)
        for module in model.modules():
            if isinstance(module, NodeQuantizer):
                total = total + module.penalty()
        return total

    def advance(self, model: nn.Module, progress: float) -> None:
        """See :meth:`QuantConfig.advance`: moves the price of width; at ``settle`` fixes widths."""
        budget = Budget(model, self.count, shared=True)
        if not budget.known:
            return
        if progress >= self.settle:
            budget.settle(self.target)
        else:
            budget.move_price(self.target)

    def admissible(self, model: nn.Module) -> bool:
        """See :meth:`QuantConfig.admissible`: widths are fixed and their average is met."""
        budget = Budget(model, self.count)
        return budget.known and budget.settled and budget.average() <= self.target * 1.0001

    def parameter_groups(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        quantizer_lr: float = 1e-3,
    ) -> list[dict[str, Any]]:
        """See :meth:`QuantConfig.parameter_groups`: widths and ranges have their own rates."""
        quantizers = [m for m in model.modules() if isinstance(m, NodeQuantizer)]
        widths = [q.width for q in quantizers]
        ranges = [q.log_range for q in quantizers]
        own = {id(p) for p in (*widths, *ranges)}
        groups = super().parameter_groups(model, lr, weight_decay, quantizer_lr)
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        for parameters, rate in ((widths, self.width_lr), (ranges, self.range_lr)):
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": 0.0})
        return groups
