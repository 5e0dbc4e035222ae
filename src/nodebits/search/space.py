"""The bit table as a list of slots: what a search may choose."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodebits.core.affine import check_bits
from nodebits.core.errors import ConfigError, UnknownNameError
from nodebits.methods import QuantConfig, SGQuantConfig, make_config
from nodebits.runtime.account import Account

Point = tuple[int, ...]

DEFAULT_CHOICES = (1, 2, 3, 4, 6, 8)
# SGQuant, section 4: what shares a width. ``layer`` is LWQ, ``component`` LWQ and CWQ together,
# ``bucket`` adds TAQ.
GRANULARITIES = ("uniform", "layer", "component", "bucket")
# Attributes of layers that hold weights, and what the method calls the site there.
_WEIGHT_SITE = "quantized_weight"


@dataclass(frozen=True)
class Slot:
    """One number of the bit table.

    Attributes:
        sites: Paths of the sites that take it, such as ``convs.0.lin.input``; more than one where
            a layer or the model shares a width.
        label: What the sites are called together; the path of a site alone.
        bucket: Degree bucket, None where all nodes have one width.
        choices: Widths to choose from, rising.
    """

    sites: tuple[str, ...]
    label: str
    bucket: int | None
    choices: tuple[int, ...]

    @property
    def name(self) -> str:
        """Label and bucket."""
        return self.label if self.bucket is None else f"{self.label}[{self.bucket}]"


@dataclass(frozen=True)
class Space:
    """Slots of one model and the method that reads their table.

    A *point* gives the width of every slot, in order.

    Attributes:
        slots: What may be chosen.
        method: Name of the method.
        bits: Width of sites without a slot.
        options: Further fields of the method's config, such as ``mode`` or ``splits``; its
            ``overrides`` hold for sites without a slot.
    """

    slots: tuple[Slot, ...]
    method: str
    bits: int
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        account: Account,
        method: str,
        *,
        bits: int = 8,
        choices: Sequence[int] = DEFAULT_CHOICES,
        weights: bool = True,
        granularity: str = "component",
        **options: Any,
    ) -> Space:
        """Slots over the quantized tensors of a forward.

        Args:
            account: Account of a packed model: its tensors are the sites that are used.
            method: Name of the method.
            bits: Width of what has no slot (attention vectors, quantized outputs).
            choices: Widths to choose from.
            weights: Whether weight matrices have slots too.
            granularity: ``"component"``: every tensor has a width of its own. ``"layer"``: those of
                a layer share one. ``"uniform"``: all do. ``"bucket"``: rows of nodes have one per
                degree bucket (method ``sgquant``), the rest as in ``"component"``.
            **options: Further fields of the method's config.

        Raises:
            ConfigError: If the method has no degree buckets, or there is nothing to choose.
            BitwidthError: On a choice outside 1 to 8.
            UnknownNameError: On an unknown granularity.
        """
        widths = tuple(sorted({check_bits(c, "choices") for c in choices}))
        config = make_config(method, bits, **options)
        if granularity not in GRANULARITIES:
            raise UnknownNameError.for_name("granularity", granularity, GRANULARITIES)
        buckets = 1
        if granularity == "bucket":
            if not isinstance(config, SGQuantConfig):
                raise ConfigError(f"method {method!r} has no degree buckets; use 'sgquant'")
            buckets = len(config.splits) + 1
        paths = {
            f"{site.layer}.{site.site}" if site.layer else site.site: site.site
            for site in account.sites
            if site.at_site and site.site != "output"
        }
        for weight in account.weights if weights else ():
            if weight.site == _WEIGHT_SITE:
                paths[f"{weight.layer}.weight" if weight.layer else "weight"] = "weight"
        if not paths:
            raise ConfigError("the model has no quantized tensor: there is nothing to search")
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(_group(path, granularity), []).append(path)
        slots: list[Slot] = []
        for label, sites in groups.items():
            of_nodes = paths[sites[0]] not in ("attention", "weight")
            numbers = range(buckets) if buckets > 1 and of_nodes else (None,)
            slots += [Slot(tuple(sites), label, number, widths) for number in numbers]
        return cls(tuple(slots), method, bits, dict(options))

    @property
    def size(self) -> float:
        """Number of points."""
        return math.prod(len(slot.choices) for slot in self.slots)

    def uniform(self, bits: int) -> Point:
        """The point with the same width everywhere (the nearest choice below, else the least)."""
        return tuple(
            max((c for c in slot.choices if c <= bits), default=slot.choices[0])
            for slot in self.slots
        )

    def random(self, rng: random.Random) -> Point:
        """A point drawn evenly."""
        return tuple(rng.choice(slot.choices) for slot in self.slots)

    def check(self, point: Sequence[int]) -> Point:
        """Returns ``point`` if it is one of this space.

        Raises:
            ConfigError: If it has another length or a width that is no choice.
        """
        if len(point) != len(self.slots):
            raise ConfigError(f"a point of {len(point)} widths for {len(self.slots)} slots")
        for slot, width in zip(self.slots, point, strict=True):
            if width not in slot.choices:
                raise ConfigError(f"{slot.name} is {width}: choices are {slot.choices}")
        return tuple(point)

    def table(self, point: Point) -> dict[str, int | list[int]]:
        """The bit table of a point: width, or widths per bucket, by site."""
        table: dict[str, int | list[int]] = {}
        for slot, width in zip(self.slots, point, strict=True):
            if slot.bucket is None:
                table |= dict.fromkeys(slot.sites, width)
                continue
            widths = table.setdefault(slot.sites[0], [])
            assert isinstance(widths, list)
            widths.append(width)
        # Equal widths need no buckets: the rows are then stored as any others.
        return {
            site: value[0] if isinstance(value, list) and len(set(value)) == 1 else value
            for site, value in table.items()
        }

    def config(self, point: Point) -> QuantConfig:
        """The method's config for a point."""
        fixed = {k: v for k, v in self.options.items() if k != "overrides"}
        table = {**self.options.get("overrides", {}), **self.table(point)}
        return make_config(self.method, self.bits, overrides=table, **fixed)


def _group(path: str, granularity: str) -> str:
    """What shares the width of a site: the site alone, its layer, or the model."""
    if granularity == "uniform":
        return "*"
    if granularity != "layer":
        return path
    # ``convs.0.lin.input`` belongs to ``convs.0``, ``lin1.input`` to ``lin1``.
    parts = path.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join([*parts[: numbers[0] + 1 if numbers else 1], "*"])
