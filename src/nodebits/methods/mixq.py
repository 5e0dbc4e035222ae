"""MixQ (Moustafa, Kriege and Gansterer, ICDE 2025): every site chooses its width by gradient.

While widths are open, a site passes the mean of its candidate widths' values, weighed by a softmax,
and the loss has a price for the expected bits. Then the likeliest width of every site is fixed, its
range found anew, and training starts again from the first weights. Evaluation always sees the
likeliest width, so the simulated model is the packed one at any time. See ``docs/mixq.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from nodebits.core.affine import Codes, check_bits
from nodebits.core.distributed import world_size
from nodebits.core.errors import ConfigError
from nodebits.core.options import Choices
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.use import SampledCodes, Samples
from nodebits.engine.weight import PackedWeight
from nodebits.graph import Graph
from nodebits.methods.base import QuantConfig, make_config, register_method
from nodebits.models.fit_config import FitConfig
from nodebits.nn.placement import Protection, SiteInfo
from nodebits.nn.quantizers import Quantizer, WeightQuantizer
from nodebits.nn.quantizers.weight import WeightCodes
from nodebits.ops.autograd import Touch
from nodebits.tasks import Level

CANDIDATES = (2, 4, 8)
# The released code divides bits by 8192 twice before they enter the loss.
_PUBLISHED_UNIT = 8192.0**2


class WidthChoice(nn.Module):
    """Softmax over the candidate widths of one site, and the width that was chosen in the end.

    Args:
        widths: Candidates, ascending.

    Attributes:
        chosen: Number of the fixed width, -1 while widths are open.
        stale: Whether the chosen quantizer has the range that it learned as a part of a mixture.
        elements: Values of the last tensor that passed in training.
    """

    chosen: Tensor
    stale: Tensor
    elements: int = 0

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.logits = nn.Parameter(torch.empty(len(widths)))
        self.register_buffer("chosen", torch.tensor(-1))
        self.register_buffer("stale", torch.tensor(False))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Opens the choice: nearly uniform, with a lead of the widest (the released code's)."""
        bits = torch.tensor(self.widths, dtype=torch.float32, device=self.logits.device)
        self.logits.copy_(bits.softmax(0).softmax(0))
        self.chosen.fill_(-1)
        self.stale.fill_(False)

    @property
    def open(self) -> bool:
        """Whether the width is still to be chosen."""
        return int(self.chosen) < 0

    @property
    def index(self) -> int:
        """Number of the fixed width, or of the likeliest so far."""
        return int(self.logits.argmax()) if self.open else int(self.chosen)

    @property
    def bits(self) -> int:
        """That width."""
        return self.widths[self.index]

    def settle(self) -> None:
        """Fixes the likeliest width."""
        self.chosen.fill_(self.index)
        self.stale.fill_(True)

    def renew(self, now: Quantizer | WeightQuantizer) -> bool:
        """Lets the chosen quantizer find its range anew, once; returns whether it did.

        A part of a mixture learns what makes up for the errors of the other parts.
        """
        stale = bool(self.stale)
        if stale:
            now.reset()
            self.stale.fill_(False)
        return stale

    def mix(self, values: list[Tensor]) -> Tensor:
        """Expectation of one tensor per candidate."""
        self.elements = values[0].numel()
        shares = self.logits.softmax(0)
        mixed = shares[0] * values[0]
        for share, value in zip(shares[1:], values[1:], strict=True):
            mixed = mixed + share * value
        return mixed

    def expected_bits(self) -> Tensor:
        """Expected size of the last tensor in bits, a scalar."""
        widths = torch.tensor(self.widths, dtype=torch.float32, device=self.logits.device)
        return (self.logits.softmax(0) * widths).sum() * float(self.elements)


