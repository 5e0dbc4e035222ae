"""What a method is: a config dataclass that places quantizers, and a few optional hooks.

A further method is one file: derive from :class:`QuantConfig`, decorate with
:func:`register_method`, answer :meth:`QuantConfig.activation` and :meth:`QuantConfig.weight`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from nodebits.core.affine import check_bits
from nodebits.core.errors import BitwidthError, ConfigError, UnknownNameError, did_you_mean
from nodebits.core.fields import check_fields
from nodebits.core.observer import GridObserver
from nodebits.core.options import Count, Range, SiteWidth
from nodebits.core.registry import METHODS
from nodebits.models.fit_config import FitConfig
from nodebits.nn.placement import Protection, SiteInfo
from nodebits.nn.quantizers import (
    DynamicRowQuantizer,
    EdgeQuantizer,
    FloatQuantizer,
    FloatWeightQuantizer,
    ObservedQuantizer,
    ObservedWeightQuantizer,
    Quantizer,
    RangeQuantizer,
    RowScales,
    WeightQuantizer,
)
from nodebits.tasks import Level

# From this width on, rows are taken for raw features, which differ from hidden ones in three ways.
# At an ``input`` site
# each row brings its own scale (32 bits per row are at most an eighth of a bit per value). At a
# ``message`` site
# the range per column is observed, not learned (the tensor is constant). And no row is protected:
# what Degree-Quant guards against, large sums at high degrees, has not happened yet.
RAW_MIN_COLUMNS = 256
# Up to so many columns a hidden row costs little in float, and a scale of its own gains most: of
# 8 values it halves the error.
NARROW_COLUMNS = 32
# Rounding to one bit is noise enough: a dropout of 0.5 costs GCN two to four points
# (docs/lab-notes.md).
ONE_BIT_DROPOUT = 0.1
# Bits that save nothing are not spared: see QuantConfig._spared.
SPARED = 8
# Weights move in training: the range of an optional weight follows them.
_WEIGHT_MOMENTUM = 0.1


def raw_features_quantizer(site: SiteInfo, bits: int) -> Quantizer | None:
    """Quantizer of a site that reads raw features, or None where it does not."""
    if site.num_cols < RAW_MIN_COLUMNS:
        return None
    if site.kind == "input":
        return DynamicRowQuantizer(bits)
    if site.kind == "message":
        return ObservedQuantizer(bits, GridObserver(bits, axis=1))
    return None


def _observed(site: SiteInfo, bits: int) -> Quantizer:
    """Quantizer of an optional site."""
    raw = raw_features_quantizer(site, bits)
    by_column = site.kind == "message" and site.num_cols != 0
    return raw or ObservedQuantizer(bits, GridObserver(bits, axis=1 if by_column else -1))


@dataclass(frozen=True)
class QuantConfig:
    """Base of all method configurations.

    Attributes:
        bits: Width of every site that has no width of its own below.
        input_bits: Width of rows entering linear maps, 32 for float; None for ``bits``.
        weight_bits: Width of weight matrices, 32 for float; None for ``bits``.
        message_bits: Width of rows entering neighbour sums, 32 for float; None for ``bits``.
        attention_bits: Width of attention codes, edge weights and attention vectors, which are few.
        output_bits: Width of layers' results, 32 for float; None for 32, or ``bits`` in the
            published preset.
        sum_bits: Width of rows that a sum over neighbours hands to a linear map (GIN's MLP).
            None is ``input_bits`` where that is given, else 8 in the default preset of uniform and
            degree-quant where rows have fewer than 256 columns, else ``bits``.
        head_bits: Width of rows and weights of linear maps behind the last convolution. None is as
            for ``sum_bits``; of weights, ``weight_bits`` where that is given.
        preset: ``"default"`` (deployable) or ``"published"``.
        overrides: Width by site path: shell patterns over ``layer.site`` such as ``convs.0.*`` or
            ``*.message``; the last match wins. 32 leaves a site in float.
        dropout: Dropout between layers in quantized training; None for the recipe's, of which the
            default preset takes at most :data:`ONE_BIT_DROPOUT` at one bit.
        prompts: Vectors of LoRAP's prompts, added to aggregated rows; 0 for no prompts.
        prompt_rank: Rank of these vectors.
    """

    bits: int = 8
    input_bits: SiteWidth | None = None
    weight_bits: SiteWidth | None = None
    message_bits: SiteWidth | None = None
    attention_bits: SiteWidth = 8
    output_bits: SiteWidth | None = None
    sum_bits: SiteWidth | None = None
    head_bits: SiteWidth | None = None
    preset: str = "default"
    overrides: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    dropout: float | None = None
    prompts: Annotated[int, Range(0)] = 0
    prompt_rank: Count = 4

    method: ClassVar[str] = ""
    # Whether the published training starts from a float model.
    published_warm_start: ClassVar[bool] = False
    # Whether sites whose rows cost little keep 8 bits: see :meth:`_spared`.
    spares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Checks widths and preset.

        Raises:
            BitwidthError: On a width outside 1 to 8 (32 for float).
            ConfigError: On a value of another type than its field, or an unknown preset.
        """
        for name in (
            "bits",
            "input_bits",
            "weight_bits",
            "message_bits",
            "attention_bits",
            "output_bits",
            "sum_bits",
            "head_bits",
        ):
            value = getattr(self, name)
            if value is not None and value != 32:
                check_bits(value, name)
        if isinstance(self.overrides, Mapping):
            for pattern, value in self.overrides.items():
                if value is None or isinstance(value, bool):
                    raise BitwidthError(
                        f"overrides[{pattern!r}] is {value}: a width from 1 to 8, or 32 to leave "
                        "the site in float"
                    )
        check_fields(self)
        for pattern, value in self.overrides.items():
            self.check_override(pattern, value)
        if self.dropout is not None and not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}: a probability in [0, 1)")
        if self.preset not in ("default", "published"):
            raise ConfigError(f"preset is {self.preset!r}: use 'default' or 'published'")
        if self.prompts and not self.trains:
            raise ConfigError(
                f"prompts is {self.prompts}, and prompts are trained: use another mode than "
                f"{getattr(self, 'mode', 'ptq')!r}"
            )

    def check_override(self, pattern: str, value: int | Sequence[int]) -> None:
        """Refuses what is no width.

        Raises:
            BitwidthError: If ``value`` is not 1 to 8 or 32.
            ConfigError: If it is a list, for methods without degree buckets.
        """
        if not isinstance(value, int):
            raise ConfigError(
                f"overrides[{pattern!r}] is {value!r}: only method 'sgquant' takes a width per "
                "degree bucket"
            )
        if value != 32:
            check_bits(value, f"overrides[{pattern!r}]")

    def bits_at(self, site: SiteInfo) -> int | None:
        """Width at a site, None for float."""
        kind = "attention" if site.name.startswith("att_weight") else site.kind
        value = {
            "input": self.input_bits,
            "weight": self.weight_bits,
            "message": self.message_bits,
            "attention": self.attention_bits,
            "output": self.output_bits,
        }.get(kind)
        value = self._spared(site, value)
        if value is None:
            value = 32 if kind == "output" and self.preset == "default" else self.bits
        for pattern, width in self.overrides.items():
            if fnmatchcase(site.path, pattern) and isinstance(width, int):
                value = width
        return None if value == 32 else value

    def trained_dropout(self, usual: float) -> float:
        """Dropout of quantized training, where ``usual`` is that of the recipe."""
        if self.dropout is not None:
            return self.dropout
        low = self.bits == 1 and self.preset == "default"
        return min(usual, ONE_BIT_DROPOUT) if low else usual

    def _spared(self, site: SiteInfo, given: int | None) -> int | None:
        """Width at a site whose rows cost little, or ``given``, that of its kind.

        A sum of d codes of b bits has b + log2(d) of them, exactly; it is rounded within the
        operator that multiplies it, so that its codes do not lie in memory. Sums of raw features
        do, since a graph keeps them: wide ones have the width of what they are sums of. Rows behind
        the last convolution are few (one per graph), and are read by what decides. Eight bits cost
        nothing worth saving in both places, where four and fewer lose the most (docs/lab-notes.md).
        """
        chosen, raw = None, False
        if site.head and site.kind in ("input", "weight"):
            chosen = self.head_bits
        elif site.after_sum and site.kind == "input":
            chosen, raw = self.sum_bits, site.num_cols >= RAW_MIN_COLUMNS
        else:
            return given
        if chosen is not None or given is not None:
            return given if chosen is None else chosen
        spared = self.spares and self.preset == "default" and self.bits < SPARED and not raw
        return SPARED if spared else None

    @property
    def trains(self) -> bool:
        """Whether models are trained with it, and not calibrated only."""
        return True

    def activation(self, site: SiteInfo) -> Quantizer:
        """Quantizer at an activation site; float where its width is 32.

        Where one range serves all rows of a product's input, or rows exist in float anyway, data
        may choose a scale per row instead (a published recipe's range is its own).
        """
        bits = self.bits_at(site)
        if bits is None:
            return FloatQuantizer()
        if site.kind == "attention":
            return EdgeQuantizer(bits)
        made = _observed(site, bits) if site.optional else self.quantizer(site, bits)
        if self.preset == "default" and isinstance(made, RangeQuantizer):
            if site.plain:
                made.offer_rows(RowScales.ANYWHERE)
            elif site.kind == "input" and site.num_cols > 1 and made.axis == -1:
                made.offer_rows(RowScales.HIDDEN if self.trains else self._calibrated_rows(site))
            elif site.or_tiled:
                made.offer_rows(RowScales.OUTLIERS if self.trains else RowScales.WEIGHED)
            elif site.weighed and not self.trains:
                made.offer_rows(RowScales.WEIGHED)
        return made

    @staticmethod
    def _calibrated_rows(site: SiteInfo) -> RowScales:
        """Where a range that nothing trains gives way to a scale per row."""
        if site.computed:
            return RowScales.ANYWHERE
        return RowScales.HALVES if site.num_cols <= NARROW_COLUMNS else RowScales.INPUTS

    def weight(self, site: SiteInfo) -> WeightQuantizer:
        """Quantizer at a weight site; float where its width is 32."""
        bits = self.bits_at(site)
        if bits is None:
            return FloatWeightQuantizer()
        if site.optional:
            observer = GridObserver(bits, axis=0, momentum=_WEIGHT_MOMENTUM)
            return ObservedWeightQuantizer(bits, observer, midrise=bits <= 2)
        return self.weight_quantizer(site, bits)

    def quantizer(self, site: SiteInfo, bits: int) -> Quantizer:
        """The method's quantizer at an activation site of ``bits``, but for ``attention``."""
        raise NotImplementedError

    def weight_quantizer(self, site: SiteInfo, bits: int) -> WeightQuantizer:
        """The method's quantizer at a weight site of ``bits``."""
        raise NotImplementedError

    def protection(self) -> Protection | None:
        """Draws rows that stay in float in a training step; None for no protection."""
        return None

    def penalty(self, model: nn.Module) -> Tensor:
        """Term added to the training loss."""
        first = next(model.parameters(), None)
        return torch.zeros((), device=None if first is None else first.device)

    def published_fit(self, fit: FitConfig, level: Level) -> FitConfig:
        """The training of the paper: no teacher, and its own settings where it states them.

        Args:
            fit: Quantized training of the model's recipe.
            level: Of the task.
        """
        return fit.replace(distill=0.0)

    def advance(self, model: nn.Module, progress: float) -> None:
        """Called after every training step; ``progress`` is the share of epochs done."""

    def admissible(self, model: nn.Module) -> bool:
        """Whether the model as it stands may be selected: False while a budget is not met."""
        return True

    def parameter_groups(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        quantizer_lr: float = 1e-3,
    ) -> list[dict[str, Any]]:
        """Optimizer groups: quantizers have their own rate (tenfold at one bit), no decay."""
        learned: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for module in model.modules():
            if isinstance(module, Quantizer | WeightQuantizer):
                learned[module.bits == 1].extend(module.parameters())
        ours = {id(p) for group in learned.values() for p in group}
        rest = [p for p in model.parameters() if id(p) not in ours]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": lr, "weight_decay": weight_decay}]
        # At one bit the two levels are all there is to adapt, and they start far from where they
        # end.
        for one_bit, factor in ((False, 1.0), (True, 10.0)):
            if learned[one_bit]:
                rate = quantizer_lr * factor
                groups.append({"params": learned[one_bit], "lr": rate, "weight_decay": 0.0})
        return groups

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, with the method's name."""
        return {"method": self.method, **dataclasses.asdict(self)}


