"""Overrides name sites of the model, or are refused with what they may have meant."""

from __future__ import annotations

import re

import pytest
from torch_geometric.nn import GCN

import nodebits
from nodebits.core.errors import BitwidthError, ConfigError

MODEL = GCN(8, 8, 3, 4)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("convs.0", "convs.0.*"),
        ("convs.0.lin", "convs.0.lin.*"),
        ("convs[0].*", "convs.0.*"),
        ("convs[1].lin.input", "convs.1.lin.input"),
        ("CONVS.0.*", "convs.0.*"),
        ("conv.0.*", "convs.0.*"),
        ("convs.0.lin.weights", "convs.0.lin.weight"),
        ("convs.0.mesage", "convs.0.message"),
    ],
)
@pytest.mark.parametrize("config", (nodebits.UniformConfig, nodebits.SGQuantConfig))
def test_a_pattern_without_a_site(config: type, pattern: str, meant: str) -> None:
    wanted = rf"{re.escape(repr(pattern))}\] matches no site.*{re.escape(repr(meant))}"
    with pytest.raises(ConfigError, match=wanted):
        nodebits.prepare(MODEL, config(bits=4, overrides={pattern: 32}))


def test_one_of_several_patterns() -> None:
    with pytest.raises(ConfigError, match=r"'convs\.9\.\*'"):
        config = nodebits.UniformConfig(overrides={"convs.0.*": 4, "convs.9.*": 4})
        nodebits.prepare(MODEL, config)


def test_a_table_by_degree_without_a_site() -> None:
    config = nodebits.SGQuantConfig(bits=4, splits=(4,), overrides={"conv.1.message": (8, 4)})
    with pytest.raises(ConfigError, match=r"matches no site.*'convs\.1\.message'"):
        nodebits.prepare(MODEL, config)


@pytest.mark.parametrize("pattern", ("convs.0.*", "*.message", "*", "convs.[01].lin.input"))
def test_patterns_with_sites(pattern: str) -> None:
    nodebits.prepare(MODEL, nodebits.UniformConfig(bits=4, overrides={pattern: 8}))


@pytest.mark.parametrize("config", (nodebits.UniformConfig, nodebits.SGQuantConfig))
@pytest.mark.parametrize("width", (16, 0, 9, True, None))
def test_what_is_no_width(config: type, width: int | None) -> None:
    with pytest.raises(BitwidthError, match=rf"overrides\['\*'\] is {width}: .*32"):
        config(bits=4, overrides={"*": width})