class RelaxedQuantizer(Quantizer):
    """Activation site with a quantizer per candidate width.

    Args:
        widths: Candidates, ascending.
        candidates: A quantizer for each.
    """

    def __init__(self, widths: tuple[int, ...], candidates: list[Quantizer]) -> None:
        super().__init__()
        self.width = WidthChoice(widths)
        self.candidates = nn.ModuleList(candidates)

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Width of :attr:`now`."""
        return self.width.bits

    @property
    def axis(self) -> int:  # type: ignore[override]
        """Of :attr:`now`."""
        return self.now.axis

    @property
    def now(self) -> Quantizer:
        """The quantizer of the width that evaluation sees."""
        return self._told(self.candidates[self.width.index])

    def _told(self, candidate: nn.Module) -> Quantizer:
        """A candidate that knows what the site was told."""
        assert isinstance(candidate, Quantizer)
        candidate.site_name, candidate.calibrating = self.site_name, self.calibrating
        return candidate

    def forward(self, x: Tensor) -> Codes:
        """See :meth:`Quantizer.forward`; a float mixture while training with open widths."""
        if not (self.training and self.width.open):
            now = self.now
            if self.training:
                self.width.renew(now)
            codes: Codes = now(x)
            return self.touch(codes)
        mixed = self.width.mix([self._told(q)(x).dequantize() for q in self.candidates])
        return self.touch(Codes(mixed, x.new_ones(1), x.new_zeros(1), None))

    def sparse(self, x: Tensor) -> Graph | None:
        return None if self.training and self.width.open else self.now.sparse(x)

    def freeze(self) -> RowQuantizer:
        return self.now.freeze()

    @property
    def known(self) -> bool:
        return self.now.known

    def describe(self) -> str:
        return self.now.describe()

    def row_top(self, x: Tensor) -> Tensor | None:
        return self.now.row_top(x)

    def recount(self, sample: SampledCodes) -> SampledCodes:
        return self.now.recount(sample)

    def show(self, x: Tensor, codes: Codes) -> None:
        """See :meth:`Quantizer.show`: the candidate decides, the site keeps."""
        now = self.now
        now.sampled = self.sampled
        now.show(x, codes)
        now.sampled = Samples()

    def reset(self) -> None:
        """See :meth:`Quantizer.reset`; the choice is open again."""
        super().reset()
        self.width.reset()
        for candidate in self.candidates:
            self._told(candidate).reset()


class RelaxedWeightQuantizer(WeightQuantizer):
    """Weight site with a quantizer per candidate width.

    With a fixed width training starts from the weights that the choice started from: those that
    suit a mixture are a worse start than a float model's.

    Args:
        widths: Candidates, ascending.
        candidates: A quantizer for each.
        shape: Of the weight, ``(M, K)``.
    """

    initial: Tensor
    started: Tensor

    def __init__(
        self, widths: tuple[int, ...], candidates: list[WeightQuantizer], shape: tuple[int, int]
    ) -> None:
        # Not super(): width and form are those of the candidate that is likeliest at the time.
        nn.Module.__init__(self)
        self.register_buffer("initial", torch.zeros(shape))
        self.register_buffer("started", torch.tensor(False))
        self.width = WidthChoice(widths)
        self.candidates = nn.ModuleList(candidates)

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Width of :attr:`now`."""
        return self.width.bits

    @property
    def now(self) -> WeightQuantizer:
        """The quantizer of the width that evaluation sees."""
        return self._candidate(self.width.index)

    def _candidate(self, number: int) -> WeightQuantizer:
        candidate = self.candidates[number]
        assert isinstance(candidate, WeightQuantizer)
        return candidate

    @property
    def max_magnitude(self) -> int:
        """See :attr:`WeightQuantizer.max_magnitude`; of the candidate with the largest."""
        return max(self._candidate(i).max_magnitude for i in range(len(self.candidates)))

    @property
    def known(self) -> bool:
        return self.now.known

    def forward(self, weight: Tensor) -> WeightCodes:
        """See :meth:`WeightQuantizer.forward`; a float mixture while training with open widths."""
        if self.training and self.width.open:
            if not bool(self.started):
                self.initial.copy_(weight.detach())
                self.started.fill_(True)
            made = [q(weight) for q in self.candidates]
            mixed = self.width.mix([codes * scale.view(-1, 1) for codes, scale in made])
            return WeightCodes(mixed, weight.new_ones(1))
        now = self.now
        if self.training and self.width.renew(now):
            with torch.no_grad():
                # Other parts of the same parameter may have been read for this step's gradients.
                own = weight if weight._base is None else weight.data
                own.copy_(self.initial)
        codes, scale = now(weight)
        if self.training and world_size() > 1:  # see Quantizer.touch
            codes = Touch.apply(codes, *self.parameters())
        return WeightCodes(codes, scale)

    def freeze(self, weight: Tensor) -> PackedWeight:
        return self.now.freeze(weight)

    def reset(self) -> None:
        """See :meth:`WeightQuantizer.reset`; the choice is open again."""
        self.width.reset()
        self.started.fill_(False)
        for number in range(len(self.candidates)):
            self._candidate(number).reset()


