"""Which sites a method was asked for, so that an override that names none of them is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from nodebits.core.errors import ConfigError, nearest
from nodebits.methods.base import QuantConfig
from nodebits.methods.prompts import prompt_rows, prompt_weight
from nodebits.methods.roles import head_linears
from nodebits.nn.layer import QuantLayer
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import Quantizer, WeightQuantizer


class RecordedPlacement:
    """Asks a config for quantizers and notes where.

    Args:
        config: The method.
        model: What is prepared, in float.
    """

    def __init__(self, config: QuantConfig, model: nn.Module) -> None:
        self.config = config
        self.sites: list[SiteInfo] = []
        self.left: list[str] = []  # what stays in float, and why, in words
        self._plain = False
        self._prompt = False
        self._heads = head_linears(model)
        self._of_sums: set[nn.Module] = set()
        self._module: nn.Module | None = None

    def activation(self, site: SiteInfo) -> Quantizer:
        """The quantizer of a site of rows."""
        site = self._with_role(site)
        if self._plain:
            site = replace(site, plain=True)
        self.sites.append(site)
        return prompt_rows(self.config, site) if self._prompt else self.config.activation(site)

    def weight(self, site: SiteInfo) -> WeightQuantizer:
        """The quantizer of a weight."""
        site = self._with_role(site)
        self.sites.append(site)
        return prompt_weight(self.config, site) if self._prompt else self.config.weight(site)

    def will_sum(self, module: nn.Module, cls: type[QuantLayer]) -> None:
        """Notes which linear map of a convolution reads its sums; before its parts are placed."""
        reader = cls.reads_sums(module)
        if reader is not None:
            self._of_sums.add(reader)

    @contextmanager
    def of(self, module: nn.Module) -> Iterator[None]:
        """Places the sites of a float module's successor."""
        before, self._module = self._module, module
        try:
            yield
        finally:
            self._module = before

    def _with_role(self, site: SiteInfo) -> SiteInfo:
        after_sum, head = self._module in self._of_sums, self._module in self._heads
        return replace(site, after_sum=after_sum, head=head) if after_sum or head else site

    @contextmanager
    def inside(self, floats: bool) -> Iterator[None]:
        """Places the sites of a layer's own linear maps.

        Args:
            floats: Whether these read rows that exist in float in any case.
        """
        before, self._plain = self._plain, self._plain or floats
        try:
            yield
        finally:
            self._plain = before

    @contextmanager
    def of_prompt(self, is_prompt: bool) -> Iterator[None]:
        """Places the sites of a layer's prompt, which are no matter of the method."""
        before, self._prompt = self._prompt, self._prompt or is_prompt
        try:
            yield
        finally:
            self._prompt = before

    def check_overrides(self, patterns: Iterable[str]) -> None:
        """Refuses patterns that match no site.

        Raises:
            ConfigError: Names the pattern and the nearest sites.
        """
        paths = [site.path for site in self.sites]
        for pattern in patterns:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ConfigError(
                    f"overrides[{pattern!r}] matches no site of the model; did you mean "
                    f"{' or '.join(map(repr, self._nearest(pattern)))}? Patterns match paths of "
                    f"sites, such as {paths[0]!r}"
                )

    def _nearest(self, pattern: str) -> list[str]:
        layers = dict.fromkeys(f"{site.layer}.*" for site in self.sites if site.layer)
        # In a shell pattern [0] is the character 0; who writes it means an index.
        wanted = re.sub(r"\[(\w+)\]", r".\1", pattern)
        for candidate in (wanted, f"{wanted}.*", f"{wanted}*"):
            if any(fnmatchcase(site.path, candidate) for site in self.sites):
                return [candidate]
        known = [*layers, *(site.path for site in self.sites)]
        return nearest(wanted, known) or known[:3]