C = TypeVar("C", bound=type[QuantConfig])


def register_method(name: str) -> Callable[[C], C]:
    """Class decorator: makes the method known under ``name``."""

    def decorate(cls: C) -> C:
        cls.method = name
        METHODS.add(name, cls)
        return cls

    return decorate


def method_names() -> list[str]:
    """Known methods."""
    return METHODS.names()


# What may follow a method's name after a plus, and the fields that it stands for.
ADDONS: dict[str, dict[str, Any]] = {"lorap": {"prompts": 8}}


def method_class(method: str) -> type[QuantConfig]:
    """The config of a method by name, such as ``uniform`` or ``uniform+lorap``.

    Raises:
        UnknownNameError: On an unknown method, or an unknown add-on behind it.
    """
    name, *addons = method.split("+")
    for addon in addons:
        if addon not in ADDONS:
            raise UnknownNameError.for_name("add-on of a method", addon, ADDONS)
    found: type[QuantConfig] = METHODS.get(name)
    return found


def make_config(method: str, bits: int = 8, preset: str = "default", **options: Any) -> QuantConfig:
    """Builds the config of a method by name.

    Args:
        method: One of :func:`method_names`; ``NAME+lorap`` adds prompts to it.
        bits: Default width.
        preset: ``"default"`` or ``"published"``.
        **options: Further fields of the config.

    Raises:
        UnknownNameError: On an unknown method.
        ConfigError: On an option the method does not have.
    """
    cls = method_class(method)
    for addon in method.split("+")[1:]:
        options = {**ADDONS[addon], **options}
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(
            f"method {method!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], known)} "
            f"Known: {', '.join(sorted(known))}"
        )
    return cls(bits=bits, preset=preset, **options)
