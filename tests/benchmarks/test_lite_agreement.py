"""What docs/deploy.md says of models that torch rounds steps of in its own way."""

from __future__ import annotations

import pytest

from lite_agreement import Agreement, agreement
from nodebits.models import model_names


@pytest.mark.parametrize("name", model_names())
def test_lite_is_nodebits_but_for_torchs_rounding(name: str) -> None:
    found = agreement(name, 4, nodes=100, seed=0)
    assert isinstance(found, Agreement), found
    assert found.largest == 0.0 if not found.steps else found.largest < 1e-5
    assert found.equal > 0.5
