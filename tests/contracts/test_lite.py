"""What the file of a packed model computes without torch: the bits of nodebits, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nodebits
from nodebits import lite
from nodebits.core.errors import ConfigError, PlanRefused

from . import layers
from . import test_models as models


def _named(model: lite.Model, given: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments by the names that lite has for them."""
    arrays = [value.numpy() for value in given if isinstance(value, Tensor)]
    return dict(zip((item.name for item in model.inputs), arrays, strict=True))


def _compare(packed: nodebits.PackedModel, given: tuple[Any, ...], path: Path) -> None:
    expected = packed.predict(*given)
    plan = packed.plan(*given)
    packed.save(path)
    if isinstance(plan, str):
        with pytest.raises(ConfigError, match="no plan"):
            lite.load(path)
        pytest.skip(f"no plan: {plan}")
    try:
        model = lite.load(path)
    except PlanRefused as error:
        # Only where torch computes something, which the refusal names.
        assert any(f"'{name.rpartition(': ')[2]}'" in str(error) for name in plan.leaves)
        pytest.skip(str(error))
    found = model.predict(**_named(model, given))
    if plan.leaves:  # exp and the like of our own: equal to rounding
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    else:
        assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("bits", [8, 4, 1])
@models.every_model
def test_models(name: str, task: str, bits: int, tmp_path: Path) -> None:
    with torch.no_grad():
        packed = models.calibrated(name, task, bits)[1]
        _compare(packed, models.inputs(task), tmp_path / "m")


@pytest.mark.parametrize("kind", layers.SAMPLES, ids=lambda kind: kind.__name__)
def test_layers(kind: type[torch.nn.Module], tmp_path: Path) -> None:
    with torch.no_grad():
        _compare(layers.packed(kind), layers.inputs(kind), tmp_path / "m")