@register_method("mixq")
@dataclass(frozen=True)
class MixQConfig(QuantConfig):
    """A width per site, chosen by gradient among candidates.

    Sites with a width of their own (``input_bits`` and so on, or an override) keep it, edge weights
    and attention ``attention_bits``. The **published** preset quantizes results too, has the
    published quantizers of ``inner`` and counts bits in the released code's unit.

    Attributes:
        candidates: Widths to choose from; None for those of 2, 4 and 8 that ``bits`` allows.
        bit_lambda: Price of the expected bits in the loss; by default a share of the float size,
            in the published preset units of 8 MiB.
        settle: Share of training after which widths are fixed; None for 0.2, or 0.5 in the
            published preset.
        logit_lr: Learning rate of the logits of the choice; None for 0.03, or 0.01 in the published
            preset.
        inner: Method whose quantizers stand at the candidate widths.
    """

    candidates: tuple[int, ...] | None = None
    bit_lambda: float = 0.1
    settle: float | None = None
    logit_lr: float | None = None
    inner: Annotated[str, Choices("uniform", "degree-quant")] = "uniform"

    published_warm_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given: Any = self.candidates
        if isinstance(given, list):
            object.__setattr__(self, "candidates", tuple(given))
        super().__post_init__()
        for width in self.candidates or ():
            check_bits(width, "candidates")
        if self.candidates is not None and not self.candidates:
            raise ConfigError("candidates is empty: give widths from 1 to 8, such as 2,4,8")
        if self.settle is not None and not 0.0 < self.settle < 1.0:
            raise ConfigError(f"settle is {self.settle}: a share of training, in (0, 1)")
        if self.logit_lr is not None and self.logit_lr <= 0.0:
            raise ConfigError(f"logit_lr is {self.logit_lr}: a learning rate is positive")

    def published_fit(self, fit: FitConfig, level: Level) -> FitConfig:
        """As :meth:`QuantConfig.published_fit`: 50 epochs of choice, 50 at a tenth of the rate."""
        fit = super().published_fit(fit, level)
        if level.many_graphs:
            return fit
        rates: dict[str, Any] = {"lr": 0.01, "quantizer_lr": 0.01, "weight_decay": 2e-4}
        steps: dict[str, Any] = {"schedule": "step", "step_size": 50, "step_gamma": 0.1}
        return fit.replace(epochs=100, **rates, **steps)

    @property
    def widths(self) -> tuple[int, ...]:
        """Candidates, ascending."""
        allowed = [b for b in CANDIDATES if b <= self.bits] or [self.bits]
        return tuple(sorted(set(self.candidates or allowed)))

    def bits_at(self, site: SiteInfo) -> int | None:
        """See :meth:`QuantConfig.bits_at`; the widest candidate where the site chooses."""
        bits = super().bits_at(site)
        return bits if bits is None or self._given(site) else self.widths[-1]

    def _given(self, site: SiteInfo) -> bool:
        """Whether the width of a site is no matter of choice."""
        few = site.kind == "attention" or site.name.startswith("att_weight")
        own = few or getattr(self, f"{site.kind}_bits") is not None
        return own or any(fnmatchcase(site.path, pattern) for pattern in self.overrides)

    def _at(self, bits: int) -> QuantConfig:
        return make_config(self.inner, bits, self.preset, output_bits=bits)

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        if self._given(site) or len(self.widths) == 1:
            return self._at(bits).quantizer(site, bits)
        return RelaxedQuantizer(self.widths, [self._at(b).activation(site) for b in self.widths])

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        if self._given(site) or len(self.widths) == 1:
            return self._at(bits).weight_quantizer(site, bits)
        candidates = [self._at(b).weight_quantizer(site, b) for b in self.widths]
        shape = (site.num_channels, site.num_cols)
        return RelaxedWeightQuantizer(self.widths, candidates, shape)

    def protection(self) -> Protection | None:
        return self._at(self.widths[-1]).protection()

    def penalty(self, model: nn.Module) -> Tensor:
        """See :meth:`QuantConfig.penalty`: the price of the expected bits."""
        open_ = [choice for choice in _choices(model) if choice.open and choice.elements]
        if not open_:
            return super().penalty(model)
        float_bits = 32.0 * sum(choice.elements for choice in open_)
        unit = _PUBLISHED_UNIT if self.preset == "published" else float_bits
        expected = torch.stack([choice.expected_bits() for choice in open_]).sum()
        return expected * (self.bit_lambda / unit)

    def advance(self, model: nn.Module, progress: float) -> None:
        """See :meth:`QuantConfig.advance`: fixes widths at ``settle``."""
        usual = 0.5 if self.preset == "published" else 0.2
        if progress >= (usual if self.settle is None else self.settle):
            for choice in _choices(model):
                if choice.open:
                    choice.settle()

    def admissible(self, model: nn.Module) -> bool:
        """See :meth:`QuantConfig.admissible`: all widths are fixed."""
        return not any(choice.open for choice in _choices(model))

    def parameter_groups(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        quantizer_lr: float = 1e-3,
    ) -> list[dict[str, Any]]:
        """See :meth:`QuantConfig.parameter_groups`: logits have their own rate."""
        logits = [choice.logits for choice in _choices(model)]
        known = {id(parameter) for parameter in logits}
        groups = super().parameter_groups(model, lr, weight_decay, quantizer_lr)
        # A candidate is listed by its site as well; last comes the rate of candidates of one bit.
        for group in reversed(groups):
            own = {id(p): p for p in group["params"] if id(p) not in known}
            known.update(own)
            group["params"] = list(own.values())
        usual = 0.01 if self.preset == "published" else 0.03
        rate = usual if self.logit_lr is None else self.logit_lr
        return [*groups, {"params": logits, "lr": rate, "weight_decay": 0.0}]


def _choices(model: nn.Module) -> Iterator[WidthChoice]:
    return (module for module in model.modules() if isinstance(module, WidthChoice))


__all__ = [
    "CANDIDATES",
    "MixQConfig",
    "RelaxedQuantizer",
    "RelaxedWeightQuantizer",
    "WidthChoice",
]
