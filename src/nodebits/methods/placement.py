"""Which sites a method was asked for, so that an override that names none of them is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase

from nodebits.core.errors import ConfigError, nearest
from nodebits.methods.base import QuantConfig
from nodebits.methods.prompts import prompt_rows, prompt_weight
from nodebits.nn.placement import SiteInfo
from nodebits.nn.quantizers import Quantizer, WeightQuantizer


class RecordedPlacement:
    """Asks a config for quantizers and notes where.

    Args:
        config: The method.
    """

    def __init__(self, config: QuantConfig) -> None:
        self.config = config
        self.sites: list[SiteInfo] = []
        self.left: list[str] = []  # what stays in float, and why, in words
        self._plain = False
        self._prompt = False

    def activation(self, site: SiteInfo) -> Quantizer:
        """The quantizer of a site of rows."""
        if self._plain:
            site = replace(site, plain=True)
        self.sites.append(site)
        return prompt_rows(self.config, site) if self._prompt else self.config.activation(site)

    def weight(self, site: SiteInfo) -> WeightQuantizer:
        """The quantizer of a weight."""
        self.sites.append(site)
        return prompt_weight(self.config, site) if self._prompt else self.config.weight(site)

    @contextmanager
    def inside(self, has_messages: bool) -> Iterator[None]:
        """Places the sites of a layer's own linear maps.

        Args:
            has_messages: Whether the layer runs functions of its own, on rows in float.
        """
        before, self._plain = self._plain, self._plain or has_messages
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
