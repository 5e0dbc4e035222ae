"""The bit table as a list of slots: what a search may choose."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodebits.core.affine import check_bits
from nodebits.core.errors import ConfigError
from nodebits.methods import QuantConfig, SGQuantConfig, make_config
from nodebits.runtime.account import Account

Point = tuple[int, ...]

DEFAULT_CHOICES = (1, 2, 3, 4, 6, 8)
# Attributes of layers that hold weights, and what the method calls the site there.
_WEIGHT_SITE = "quantized_weight"


@dataclass(frozen=True)
class Slot:
    """One number of the bit table.

    Attributes:
        site: Path of the site, such as ``convs.0.lin.input``.
        kind: ``input``, ``message``, ``attention`` or ``weight``.
        bucket: Degree bucket, None where all nodes have one width.
        choices: Widths to choose from, rising.
    """

    site: str
    kind: str
    bucket: int | None
    choices: tuple[int, ...]

    @property
    def name(self) -> str:
        """Path and bucket."""
        return self.site if self.bucket is None else f"{self.site}[{self.bucket}]"


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
        buckets: bool = False,
        **options: Any,
    ) -> Space:
        """One slot per quantized tensor of a forward.

        Args:
            account: Account of a packed model: its tensors are the sites that are used.
            method: Name of the method.
            bits: Width of what has no slot (attention vectors, quantized outputs).
            choices: Widths to choose from.
            weights: Whether weight matrices have slots too.
            buckets: A slot per degree bucket at the rows of nodes (method ``sgquant``).
            **options: Further fields of the method's config.

        Raises:
            ConfigError: If the method has no degree buckets, or there is nothing to choose.
            BitwidthError: On a choice outside 1 to 8.
        """
        widths = tuple(sorted({check_bits(c, "choices") for c in choices}))
        config = make_config(method, bits, **options)
        if buckets and not isinstance(config, SGQuantConfig):
            raise ConfigError(f"method {method!r} has no degree buckets; use 'sgquant'")
        slots: list[Slot] = []
        for site in account.sites:
            path = f"{site.layer}.{site.site}" if site.layer else site.site
            if site.site == "output":
                continue
            count = 1
            if buckets and isinstance(config, SGQuantConfig) and site.site != "attention":
                count = len(config.splits) + 1
            for bucket in range(count):
                number = bucket if count > 1 else None
                slots.append(Slot(path, site.site, number, widths))
        for weight in account.weights if weights else ():
            if weight.site == _WEIGHT_SITE:
                path = f"{weight.layer}.weight" if weight.layer else "weight"
                slots.append(Slot(path, "weight", None, widths))
        if not slots:
            raise ConfigError("the model has no quantized tensor: there is nothing to search")
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
                table[slot.site] = width
                continue
            widths = table.setdefault(slot.site, [])
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
